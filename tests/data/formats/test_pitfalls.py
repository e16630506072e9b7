"""What people's files are like: each way in which annotated data break elsewhere is read rightly, or an error that names the file and the place."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("yaml")

from annotations import encoded
from vitral.data.annotated import Polygons
from vitral.data.formats import read_annotated, recognise
from vitral.data.formats.faults import refuse
from vitral.data.formats.maps import values_of
from vitral.errors import VitralError


def put(root, files):
    """Write files: texts, JSON values, bytes, and arrays as PNGs."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, np.ndarray):
            Image.fromarray(value).save(path)
        elif isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
    return root


def coco(annotations, categories=((1, "cat"), (2, "dog")), images=None, **more):
    images = images or [{"id": 7, "file_name": "1.png", "width": 30, "height": 20}]
    rows = [
        {"id": k, "image_id": 7, "category_id": 1, "bbox": [1, 2, 5, 6]} | each for k, each in enumerate(annotations, 1)
    ]
    return {
        "images": images,
        "annotations": rows,
        "categories": [{"id": key, "name": name} for key, name in categories],
    } | more


def kinds(data):
    return [fault.kind for fault in data.faults]


def only(data, kind):
    """The one fault there is."""
    assert kinds(data) == [kind], data.faults
    return data.faults[0]


PICTURE = encoded(30, 20)
COCO = {"1.png": PICTURE}


class TestCoco:
    def read(self, root, *annotations, **more):
        return read_annotated(put(root, COCO | {"a.json": coco(annotations, **more)}))

    def test_boxes_are_corner_and_size_and_ids_have_gaps(self, tmp_path):
        data = self.read(tmp_path, {}, {"category_id": 90}, categories=((1, "cat"), (13, "dog"), (90, "cow")))
        assert data.classes.ids == (1, 13, 90)
        assert [(each.index, each.box) for each in data.annotated[0].objects] == [(0, (1, 2, 6, 8)), (2, (1, 2, 6, 8))]
        assert kinds(data) == []

    def test_no_info_area_crowd_or_segmentation(self, tmp_path):
        data = self.read(tmp_path, {"iscrowd": 1, "segmentation": []}, {"area": None, "segmentation": None})
        assert [(each.crowd, each.area, each.shape) for each in data.annotated[0].objects] == [
            (True, None, None),
            (False, None, None),
        ]

    def test_a_class_that_is_not_there(self, tmp_path):
        data = self.read(tmp_path, {}, {"category_id": 3}, {"category_id": "x"})
        assert kinds(data) == ["unknown_class"] * 2
        with pytest.raises(
            VitralError,
            match=r"2 objects are of classes that are not in the table: a\.json: annotation 2 \(category_id 3\)",
        ):
            refuse("data", data.faults)

    def test_an_image_that_is_not_listed_not_there_or_no_picture(self, tmp_path):
        put(tmp_path, {"bad.png": b"nothing"})
        images = [{"id": 7, "file_name": "1.png"}, {"id": 8, "file_name": "2.png"}, {"id": 9, "file_name": "bad.png"}]
        data = self.read(tmp_path, {}, {"image_id": 1}, {"image_id": 8}, images=images)
        assert sorted(kinds(data)) == ["missing_image", "unknown_image", "unreadable_image"]
        assert data.images.names == ["1.png"]

    def test_ids_as_texts_and_twice(self, tmp_path):
        data = self.read(tmp_path, {"image_id": "7", "id": 5}, {"image_id": 7.0, "id": 5})
        assert only(data, "same_id").where == "a.json: annotation 5"
        assert len(data.annotated[0].objects) == 2
        images = [{"id": 7, "file_name": "1.png"}] * 2
        assert kinds(self.read(tmp_path, images=images)) == ["same_id"]
        images[1] = {"id": 8, "file_name": "./1.png"}
        assert kinds(self.read(tmp_path, images=images)) == ["same_image"]

    @pytest.mark.parametrize(
        "box", [[1, 2, float(10**8), 6], [1, 2, 5], "1 2 5 6", [1, 2, None, 6], [1, 2, True, 6], [10**400, 2, 5, 6]]
    )
    def test_boxes_that_are_no_numbers(self, tmp_path, box):
        assert "annotation 1 " in only(self.read(tmp_path, {"bbox": box}), "number").where + " "

    def test_not_a_number_and_infinity(self, tmp_path):
        text = json.dumps(coco([{}]))
        put(tmp_path, COCO | {"a.json": text.replace("[1, 2, 5, 6]", "[1, NaN, 5, 6]")})
        with pytest.raises(VitralError, match=r"a\.json: holds NaN, which is no number in JSON"):
            read_annotated(tmp_path, "coco")
        put(tmp_path, {"a.json": text.replace("[1, 2, 5, 6]", "[1, 1e999, 5, 6]")})
        only(read_annotated(tmp_path), "number")

    def test_sides_swapped_outside_clipped_and_empty(self, tmp_path):
        boxes = [[9, 8, -5, -6], [-5, 2, 20, 6], [0, 0, 30.6, 20.2], [3, 3, 0, 5], [3, 3, 0.5, 5], [50, 50, 5, 5]]
        data = self.read(tmp_path, *({"bbox": box} for box in boxes))
        assert kinds(data) == ["swapped", "outside", "clipped", "empty", "empty", "outside", "empty"]
        assert [each.box for each in data.annotated[0].objects] == [(4, 2, 9, 8), (0, 2, 15, 8), (0, 0, 30, 20)]

    def test_corners_in_place_of_sizes_are_refused_with_the_place(self, tmp_path):
        data = self.read(tmp_path, {"bbox": [3, 2, 12, 9]}, {"bbox": [20, 10, 29, 18]})
        assert only(data, "outside").where.endswith("annotation 2")
        with pytest.raises(VitralError, match=r"annotation 2 .*corners or width and height"):
            refuse(data.name, data.faults)

    def test_a_file_that_leads_out_of_the_folder_is_not_opened(self, tmp_path):
        put(tmp_path, {"secret.png": PICTURE, "data/x.png": PICTURE})
        for name in ("../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png", "..\\secret.png"):
            put(tmp_path, {"data/a.json": coco([{}], images=[{"id": 7, "file_name": name}])})
            with pytest.raises(VitralError, match=r"leads out of the folder|looked in") as stop:
                read_annotated(tmp_path / "data")
            assert "1 image is named but not there" in str(stop.value)

    def test_a_json_too_deep_cut_short_or_of_another_kind(self, tmp_path):
        for text, says in (
            ("[" * 100_000, "nested too deep"),
            ('{"images": [', "is not JSON"),
            ("[1, 2]", "holds no COCO JSON"),
        ):
            put(tmp_path, COCO | {"a.json": text})
            with pytest.raises(VitralError, match=says):
                read_annotated(tmp_path, "coco")
            assert recognise(tmp_path) is None
        put(tmp_path, {"a.json": coco([]) | {"annotations": 5}})
        with pytest.raises(VitralError, match=r"a\.json: annotations is no list of objects"):
            read_annotated(tmp_path)

    def test_two_categories_of_one_id_or_name(self, tmp_path):
        with pytest.raises(VitralError, match=r"category id 1 is there twice \(cat and dog\)"):
            self.read(tmp_path, categories=((1, "cat"), (1, "dog")))
        with pytest.raises(VitralError, match="categories of one name: cat"):
            self.read(tmp_path, categories=((1, "cat"), (2, "cat")))

    def test_roboflow_has_a_super_class_that_may_have_a_class_name(self, tmp_path):
        told = coco([{}], images=[{"id": 7, "file_name": "1.png"}])
        told["categories"] = [
            {"id": 0, "name": "fish", "supercategory": "none"},
            {"id": 1, "name": "fish", "supercategory": "fish"},
        ]
        for split in ("train", "valid", "test"):
            put(tmp_path / split, {"1.png": encoded(30, 20, seed=len(split)), "_annotations.coco.json": told})
        data = read_annotated(tmp_path)
        assert data.classes.names == ("fish",)
        assert data.understood == ["category 0 fish is no class: the group of the others, without an object"]
        assert [one.split for one in data.annotated] == ["test", "train", "val"]

    def test_labelmes_background_is_no_class(self, tmp_path):
        data = self.read(tmp_path, {}, categories=((0, "_background_"), (1, "cat")))
        assert data.classes.names == ("cat",)
        assert data.understood == ["category 0 _background_ is no class: a background, without an object"]

    def test_cocos_own_layout_with_captions_beside(self, tmp_path):
        files = {f"{split}2017/1.png": encoded(30, 20, seed=len(split)) for split in ("train", "val")}
        files |= {f"annotations/instances_{split}2017.json": coco([{}]) for split in ("train", "val")}
        files["annotations/captions_train2017.json"] = coco([{"caption": "a cat " * 100}])
        data = read_annotated(put(tmp_path, files))
        assert data.images.names == ["train2017/1.png", "val2017/1.png"]
        assert [one.split for one in data.annotated] == ["train", "val"]

    def test_tables_that_differ_are_matched_by_name(self, tmp_path):
        files = {f"{split}/1.png": encoded(30, 20, seed=len(split)) for split in ("train", "val")}
        files["train/_a.coco.json"] = coco([{}])
        files["val/_a.coco.json"] = coco([{}, {"category_id": 9}], categories=((1, "dog"), (9, "cat")))
        data = read_annotated(put(tmp_path, files))
        assert [data.classes.names[each.index] for each in data.annotated[1].objects] == ["dog", "cat"]
        assert kinds(data) == []
        assert any("numbers 2 classes otherwise" in said for said in data.understood)
        files["val/_a.coco.json"] = coco([{}], categories=((1, "cat"), (5, "cow")))
        data = read_annotated(put(tmp_path, files))
        assert kinds(data) == ["tables", "tables"]
        assert data.classes.names == ("cat", "dog", "cow")

    @pytest.mark.parametrize(("shape", "says"), [
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"), ([[1, 2, 3, 4, 5, 6, 7]], "of 7 numbers"), ([["a"] * 6], "no numbers"), ("abc", "'abc'"),
        ({"counts": [1]}, "run lengths"), ({"size": [20, 30], "counts": 5}, "no list and no text"),
        ({"size": [10, 10], "counts": "abc"}, "of 10 x 10 pixels in an image of 30 x 20"),
    ])  # fmt: skip
    def test_outlines_that_are_none(self, tmp_path, shape, says):
        pytest.importorskip("faster_coco_eval")
        data = self.read(tmp_path, {"segmentation": shape})
        assert says in only(data, "outline").text
        assert data.annotated[0].objects[0].shape is None

    def test_both_kinds_of_run_lengths_column_by_column(self, tmp_path):
        pytest.importorskip("faster_coco_eval")
        from vitral.data.shapes import mask_of

        listed = {"size": [20, 30], "counts": [20 * 2 + 3, 4, 20 * 30 - 47]}
        one = self.read(tmp_path, {"segmentation": listed, "bbox": [2, 3, 1, 4]}).annotated[0].objects[0]
        mask = mask_of(one.shape, 20, 30)
        assert np.argwhere(mask).tolist() == [[3, 2], [4, 2], [5, 2], [6, 2]]
        packed = {"size": [20, 30], "counts": one.shape.counts.decode()}
        assert (
            self.read(tmp_path, {"segmentation": packed, "bbox": [2, 3, 1, 4]}).annotated[0].objects[0].shape
            == one.shape
        )

    def test_a_box_that_is_not_where_its_outline_is(self, tmp_path):
        """Corners written where width and height belong, say."""
        data = self.read(tmp_path, {"bbox": [10, 10, 15, 9], "segmentation": [[10, 10, 15, 10, 15, 15]]})
        assert only(data, "box_differs").where == "a.json: annotation 1"

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_annotations_of_the_upright_and_of_the_lying_picture(self, tmp_path, orientation):
        stored, lying = encoded(30, 20, orientation), orientation >= 5
        upright = {"id": 7, "file_name": "1.jpg", "width": 20 if lying else 30, "height": 30 if lying else 20}
        files = {"1.jpg": stored, "a.json": coco([{"bbox": [1, 2, 5, 6]}], images=[upright])}
        data = read_annotated(put(tmp_path, files))
        assert data.annotated[0].objects[0].box == (1, 2, 6, 8)
        assert kinds(data) == []
        raw = {"id": 7, "file_name": "1.jpg", "width": 30, "height": 20}
        outline = [[1, 2, 6, 2, 6, 8]]
        data = read_annotated(
            put(tmp_path, files | {"a.json": coco([{"bbox": [1, 2, 5, 6], "segmentation": outline}], images=[raw])})
        )
        expected = {5: (2, 1, 8, 6), 6: (12, 1, 18, 6), 7: (12, 24, 18, 29), 8: (2, 24, 8, 29)}.get(
            orientation, (1, 2, 6, 8)
        )
        one = data.annotated[0].objects[0]
        assert one.box == expected
        assert isinstance(one.shape, Polygons)
        assert (*one.shape.parts[0].min(0), *one.shape.parts[0].max(0)) == expected
        assert kinds(data) == (["turned"] if lying else [])

    def test_a_size_that_is_neither(self, tmp_path):
        with pytest.raises(VitralError, match=r"a\.json: image 7 \(1\.png has 30 x 20 pixels, not 640 x 480\)"):
            self.read(tmp_path, {}, images=[{"id": 7, "file_name": "1.png", "width": 640, "height": 480}])
        assert kinds(self.read(tmp_path, {}, images=[{"id": 7, "file_name": "1.png", "width": 0, "height": 0}])) == []


YOLO = {
    "images/train/1.png": PICTURE,
    "images/val/2.png": encoded(30, 20, seed=1),
    "labels/train/1.txt": "1 0.5 0.5 0.2 0.4\n",
}
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


class TestYolo:
    def read(self, root, label="1 0.5 0.5 0.2 0.4\n", yaml=YAML):
        return read_annotated(put(root, YOLO | {"data.yaml": yaml, "labels/train/1.txt": label}))

    @pytest.mark.parametrize("yaml", [
        YAML, "path: .\n" + YAML, "path: /home/me/datasets/pets\n" + YAML, YAML.replace("images/", "../images/"), YAML.replace("val:", "valid:"),
        YAML.replace("val:", "validation:"), YAML.replace("images/", "/content/pets/images/"), YAML.replace("images/train", "[images/train]"),
        YAML.replace("[cat, dog]", "\n  0: cat\n  1: dog"), YAML + "nc: 2\n", YAML.replace("images/train", "train.txt"),
        YAML.replace("images/", "./images/") + "roboflow: {license: x}\n",
    ])  # fmt: skip
    def test_the_spellings_of_data_yaml(self, tmp_path, yaml):
        put(tmp_path, {"train.txt": "./images/train/1.png\n\n"})
        data = self.read(tmp_path, yaml=yaml)
        assert recognise(tmp_path) == "yolo"
        assert data.images.names == ["images/train/1.png", "images/val/2.png"]
        assert [one.split for one in data.annotated] == ["train", "val"]
        assert data.classes.names == ("cat", "dog")
        assert data.annotated[0].objects[0].box == pytest.approx((12, 6, 18, 14))
        assert (data.annotated[0].unlabelled, data.annotated[1].unlabelled) == (False, True)
        assert kinds(data) == []

    def test_data_that_are_named_by_their_yaml_have_the_folders_name(self, tmp_path):
        self.read(tmp_path / "pets")
        assert read_annotated(tmp_path / "pets/data.yaml").name == "pets"

    def test_roboflows_folders(self, tmp_path):
        files = {
            "train/images/1.png": PICTURE,
            "train/labels/1.txt": "0 .5 .5 .1 .1",
            "valid/images/2.png": encoded(30, 20, seed=1),
            "valid/labels/2.txt": "",
        }
        data = read_annotated(
            put(
                tmp_path,
                files
                | {
                    "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../valid/images\nnc: 1\nnames: ['a']"
                },
            )
        )
        assert only(data, "same_image").text == "valid/images/2.png is in val, too"
        assert not data.annotated[1].unlabelled

    @pytest.mark.parametrize(("yaml", "says"), [
        ("train: images/tarin\nnames: [a]", r"data\.yaml: train: 'images/tarin' names no folder or list with images; looked for images/tarin"),
        ("train: ../../etc\nnames: [a]", "names no folder or list"), (YAML + "nc: 3", "nc says 3 classes, and names has 2"),
        (YAML.replace("dog", "cat"), "names has cat twice"), (YAML.replace("[cat, dog]", "5"), "names is neither a list"),
        (YAML.replace("[cat, dog]", "{a: cat}"), "a key that is no whole number"), ("names: [a\ntrain: x", "is not YAML"),
        ("names: &a [x]\ntrain: *a\n", "line 2 has an alias"), 
        ("train: !!python/object/apply:os.system ['touch x']\n", "'touch x' names no folder or list"),
        ("train: " + "[" * 5000 + "\nnames: [a]", "line 1 is nested too deep"),
    ])  # fmt: skip
    def test_a_data_yaml_that_is_wrong_or_a_foes(self, tmp_path, yaml, says):
        with pytest.raises(VitralError, match=says):
            self.read(tmp_path, yaml=yaml)

    def test_a_program_to_download_is_never_run(self, tmp_path):
        data = self.read(tmp_path, yaml=YAML + f"download: |\n  open({str(tmp_path / 'ran')!r}, 'w')\n")
        assert "download is a program, which was not run" in data.understood[0]
        assert not (tmp_path / "ran").exists()

    def test_a_name_that_has_gaps_before_it(self, tmp_path):
        data = self.read(tmp_path, "3 .5 .5 .1 .1\n1 .5 .5 .1 .1", YAML.replace("[cat, dog]", "{0: cat, 3: dog}"))
        assert data.classes.ids == (0, 3)
        assert only(data, "unknown_class").where == "labels/train/1.txt line 2"
        assert data.annotated[0].objects[0].index == 1

    def test_each_line_is_a_box_or_an_outline_for_itself(self, tmp_path):
        label = "0 0.5 0.5 0.2 0.4\r\n\r\n1.0 0 0 0.5 0 0.5 0.5\n1 0.5 0.5 0.2 0.4 0.93\n"
        data = self.read(tmp_path, label)
        boxes = [(each.box, each.shape is None) for each in data.annotated[0].objects]
        assert [box for box, _ in boxes] == [
            pytest.approx((12, 6, 18, 14)),
            (0, 0, 15, 10),
            pytest.approx((12, 6, 18, 14)),
        ]
        assert [bare for _, bare in boxes] == [True, False, True]
        assert any("1 line has a sixth number" in said for said in data.understood)

    @pytest.mark.parametrize(("line", "kind"), [
        ("2 .5 .5 .1 .1", "unknown_class"), ("cat .5 .5 .1 .1", "line"), ("0 .5 .5 .1", "line"), ("0 .5 .5 .1 .1 .2 .2 .3", "line"),
        ("0 .5 .5 nan .1", "number"), ("0 .5 .5 inf .1", "number"), ("0 .5 .5 x .1", "number"),
        ("0 15 10 6 8", "outside"), ("0 .5 .5 -.2 .1", "swapped"), ("-1 .5 .5 .1 .1", "unknown_class"),
        ("1e99 .5 .5 .1 .1", "line"), ("0 .5 .5 0 0", "empty"),
    ])  # fmt: skip
    def test_lines_that_cannot_be(self, tmp_path, line, kind):
        data = self.read(tmp_path, f"0 0.5 0.5 0.2 0.4\n{line}\n")
        assert kinds(data)[0] == kind
        assert data.faults[0].where == "labels/train/1.txt line 2"

    def test_run_lengths_in_a_line(self, tmp_path):
        pytest.importorskip("faster_coco_eval")
        from vitral.data.shapes import mask_of, runs_of

        mask = np.zeros((20, 30), bool)
        mask[3:9, 4:9] = True
        mask[5, 6] = False
        data = self.read(tmp_path, f"1 rle 20 30 {runs_of(mask).counts.decode()}\n1 rle 20 30 zz\n1 rle 5 x y")
        assert kinds(data) == ["outline", "outline"]
        assert (mask_of(data.annotated[0].objects[0].shape, 20, 30) == mask).all()

    def test_without_yaml_the_names_are_in_classes_txt_or_nowhere(self, tmp_path):
        put(tmp_path, {"1.png": PICTURE, "1.txt": "2 .5 .5 .1 .2", "2.png": encoded(30, 20, seed=1)})
        data = read_annotated(tmp_path)
        assert data.classes.names == ("0", "1", "2")
        put(tmp_path, {"classes.txt": "a\nb\nc\n"})
        assert read_annotated(tmp_path).classes.names == ("a", "b", "c")

    def test_an_empty_text_says_that_nothing_is_there_and_a_missing_one_nothing(self, tmp_path):
        data = self.read(put(tmp_path, {"images/train/3.png": encoded(30, 20, seed=3), "labels/train/3.txt": ""}))
        told = {
            name: (len(one.objects), one.unlabelled)
            for name, one in zip(data.images.names, data.annotated, strict=True)
        }
        assert told == {
            "images/train/1.png": (1, False),
            "images/train/3.png": (0, False),
            "images/val/2.png": (0, True),
        }
        assert kinds(data) == []

    def test_labels_without_an_image(self, tmp_path):
        put(tmp_path, {"labels/train/9.txt": "0 .5 .5 .1 .1"})
        assert only(self.read(tmp_path), "missing_image").where == "labels/train/9.txt"


def voc(*objects, database="The VOC2007 Database", size=(30, 20), filename="1.png", more=""):
    rows = "".join(
        f"<object><name>{name}</name><difficult{'/>' if hard is None else f'>{hard}</difficult>'}<bndbox>"
        f"<ymax>{b[3]}</ymax><xmin>{b[0]}</xmin><xmax>{b[2]}</xmax><ymin>{b[1]}</ymin></bndbox></object>"
        for name, b, hard in objects
    )
    return (f"<annotation><filename>{filename}</filename><source><database>{database}</database></source>"
            f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{rows}{more}</annotation>")  # fmt: skip


class TestVoc:
    def read(self, root, *objects, **more):
        return read_annotated(put(root, {"JPEGImages/1.png": PICTURE, "Annotations/1.xml": voc(*objects, **more)}))

    def test_vocs_own_count_from_one(self, tmp_path):
        data = self.read(tmp_path, ("dog", (1, 1, 30, 20), 0), ("cat", (3, 4, 5, 6), 1))
        assert [each.box for each in data.annotated[0].objects] == [(0, 0, 30, 20), (2, 3, 5, 6)]
        assert [each.hard for each in data.annotated[0].objects] == [False, True]
        assert [data.classes.ids[each.index] for each in data.annotated[0].objects] == [12, 8]
        assert "count pixels from 1" in data.understood[0]

    @pytest.mark.parametrize(
        ("box", "database"),
        [((0, 1, 30, 20), "The VOC2007 Database"), ((1.5, 1, 30, 20), "VOC"), ((1, 1, 30, 20), "Unknown")],
    )
    def test_all_others_are_edges_from_zero(self, tmp_path, box, database):
        """Taking 1 off made negative coordinates, and boxes of the whole data that were off by one."""
        data = self.read(tmp_path, ("dog", box, None), database=database)
        assert data.annotated[0].objects[0].box == box
        assert "edges from 0" in data.understood[0]
        assert kinds(data) == []

    def test_wrong_file_names_sizes_of_zero_and_files_without_objects(self, tmp_path):
        data = self.read(tmp_path, filename="C:\\photos\\holiday.jpg", size=(0, 0))
        assert data.images.names == ["JPEGImages/1.png"]
        assert data.annotated[0].objects == ()

    def test_objects_that_cannot_be(self, tmp_path):
        data = self.read(tmp_path, ("", (1, 2, 3, 9), 0), ("dog", (9, 2, 3, 9), 0), ("dog", ("", 2, 3, 9), 0))
        assert [(fault.kind, fault.where) for fault in data.faults] == [
            ("unknown_class", "Annotations/1.xml object 1"), ("number", "Annotations/1.xml object 3"), ("swapped", "Annotations/1.xml object 2"),
        ]  # fmt: skip

    def test_lists_of_splits_with_blank_lines_and_second_columns(self, tmp_path):
        files = {f"JPEGImages/{k}.png": encoded(30, 20, seed=k) for k in range(3)} | {
            f"Annotations/{k}.xml": voc(("a", (1, 2, 9, 9), 0)) for k in range(3)
        }
        lists = {
            "ImageSets/Main/train.txt": "0 1\n\n",
            "ImageSets/Main/val.txt": "1 -1\n",
            "ImageSets/Main/trainval.txt": "0\n1\n",
        }
        data = read_annotated(put(tmp_path, files | lists))
        assert [one.split for one in data.annotated] == ["train", "val"]
        assert any("1 file is in no list" in said for said in data.understood)

    @pytest.mark.parametrize("text", [
        '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', '<!doctype a SYSTEM "file:///etc/passwd"><annotation/>',
    ])  # fmt: skip
    def test_entities_that_stand_for_billions(self, tmp_path, text):
        with pytest.raises(VitralError, match=r"Annotations/1\.xml: has a document type or entities"):
            read_annotated(put(tmp_path, {"JPEGImages/1.png": PICTURE, "Annotations/1.xml": text}), "voc")

    def test_xml_that_is_none(self, tmp_path):
        with pytest.raises(VitralError, match=r"Annotations/1\.xml: is not XML"):
            read_annotated(
                put(tmp_path, {"JPEGImages/1.png": PICTURE, "Annotations/1.xml": "<annotation><object>"}), "voc"
            )

    def test_images_without_xml_count_beside_those_with(self, tmp_path):
        put(
            tmp_path,
            {"JPEGImages/2.png": encoded(30, 20, seed=2), "AnnotationsVisualization/1.png": encoded(30, 20, seed=3)},
        )
        data = self.read(tmp_path, ("dog", (1, 1, 5, 5), 0))
        assert data.images.names == ["JPEGImages/1.png", "JPEGImages/2.png"]
        assert [one.unlabelled for one in data.annotated] == [False, True]
        assert "1 image in folders without annotations not read" in data.understood[-1]

    def test_masks_of_objects(self, tmp_path):
        pytest.importorskip("faster_coco_eval")
        from vitral.data.shapes import mask_of

        values = np.zeros((20, 30), np.uint8)
        values[2:6, 3:9], values[10:12, 10:14], values[6, 3:9] = 2, 9, 255
        put(tmp_path, {"SegmentationObject/1.png": values})
        data = self.read(tmp_path, ("dog", (1, 1, 5, 5), 0), ("cat", (4, 3, 9, 6), 0))
        assert only(data, "segments").where == "SegmentationObject/1.png"
        assert data.annotated[0].objects[0].shape is None
        assert (mask_of(data.annotated[0].objects[1].shape, 20, 30) == (values == 2)).all()


class TestMasks:
    def read(self, root, values, **files):
        stored = {"images/1.png": PICTURE, "masks/1.png": values}
        return read_annotated(put(root, stored | {name.replace("__", "."): text for name, text in files.items()}))

    def values(self, *there):
        found = np.zeros((20, 30), np.uint8)
        for k, value in enumerate(there):
            found[k : k + 1] = value
        return found

    def test_palettes_are_indices_and_never_colours(self, tmp_path):
        image = Image.fromarray(self.values(1, 1, 255))
        image.putpalette([7, 8, 9] * 256)
        (tmp_path / "masks").mkdir()
        put(tmp_path, {"images/1.png": PICTURE, "classes.txt": "sky\nroad"})
        image.save(tmp_path / "masks/1.png")
        data = read_annotated(tmp_path)
        assert (data.kind, data.classes.ids, data.classes.names, data.classes.void) == (
            "semantic",
            (0, 1),
            ("sky", "road"),
            {255},
        )
        assert values_of(data, 0)[:3, 0].tolist() == [1, 1, 255]
        assert "0 sky" in data.understood[-1]
        assert "255 void" in data.understood[-1]

    def test_ade20ks_zero_is_no_class(self, tmp_path):
        data = self.read(tmp_path, self.values(0, 1, 2, 3), classes__txt="wall\nsky\nroad\n")
        assert (data.classes.ids, data.classes.void) == ((1, 2, 3), {0, 255})
        assert kinds(data) == []

    @pytest.mark.parametrize("thing", [1, 255])
    def test_two_values(self, tmp_path, thing):
        data = self.read(tmp_path, self.values(thing, 0))
        assert (data.classes.ids, data.classes.names, data.classes.void) == (
            (0, thing),
            ("background", "foreground"),
            frozenset(),
        )

    def test_unnamed_values_are_classes_by_their_numbers(self, tmp_path):
        data = self.read(tmp_path, self.values(4, 17, 255))
        assert (data.classes.ids, data.classes.names, data.classes.void) == ((0, 4, 17), ("0", "4", "17"), {255})

    def test_a_value_that_is_no_class_with_its_place(self, tmp_path):
        data = self.read(
            tmp_path, self.values(0, 1, 9), classes__json='{"classes": {"0": "sky", "1": "road"}, "void": [254]}'
        )
        fault = only(data, "value")
        assert (fault.where, fault.text) == ("masks/1.png", "value 9 at x 0, y 2")
        assert data.classes.void == {254}

    def test_sixteen_bits(self, tmp_path):
        data = self.read(tmp_path, self.values(1).astype(np.uint16) * 1000, classes__json='{"0": "a", "1000": "b"}')
        assert values_of(data, 0)[0, 0] == 1000
        assert data.classes.ids == (0, 1000)

    @pytest.mark.parametrize(
        "table",
        ['{"classes": {"-1": "a"}}', '{"classes": {"0": "a", "1": "a"}}', '{"classes": 5}', '{"x": "a"}', '["a", 5]'],
    )
    def test_tables_that_are_none(self, tmp_path, table):
        with pytest.raises(VitralError, match=r"classes\.json: "):
            self.read(tmp_path, self.values(0, 1, 2), classes__json=table)

    def test_colours_of_voc_and_of_nobody(self, tmp_path):
        rgb = np.zeros((20, 30, 3), np.uint8)
        rgb[0], rgb[1] = (128, 0, 0), (224, 224, 192)
        put(tmp_path, {"images/1.png": PICTURE, "SegmentationClass/1.png": rgb})
        data = read_annotated(tmp_path)
        assert values_of(data, 0)[:3, 0].tolist() == [1, 255, 0]
        assert data.classes.names[1] == "aeroplane"
        rgb[3] = (1, 2, 3)
        with pytest.raises(
            VitralError, match=r"SegmentationClass/1\.png .*has the colour #010203 at x 0, y 3, and its colours are not"
        ):
            read_annotated(put(tmp_path, {"SegmentationClass/1.png": rgb}))

    def test_colours_of_ones_own_are_named_in_classes_json(self, tmp_path):
        rgb = np.zeros((20, 30, 3), np.uint8)
        rgb[0], rgb[1] = (200, 30, 31), (255, 255, 255)
        told = {"classes": {"#c81e1f": "roof", "#FFFFFF": "wall"}, "void": ["#000000"]}
        data = read_annotated(put(tmp_path, {"images/1.png": PICTURE, "masks/1.png": rgb, "classes.json": told}))
        assert (data.classes.names, data.classes.ids, data.classes.void) == (("roof", "wall"), (0, 1), {2})
        assert values_of(data, 0)[:3, 0].tolist() == [0, 1, 2]
        palette = Image.fromarray(np.repeat(np.arange(2, dtype=np.uint8), 300).reshape(20, 30))
        palette.putpalette([255, 255, 255, 200, 30, 31])
        palette.save(tmp_path / "masks/1.png")
        assert np.unique(values_of(read_annotated(tmp_path), 0)).tolist() == [0, 1]
        assert values_of(read_annotated(tmp_path), 0)[0, 0] == 1
        rgb[3, 5] = (1, 2, 3)
        with pytest.raises(
            VitralError, match=r"masks/1\.png .*has the colour #010203 at x 5, y 3, which classes\.json does not name"
        ):
            read_annotated(put(tmp_path, {"masks/1.png": rgb}))

    def test_a_jpeg_is_no_map_and_sizes_must_be_equal(self, tmp_path):
        put(tmp_path, {"images/1.png": PICTURE})
        (tmp_path / "masks").mkdir()
        Image.fromarray(self.values(1)).save(tmp_path / "masks/1.png", "JPEG")
        with pytest.raises(VitralError, match=r"masks/1\.png .*is a JPEG, which changes values"):
            read_annotated(tmp_path)
        with pytest.raises(VitralError, match=r"images/1\.png has 30 x 20 pixels, not 15 x 10"):
            self.read(tmp_path, np.ones((10, 15), np.uint8))

    def test_an_image_without_a_map(self, tmp_path):
        put(tmp_path, {"images/2.png": PICTURE})
        assert only(self.read(tmp_path, self.values(1)), "map").where == "images/2.png"

    def test_pictures_that_are_drawn_from_maps_are_no_images(self, tmp_path):
        """labelme2voc writes folders of them beside the photographs."""
        drawn = {f"SegmentationClassVisualization/{k}.jpg": encoded(30, 20, seed=9) for k in (1, 2)}
        photographs = {f"JPEGImages/{k}.jpg": encoded(30, 20, seed=k) for k in (1, 2)}
        maps = {
            f"{folder}/{k}.png": self.values(5)
            for k in (1, 2)
            for folder in ("SegmentationClass", "SegmentationObject")
        }
        data = read_annotated(put(tmp_path, drawn | photographs | maps))
        assert data.images.names == ["JPEGImages/1.jpg", "JPEGImages/2.jpg"]
        assert kinds(data) == []

    def test_cityscapes(self, tmp_path):
        name = "leftImg8bit/train/aachen/aachen_000000_{}"
        files = {
            name.format("leftImg8bit.png"): PICTURE,
            name.format("gtFine_labelIds.png").replace("leftImg8bit", "gtFine"): self.values(7, 0, 26),
        }
        data = read_annotated(put(tmp_path, files))
        assert (data.classes.names[0], data.classes.ids[0], len(data.classes), 0 in data.classes.void) == (
            "road",
            7,
            19,
            True,
        )
        assert data.annotated[0].split == "train"
        assert kinds(data) == []

    def test_a_lying_map_of_an_image_that_exif_turns(self, tmp_path):
        values = self.values(1, 2)
        files = {"images/1.jpg": encoded(30, 20, 6), "masks/1.png": values, "classes.txt": "a\nb\nc"}
        data = read_annotated(put(tmp_path, files))
        assert only(data, "turned").where == "images/1.jpg"
        assert values_of(data, 0).shape == (30, 20)
        assert values_of(data, 0)[0, -2:].tolist() == [2, 1]


SEGMENTS = [{"id": 70_000, "category_id": 9}, {"id": 3, "category_id": 5, "iscrowd": 1}]


class TestPanoptic:
    def read(self, root, segments, ids=None, **more):
        values = np.zeros((20, 30), np.int32)
        values[:5], values[5:9] = 70_000, 3
        values = values if ids is None else ids
        rgb = np.stack([values & 255, values >> 8 & 255, values >> 16], -1).astype(np.uint8)
        row = {"image_id": 7, "file_name": "1.png", "segments_info": segments} | more
        told = coco([]) | {
            "annotations": [row],
            "categories": [{"id": 5, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}],
        }
        return read_annotated(
            put(
                root,
                {"val/1.png": PICTURE, "annotations/panoptic_val/1.png": rgb, "annotations/panoptic_val.json": told},
            )
        )

    def test_ids_are_red_and_256_green_and_65536_blue(self, tmp_path):
        data = self.read(tmp_path, SEGMENTS)
        assert (data.format, data.annotated[0].split, data.classes.stuff) == ("panoptic", "val", {1})
        assert [(each.id, each.index, each.crowd) for each in data.annotated[0].segments] == [
            (70_000, 1, False),
            (3, 0, True),
        ]
        assert values_of(data, 0)[[0, 6, 10], 0].tolist() == [70_000, 3, 0]
        assert kinds(data) == []

    def test_ids_of_the_map_or_of_the_list_only(self, tmp_path):
        data = self.read(tmp_path, [*SEGMENTS[:1], {"id": 8, "category_id": 5}])
        assert [fault.text for fault in data.faults] == [
            "id 3 of the map is not in the list",
            "id 8 of the list is not in annotations/panoptic_val/1.png",
        ]
        assert len(data.annotated[0].segments) == 1

    def test_a_map_of_another_size_than_its_image(self, tmp_path):
        with pytest.raises(VitralError, match=r"panoptic_val/1\.png \(has 15 x 10 pixels, and val/1\.png 30 x 20\)"):
            self.read(tmp_path, [{"id": 1, "category_id": 9}], np.ones((10, 15), np.int32))

    @pytest.mark.parametrize(("segment", "kind"), [
        ({"id": 0, "category_id": 5}, "segments"), ({"id": 70_000, "category_id": 5}, "same_id"), ({"id": 2**24, "category_id": 5}, "segments"),
        ({"id": 4, "category_id": 6}, "unknown_class"), ({"id": "x", "category_id": 5}, "segments"),
    ])  # fmt: skip
    def test_segments_that_cannot_be(self, tmp_path, segment, kind):
        assert kinds(self.read(tmp_path, [*SEGMENTS, segment])) == [kind]

    def test_a_map_that_is_not_there_leads_out_or_is_grey(self, tmp_path):
        for name in ("2.png", "../../val/x.png"):
            with pytest.raises(VitralError, match="is not there"):
                self.read(tmp_path, SEGMENTS, file_name=name)
        put(tmp_path, {"annotations/panoptic_val/3.png": np.ones((20, 30), np.uint8)})
        with pytest.raises(VitralError, match="a panoptic map has its ids in red, green and blue"):
            self.read(tmp_path, SEGMENTS, file_name="3.png")


def labelme(*shapes, **more):
    return {"version": "5.5.0", "shapes": [{"group_id": None, "flags": {}} | each for each in shapes], "imagePath": "1.png", "imageData": None,
            "imageHeight": 20, "imageWidth": 30} | more  # fmt: skip


class TestLabelme:
    def read(self, root, *shapes, **more):
        return read_annotated(put(root, {"1.png": PICTURE, "1.json": labelme(*shapes, **more)}))

    def test_rectangles_in_any_order_and_old_files_without_types(self, tmp_path):
        rectangle = {"label": "cat", "shape_type": "rectangle", "points": [[9, 8], [1, 2]]}
        data = self.read(tmp_path, rectangle, {"label": "dog", "points": [[1, 1], [5, 1], [5, 9]]})
        assert [each.box for each in data.annotated[0].objects] == [(1, 2, 9, 8), (1, 1, 5, 9)]
        assert data.classes.names == ("cat", "dog")

    def test_one_object_in_several_shapes(self, tmp_path):
        part = {"label": "cat", "shape_type": "polygon", "group_id": 4}
        first, second = part | {"points": [[1, 1], [5, 1], [5, 9]]}, part | {"points": [[11, 1], [15, 1], [15, 9]]}
        data = self.read(tmp_path, first, second, second | {"label": "dog"}, second | {"group_id": None})
        assert [len(each.shape.parts) for each in data.annotated[0].objects] == [2, 1, 1]

    def test_what_is_no_object(self, tmp_path):
        triangle = {"points": [[1, 1], [5, 1], [5, 9]]}
        shapes = [
            triangle | {"label": "__ignore__"},
            triangle | {"label": "_background_"},
            triangle | {"label": "a", "shape_type": "linestrip"},
        ]
        data = self.read(tmp_path, *shapes, triangle | {"label": "a"})
        assert kinds(data) == ["left_out"] * 3
        assert data.classes.names == ("a",)
        assert len(data.annotated[0].objects) == 1

    @pytest.mark.parametrize(("shape", "kind"), [
        ({"points": [[1, 1], [5, 1]]}, "outline"), ({"points": [[1, 1], [5, None], [3, 3]]}, "number"), ({"points": 5}, "number"),
        ({"points": [[1, 1], [2, 2]], "shape_type": "mask", "mask": "@@"}, "outline"), ({"points": [[1, 1], [99, 9], [5, 90]]}, "outside"),
        ({"points": [[1, 1], [5, 1], [5, 9]], "shape_type": "blob"}, "outline"),
    ])  # fmt: skip
    def test_shapes_that_cannot_be(self, tmp_path, shape, kind):
        data = self.read(tmp_path, {"label": "cat"} | shape)
        assert kinds(data)[0] == kind
        assert data.faults[0].where == "1.json shape 1"

    def test_a_mask_lies_at_its_first_point(self, tmp_path):
        pytest.importorskip("faster_coco_eval")
        import base64
        import io

        from vitral.data.shapes import mask_of

        part, packed = np.array([[1, 0, 1], [1, 1, 1]], bool), io.BytesIO()
        Image.fromarray(part).save(packed, "PNG")
        shape = {
            "label": "cat",
            "shape_type": "mask",
            "points": [[4, 6], [6, 7]],
            "mask": base64.b64encode(packed.getvalue()).decode(),
        }
        one = self.read(tmp_path, shape).annotated[0].objects[0]
        assert one.box == (4, 6, 7, 8)
        assert (mask_of(one.shape, 20, 30)[6:8, 4:7] == part).all()
        assert only(self.read(tmp_path, shape | {"points": [[29, 6], [31, 7]]}), "outline").where == "1.json shape 1"

    def test_circles(self, tmp_path):
        data = self.read(tmp_path, {"label": "cat", "shape_type": "circle", "points": [[10, 10], [10, 15]]})
        assert data.annotated[0].objects[0].box == pytest.approx((5, 5, 15, 15))

    def test_paths_of_another_place_and_the_picture_in_the_file(self, tmp_path):
        data = self.read(tmp_path, imagePath="..\\..\\photos\\1.png", imageData="QUJD")
        assert data.images.names == ["1.png"]


class TestParquet:
    def write(self, path, objects, features=None):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist(
            [
                {"image": {"bytes": encoded(30, 20, seed=k), "path": "x.png"}, "objects": each}
                for k, each in enumerate(objects)
            ]
        )
        if features:
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)

    def test_a_struct_of_lists_with_names(self, tmp_path):
        self.write(tmp_path / "data/train-00000-of-00001.parquet", [{"bbox": [[1, 2, 5, 6]], "category": [1]}, {"bbox": [], "category": []}],
                   {"objects": {"feature": {"category": {"names": ["cat", "dog"], "_type": "ClassLabel"}}, "_type": "Sequence"}})  # fmt: skip
        data = read_annotated(tmp_path)
        assert (data.format, data.classes.names, data.annotated[0].split) == ("parquet", ("cat", "dog"), "train")
        assert [(each.index, each.box) for each in data.annotated[0].objects] == [(1, (1, 2, 6, 8))]
        assert data.annotated[1].objects == ()

    def test_a_list_of_structs_with_names_in_it(self, tmp_path):
        self.write(
            tmp_path / "a.parquet", [[{"bbox": [1.0, 2, 5, 6], "label": "dog"}, {"bbox": [1.0, 2, 5], "label": "cat"}]]
        )
        data = read_annotated(tmp_path / "a.parquet")
        assert data.classes.names == ("cat", "dog")
        assert only(data, "number").where == "a.parquet row 0 object 2"

    def test_columns_that_do_not_fit(self, tmp_path):
        self.write(tmp_path / "a.parquet", [{"bbox": [[1, 2, 5, 6]], "kind": [1]}])
        with pytest.raises(VitralError, match="objects has no field category"):
            read_annotated(tmp_path)
        (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
        with pytest.raises(VitralError, match=r"a\.parquet: is not a readable Parquet file"):
            read_annotated(tmp_path)


def test_what_is_no_annotated_data(tmp_path, shapes_folder):
    assert recognise(shapes_folder) is None
    with pytest.raises(VitralError, match="holds no annotations of boxes or masks that are known: COCO JSON"):
        read_annotated(shapes_folder)
    with pytest.raises(VitralError, match="choose one of coco, yolo, voc"):
        read_annotated(shapes_folder, "cvat")
    with pytest.raises(VitralError, match="there is no such folder"):
        read_annotated(tmp_path / "nowhere")

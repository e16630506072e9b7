"""What the doctor says of boxes, masks and maps, and the copies that it mends."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")
pytest.importorskip("yaml")

from annotations import CLASSES, data_of, encoded, masked, outlined
from vitral.cli import main
from vitral.data.annotated import Object
from vitral.data.formats import read_annotated
from vitral.data.formats.convert import plan_conversion, write_planned
from vitral.guidance.doctor.annotations import diagnose_annotations
from vitral.guidance.doctor.mend import mend
from vitral.guidance.doctor.overlays import contact_sheet, overlay


def kinds(diagnosis):
    return {finding.kind: finding.severity for finding in diagnosis.findings if finding.kind != "reading"}


def written(folder, rows, to="coco", **more):
    write_planned(plan_conversion(data_of(rows, **more), to), folder)
    return folder


BOX = Object(0, (2, 3, 12, 13))
ALL = [BOX, Object(1, (4, 1, 20, 15)), Object(2, (1, 1, 9, 9))]


def test_sound_data(tmp_path):
    diagnosis = diagnose_annotations(written(tmp_path / "data", [ALL, ALL], splits=["train", "val"]))
    assert kinds(diagnosis) == {"class_ids": "note"}
    assert "class ids are 2 to 7 with gaps, and a model's outputs 0 to 2: 2 cat" in diagnosis.findings[0].text
    assert diagnosis.stops_for == []


def test_what_shows_in_sum_only(tmp_path):
    crowd, hidden = replace(BOX, crowd=True), outlined(1, [(3, 3), (9, 3), (9, 3.0001)], [(5, 5), (5, 9), (5.0001, 9)])
    rows = [
        [*ALL[:2], BOX, crowd, replace(crowd, box=(0, 0, 9, 9)), replace(crowd, box=(0, 0, 8, 9)), hidden],
        [],
        [ALL[2]],
    ]
    data = data_of(rows, splits=["train", "train", "val"])
    write_planned(plan_conversion(data, "coco"), tmp_path / "data")
    (tmp_path / "data/val/again.png").write_bytes((tmp_path / "data/train/im 0.png").read_bytes())
    path = tmp_path / "data/annotations/instances_val.json"
    told = json.loads(path.read_text())
    told["images"].append({"id": 99, "file_name": "again.png"})
    path.write_text(json.dumps(told))
    diagnosis = diagnose_annotations(tmp_path / "data")
    found = kinds(diagnosis)
    assert found == {
        "copies_across_splits": "error", "untrained_classes": "error", "same_object": "warning", "empty_mask": "warning", "crowded": "warning",
        "mixed": "note", "no_objects": "note", "class_ids": "note", "tiny_objects": "note",
    }  # fmt: skip
    text = {finding.kind: finding.text for finding in diagnosis.findings}
    assert text["untrained_classes"].endswith("it's 'so'")
    assert text["crowded"].endswith("cat (3 of 5)")
    assert text["no_objects"] == "2 of 4 images without objects"
    mend(diagnosis, tmp_path / "mended")
    again = kinds(diagnose_annotations(tmp_path / "mended"))
    assert "same_object" not in again
    assert "empty_mask" not in again


def test_objects_smaller_than_a_patch(tmp_path):
    rows = [
        [
            Object(0, (0, 0, 300, 300)),
            Object(0, (5, 5, 14, 14)),
            Object(1, (20, 20, 31, 30)),
            Object(2, (9, 9, 200, 200)),
        ]
    ]
    diagnosis = diagnose_annotations(written(tmp_path / "data", rows, sizes=[(448, 448)]))
    tiny = next(finding for finding in diagnosis.findings if finding.kind == "tiny_objects")
    assert tiny.text == "2 of 4 objects are smaller than a patch of 16 pixels once the longer side has 224"
    assert "at 8" in tiny.remedy
    assert [item.note for item in tiny.items] == ["cat (5, 5, 14, 14)", "Hund ü (20, 20, 31, 30)"]


def broken(root):
    """A COCO file with an error of nearly every kind, and images."""
    (root / "x").mkdir(parents=True)
    for k in range(3):
        (root / f"x/{k}.png").write_bytes(encoded(30, 20, seed=k))
    images = [{"id": k, "file_name": f"{k}.png", "width": 30, "height": 20} for k in (0, 1, 2, 3)]
    boxes = [[2, 3, 10, 10], [20, 15, -5, -5], [25, 10, 20, 5], [1, 1, 0, 4], [1, 1, 5, "x"]]
    rows = [{"id": k // 2, "image_id": k % 3, "category_id": 1 + (k == 0), "bbox": box} for k, box in enumerate(boxes)]
    rows += [
        {"id": 50, "image_id": 77, "category_id": 1, "bbox": boxes[0]},
        {"id": 51, "image_id": 0, "category_id": 5, "bbox": boxes[0]},
    ]
    rows += [{"id": 52, "image_id": 0, "category_id": 1, "bbox": boxes[0], "segmentation": [[1, 2, 3]]}]
    (root / "x/a.json").write_text(
        json.dumps(
            {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
        )
    )
    return root


def test_a_mended_copy(tmp_path, capsys):
    root = broken(tmp_path / "data")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main(["doctor", str(root), "--out", str(tmp_path / "page.html"), "--fix", str(tmp_path / "mended"), "--json"])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    stops = set(told["training"]["stops_for"])
    assert stops == {
        "missing_image",
        "same_id",
        "unknown_image",
        "unknown_class",
        "number",
        "swapped",
        "outside",
        "outline",
    }
    assert (told["format"], told["images"], told["objects"]) == ("coco", 3, 4)
    assert "2 ids are used twice" in err
    assert "1 box has its sides swapped: in order" in err
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    mended = read_annotated(tmp_path / "mended")
    assert list(mended.faults) == []
    boxes = sorted(each.box for one in mended.annotated for each in one.objects)
    assert boxes == [(2, 3, 12, 13), (2, 3, 12, 13), (15, 10, 20, 15), (25, 10, 30, 15)]
    page = (tmp_path / "page.html").read_text()
    assert "Boxes, outlines and names" in page or "boxes, outlines and names" in page
    assert "a.json: annotation 52" in page


def test_what_a_person_must_decide_is_not_mended(tmp_path):
    values = np.zeros((20, 30), np.uint8)
    (tmp_path / "data").mkdir()
    data = written(tmp_path / "maps", [[masked(0, values == 0)]], to="masks", classes=CLASSES)
    told = json.loads((data / "classes.json").read_text())
    del told["classes"]["1"]
    (data / "classes.json").write_text(json.dumps(told))
    diagnosis = diagnose_annotations(data)
    assert diagnosis.stops_for == ["value"]
    from vitral.errors import VitralError

    with pytest.raises(
        VitralError, match="some errors must be corrected by hand: 1 map holds a value that is no class: name the value"
    ):
        mend(diagnosis, tmp_path / "mended")


def test_pictures_show_boxes_outlines_and_maps(tmp_path):
    """A pixel on a box has the colour of its class, one in a mask is veiled, one beside both is as it was."""
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:40] = True
    data = data_of([[masked(0, mask)]], sizes=[(40, 60)])
    drawn = np.asarray(overlay(data, 0, 60)).astype(int)
    plain = np.asarray(overlay(replace(data, annotated=[replace(data.annotated[0], objects=())]), 0, 60)).astype(int)
    assert (drawn[31:, :] == plain[31:, :]).all()
    assert (drawn[29, 12:38] == (128, 0, 0)).all()
    inside = np.abs(drawn[25, 15] - (0.55 * plain[25, 15] + 0.45 * np.array((128, 0, 0))))
    assert inside.max() <= 1
    page = contact_sheet(data, [])
    assert page.width > 280


def test_the_command_to_convert(tmp_path, capsys):
    data = written(tmp_path / "data", [ALL, [replace(BOX, crowd=True)]], splits=["train", "val"])
    with pytest.raises(SystemExit) as stop:
        main(["data", "convert", str(data), str(tmp_path / "out"), "--to", "yolo"])
    _, err = capsys.readouterr()
    assert stop.value.code == 0
    assert "data: COCO JSON to YOLO texts" in err
    assert "objects  4     3" in err
    assert "crowd" in err.partition("not kept as it was")[2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data.yaml", "images", "labels"]
    for words, says in (
        (["data", "convert", str(data), str(tmp_path / "out")], "is there already and not empty"),
        (["data", "convert", str(data), str(tmp_path / "new"), "--to", "masks"], "4 objects have a box and no outline"),
        (
            ["data", "convert", str(broken(tmp_path / "broken")), str(tmp_path / "new")],
            "- 1 outline is none: x/a.json: annotation 52 (a polygon of 3 numbers",
        ),
        (["data"], "vitral data is one of: vitral data convert, vitral data scenes"),
        (["doctor", "digits", "--fix", str(tmp_path / "new")], "--fix mends boxes and masks"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_commands_of_the_page(tmp_path, pytestconfig, monkeypatch, capsys):
    """In order, and what they write is read again."""
    written(tmp_path / "street", [ALL], to="yolo", splits=["train"])
    monkeypatch.chdir(tmp_path)
    text = (pytestconfig.rootpath / "docs/annotations.md").read_text().partition("```bash\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].split()[1:] for line in text.splitlines()]
    assert [words[0] for words in lines] == ["doctor", "doctor", "data", "data"]
    for words in lines:
        small = ["--images", "2", "--test", "1", "--size", "32"] if "scenes" in words else []
        with pytest.raises(SystemExit) as stop:
            main([*words, *small])
        assert stop.value.code == 0, capsys.readouterr().err
    for folder, format in (("street-mended", "yolo"), ("street-coco", "coco"), ("scenes", "coco")):
        assert read_annotated(folder).format == format

"""vitral doctor from the outside: every planted fault is found, clean data raise no alarm, and it agrees with training on what is refused."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_cli import run
from vitral.cli.parse import program
from vitral.data.images import ArrayImages
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.guidance.doctor.diagnose import diagnose
from vitral.guidance.doctor.reading import look
from vitral.guidance.doctor.suspects import Judgement, Strength, described, exchange, judge
from vitral.training.options import ModelOptions
from vitral.training.sizes import patch_for

_spec = importlib.util.spec_from_file_location(
    "doctor_benchmark", Path(__file__).parents[2] / "benchmarks" / "doctor.py"
)
assert _spec is not None
assert _spec.loader is not None
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)

IMAGES, EACH = 120, 3


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "clean"
    benchmark.make_clean(root, IMAGES)
    return root


@pytest.fixture(scope="module")
def messy(clean) -> tuple[Path, dict]:
    root = clean.parent / "messy"
    return root, benchmark.make_messy(clean, root, EACH)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        p.relative_to(root).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()
    }


def kinds(diagnosis) -> dict[str, list[tuple[str, ...]]]:
    return {finding.kind: [item.names for item in finding.items] for finding in diagnosis.findings}


def test_every_planted_fault_is_found_and_nothing_else(capsys, messy, tmp_path):
    root, planted = messy
    before = contents(root)
    words = ("doctor", root, "--json", "--out", tmp_path / "page.html")
    code, out, err = run(capsys, *words)
    assert code == 1, err
    assert contents(root) == before
    report = json.loads(out)
    counts = benchmark.found(report, planted)
    for fault, (found, total) in counts.items():
        assert total >= EACH
        assert found == total or fault == "flipped", (fault, found)  # too few images to learn the classes from
    said = {finding["kind"]: finding["count"] for finding in report["findings"]}
    expected = dict.fromkeys([*benchmark.FILE_FAULTS, *benchmark.KINDS.values()], EACH)
    expected["near_copies"] = 3 * EACH  # of three sorts
    expected["smaller_than_patch"] = EACH  # the tiny ones, for which training stops
    assert {kind: n for kind, n in said.items() if kind not in benchmark.QUIET} == expected
    listed = IMAGES + len(benchmark.KINDS) * EACH
    assert report["images"] == {"listed": listed, "readable": listed - 4 * EACH}
    assert sum(row["images"] for row in report["classes"]) == listed - 4 * EACH
    assert not report["training"]["starts"]
    stopping = {"damaged", "empty", "not_an_image", "animated", "copies_two_labels", "smaller_than_patch"}
    assert set(report["training"]["stops_for"]) == stopping
    severities = [finding["severity"] for finding in report["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    page = (tmp_path / "page.html").read_text()
    assert "Training would refuse these data" in page
    assert page.count("<img") > 20
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "3 files are empty" in err
    assert run(capsys, *words)[1] == out  # nothing is drawn anew


def test_clean_data_raise_no_alarm(capsys, clean, tmp_path):
    code, out, err = run(capsys, "doctor", clean, "--json", "--strict", "--out", tmp_path / "page.html")
    assert code == 0, err
    report = json.loads(out)
    assert benchmark.alarms(report) == {}
    assert report["training"] == {"starts": True, "stops_for": []}
    assert report["splits"] == {"train": 100, "test": 20}
    assert {row["name"]: row["images"] for row in report["classes"]} == dict.fromkeys(benchmark.CLASSES, IMAGES // 5)
    assert [len(report["extremes"][what]) for what in ("darkest", "widest")] == [4, 4]
    assert "training would start" in err


def test_changed_labels_of_the_digits_look_the_most_wrong():
    listing = list_data("digits", DataOptions())
    n = 600
    looks, _ = look(ArrayImages(listing.images.pixels[:n], listing.images.names[:n]), None)
    rng = np.random.default_rng(0)
    changed = np.arange(n) % 20 == 3
    targets = np.where(changed, (listing.targets.values[:n] + rng.integers(1, 10, n)) % 10, listing.targets.values[:n])
    judgement = judge(described(looks), targets, np.arange(n))
    first = np.argsort(-judgement.suspicion)[: n // 10]
    assert changed[first].sum() >= 0.9 * changed.sum()
    assert changed[judgement.doubted].mean() > 0.8
    assert (judgement.likely == listing.targets.values[:n])[changed].mean() > 0.8


def flipped(targets: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which so many are another class, and which."""
    rng, classes = np.random.default_rng(seed), int(targets.max()) + 1
    wrong = np.zeros(len(targets), bool)
    wrong[rng.permutation(len(targets))[: round(share * len(targets))]] = True
    return np.where(wrong, (targets + rng.integers(1, classes, len(targets))) % classes, targets), wrong


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.2])
def test_a_strong_judge_knows_how_many_labels_are_wrong(share):
    """On digits: as many are accused as are wrong, and the precision that it states holds."""
    listing = list_data("digits", DataOptions())
    looks, _ = look(ArrayImages(listing.images.pixels[:800], listing.images.names[:800]), None)
    targets, wrong = flipped(listing.targets.values[:800], share, 1)
    judgement = judge(described(looks), targets, np.arange(800))
    assert judgement.strength.enough
    assert judgement.times is None
    assert judgement.strength.wrong == pytest.approx(share, abs=0.03)
    assert judgement.doubted.mean() == pytest.approx(share, abs=0.04)  # processors differ in which few are doubted
    if share:
        assert wrong[judgement.doubted].mean() >= judgement.strength.precision - 0.15


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_a_weak_judge_accuses_nobody(share):
    """Features of which one in eight tells the class: better than chance, and useless against single labels."""
    rng = np.random.default_rng(0)
    targets = np.arange(300) % 3
    x = rng.normal(size=(300, 16)).astype(np.float32)
    x[:, :2] += 1.5 * np.stack([targets == 1, targets == 2], 1)
    labels, _ = flipped(targets, share, 2)
    judgement = judge(x, labels, np.arange(300))
    assert judgement.tells
    assert not judgement.strength.enough
    assert judgement.strength.right_of_ten >= 6
    assert not judgement.doubted.any()


def test_what_only_knows_the_commonest_class_does_not_accuse_the_rare_ones():
    """Right labels of a rare class look wrong to it, as wrong ones would: exchanging keeps the classes as common as they are."""
    targets = (np.arange(1000) % 20 == 0).astype(np.int64)
    x = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    x[:, 0] += 3.5 * (targets == 1) * (np.arange(1000) % 40 == 0)  # half of the rare ones show it
    judgement = judge(x, targets, np.arange(1000))
    assert not judgement.doubted.any()


def test_exchanged_labels_leave_every_class_as_common_as_it_was():
    rng = np.random.default_rng(0)
    yes = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [150, 40, 10])]
    exchanged, touched = exchange(yes, rng, several=False)
    assert (exchanged.sum(0) == yes.sum(0)).all()
    assert touched.sum() in (8, 9, 10)
    assert ((exchanged != yes).any(1) == touched).all()
    several = rng.random((200, 4)) < [0.5, 0.2, 0.1, 0.05]
    exchanged, touched = exchange(several, rng, several=True)
    assert (exchanged.sum(0) == several.sum(0)).all()
    assert (exchanged[touched] != several[touched]).sum() == touched.sum() > 0


def test_copies_share_a_fold_so_that_they_do_not_vouch_for_one_another():
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    x, targets = np.concatenate([x, x]), np.tile(np.arange(60) % 2, 2)
    apart = judge(x, targets, np.arange(120))
    together = judge(x, targets, np.tile(np.arange(60), 2))
    assert together.agreement < 0.7 < apart.agreement


def folder(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (30, 30, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


def test_a_layout_that_training_refuses_is_reported_in_one_go(capsys, tmp_path):
    root = folder(
        tmp_path / "data", ["cat/1.png", "Cat/2.png", "dog_big/3.png", "dog big/4.png", "loose.png", "10/5.png"]
    )
    (root / "empty").mkdir()
    (root / "README.md").write_text("photos")
    shutil.copy(root / "cat/1.png", root / "dog_big/copy.png")
    (root / "cat/broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = kinds(diagnose(root, DataOptions()))
    assert found["spellings"] == [("'Cat' = 'cat'",), ("'dog big' = 'dog_big'",)]
    assert found["empty_classes"] == [("empty",)]
    assert found["loose_images"] == [("loose.png",)]
    assert found["stray_files"] == [("README.md",)]
    assert found["copies_two_labels"] == [("cat/1.png", "dog_big/copy.png")]
    assert found["not_an_image"] == [("cat/broken.jpg",)]
    assert found["one_image"] == [("10",), ("Cat",), ("cat",), ("dog big",)]  # the broken one of cat does not count
    assert found["few_images"] == [("dog_big",)]
    code, _, err = run(capsys, "doctor", root, "--out", tmp_path / "page.html")
    assert code == 1
    assert "training would refuse these data" in err
    assert "next, once the errors are mended:" in err


def tabled(root: Path, rows: list[tuple[str, str, str]]) -> Path:
    with open(root / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "split"), *rows])
    return root / "table.csv"


def test_a_table_that_training_refuses_is_reported_in_one_go(tmp_path):
    root = folder(tmp_path / "data", [f"{i}.png" for i in range(6)])
    rows = [(f"{i}.png", "ab"[i % 2], "train") for i in range(6)]
    bad = [
        ("0.png", "b", "test"),
        ("1.png", "", "train"),
        ("2.png", "a", "dev"),
        ("", "a", "train"),
        ("gone.png", "b", "val"),
    ]
    table = tabled(root, rows + bad)
    found = kinds(diagnose(table, DataOptions()))
    assert found["clashing_rows"] == [("0.png (a, b)",)]
    assert found["no_label"] == [("row 9",)]
    assert found["wrong_split"] == [("row 10: 'dev'",)]
    assert found["no_image"] == [("row 11",)]
    assert found["missing"] == [("gone.png",)]
    with pytest.raises(VitralError) as error:
        open_data(table)
    for said in ("two labels", "no label: row 9", "row 10: 'dev'", "no image: row 11", "that are not there: gone.png"):
        assert said in str(error.value)
    assert not diagnose(tabled(root, rows), DataOptions()).stops_for


@pytest.mark.parametrize(
    "spoil", ["nothing", "empty", "one class", "spelling", "two labels", "all of a class", "smaller than a patch"]
)
def test_it_says_what_training_does(tmp_path, spoil):
    root = folder(tmp_path / "data", [f"{label}/{i}.png" for label in ("a", "b") for i in range(4)])
    match spoil:
        case "empty":
            (root / "a/0.png").write_bytes(b"")
        case "one class":
            shutil.rmtree(root / "b")
        case "spelling":
            (root / "b").rename(root / "A")
        case "two labels":
            shutil.copy(root / "a/0.png", root / "b/copy.png")
        case "all of a class":
            for path in (root / "a").iterdir():
                path.write_text("")
        case "smaller than a patch":
            Image.new("L", (200, 1), 50).save(root / "a/thin.png")
    for skip in (False, True):
        options = DataOptions(skip_unreadable=skip)
        try:
            open_data(root, options, least_side=lambda height, width: patch_for(ModelOptions(), height, width))
            starts = True
        except VitralError:
            starts = False
        assert (not diagnose(root, options).stops_for) == starts
        assert starts == (spoil == "nothing" or (spoil == "empty" and skip))


@pytest.mark.parametrize("splits", [("",), ("train/", "test/")])
def test_a_single_class_is_an_error(splits, capsys, tmp_path):
    """Wherever training would stop for it, the doctor shows it as an error, on screen, in JSON and on the page."""
    root = folder(tmp_path / "one", [f"{split}cats/{i}.png" for split in splits for i in range(4)])
    code, out, err = run(capsys, "doctor", root, "--json", "--out", tmp_path / "page.html")
    assert code == 1
    (finding,) = [finding for finding in json.loads(out)["findings"] if finding["kind"] == "one_class"]
    assert (finding["severity"], finding["stops"]) == ("error", True)
    assert "ERROR  there is one class only (cats)" in err
    assert "a classifier needs two or more" in err
    assert "training would refuse these data" in err
    assert "There is one class only (cats)" in (tmp_path / "page.html").read_text()


def test_images_smaller_than_a_patch_are_an_error_with_their_remedy(capsys, tmp_path):
    root = folder(tmp_path / "data", [f"{label}/{i}.png" for label in "ab" for i in range(12)])
    for i in range(2):
        Image.effect_noise((3, 200), 90).save(root / f"a/thin{i}.png")
    code, out, err = run(capsys, "doctor", root, "--json", "--out", tmp_path / "page.html")
    assert code == 1
    found = {finding["kind"]: finding for finding in json.loads(out)["findings"]}
    assert found["smaller_than_patch"]["stops"]
    assert [item["names"] for item in found["smaller_than_patch"]["items"]] == [["a/thin0.png"], ["a/thin1.png"]]
    assert "--patch-size 3 or less" in found["smaller_than_patch"]["remedy"]
    assert "--skip-unreadable" not in err, "which does not leave them out"


def test_several_labels_an_image_are_judged_one_by_one(tmp_path):
    root, rows, rng = tmp_path, [], np.random.default_rng(0)
    for i in range(80):
        pixels = rng.integers(0, 90, (32, 32, 3), np.uint8)
        labels = [name for k, name in enumerate(("left", "right")) if i >> k & 1]
        if "left" in labels:
            pixels[8:24, 2:14] = 250
        if "right" in labels:
            pixels[8:24, 18:30, 0] = 250
        Image.fromarray(pixels).save(root / f"{i}.png")
        rows.append((f"{i}.png", ";".join(labels), "train"))
    rows[7] = ("7.png", "left", "train")  # has both
    rows[8] = ("8.png", "right", "train")  # has none
    diagnosis = diagnose(tabled(root, rows), DataOptions(label_separator=";"))
    assert {item.names[0] for item in diagnosis.ranking[:2]} == {"7.png", "8.png"}
    notes = {item.names[0]: item.note for item in diagnosis.ranking}
    assert "right looks missing" in notes["7.png"]
    assert "right looks wrong" in notes["8.png"]


def test_a_model_can_judge_the_labels(capsys, shapes_run, shapes_folder, tmp_path):
    data = tmp_path / "shapes"
    shutil.copytree(shapes_folder, data)
    (data / "disc/00.png").rename(data / "cross/disc.png")
    words = ("doctor", data, "--json", "--out", tmp_path / "page.html")
    reports = [json.loads(run(capsys, *words, *more)[1]) for more in ((), ("--model", shapes_run))]
    assert reports[0]["labels"] != reports[1]["labels"]
    for report in reports:
        assert report["labels"]["agreement"] > 0.5


def test_what_is_refused(capsys, tmp_path):
    root = folder(tmp_path / "data", ["a/1.png", "b/2.png"])
    before = contents(root)
    for words, what in (
        ((tmp_path / "nowhere",), "no such folder or file"),
        ((root, "--out", root / "page.html"), "lies in the data"),
    ):
        code, out, err = run(capsys, "doctor", *words)
        assert code == 2
        assert what in err
        assert not out
    assert contents(root) == before


def test_warnings_count_where_asked(capsys, tmp_path):
    root = folder(tmp_path / "data", ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    words = ("doctor", root, "--out", tmp_path / "page.html")
    assert run(capsys, *words)[0] == 0
    assert run(capsys, *words, "--strict")[0] == 1


def test_numbers_as_class_names_are_said_to_be_ordered_by_number(tmp_path):
    root = folder(tmp_path / "data", [f"{label}/{i}.png" for label in (1, 2, 10) for i in range(2)])
    texts = {finding.kind: finding.text for finding in diagnose(root, DataOptions()).findings}
    assert texts["label_order"].endswith("1, 2, 10")


def test_labels_that_the_pixels_do_not_tell_are_not_judged(capsys, tmp_path):
    root = folder(tmp_path / "noise", [f"{'ab'[i % 3 == 0]}/{i}.png" for i in range(60)])
    words = ("doctor", root, "--json", "--out", tmp_path / "page.html")
    code, out, err = run(capsys, *words)
    assert code == 0
    report = json.loads(out)
    (note,) = [finding for finding in report["findings"] if "label" in finding["kind"]]
    assert note["kind"] == "unjudged_labels"
    assert note["severity"] == "note"
    assert note["text"].startswith(
        "the labels could not be judged: a classifier on the pixels, which has not seen the images, does not tell these classes apart: "
    )
    assert " on 60 images is " in note["text"]
    assert "always saying the commonest class (66.7%)" in note["text"]
    assert "--model" in note["remedy"]
    assert report["labels"] == {"agreement": None, "precision": None, "ranking": []}
    assert err.count("the labels could not be judged") == 1


def test_a_judge_must_beat_the_commonest_answer_on_images_that_are_not_copies():
    def judgement(agreement, commonest, images):
        strength = Strength(wrong=0, mistaken=0, shown=0, precision=0)
        return Judgement(*[np.zeros(0)] * 4, agreement, commonest, images, strength, None)

    assert judgement(0.9, 0.5, 60).tells
    assert not judgement(0.367, 0.35, 60).tells
    assert not judgement(0.7, 0.6, 60).tells
    assert judgement(0.7, 0.6, 6000).tells
    assert not judgement(0.9, 0.95, 6000).tells
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    judged = judge(x, np.arange(60) % 3 // 2, np.arange(60) // 2)
    assert (judged.commonest, judged.images) == (pytest.approx(2 / 3), 30)
    said = judgement(0.7, 0.6, 60).in_words()
    assert said == (
        "70.0% on 60 images is more than always saying the commonest class (60.0%), but so few images cannot show that it is better"
    )
    several = judge(x, np.stack([np.arange(60) % 4 > 0, np.arange(60) % 2], 1).astype(np.float32), np.arange(60))
    assert several.commonest == pytest.approx((0.75 + 0.5) / 2)


def test_unreadable_files_that_are_to_be_skipped_are_no_errors(capsys, tmp_path):
    root = folder(tmp_path / "data", [f"{label}/{i}.png" for label in "ab" for i in range(10)])
    (root / "a/notes.jpg").write_text("of 2019")
    (root / "b/gone.png").write_bytes(b"")
    words = ("doctor", root, "--val-fraction", "0.2", "--out", tmp_path / "page.html")
    code, _, err = run(capsys, *words)
    assert code == 1
    assert "data: 20 images, 2 files that cannot be used, 2 classes" in err
    assert "1 file is empty: b/gone.png" in err
    assert f"train {root} --val-fraction 0.2 --skip-unreadable\n" in err
    code, out, err = run(capsys, *words, "--skip-unreadable", "--json")
    assert code == 0
    said = {finding["kind"]: finding for finding in json.loads(out)["findings"]}
    assert said["empty"]["severity"] == said["not_an_image"]["severity"] == "note"
    assert said["not_an_image"]["text"] == "1 file is no image that can be opened, left out"
    assert f"next:\n  vitral train {root} --val-fraction 0.2 --skip-unreadable\n" in err.replace(program(), "vitral")


def test_a_case_is_named_once_and_system_files_are_noted(capsys, tmp_path):
    root = folder(tmp_path / "data", [f"{label}/{i}.png" for label in ("cat", "Cat") for i in range(2)])
    for i in range(12):
        (root / f"class {i:02}").mkdir()
    for name in ("Thumbs.db", "cat/.DS_Store", "cat/._0.png"):
        (root / name).write_bytes(b"x")
    page = tmp_path / "page.html"
    _, _, err = run(capsys, "doctor", root, "--out", page)
    assert err.count("'Cat' = 'cat'") == 1
    assert err.count("class 00") == 1
    assert "and 9 more" not in err
    assert "3 system or hidden files ignored: Thumbs.db, cat/.DS_Store, cat/._0.png" in err
    html = page.read_text()
    assert html.count("&#x27;Cat&#x27; = &#x27;cat&#x27;") == 1
    assert "<span class=maybe>warning</span>" in html
    assert "figcaption .maybe" in html

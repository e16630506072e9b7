"""Several labels an image from the table to the report, as a person types it."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import vitral
from drawing import draw_shape
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.cli import main
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.evaluate import evaluate
from vitral.evaluation.multilabel import sigmoid
from vitral.objectives.options import ClassifyOptions
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import ModelOptions

SHAPES = ("disc", "square", "cross")
SMALL = ["--model", "vit_tiny_patch16_224", "--dim", "32", "--depth", "2", "--num-heads", "2", "--image-size", "20", "20",
         "--patch-size", "4", "--batch-size", "16", "--precision", "fp32", "--workers", "0"]  # fmt: skip


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Ninety pictures of none to three shapes, one over the other, and t.csv beside them."""
    folder = tmp_path_factory.mktemp("several")
    rows = []
    for i in range(90):
        own = [k for k in range(3) if np.random.default_rng([7, i, k]).random() < 0.45]
        layers = [draw_shape(k, i) for k in own] or [draw_shape(0, i).clip(0, 60)]
        Image.fromarray(np.max(layers, axis=0)).save(folder / f"{i:02d}.png")
        rows.append((f"{i:02d}.png", ";".join(SHAPES[k] for k in own)))
    for name, chosen in (
        ("t.csv", rows),
        ("yes.csv", [(image, "disc" if "disc" in cell else "") for image, cell in rows]),
    ):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([("image", "label"), *chosen])
    return folder


@pytest.fixture(scope="module")
def trained(place):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "train",
                str(place / "t.csv"),
                "--label-separator",
                ";",
                "--steps",
                "30",
                "--out",
                str(place / "run"),
                *SMALL,
            ]
        )
    assert stop.value.code == 0
    return place / "run"


@pytest.fixture(scope="module")
def data(place):
    return open_data(place / "t.csv", DataOptions(label_separator=";"))


def test_what_the_run_remembers(trained, data):
    card = vitral.load(trained).card
    assert (card.task, card.labels) == ("multilabel", sorted(SHAPES))
    scores = json.loads((trained / "scores.json").read_text())
    assert card.scores["test"]["map"] == scores["map"]
    assert 0 < card.scores["val"]["map"] <= 1
    assert "top1" not in scores
    assert "confusion" not in scores
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {line["event"]: "map" in line for line in lines} == {"data": False, "train": False, "val": True}
    assert not any("top1" in line for line in lines)
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses[-1] < losses[0]
    stored = np.load(trained / "predictions.npz")
    assert np.array_equal(stored["targets"], data.splits["test"].targets.values)


def test_evaluate_agrees_with_the_runs_own_scores(capsys, trained, place):
    code, out, err = run(capsys, "evaluate", trained, place / "t.csv", "--json")  # the separator is remembered
    scores, own = json.loads(out), json.loads((trained / "scores.json").read_text())
    assert code == 0
    assert scores["split"] == "test"
    for key in ("map", "micro_f1", "macro_f1", "exact_match", "images"):
        assert scores[key] == pytest.approx(own[key])
    assert [row["label"] for row in scores["classes"]] == sorted(SHAPES)
    assert "mAP" in err
    code, out, _ = run(capsys, "evaluate", trained, place / "t.csv", "--split", "all")
    assert code == 0
    assert out.startswith("mAP ")
    assert "AP  precision" in out


def test_predictions_in_every_format(capsys, trained, place, data):
    vit = vitral.load(trained)
    _, found = evaluate(vit, data.splits["test"], data.labels)
    logits = found.kept()["logits"]
    paths = [data.splits["test"].path(i) for i in range(len(logits))]
    wanted = [[(vit.labels[k], sigmoid(row)[k]) for k in np.argsort(-row) if row[k] >= 0] for row in logits]
    assert {len(labels) for labels in wanted} & {0}
    assert {len(labels) for labels in wanted} & {2, 3}
    for path, labels in zip(paths, wanted, strict=True):
        got = vit.predict(path)
        assert [label for label, _ in got.labels] == [label for label, _ in labels]
        assert [p for _, p in got.labels] == pytest.approx([p for _, p in labels], abs=1e-5)
        assert len(got.top) == 3
        assert got.top[0] == (got.label, got.probability)
    bad = place / "t.csv"
    code, out, _ = run(capsys, "predict", trained, *paths, bad, "--format", "csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    header = "image labels probabilities label_1 probability_1 label_2 probability_2 error"
    assert list(rows[0]) == header.split()
    assert [row["labels"] for row in rows] == [";".join(label for label, _ in labels) for labels in wanted] + [""]
    assert [len(row["probabilities"].split(";")) for row in rows[:-1]] == [max(1, len(labels)) for labels in wanted]
    assert "header is cut short" in rows[-1]["error"]
    code, out, _ = run(capsys, "predict", trained, *paths, "--format", "jsonl", "--top-k", "1")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [[x["label"] for x in line["labels"]] for line in lines] == [[x for x, _ in labels] for labels in wanted]
    assert all(list(line) == ["image", "labels", "top"] and len(line["top"]) == 1 for line in lines)
    code, out, _ = run(capsys, "predict", trained, *paths)
    for line, labels in zip(out.splitlines(), wanted, strict=True):
        said, _, others = line.partition("  (")
        assert ("none" in said) == (labels == [])
        assert all(label in said for label, _ in labels)
        assert others.count("%") == 3 - len(labels)


def test_what_csv_predictions_say_reads_back_as_a_table(capsys, trained, place):
    code, out, _ = run(capsys, "predict", trained, *sorted(place.glob("0*.png")), "--format", "csv")
    assert code == 0
    (place / "again.csv").write_text(out)
    options = DataOptions(label_separator=";", label_column="labels", val_fraction=0, test_fraction=0)
    again = open_data(place / "again.csv", options, training=False)
    assert set(again.labels) <= set(SHAPES)
    assert again.task == "multilabel"


def test_a_label_that_holds_the_separator_is_for_json_alone(capsys, trained, place):
    vit = vitral.load(trained)
    vit.card.labels[0] = "cross; or plus"
    save_model(place / "odd.safetensors", vit.model, vit.card)
    code, _, err = run(capsys, "predict", place / "odd.safetensors", place / "00.png", "--format", "csv")
    assert code == 2
    assert "use --format jsonl" in err
    assert run(capsys, "predict", place / "odd.safetensors", place / "00.png", "--format", "jsonl")[0] == 0


def test_the_report_shows_the_labels_in_place_of_the_confusion(trained):
    page = (trained / "report.html").read_text()
    for words in (
        "mAP over the epochs",
        "<h2>Labels</h2>",
        "average precision",
        "probability of yes",
        "furthest from the truth",
    ):
        assert words in page, words
    for words in ("Confusion", "Top-1 over", "top-1", "<h2>Classes</h2>"):
        assert words not in page, words
    assert "3 labels" in page


def test_explain_says_the_labels_own_probability(capsys, trained, place, tmp_path):
    vit = vitral.load(trained)
    best = vit.predict(place / "00.png")
    code, _, err = run(capsys, "explain", trained, place / "00.png", "-o", tmp_path / "x.png")
    assert code == 0
    assert err.startswith(f"{best.label} {best.probability:.1%}")


def test_models_and_data_must_be_of_one_kind(capsys, trained, place, shapes_run, shapes_folder):
    code, _, err = run(capsys, "evaluate", shapes_run, place / "t.csv", "--label-separator", ";")
    assert code == 2
    assert "its images can have several labels, and the task classify takes one class an image" in err
    code, _, err = run(capsys, "evaluate", trained, shapes_folder)
    assert code == 2
    assert "needs a table" in err
    vit, single = vitral.load(trained), open_data(shapes_folder, DataOptions())
    with pytest.raises(VitralError, match="one class in the data, and several labels in the model"):
        evaluate(vit, single.splits["test"], single.labels)


def test_labels_that_the_data_do_not_have_stay_in_the_models_order(trained, place):
    (place / "few.csv").write_text("image,label\n00.png,square\n01.png,\n02.png,disc;square\n")
    few = open_data(
        place / "few.csv", DataOptions(label_separator=";", val_fraction=0, test_fraction=0), training=False
    )
    scores, _ = evaluate(vitral.load(trained), few.splits["train"], few.labels)
    assert [(row.label, row.support) for row in scores.classes] == [("cross", 0), ("disc", 1), ("square", 2)]
    (place / "few.csv").write_text("image,label\n00.png,tea\n01.png,\n")
    tea = open_data(
        place / "few.csv", DataOptions(label_separator=";", val_fraction=0, test_fraction=0), training=False
    )
    with pytest.raises(VitralError, match="'tea' are not among the model's"):
        evaluate(vitral.load(trained), tea.splits["train"], tea.labels)


@pytest.mark.parametrize(
    "said", [{"loss": "ce"}, {"class_weights": "balanced"}, {"sampling": "balanced"}, {"teacher": "runs/x"}]
)
def test_what_needs_one_class_an_image_is_refused(data, said):
    model = ModelOptions("vit_tiny_patch16_224")
    with pytest.raises(VitralError, match=rf"{next(iter(said))} .* can have several labels; choose"):
        resolve(Recipe(model=model, objective=ClassifyOptions(**said)), data, "cpu")
    _, reasons = resolve(Recipe(model=model, objective=ClassifyOptions(loss="bce")), data, "cpu")
    assert "loss bce, a yes or no for each label: an image can have several labels, or none" in reasons


@pytest.mark.parametrize("more", [[], ["--mixup", "0.4", "--cutmix", "1"]])
def test_a_single_yes_or_no_label(capsys, place, tmp_path, more):
    words = ["--label-separator", ";", "--steps", "3", "--out", tmp_path / "run", *SMALL, *more]
    code, _, err = run(capsys, "train", place / "yes.csv", *words)
    assert code == 0, err
    code, out, _ = run(capsys, "evaluate", tmp_path / "run", place / "yes.csv", "--json")
    scores = json.loads(out)
    assert (code, len(scores["classes"])) == (0, 1)
    assert scores["map"] == scores["classes"][0]["average_precision"]
    code, out, _ = run(capsys, "predict", tmp_path / "run", place / "00.png")
    assert code == 0
    assert out.split()[1] in ("disc", "none")


@pytest.mark.parametrize("to", ["vitral", "hf", "timm"])
def test_other_formats_know_it_too(capsys, trained, place, tmp_path, to):
    out = tmp_path / ("m.safetensors" if to == "vitral" else "folder")
    if to == "timm":
        vit = vitral.create_model("vit_tiny_patch16_224", num_classes=2)
        source = tmp_path / "tiny.safetensors"
        steps = vitral.load(trained).card.preprocess
        card = ModelCard("vit_tiny_patch16_224", vit.config.arguments(), ["a", "b"], steps, task="multilabel")
        save_model(source, vit, card)
        code, _, err = run(capsys, "convert", source, out, "--to", "timm")
        assert code == 0
        assert "config.json has no task" in err
        return
    code, _, err = run(capsys, "convert", trained, out, "--to", to)
    assert code == 0, err
    ours, theirs = vitral.load(trained), vitral.load(out)
    assert theirs.card.task == "multilabel"
    image = place / "00.png"
    assert ours.predict(image).top[0][1] == pytest.approx(theirs.predict(image).top[0][1], abs=1e-5)


def test_where_no_validation_image_has_a_label_the_last_weights_are_kept(capsys, place, tmp_path):
    rows = [
        ("image", "label", "split"),
        *((f"{i:02d}.png", "" if i % 3 else "a", "val" if i % 3 == 1 else "train") for i in range(30)),
    ]
    with open(place / "bare.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = ["--label-separator", ";", "--steps", "4", "--validate-every", "2", "--test-fraction", "0"]
    code, _, err = run(capsys, "train", place / "bare.csv", *words, "--out", tmp_path / "run", *SMALL)
    assert code == 0, err
    assert vitral.load(tmp_path / "run").card.scores["step"] == 4
    assert "validation mAP undefined" in err
    assert "undefined" not in (tmp_path / "run" / "scores.json").read_text()
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["map"] is None
    assert "mAP over the epochs" not in (tmp_path / "run" / "report.html").read_text()


def test_a_sweep_is_compared_by_map(capsys, place, tmp_path):
    words = [
        "sweep",
        place / "t.csv",
        "--label-separator",
        ";",
        "--steps",
        "3",
        "--fractions",
        "0.5",
        "1",
        "--out",
        tmp_path,
        *SMALL[2:],
    ]
    code, out, err = run(capsys, *words, "--models", "vit_tiny_patch16_224", "--json")
    assert code == 0, err
    rows, result = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines())), json.loads(out)
    for row in rows:
        scores = json.loads((tmp_path / "runs" / row["run"] / "scores.json").read_text())
        images = json.loads((tmp_path / "runs" / row["run"] / "run.json").read_text())["images"]["train"]
        assert (float(row["map"]), int(row["images"])) == (scores["map"], images)
        assert f"mAP {scores['map']:.2%}" in err
    assert "top1" not in rows[0]
    assert int(rows[0]["images"]) < int(rows[1]["images"])
    best = max(result["summary"], key=lambda one: one["map"])
    page = (tmp_path / "report.html").read_text()
    assert f"{best['map']:.1%}" in page.partition("mAP (test) of the best")[0][-40:]
    assert "<h3>mAP against training images</h3>" in page
    assert "top-1" not in page

"""The command line from the outside: what goes to stdout, what to stderr, and the exit codes."""

import csv
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vitral.cli import main
from vitral.cli.parse import program
from vitral.training.display import Display


def vitral(*words, stdin=None):
    done = subprocess.run([sys.executable, "-m", "vitral", *map(str, words)], capture_output=True, input=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def run(capsys, *words):
    """The same inside this process, which is faster."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "explain", "models", "report"])
def test_each_command_explains_itself_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"Example: vitral {command}" in out


def test_help_and_unknown_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(c in out for c in ("train", "evaluate", "predict", "explain"))
    code, _, err = run(capsys, "trian")
    assert code == 2
    assert "did you mean 'train'" in err


def test_a_run_leaves_everything_behind(shapes_run):
    names = {p.name for p in shapes_run.iterdir()}
    assert names >= {
        "model.safetensors",
        "checkpoints",
        "metrics.jsonl",
        "recipe.toml",
        "run.json",
        "scores.json",
        "report.html",
    }
    lines = [json.loads(line) for line in (shapes_run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 40
    assert {line["event"] for line in lines} >= {"train", "val"}
    page = (shapes_run / "report.html").read_text()
    assert "vitral train" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_evaluate_agrees_with_the_runs_own_scores(capsys, shapes_run, shapes_folder):
    code, out, err = run(capsys, "evaluate", shapes_run, shapes_folder, "--split", "test", "--json")
    assert code == 0
    own, scores = json.loads((shapes_run / "scores.json").read_text()), json.loads(out)
    assert {k: scores[k] for k in ("top1", "images", "confusion", "split")} == {
        k: own[k] for k in ("top1", "images", "confusion", "split")
    }
    assert "top-1" in err
    assert scores["trained_on"] == scores["skipped"] == 0
    assert "in the model's training" not in err
    code, out, _ = run(capsys, "evaluate", shapes_run, shapes_folder, "--split", "all")
    summary, table = out.split("\n\n")
    assert summary.startswith("top-1")
    assert "precision" in table
    assert sum(int(line.split()[1]) for line in table.splitlines()[1:]) == 90


def test_a_score_on_training_images_says_so(capsys, shapes_run, shapes_folder, tmp_path):
    """However the same images are divided, mixed or copied."""
    trained = len(np.fromfile(shapes_run / "training-images.bin", ">u8"))
    mixed = tmp_path / "mixed"
    shutil.copytree(shapes_folder, mixed)
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20) // 2).save(mixed / "disc" / "new.png")
    for data, words, scored in ((shapes_folder, ["--split", "all"], 90), (mixed, [], 91)):
        code, out, err = run(capsys, "evaluate", shapes_run, data, *words, "--json")
        assert code == 0
        assert json.loads(out)["trained_on"] == trained
        assert f"{trained} of these {scored} images were in the model's training" in err
    code, out, _ = run(
        capsys, "evaluate", shapes_run, shapes_folder, "--skip-unreadable", "--json"
    )  # divides nothing anew
    assert (json.loads(out)["split"], json.loads(out)["trained_on"]) == ("test", 0)
    code, out, err = run(capsys, "evaluate", shapes_run / "model.safetensors", shapes_folder, "--split", "train")
    assert f"{trained} of these {trained} images" in err
    code, out, _ = run(
        capsys, "evaluate", shapes_run, shapes_folder, "--test-fraction", "0.5", "--split", "test", "--json"
    )
    again = json.loads(out)
    assert 0 < again["trained_on"] < again["images"]
    shutil.copy(shapes_run / "model.safetensors", tmp_path / "moved.safetensors")
    code, out, err = run(capsys, "evaluate", tmp_path / "moved.safetensors", shapes_folder, "--split", "all", "--json")
    assert code == 0
    assert json.loads(out)["trained_on"] is None
    assert "is unknown: there is no" in err


def test_evaluate_scores_what_cannot_be_trained_on(capsys, shapes_run, shapes_folder, tmp_path):
    """One class; a test split alone; with unreadable images left out, which it says."""
    shutil.copytree(shapes_folder / "disc", tmp_path / "one" / "disc")
    (tmp_path / "one" / "disc" / "bad.png").write_text("no")
    code, out, err = run(capsys, "evaluate", shapes_run, tmp_path / "one", "--skip-unreadable", "--json")
    assert code == 0
    assert "left out 1 unreadable image: disc/bad.png" in err
    scores = json.loads(out)
    assert (scores["images"], scores["skipped"]) == (30, 1)
    assert scores["macro_f1"] == scores["classes"][scores["confusion"].index(max(scores["confusion"]))]["f1"]
    shutil.copytree(shapes_folder, tmp_path / "tests" / "test")
    code, out, _ = run(capsys, "evaluate", shapes_run, tmp_path / "tests", "--json")
    assert code == 0
    assert (json.loads(out)["split"], json.loads(out)["images"]) == ("test", 90)
    code, _, err = run(capsys, "train", tmp_path / "one", "--out", tmp_path / "run")
    assert code == 2
    assert "one class only" in err


def test_evaluate_on_other_classes_is_an_error(capsys, shapes_run):
    code, _, err = run(capsys, "evaluate", shapes_run, "digits")
    assert code == 2
    assert "not among the model's" in err


def test_predict_in_every_format_with_bad_files_in_their_rows(capsys, shapes_run, shapes_folder, tmp_path):
    good = shapes_folder / "disc" / "00.png"
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a picture")
    code, out, err = run(
        capsys, "predict", shapes_run, good, bad, tmp_path / "gone.png", good, "--format", "csv", "--top-k", "2"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert "2 of 4" in err
    assert [bool(r["error"]) for r in rows] == [False, True, True, False]
    assert rows[0] == rows[3]
    assert rows[0]["label"] in ("disc", "square", "cross")
    code, out, _ = run(capsys, "predict", shapes_run, good, bad, "--format", "jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0]["label"] == rows[0]["label"]
    assert sum(t["probability"] for t in lines[0]["top"]) == pytest.approx(1)
    assert lines[1]["image"] == str(bad)
    assert lines[1]["error"].startswith("is not a JPEG")
    code, out, _ = run(capsys, "predict", shapes_run, shapes_folder)
    assert code == 0
    assert len(out.splitlines()) == 90
    assert run(capsys, "predict", shapes_run, tmp_path / "x.png", tmp_path)[0] == 1


def test_predict_looks_at_every_file_of_a_folder(capsys, shapes_run, shapes_folder, tmp_path):
    """As training does: an image without a known ending is one, and what cannot be read has its row."""
    shutil.copy(shapes_folder / "disc" / "00.png", tmp_path / "scan0001")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "photo.heic").write_bytes(b"\0\0\0 ftypheic")
    (tmp_path / "notes.txt").write_text("notes")
    for hidden in (".DS_Store", "Thumbs.db"):
        (tmp_path / hidden).write_text("junk")
    code, out, err = run(capsys, "predict", shapes_run, tmp_path, "--format", "jsonl")
    rows = {json.loads(line)["image"]: "error" in json.loads(line) for line in out.splitlines()}
    assert code == 1
    assert rows == {
        str(tmp_path / "deep" / "photo.heic"): True,
        str(tmp_path / "scan0001"): False,
    }
    assert "1 of 2 images could not be read" in err
    assert "notes.txt" in err  # a text is left out, and said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--top-k", "0"], "--top-k 0: give 1 or more"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
    ],
)
def test_predict_refuses_what_makes_no_sense(capsys, monkeypatch, shapes_run, words, says):
    code, out, err = run(capsys, "predict", shapes_run, "x.png", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert run(capsys, "predict", shapes_run)[0] == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(capsys, "predict", shapes_run, "-")[0] == 2


def test_predict_reads_paths_or_an_image_from_stdin(capsys, monkeypatch, shapes_run, shapes_folder):
    paths = [shapes_folder / "disc" / "00.png", shapes_folder / "cross" / "01.png"]
    code, out, _ = vitral("predict", shapes_run, "-", stdin="\n".join(map(str, paths)).encode())
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [str(p) for p in paths]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths[0].read_bytes())))
    code, piped, _ = run(capsys, "predict", shapes_run, "-")
    assert code == 0
    assert piped.split("  ")[1] == out.splitlines()[0].split("  ")[1]


def test_explain_writes_pictures_and_arrays(capsys, shapes_run, tmp_path):
    picture = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90), dtype=np.uint8)).save(picture)
    code, _, err = run(
        capsys,
        "explain",
        shapes_run,
        picture,
        "-o",
        tmp_path / "out.png",
        "--npz",
        tmp_path / "a.npz",
        "--layer",
        "1",
        "--head",
        "0",
    )
    assert code == 0
    assert "wrote" in err
    assert "attention of the class token, layer 1, head 0; the frame is the part" in err
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.width / drawn.height == pytest.approx(90 / 40, rel=0.02)
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored)
    assert arrays["attention"].shape == (2, 2, 26, 26)
    assert np.allclose(arrays["attention"].sum(-1), 1, atol=1e-5)
    assert run(capsys, "explain", shapes_run, picture, "--all", "-o", tmp_path / "grid.png")[0] == 0
    assert run(capsys, "explain", shapes_run, picture, "--method", "rollout", "-o", tmp_path / "r.png")[0] == 0
    code, _, err = run(capsys, "explain", shapes_run, picture, "--query", "1", "2", "-o", tmp_path / "q.png")
    assert "attention of the patch in row 1 and column 2" in err
    assert "the outlined patch is the query" in err
    before = picture.read_bytes()
    code, _, err = run(capsys, "explain", shapes_run, picture, "-o", tmp_path / "." / "wide.png")
    assert (code, picture.read_bytes()) == (2, before)
    assert "is the picture that is explained" in err
    for words, what in (
        (["--layer", "2"], "numbered 0 to 1"),
        (["--head", "2"], "numbered 0 to 1"),
        (["--query", "9", "9"], "rows"),
        (["--all", "--layer", "1"], "leave out"),
        (["--all", "--method", "rollout"], "leave out"),
        (["--method", "rollout", "--head", "0"], "all layers and heads"),
        (["-o", tmp_path / "x.txt"], ".png"),
        (["-o", tmp_path / "no" / "x.png"], "cannot be written"),
    ):
        code, _, err = run(capsys, "explain", shapes_run, picture, "-o", tmp_path / "y.png", *words)
        assert code == 2, words
        assert what in err


def test_the_report_can_be_written_again(capsys, shapes_run, tmp_path):
    first = (shapes_run / "report.html").read_bytes()
    assert run(capsys, "report", shapes_run)[0] == 0
    assert (shapes_run / "report.html").read_bytes() == first
    code, _, err = run(capsys, "report", tmp_path)
    assert code == 2
    assert "not a finished run" in err


def test_models_lists_the_zoo(capsys):
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    assert json.loads(out)["vit_base_patch16_224"]["arguments"]["dim"] == 768
    code, out, _ = run(capsys, "models", "--family", "swin")
    assert code == 0
    assert len(out.splitlines()) == 1 + 6
    assert "28.29 M    4.49 G" in out
    assert run(capsys, "models", "--family", "swan")[0] == 2


def test_models_shows_one(capsys):
    code, out, _ = run(capsys, "models", "pvt_v2_b0")
    assert code == 0
    assert "stages.3" in out
    assert "7 x 7 x 256" in out
    assert "memory in float32" in out
    code, out, _ = run(capsys, "models", "resnet18", "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["parameters"] == sum(part["parameters"] for part in shown["parts"]) == 11_689_512
    code, _, err = run(capsys, "models", "pvt_v2_b9")
    assert code == 2
    assert "nearest: pvt_v2_b" in err


def test_convert_reads_writes_and_proves(capsys, shapes_run, tmp_path):
    code, _, err = run(capsys, "convert", shapes_run, tmp_path / "theirs", "--to", "timm")
    assert code == 2  # its width has no name in timm
    assert "timm has no model" in err
    code, _, err = run(capsys, "convert", shapes_run, tmp_path / "copy.safetensors")
    assert code == 0, err
    assert "differs by 0.0e+00" in err
    code, _, err = run(
        capsys,
        "convert",
        tmp_path / "copy.safetensors",
        tmp_path / "big.safetensors",
        "--image-size",
        "24",
        "24",
        "--compare-resizes",
    )
    assert code == 0, err
    assert "positions by dinov2" in err
    assert run(capsys, "convert", "nowhere.npz", tmp_path / "x.safetensors")[0] == 2


def test_bad_data_stop_before_training(capsys, shapes_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(shapes_folder, folder)
    whole = (folder / "disc" / "00.png").read_bytes()
    (folder / "disc" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cross" / "words.jpg").write_text("hello")
    code, _, err = run(capsys, "train", folder, "--out", tmp_path / "run")
    assert code == 2
    assert "cut.png" in err
    assert "words.jpg" in err
    assert "--skip-unreadable" in err
    assert not (tmp_path / "run").exists()
    words = ["--steps", "2", "--dim", "16", "--depth", "1", "--num-heads", "2", "--workers", "0"]
    code, _, err = run(capsys, "train", folder, "--out", tmp_path / "run", "--skip-unreadable", *words)
    assert code == 0
    assert "left out 2 unreadable images: cross/words.jpg, disc/cut.png" in err
    assert f"view {tmp_path / 'run'} " in err.partition("Next:")[2]
    assert "left out 2 unreadable images" in (tmp_path / "run" / "report.html").read_text()
    rows = list(csv.DictReader((tmp_path / "run" / "skipped.csv").read_text().splitlines()))
    assert sorted(r["name"].split("/")[-1] for r in rows) == ["cut.png", "words.jpg"]


def test_one_budget_on_the_command_line_replaces_the_recipes(capsys, shapes_folder, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text("[train]\nepochs = 50.0\nworkers = 0\n[model]\ndim = 16\ndepth = 1\nnum_heads = 2\n")
    code, _, _ = run(capsys, "train", shapes_folder, "--recipe", recipe, "--steps", "3", "--out", tmp_path / "run")
    assert code == 0
    assert "steps = 3" in (tmp_path / "run" / "recipe.toml").read_text()
    code, _, err = run(capsys, "train", shapes_folder, "--steps", "3", "--epochs", "2", "--out", tmp_path / "other")
    assert code == 2
    assert "one budget" in err


def test_training_on_every_image_leaves_nothing_to_score(capsys, shapes_folder, tmp_path):
    words = [
        "--val-fraction",
        "0",
        "--test-fraction",
        "0",
        "--steps",
        "2",
        "--dim",
        "16",
        "--depth",
        "1",
        "--num-heads",
        "2",
    ]
    code, _, err = run(capsys, "train", shapes_folder, "--out", tmp_path / "run", *words)
    assert code == 0
    assert "not scored" in err
    assert run(capsys, "predict", tmp_path / "run", shapes_folder / "disc" / "00.png")[0] == 0


def test_defaults_come_with_their_reasons(capsys, shapes_folder, tmp_path):
    code, _, err = run(capsys, "train", shapes_folder, "--out", tmp_path / "run", "--steps", "1")
    assert code == 0
    for word in ("20x20 pixels", "width 128", "batch of", "Muon", "learning rate", "decoded in memory"):
        assert word in err
    assert "image_size = [20, 20]" in (tmp_path / "run" / "recipe.toml").read_text()


def test_an_image_smaller_than_a_patch_stops_training_before_it_starts(capsys, shapes_folder, tmp_path):
    shutil.copytree(shapes_folder, tmp_path / "data")
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "data" / "disc" / "small.png")
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(tmp_path / "data" / "cross" / "smaller.png")
    words = ["train", tmp_path / "data", "--out", tmp_path / "run", "--steps", "2"]
    for more in ([], ["--skip-unreadable"]):
        code, _, err = run(capsys, *words, *more)
        assert code == 2
        assert "2 images are smaller than one 4x4 patch" in err
        assert "disc/small.png: 3x5 pixels" in err
        assert "cross/smaller.png: 2x3 pixels" in err
        assert not (tmp_path / "run").exists()


def test_settings_are_checked_before_any_image_is_read(capsys, monkeypatch, shapes_folder, tmp_path):
    monkeypatch.setattr("vitral.training.settle.open_data", lambda *a, **k: pytest.fail("the data were opened"))
    (tmp_path / "file").touch()
    for words, says in {
        "--model vit_tiny": "is not known",
        "--epochs 1 --time 1m": "one budget",
        "--num-heads 5": "5",
        "--depth 0": "depth=0: must be at least 1",
        "--dropout 1.5": "dropout=1.5",
        "--position rope": "give one of learned",
        "--interpolation cubic": "give one of bicubic, bilinear",
        "--crop-fraction 0": "crop_fraction=0",
        "--mean 0.5 --std 0.1 0.1 0.1": "one number for each channel",
        "--mean 0.5 --channels 3": "one number for each channel",
        "--pooling cls --class-token False": "class_token=True",
        "--model mae_vit_base_patch16": "choose a model with a head",
        "--time 10": "write it as 90s, 10m or 2h",
        f"--out {tmp_path}/file": "is a file",
        f"--out {tmp_path}/file/run": "is a file",
    }.items():
        code, _, err = run(capsys, "train", shapes_folder, "--out", tmp_path / "run", *words.split())
        assert code == 2, words
        assert says in err, (words, err)


def test_a_run_that_never_came_to_a_checkpoint_can_be_started_again(capsys, shapes_folder, tmp_path):
    words = ["train", shapes_folder, "--out", tmp_path / "run", "--dim", "16", "--depth", "1", "--num-heads", "2"]
    words += ["--optimizer", "adamw", "--steps", "4", "--precision", "fp32"]
    code, _, err = run(capsys, *words, "--lr", "1e30", "--clip", "0", "--warmup-fraction", "0")
    assert code == 2
    assert "start again with a lower --lr" in err
    assert run(capsys, *words)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "train"] == [4]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "holds a run already; continue it with --resume" in err


def test_the_next_commands_can_be_typed_as_they_are(monkeypatch, tmp_path):
    script = tmp_path / "bin" / "vitral"
    script.parent.mkdir()
    script.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == "bin/vitral"
    monkeypatch.setattr(sys, "argv", ["/somewhere/vitral/__main__.py"])
    assert program().endswith(" -m vitral")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "vitral"


def test_plain_progress_that_began_is_said_to_its_end(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr("vitral.training.display.time.monotonic", lambda: now)
    display = Display(Console(file=io.StringIO()))
    for done in range(1, 12):
        display.count("scoring", done, 11)
    now += 20
    for done in range(1, 12):
        display.count("reading", done, 11)
    for _ in range(3):
        display.count("checking", 1000, 1000)
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "scoring   9%  1 of 11",
        "scoring 100%  11 of 11",
        "reading   9%  1 of 11",
        "reading 100%  11 of 11",
        "checking 100%  1,000 of 1,000",
    ]


def test_the_live_line_fits_eighty_columns():
    display = Display(Console(width=80, force_terminal=True, file=io.StringIO(), color_system=None))
    record = {"share": 0.1, "seconds": 3600.0, "step": 123456, "epoch": 123.4, "loss": 12.3456, "top1": 1.0}
    display.train({**record, "images_per_s": 12345.6})
    display.live.refresh()
    lines = display.console.file.getvalue().replace("\r", "\n").split("\n")
    display.close()
    drawn = [line for line in lines if "loss" in line]
    assert drawn
    for part in ("epoch 123.4", "loss 12.346", "top-1 100%", "12,346 images/s", "9:00:00 left"):
        assert part in drawn[0]

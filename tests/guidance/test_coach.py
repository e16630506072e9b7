"""The coach: each fault, provoked, is named; healthy runs are left alone; a run and its log give the same remarks."""

import csv
import gzip
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.cli import main
from vitral.cli.coach import attend
from vitral.data.dataset import Split
from vitral.data.loader import Reader
from vitral.errors import VitralError
from vitral.guidance.coach.coach import Coach, by_luck, lines_of, replay, silence, summary
from vitral.objectives.options import ClassifyOptions
from vitral.training import window
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.start import start
from vitral.training.window import Window

_spec = importlib.util.spec_from_file_location("coach_benchmark", Path(__file__).parents[2] / "benchmarks" / "coach.py")
assert _spec is not None
assert _spec.loader is not None
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)

TINY = ["--dim", "32", "--depth", "2", "--num-heads", "2", "--precision", "fp32", "--workers", "0"]


def vitral(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def kinds(folder):
    """What was said while the run trained, which is also what its log gives."""
    remarks = [(line["kind"], line["text"]) for line in lines_of(folder) if line["event"] == "remark"]
    assert remarks == [(remark.kind, str(remark)) for remark in replay(folder)[1]]
    return [kind for kind, _ in remarks]


def train(data, out, *words):
    assert vitral("train", data, "--out", out, *TINY, *words) == 0
    return kinds(out)


@pytest.fixture(autouse=True)
def own_time(monkeypatch):
    """Runs measure what they compute themselves: a machine with other work is no slow loader."""
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=time.process_time))


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory):
    """A folder of the digits as PNG files, and their classes."""
    from sklearn.datasets import load_digits

    digits, folder = load_digits(), tmp_path_factory.mktemp("coach") / "digits"
    folder.mkdir()
    for i, image in enumerate(digits.images[:800]):
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(folder / f"{i}.png")
    return folder, digits.target[:800]


def write_table(path, folder, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split"])
        writer.writerows([folder / f"{i}.png", f"class {label}", split] for i, label, split in rows)
    return path


def parts(count):
    return np.random.default_rng(0).choice(["train", "val", "test"], count, p=[0.7, 0.15, 0.15])


# Faults, provoked in real runs.


@pytest.mark.slow
def test_shuffled_labels_are_named(digit_files, tmp_path, capsys):
    folder, classes = digit_files
    shuffled = np.random.default_rng(0).permutation(classes)
    table = write_table(tmp_path / "t.csv", folder, zip(range(800), shuffled, parts(800), strict=True))
    found = train(table, tmp_path / "run", "--steps", 150, "--batch-size", 32)
    assert found == ["stuck"]
    said = capsys.readouterr().err
    assert "ln 10" in said
    assert "labels do not go with the images" in said
    assert "What the coach saw" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_few_images_learned_by_heart_are_named_while_the_run_trains(digit_files, tmp_path):
    """In a process of its own, with 13 validation images."""
    folder, classes = digit_files
    table = write_table(tmp_path / "t.csv", folder, zip(range(120), classes, parts(120), strict=False))
    words = [*TINY, "--crop", "none", "--hflip", "0", "--smoothing", "0", "--epochs", "60", "--optimizer", "muon"]
    command = [sys.executable, "-m", "vitral", "train", str(table), "--out", str(tmp_path / "run"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert kinds(tmp_path / "run") == ["overfitting"]
    live, _, end = done.stderr.partition("test split: ")
    assert "coach: step " in live
    assert "overfitting: few images are learned by heart" in live
    assert "Can I use it? It is right for " in end
    assert "more images, or stronger augmentation" in end


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high_is_named(tmp_path, capsys):
    words = ["--optimizer", "adamw", "--lr", "0.1", "--steps", 150, "--batch-size", 32]
    assert train("digits", tmp_path / "run", *words) == ["rate_high"]
    said = capsys.readouterr().err
    assert "0.1 with adamw; usual is 0.001" in said
    assert "vitral train digits" in said
    assert "--lr 0.001" in said


@pytest.mark.slow
def test_a_learning_rate_that_is_too_low_is_named(tmp_path):
    words = ["--optimizer", "adamw", "--lr", "1e-6", "--steps", 150, "--batch-size", 32]
    assert train("digits", tmp_path / "run", *words) == ["rate_low"]


def test_images_of_a_single_colour_are_named(tmp_path):
    for label, first in (("dark", 0), ("light", 128)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(60):
            Image.fromarray(np.full((8, 8), first + i, np.uint8)).save(tmp_path / "data" / label / f"{i}.png")
    assert train(tmp_path / "data", tmp_path / "run", "--steps", 20, "--batch-size", 16) == ["inputs"]


def test_a_validation_split_of_training_images_is_named(digit_files, tmp_path):
    folder, classes = digit_files
    rows = [(i, classes[i], "train" if i < 300 else "test") for i in range(400)]
    rows += [(i, classes[i], "val") for i in range(60)]
    table = write_table(tmp_path / "t.csv", folder, rows)
    assert train(table, tmp_path / "run", "--steps", 20, "--batch-size", 16) == ["leak"]


@pytest.mark.slow
def test_almost_equal_images_in_validation_are_named(digit_files, tmp_path):
    folder, classes = digit_files
    for i in range(400):  # near copies are sought among images of 24 pixels and more
        large = Image.open(folder / f"{i}.png").resize((32, 32), Image.Resampling.NEAREST)
        large.save(tmp_path / f"{i}.png")
        if i < 60:
            pixels = np.asarray(large).copy()
            pixels[0, 0] += 1
            Image.fromarray(pixels).save(tmp_path / f"copy-{i}.png")
    rows = [(i, classes[i], "train" if i < 300 else "test") for i in range(400)]
    rows += [(f"copy-{i}", classes[i], "val") for i in range(60)]
    table = write_table(tmp_path / "t.csv", tmp_path, rows)
    assert train(table, tmp_path / "run", "--steps", 20, "--batch-size", 16) == ["leak"]
    assert "almost equal" in str(replay(tmp_path / "run")[1][0])


@pytest.mark.parametrize(("step", "named"), [(10.0, ["starved"]), (12.0, [])])
def test_a_slow_loader_is_named(tmp_path, monkeypatch, step, named):
    """By a clock on which an image takes a second to read, a batch 16, and a step the time that is given: the share of waiting is 62 or 57 %."""
    now, read, add = [0.0], Reader.__call__, Window.add

    def reading(self, index):
        now[0] += 1
        return read(self, index)

    def stepping(self, *outcome):
        now[0] += step
        add(self, *outcome)

    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Reader, "__call__", reading)
    monkeypatch.setattr(Window, "add", stepping)
    words = ["--steps", 30, "--batch-size", 16, "--val-fraction", "0", "--test-fraction", "0"]
    assert train("digits", tmp_path / "run", *words) == named


def test_a_pixel_that_is_no_number_is_named_by_its_image(tmp_path, monkeypatch, capsys):
    real = Split.read

    def spoiled(self, i, channels=None, hint=None):
        image = real(self, i, channels, hint).float()
        return image * float("nan") if self.names[i] == "digits/1234" else image

    monkeypatch.setattr(Split, "read", spoiled)
    words = ["--mean", "0.3", "--std", "0.4", "--mixup", "0.5", "--val-fraction", "0", "--test-fraction", "0"]
    assert vitral("train", "digits", "--out", tmp_path / "run", *TINY, *words, "--epochs", 1) == 2
    assert "digits/1234: has pixels that are not finite" in capsys.readouterr().err


def begun(out, **optim):
    recipe = Recipe(
        model=ModelOptions(dim=32, depth=2, num_heads=2),
        optim=OptimOptions(**optim),
        train=TrainOptions(steps=40, batch_size=16, precision="fp32", workers=0),
    )
    run = start("digits", recipe, out, Display(), "vitral train digits --steps 40")
    attend(run)
    return run


@pytest.mark.parametrize("frozen", [r"(?!head)", "blocks.1", None], ids=["all but the head", "a block", "everything"])
def test_weights_that_do_not_learn_are_named(tmp_path, frozen):
    run = begun(tmp_path / "run")
    for name, parameter in run.loop.model.named_parameters():
        if frozen is not None and re.match(frozen, name):
            parameter.requires_grad_(False)
    for group in (g for optimizer in run.loop.optimizers for g in optimizer.param_groups):
        group["scale"] *= frozen is not None
    run.train()
    assert kinds(tmp_path / "run") == ["frozen"]


def test_gradients_that_do_not_arrive_are_named(tmp_path):
    run = begun(tmp_path / "run")
    for parameter in run.loop.model.blocks.parameters():
        parameter.register_hook(torch.zeros_like)
    run.train()
    assert kinds(tmp_path / "run") == ["dead"]


# Runs without a fault.


@pytest.mark.parametrize(
    ("seed", "steps"),
    [(0, 60), pytest.param(1, 150, marks=pytest.mark.slow), pytest.param(2, 150, marks=pytest.mark.slow)],
)
def test_a_healthy_run_is_left_alone(tmp_path, seed, steps, capsys):
    assert train("digits", tmp_path / "run", "--steps", steps, "--batch-size", 32, "--seed", seed) == []
    capsys.readouterr()
    assert vitral("coach", tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert said.startswith(f"coach: nothing looks wrong. step {steps}")
    assert "validation top-1" in said
    assert "gap" in said


FAMILIES = [
    ["--model", "resnet18", "--width", "8", "--depths", "1", "1", "1", "1"],
    ["--model", "swin_tiny_patch4_window7_224", "--dim", "16", "--depths", "1", "1", "--num-heads", "1", "2", "--patch-size", "2",
     "--window", "2", "2"],
    ["--model", "cait_xxs24_224", "--dim", "32", "--depth", "2", "--num-heads", "2", "--patch-size", "2"],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", FAMILIES, ids=lambda words: words[1])
def test_other_families_are_left_alone(tmp_path, words):
    out = tmp_path / "run"
    assert vitral("train", "digits", "--out", out, "--steps", 60, "--batch-size", 32, "--workers", 0, *words) == 0
    assert kinds(out) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--mixup", "0.8", "--cutmix", "1"],
        ["--loss", "bce", "--smoothing", "0"],
        ["--optimizer", "sgd"],
        ["--time", "2s"],
        ["--ema", "0.99", "--progressive", "0.5"],
        ["--val-fraction", "0"],
        ["--class-weights", "balanced", "--sampling", "balanced"],
    ],
    ids=" ".join,
)
def test_other_settings_are_left_alone(tmp_path, words):
    budget = [] if "--time" in words else ["--steps", 130]
    assert train("digits", tmp_path / "run", *budget, "--batch-size", 32, *words) == []


def test_pretraining_and_several_labels_are_left_alone(digit_files, tmp_path):
    out = tmp_path / "mae"
    words = [
        "--decoder-dim",
        "16",
        "--decoder-depth",
        "1",
        "--decoder-num-heads",
        "2",
        "--steps",
        30,
        "--batch-size",
        32,
    ]
    assert vitral("pretrain", "digits", "--out", out, *TINY, *words) == 0
    assert kinds(out) == []
    assert summary(replay(out)[0].run)[0].startswith("step 30")
    folder, classes = digit_files
    table = tmp_path / "t.csv"
    rows = [
        f"{folder / f'{i}.png'},{'odd' if c % 2 else 'even'};{'high' if c > 4 else 'low'}"
        for i, c in enumerate(classes)
    ]
    table.write_text("image,label\n" + "\n".join(rows))
    assert train(table, tmp_path / "several", "--label-separator", ";", "--steps", 30, "--batch-size", 32) == []
    assert "mAP" in summary(replay(tmp_path / "several")[0].run)[0]


# One mechanism, live and later.


def test_a_resumed_run_does_not_repeat_itself(digit_files, tmp_path, capsys):
    folder, classes = digit_files
    rows = [(i, classes[i], "train" if i < 300 else "test") for i in range(400)]
    table = write_table(tmp_path / "t.csv", folder, rows + [(i, classes[i], "val") for i in range(60)])
    out = tmp_path / "run"
    run = start(
        str(table), Recipe(train=TrainOptions(steps=40, batch_size=16, workers=0)), out, Display(), "vitral train t"
    )
    attend(run)
    watch = run.watch

    def interrupting(line):
        if line["event"] == "train" and line["step"] == 20:  # once: a second one interrupts at once
            signal.raise_signal(signal.SIGINT)
        return watch(line)

    run.watch = interrupting
    assert not run.train()
    assert kinds(out) == ["leak"]
    capsys.readouterr()
    assert vitral("coach", out) == 0
    assert "vitral train --resume" in summary(replay(out)[0].run)[1]
    capsys.readouterr()
    assert vitral("train", "--resume", out) == 0
    assert "coach:" not in capsys.readouterr().err
    assert kinds(out) == ["leak"]
    assert [line["event"] for line in lines_of(out)].count("data") == 1


def test_the_command_speaks_json_and_says_where_there_is_no_run(shapes_run, tmp_path, capsys):
    assert vitral("coach", shapes_run, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["remarks"] == []
    assert told["worth"]["right"].startswith("It is right for ")
    assert "step 40, 100% of the budget" in told["stands"]
    assert vitral("coach", tmp_path) == 2
    assert "holds no run" in capsys.readouterr().err


# Rules that need long runs, on logs written by hand.


def coach(lr=1e-3, time=None, smoothing=0.1, val=1000, **objective):
    recipe = Recipe(
        model=ModelOptions(name="vit_tiny_patch16_224", dim=96),
        objective=ClassifyOptions(smoothing=smoothing, **objective),
        optim=OptimOptions(lr=lr, optimizer="adamw"),
        train=TrainOptions(steps=None if time else 1000, time=time, batch_size=64),
    )
    described = {
        "data": "photos", "labels": [str(k) for k in range(10)], "images": {"train": 6400, "val": val}, "folder": "runs/x",
        "command": "vitral train photos --lr=0.001 --batch-size 64 --out runs/x",
    }  # fmt: skip
    made = Coach(recipe, described)
    made.see({"event": "data", "step": 0, "splits": {"val": {"images": val, "majority": 0.1}}})
    return made


def trained(step, loss=0.6, top1=0.9, **more):
    line = {
        "event": "train",
        "step": step,
        "epoch": step / 100,
        "loss": loss,
        "top1": top1,
        "lr": 1e-3,
        "share": step / 1000,
    }
    return line | {"seconds": step / 10, "images_per_s": 640.0, "grad_norm_mean": 1.0} | more


def validated(step, **more):
    answers = {
        "largest": 0.12,
        "separation": 0.88,
        "repeated": 4.0,
        "train_loss": 0.4,
        "train_top1": 0.92,
        "train_images": 200,
    }
    return {"event": "val", "step": step, "loss": 0.45, "top1": 0.9} | answers | more


def said(made, lines):
    return [remark.kind for line in lines for remark in made.see(line)]


def run_of(train=None, val=None):
    """100 log lines, and a validation after every tenth; each function gives what differs at a step."""
    for step in range(10, 1001, 10):
        yield trained(step, **(train(step) if train else {}))
        if step % 100 == 0:
            yield validated(step, **(val(step) if val else {}))


def test_a_log_without_a_fault_gives_no_remark():
    assert said(coach(), run_of()) == []


@pytest.mark.parametrize(
    ("kind", "train", "val"),
    [
        ("exploding", lambda s: {"loss": 2.3, "top1": 0.1, "grad_norm_mean": 1.5**min(s / 10, 30)}, None),
        ("rate_high", lambda s: {"loss": 2.9, "top1": 0.1}, None),
        ("rate_high", lambda s: {"loss": 1.2 if s < 400 else 2.2, "top1": 0.6 if s < 400 else 0.15}, None),
        ("stuck", lambda s: {"loss": 2.302, "top1": 0.1}, None),
        ("collapsed", lambda s: {"loss": 2.0, "top1": 0.2}, lambda s: {"largest": 0.99, "top1": 0.1, "train_top1": 0.1}),
        ("memorised", lambda s: {"loss": 1.2, "top1": 0.8}, lambda s: {"top1": 0.1, "train_top1": 0.8}),
        ("noise", lambda s: {"loss": 1.9, "top1": 0.55}, lambda s: {"top1": 0.85, "train_top1": 0.55}),
        ("noise", lambda s: {"loss": 1.9, "top1": 0.55},
         lambda s: {"top1": 0.56, "train_top1": 0.57, "repeated": 1.1, "separation": 0.58}),
        ("overfitting", None, lambda s: {"loss": 0.5 + max(0, s - 300) / 1000, "top1": 0.7, "train_top1": 0.85}),
        ("overfitting", None, lambda s: {"loss": 1.0, "top1": 0.7, "train_top1": 1.0}),
        ("dead", lambda s: {"tensors": 60, "dead": 40}, None),
        ("frozen", lambda s: {"tensors": 60, "still": 58}, None),
        ("inputs", lambda s: {"input_std": 0.001}, None),
        ("starved", lambda s: {"wait_s": 0.8, "window_s": 1.0}, None),
        ("budget", lambda s: {"seconds": 200.0 * s}, None),
    ],
)  # fmt: skip
def test_each_fault_in_a_log_is_named_once(kind, train, val):
    assert said(coach(), run_of(train, val)) == [kind]


def test_a_model_is_judged_without_what_stands_beside_it():
    """Else wrong labels would be suspected: training images are scored by the model alone, and what stands beside it answers validation well."""
    alone = {"top1": 0.85, "loss": 0.5, "train_top1": 0.55, "own_top1": 0.54, "own_loss": 1.3}
    made = coach()
    assert said(made, run_of(lambda s: {"loss": 1.3, "top1": 0.55}, lambda s: alone)) == []
    stands, _ = summary(made.run)
    assert "validation top-1 85.0% (best 85.0%); of the Transformer alone 54.0%" in stands
    assert "gap +1.0 points" in stands


def test_a_budget_of_time_that_is_too_short_is_named():
    lines = [trained(s, share=s / 100, seconds=s / 1.0, epoch=s / 1000) for s in range(10, 101, 10)]
    made = coach(time="100s")
    remarks = [remark for line in lines for remark in made.see(line)]
    assert [remark.kind for remark in remarks] == ["budget"]
    assert "100s will be 0.1 epochs" in remarks[0].seen
    assert "--time 167m" in remarks[0].next


def test_a_budget_that_ends_with_its_first_line_is_named():
    assert said(coach(time="6s"), [trained(1, share=0.9, seconds=5.4, epoch=0.02)]) == []
    assert said(coach(time="6s"), [trained(1, share=1.0, seconds=8.0, epoch=0.03)]) == ["budget"]


@pytest.mark.parametrize(
    ("images", "val"),
    [
        (9, lambda s: {"top1": 7 / 9, "train_top1": 0.97}),
        (6, lambda s: {"top1": 4 / 6, "train_top1": 0.97}),
        (9, lambda s: {"top1": 0.1, "train_top1": 0.8}),
        (40, lambda s: {"top1": 0.28, "train_top1": 0.8}),
    ],
    ids=["a gap", "a wide gap", "at chance", "some way from chance"],
)
def test_few_validation_images_give_no_remark(images, val):
    """The same few images, however often they are scored, are no reason to say that the labels are wrong."""
    assert said(coach(val=images), run_of(None, val)) == []


def test_few_validation_images_show_what_is_large_enough():
    """Of the same few images a loss that rises, or a class of answers that is far from training's, is no chance."""
    rising = run_of(
        None, lambda s: {"top1": 16 / 23, "train_top1": 0.95, "loss": 1.4 + max(0, s - 300) / 1000, "train_loss": 0.3}
    )
    assert said(coach(val=23), rising) == ["overfitting"]
    high = run_of(None, lambda s: {"top1": 12 / 23, "train_top1": 0.95, "loss": 1.4, "train_loss": 0.3})
    assert said(coach(val=23), high) == ["overfitting"]
    assert said(coach(val=29), run_of(None, lambda s: {"top1": 0.1, "train_top1": 0.8})) == ["memorised"]


def test_validation_of_other_classes_or_worse_than_guessing_is_named():
    def known(val, images):
        made = coach(val=images)
        shares = [0.01] + [0.11] * 9
        made.see({"event": "data", "step": 0, "splits": {"train": {"images": 6400, "shares": shares, "majority": 0.11},
                  "val": {"images": images, "shares": val, "majority": max(val)}}})  # fmt: skip
        return made

    assert said(known([1.0] + [0.0] * 9, 30), run_of()) == ["unlike"]
    even = [0.1] * 10
    assert said(known(even, 30), run_of()) == []
    none = run_of(None, lambda s: {"top1": 0.0, "train_top1": 0.95, "loss": 3.0 + s / 1000})
    assert said(known(even, 60), none) == ["unlike"]


def test_overfitting_names_several_ways_out():
    def ways(beside=False, **transfer):
        made = coach()
        made.run.recipe = replace(made.run.recipe, transfer=replace(made.run.recipe.transfer, **transfer))

        def scores(s):
            alone = {"loss": 0.5 + max(0, s - 300) / 1000, "top1": 0.7}
            both = {f"own_{key}": value for key, value in alone.items()} | {"loss": 0.1, "top1": 0.9}
            return {**(both if beside else alone), "train_top1": 0.85}

        lines = run_of(None, scores)
        (remark,) = [remark for line in lines for remark in made.see({**line, "epoch": line["step"] / 100})]
        return [remark.next, *remark.others], str(remark)

    commands, text = ways()
    assert [command.split(" --out")[0] for command in commands] == [
        "vitral train photos --lr=0.001 --batch-size 64 --policy randaugment",
        "vitral train photos --batch-size 64 --init hf:facebook/deit-tiny-patch16-224",
        "vitral train photos --lr=0.001 --batch-size 64 --epochs 3",
    ]
    assert text.count("\n  or: vitral train") == 2
    assert "by the Transformer alone" not in text
    assert "in the same view, by the Transformer alone" in ways(beside=True)[1]
    commands, _ = ways(init="runs/mae")
    assert "--freeze encoder" in commands[1]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            23,
            "that 23 validation images can show: a gap to training of 19 points or more; --folds 5 tests on every image. ",
        ),
        (1000, "nothing looks wrong. "),
    ],
)
def test_silence_says_what_so_few_images_could_show(images, words):
    made = coach(val=images)
    assert said(made, run_of()) == []
    assert silence(made.run).endswith(words)


with gzip.open(Path(__file__).with_name("coach_runs.json.gz")) as file:
    RECORDED = json.load(file)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_runs_are_judged_as_they_were_made(name):
    """Small real runs, spoiled on purpose or healthy: benchmarks/coach.py makes them."""
    case, found = runs.CASES[name], runs.said(RECORDED[name])
    assert set(found) <= {*case.expected, *case.also}
    assert bool(found) == (bool(case.expected) and not case.hidden)


@pytest.mark.parametrize(("near", "inside", "kinds"), [(1, 0.0, []), (2, 0.0, ["leak"]), (2, 0.05, [])])
def test_lookalikes_as_in_training_are_no_leak(near, inside, kinds):
    splits = {"train": {"images": 150}, "val": {"images": 20, "near": near / 20, "near_inside": inside}}
    assert [r.kind for r in coach().see({"event": "data", "step": 0, "splits": splits})] == kinds


@pytest.mark.parametrize(("images", "kinds"), [(6, []), (600, ["collapsed"])])
def test_one_answer_to_a_few_images_is_no_collapse(images, kinds):
    made = coach()
    splits = {"train": {"images": 6400, "majority": 0.5}, "val": {"images": images, "majority": 0.5}}
    made.see({"event": "data", "step": 0, "splits": splits})
    assert said(made, run_of(None, lambda s: {"top1": 0.5, "train_top1": 0.5, "largest": 1.0})) == kinds


def test_pooled_validations_are_of_no_more_images_than_there_are():
    made = coach(val=60)
    made.run.described["images"]["train"] = 40
    for step in range(100, 900, 100):
        made.see(validated(step, train_images=40))
    assert made.run.seen_score() == (pytest.approx(0.92), pytest.approx(0.9), 40)


def test_a_remark_names_its_step_and_the_images():
    lines = run_of(lambda s: {"loss": 1.2, "top1": 0.8}, lambda s: {"top1": 0.1, "train_top1": 0.8})
    made = coach(val=60)
    (remark,) = [remark for line in lines for remark in made.see(line)]
    assert remark.seen.startswith("step 300: right are 80% of 600 training images and 6 of 60 validation images, where")


@pytest.mark.parametrize(
    ("top1", "images", "majority", "words"),
    [
        (
            0.3667,
            60,
            0.35,
            "36.7% on 60 test images is more than always saying the commonest class (35.0%), but so few",
        ),
        (
            17 / 31,
            31,
            12 / 31,
            "17 right of 31 test images is more than always saying the commonest class (12 of 31), but so few",
        ),
        (0.35, 60, 0.35, "35.0% on 60 test images is no better than always saying the commonest class (35.0%)"),
        (1.0, 3, 2 / 3, "3 right of 3 test images is more than always saying the commonest class (2 of 3), but so few"),
        (0.2, 200, 0.35, "is worse than always saying the commonest class (35.0%)"),
        (0.5, 200, 0.35, None),
    ],
)
def test_a_finished_run_is_compared_with_saying_the_commonest_class(tmp_path, top1, images, majority, words):
    made = coach()
    made.run.described["folder"] = str(tmp_path)
    splits = {"val": {"images": 1000, "majority": 0.1}, "test": {"images": images, "majority": majority}}
    made.see({"event": "data", "step": 0, "splits": splits})
    for line in run_of(None, lambda s: {"top1": 0.5, "train_top1": 0.6}):
        made.see(line)
    assert "--mixup" in summary(made.run)[1]  # by validation alone
    (tmp_path / "scores.json").write_text(json.dumps({"split": "test", "images": images, "top1": top1}))
    stands, following = summary(made.run)
    assert ("commonest" in stands) == (words is not None)
    assert (words or "") in stands
    assert ("--steps 2000" if words else "--mixup") in following


def test_validation_stands_in_for_a_test_score():
    made = coach()
    for line in run_of(None, lambda s: {"top1": 0.11, "train_top1": 0.11}):
        made.see(line)
    assert (
        by_luck(made.run)
        == "top-1 11.0% on 1,000 validation images is more than always saying the commonest class (10.0%), "
        "but so few images cannot show that it is better"
    )


def test_the_chance_level_follows_the_labels_and_the_loss():
    made = coach(smoothing=0.0)
    assert made.run.chance_loss() == pytest.approx(np.log(10))
    made.see({"event": "data", "step": 0, "splits": {"train": {"shares": [0.91] + [0.01] * 9, "majority": 0.91}}})
    assert made.run.chance_loss() == pytest.approx(-0.91 * np.log(0.91) - 0.09 * np.log(0.01))
    assert made.run.chance("train") == 0.91
    # Always naming the commonest class is no collapse where nearly all images are of it, and being there at once is not being stuck.
    assert coach(smoothing=0.1, loss="bce").run.chance_loss() == pytest.approx(
        10 * (-0.1 * np.log(0.1) - 0.9 * np.log(0.9))
    )
    assert coach(teacher="somewhere").run.chance_loss() is None


def test_the_next_command_is_the_runs_own_with_other_flags():
    assert coach().run.again(lr="0.0003") == "vitral train photos --batch-size 64 --lr 0.0003 --out runs/x-2"
    assert coach().run.again(batch_size=None) == "vitral train photos --lr=0.001 --out runs/x-2"


def test_a_folder_that_is_no_run_is_refused_in_plain_words(tmp_path):
    with pytest.raises(VitralError, match=r"nowhere: there is no such folder") as error:
        Coach.of(Path("nowhere"))
    assert "Errno" not in str(error.value)
    with pytest.raises(VitralError, match=r"holds no run \(there is no run.json in it\)"):
        Coach.of(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(VitralError, match="is damaged"):
        Coach.of(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "sweep.toml").touch()
    with pytest.raises(VitralError, match=f"this is a sweep; .* vitral coach {tmp_path}/runs/NAME"):
        Coach.of(tmp_path)

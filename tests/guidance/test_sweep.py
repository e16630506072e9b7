"""A sweep: its runs and their names, what it refuses, and that a killed one ends with the same table, byte for byte."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from processes import PATIENCE, eventually, start
from processes import run as process_of
from test_cli import run
from vitral.checkpoints.claim import Claim
from vitral.cli import main
from vitral.data.options import DataOptions
from vitral.data.sources import open_data, share_of
from vitral.drawing.charts import Series, line_chart
from vitral.errors import VitralError
from vitral.guidance.sweep.cost import Ground, seen
from vitral.guidance.sweep.page import write_sweep_page
from vitral.guidance.sweep.runs import Runs
from vitral.guidance.sweep.search import search
from vitral.guidance.sweep.sweep import Point, Range, Sweep, grid, parse_values, read_sweep, verify, write_sweep
from vitral.guidance.sweep.table import LAWS, axes, curves, summary, summary_text
from vitral.training.config import Recipe
from vitral.training.toml import read_recipe

VIT = '[model]\nname = "vit_tiny_patch16_224"\ndim = 32\ndepth = 1\nnum_heads = 2\n[train]\ntime = "9h"\n'
CNN = '[model]\nname = "resnet18"\nwidth = 8\n'
BUDGET = ("--steps", "12", "--batch-size", "8", "--checkpoint-every", "3", "--precision", "fp32")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "vit.toml").write_text(VIT)
    (folder / "cnn.toml").write_text(CNN)
    return [str(folder / "vit.toml"), str(folder / "cnn.toml")]


@pytest.fixture(scope="module")
def words(recipes):
    return ["sweep", "digits", "--recipes", *recipes, "--fractions", "0.05", "0.1", "--seeds", "0", *BUDGET]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A sweep that nobody disturbed."""
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    with pytest.raises(SystemExit) as stop:
        main([*words, "--out", str(out)])
    assert stop.value.code == 0
    return out


def test_a_grid_is_every_combination_under_readable_names():
    sweep = Sweep(
        "digits", models=("vit_tiny_patch16_224", "resnet18"), fractions=(0.1, 1.0), seeds=(0, 1),
        values=dict([parse_values("optim.lr=1e-3,3e-3"), parse_values("optim.optimizer=muon,adamw")]),
        settings={"train": {"steps": 5}},
    )  # fmt: skip
    points = grid(sweep)
    assert len({point.name for point in points}) == len(points) == 32
    assert points[0].name == "vit_tiny_patch16_224-f0.1-lr0.001-optimizermuon-s0"
    assert points[-1].name == "resnet18-f1-lr0.003-optimizeradamw-s1"
    last = points[-1].recipe
    assert (last.model.name, last.data.train_fraction, last.train.seed, last.train.steps) == ("resnet18", 1.0, 1, 5)
    assert (last.optim.lr, last.optim.optimizer) == (3e-3, "adamw")


def test_names_that_would_be_the_same_get_a_digest():
    points = grid(Sweep("digits", values={"optim.lr": (0.001, 0.0010000001)}))
    assert len({point.name for point in points}) == 2
    assert all(point.name.startswith("default-f1-lr0.001-s0-") for point in points)


def test_a_shared_budget_takes_the_place_of_a_recipes_own(recipes):
    sweep = Sweep("digits", recipes=tuple(recipes), settings={"train": {"steps": 5}})
    assert [(point.recipe.train.steps, point.recipe.train.time) for point in grid(sweep)] == [(5, None)] * 2
    assert [point.recipe_name for point in grid(sweep)] == ["vit", "cnn"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.lr=1e-3,3e-3", (1e-3, 3e-3)),
        ("optim.optimizer=muon, adamw", ("muon", "adamw")),
        ("model.image_size=[8,8],[16,16]", ((8, 8), (16, 16))),
        ("model.class_token=true,false", (True, False)),
        ("optim.lr=1e-4..1e-2", Range(1e-4, 1e-2, False)),
        ("model.depth=2..6", Range(2, 6, True)),
    ],
)
def test_values_are_read_as_they_are_meant(text, values):
    assert parse_values(text) == (text.partition("=")[0], values)


def test_a_sweep_file_reads_back_equal(tmp_path):
    sweep = Sweep(
        "digits", ("resnet18",), (), (0.1, 1.0), (0, 1), 7, 2,
        {"optim.lr": Range(1e-4, 1e-2, False), "model.image_size": ((8, 8), (9, 9)), "model.depth": Range(1, 3, True)},
        {"train": {"epochs": 2.0}, "model": {"dims": [1, 2]}},
    )  # fmt: skip
    (tmp_path / "sweep.toml").write_text(write_sweep(sweep))
    assert read_sweep(tmp_path / "sweep.toml") == sweep


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--models", "resnet81", "vit_tiny_patch16_224"], "model 'resnet81' is not known; nearest: resnet"),
        (["--set", "optim.lrr=1,2"], "the nearest is 'lr'"),
        (["--set", "lr=1,2"], "lr belongs in [optim]"),
        (["--set", "optim=1,2"], "section"),
        (["--set", "optim.lr"], "section.field=value"),
        (["--set", "optim.lr=fast"], "should be a number"),
        (["--set", "optim.lr=0.1,0.1"], "twice"),
        (["--set", "optim.lr=1..0.1"], "from a smaller to a larger"),
        (["--set", "optim.lr=1e-3..1e-2"], "--search"),
        (["--set", "train.seed=0,1"], "--seeds"),
        (["--seeds", "0", "1", "--seed", "3"], "--seeds"),
        (["--set", "optim.lr=1,2", "--lr", "3"], "leave one out"),
        (
            ["--models", "vit_tiny_patch16_224", "resnet18", "--dim", "64"],
            "resnet18 (family resnet) has no argument 'dim'",
        ),
        (["--fractions", "0", "1"], "train_fraction 0.0"),
        (["--recipes", "nowhere.toml"], "no such recipe"),
        (["--objective", "mae"], "no scores to compare"),
        (["--search", "3"], "nothing varies"),
        (["--search", "3", "--set", "optim.lr=1e-3,1e-2", "--score-split", "test"], "validation"),
        (["--search", "3", "--set", "train.score_split=val,test"], "validation"),
        (["--search", "3", "--set", "optim.lr=1e-3,1e-2", "--fractions", "0.1", "1"], "the same images"),
        (["--seed", "0", "1"], "--seeds 0 1"),
        (["--train_fraction", "0.1", "1"], "--fractions 0.1 1"),
        (["--seeds"], "--seeds: has no values"),
        (["--models", "--seeds", "0"], "--models: has no values"),
        (["--set"], "--set: has no values"),
        (["--jobs", "0"], "--jobs 0"),
        (["--file", "nowhere.toml"], "no such file"),
        (["--resume", "nowhere"], "leave out --out --steps"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(capsys, tmp_path, words, what):
    code, _, err = run(capsys, "sweep", "digits", "--steps", "2", *words, "--out", tmp_path / "out")
    assert (code, what in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_commands_that_can_be_pasted(capsys, tmp_path):
    out = tmp_path / "a sweep"
    code, stdout, err = run(
        capsys, "sweep", "digits", "--seeds", "0", "1", "--set", "optim.lr=0.01", "--steps", "2", "--out", out, "--dry-run"
    )  # fmt: skip
    assert code == 0, err
    assert "2 runs" in err
    assert len(stdout.splitlines()) == 2
    assert stdout.startswith("vitral train digits --recipe '")
    recipe = read_recipe(out / "recipes" / "default-f1-lr0.01-s1.toml")
    assert (recipe.optim.lr, recipe.train.seed, recipe.train.steps) == (0.01, 1, 2)
    assert not (out / "runs").exists()


def test_what_is_left_open_is_decided_once_on_all_images(capsys, tmp_path):
    out = tmp_path / "out"
    words = ("--fractions", "0.01", "0.2", "1", "--steps", "2", "--set", "optim.optimizer=muon,adamw", "--out", out)
    code, _, err = run(capsys, "sweep", "digits", *words, "--dry-run")
    assert code == 0, err
    assert "on all 1,259 training images, for every run: batch of 64, learning rate 0.005 or 0.001" in err
    assert err.count("checking images 100%") == 1
    for optimizer, lr in (("muon", 0.005), ("adamw", 0.001)):
        found = [read_recipe(path) for path in (out / "recipes").glob(f"*{optimizer}*")]
        assert {recipe.data.train_fraction for recipe in found} == {0.01, 0.2, 1.0}
        plain = {replace(recipe, data=replace(recipe.data, train_fraction=1.0)) for recipe in found}
        assert len(plain) == 1  # alike in all but the share
        recipe = plain.pop()
        assert (recipe.optim.lr, recipe.train.batch_size, recipe.augment.scale) == (lr, 64, (0.35, 1.0))


def test_what_is_said_stays_and_other_budgets_are_not_filled_in():
    ground = Ground("digits", lambda *_: None)
    settings = {"train": {"batch_size": 100}, "optim": {"lr": 0.1, "lr_per": 200, "optimizer": "sgd"}}
    point = grid(Sweep("digits", fractions=(0.05,), settings=settings))[0]
    settled = ground.settle(point).recipe
    assert (settled.optim.lr, settled.optim.lr_per, settled.train.batch_size) == (0.05, None, 100)
    assert settled.train.epochs == 100  # as many as all images would have, not a run's own
    assert (
        ground.decided([point])
        == "decided once, on all 1,259 training images, for every run: epochs 100, learning rate 0.05"
    )
    limited = ground.settle(grid(Sweep("digits", settings=settings | {"train": {"steps": 3}}))[0]).recipe
    assert (limited.train.steps, limited.train.epochs) == (3, None)
    assert ground.settle(ground.settle(point)) == ground.settle(point)


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.33, 1.0])
def test_the_images_expected_are_those_of_the_run(fraction):
    counts = np.bincount(open_data("digits").splits["train"].targets.values).tolist()
    opened = open_data("digits", DataOptions(train_fraction=fraction))
    assert sum(share_of(count, fraction) for count in counts) == len(opened.splits["train"])


def test_the_images_of_short_last_batches_are_counted_once():
    assert [seen(steps, 10, 4) for steps in range(7)] == [0, 4, 8, 10, 14, 18, 20]


def test_a_finished_sweep_has_its_tables_and_is_not_run_again(capsys, whole, words):
    before = {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*") if path.is_file()}
    table = (whole / "table.csv").read_bytes()
    code, out, err = run(capsys, *words, "--out", whole, "--json")  # the same command goes on
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*") if path.is_file()} == before
    assert (whole / "table.csv").read_bytes() == table
    assert read_sweep(whole / "sweep.toml").threads == 1  # as the tests' OMP_NUM_THREADS says, whatever the machine has
    result = json.loads(out)
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert [row["run"] for row in rows] == [row["run"] for row in result["runs"]]
    assert [row["run"] for row in rows] == [
        f"{recipe}-{model}-f{fraction}-s0"
        for recipe, model in (("vit", "vit_tiny_patch16_224"), ("cnn", "resnet18"))
        for fraction in ("0.05", "0.1")
    ]
    scores = json.loads((whole / "runs" / rows[0]["run"] / "scores.json").read_text())
    assert float(rows[0]["top1"]) == scores["top1"]
    images = json.loads((whole / "runs" / rows[0]["run"] / "run.json").read_text())["images"]["train"]
    assert (int(rows[0]["images"]), int(rows[0]["images_seen"])) == (images, seen(12, images, 8))
    assert int(rows[0]["compute"]) == 3 * int(rows[0]["multiply_adds"]) * int(rows[0]["images_seen"])
    assert "training_seconds" not in rows[0]
    assert {law["none"][:16] for law in result["laws"]["images"].values()} == {"no law: 2 sizes,"}
    assert len(result["summary"]) == 4
    said = float(err.partition(" runs, ")[2].split()[0])
    assert said == pytest.approx(sum(int(row["compute"]) for row in rows), rel=0.06)  # two digits
    assert "4 of 4 runs are done already" in err
    page = (whole / "report.html").read_text()
    shown = [page.count(f"<h3>{what} against {n}</h3>") for what in ("Top-1", "Error") for n in LAWS.values()]
    assert shown == [1, 0, 1, 0]  # the compute of so many steps is the same
    assert "deviation" not in page.partition("</style>")[2]  # of a single seed
    assert page.count("<svg") == 2
    assert "resnet18" in page
    assert "ViT, width 32, 1 layer, patches of 2 at 8 px (from vit_tiny_patch16_224)" in page
    assert {row["name"] for row in rows} == {"vit_tiny_patch16_224", "resnet18"}


def test_another_sweep_does_not_go_into_the_same_folder(capsys, whole):
    code, _, err = run(capsys, "sweep", "digits", "--seeds", "5", *BUDGET, "--out", whole)
    assert code == 2
    assert "holds another sweep" in err


LARGEST = "vit-vit_tiny_patch16_224-f0.1-s0"
"""The run that begins first."""

# What every Python imports as it starts: a run of this name stops (SIGSTOP) when it has written its first checkpoint.
STOPPING = f"""
import os, signal
replace = os.replace
def stopping(source, target):
    replace(source, target)
    if os.path.basename(target) == "latest" and "{LARGEST}" in str(target):
        os.replace = replace
        os.kill(os.getpid(), signal.SIGSTOP)
os.replace = stopping
"""


def started(folder: Path, *words) -> subprocess.Popen:
    """A sweep whose largest run has stopped after its first checkpoint."""
    (folder / "sitecustomize.py").write_text(STOPPING)
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = start(*words, environment={"PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
    eventually((Path(words[-1]) / "runs" / LARGEST / "checkpoints" / "latest").exists, process)
    return process


def has_been_told_to_end(pid: int) -> bool:
    """Whether a process that is stopped will get a SIGTERM."""
    (pending,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def children(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the runs in /proc")
def test_killed_with_its_run_and_resumed_it_ends_with_the_same_table(capsys, whole, words, tmp_path):
    out = tmp_path / "killed"
    for run_before in (whole / "runs").iterdir():  # of a session before
        if run_before.is_dir() and run_before.name != LARGEST:
            shutil.copytree(run_before, out / "runs" / run_before.name)
    process = started(tmp_path, *words, "--out", out)
    runs = children(process)
    for pid in (process.pid, *runs):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert len(runs) == 1
    assert not (out / "table.csv").exists() or (out / "table.csv").read_bytes() != (whole / "table.csv").read_bytes()
    code, _, err = run(capsys, "sweep", "--resume", out)
    assert code == 0, err
    for name in ("table.csv", "table.json", "summary.csv", "sweep.toml"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the runs in /proc")
def test_stopped_it_saves_its_runs_and_exits_with_130(capsys, whole, words, tmp_path):
    out = tmp_path / "stopped"
    process = started(tmp_path, *words, "--jobs", "2", "--out", out)
    runs = children(process)
    stopped = next(pid for pid in runs if LARGEST in Path(f"/proc/{pid}/cmdline").read_text())
    process.send_signal(signal.SIGTERM)
    eventually(lambda: has_been_told_to_end(stopped), process)
    os.kill(stopped, signal.SIGCONT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "go on with:" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in runs)
    code, _, err = run(capsys, "sweep", "--resume", out)
    assert code == 0, err
    assert (out / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()


def test_a_run_that_another_process_still_trains_is_left_to_it(tmp_path):
    point = Point("run", "", {}, Recipe())
    runs = Runs(tmp_path, "digits", 1, 1, print)
    runs.log(point).parent.mkdir()
    with open(runs.log(point), "ab") as log:  # as a sweep that was killed: its run inherited the log, and its lock
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX)
        orphan = subprocess.Popen(["sleep", "infinity"], stdout=log)
    try:
        assert runs._start(point) == "elsewhere"
    finally:
        orphan.kill()
        orphan.wait()
    (runs.path(point)).mkdir(parents=True)
    for name in ("scores.json", "report.html"):
        (runs.path(point) / name).touch()
    assert runs._start(point) == "finished"


def test_two_sweeps_in_one_folder_are_refused(tmp_path):
    with Claim(tmp_path, "sweep"), pytest.raises(VitralError, match="a sweep is going on"), Claim(tmp_path, "sweep"):
        pass
    with Claim(tmp_path, "sweep"):
        pass


def test_a_failed_run_is_written_down_and_the_sweep_goes_on(capsys, tmp_path, recipes):
    words = ("sweep", "digits", "--recipes", recipes[0], "--fractions", "0.05", "--set", "optim.lr=1e30,1e-3")
    code, _, err = run(capsys, *words, *BUDGET, "--optimizer", "sgd", "--clip", "0", "--out", tmp_path / "out")
    assert code == 1
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert "start again with a lower --lr" in rows[0]["message"]
    assert rows[0]["top1"] == ""
    assert float(rows[1]["top1"]) >= 0
    assert "1 of 2 runs failed" in err


def rows_of(points, top1):
    return [
        {"recipe": point.recipe_name, "model": point.model, "fraction": point.recipe.data.train_fraction, "images": 10,
         "seed": point.recipe.train.seed, **point.values, "parameters": 1, "multiply_adds": 2, "images_seen": 3, "compute": 6,
         "batch": 8, "split": "test", "top1": value, "loss": 1 - value, "steps": 1, "epochs": 1, "state": "done",
         "run": point.name, "setting": repr(point.setting)}
        for point, value in zip(points, top1, strict=True)
    ]  # fmt: skip


def test_seeds_become_a_mean_and_a_sample_deviation():
    points = grid(Sweep("digits", models=("resnet18", "resnet34"), seeds=(0, 1)))
    means = summary(points, rows_of(points, [0.5, 0.7, 0.2, 0.2]))
    assert [(one["model"], one["runs"]) for one in means] == [("resnet18", 2), ("resnet34", 2)]
    assert [one["top1"] for one in means] == pytest.approx([0.6, 0.2])
    assert [one["top1_deviation"] for one in means] == pytest.approx([0.02**0.5, 0.0])
    alone_in_its_group = summary(points, rows_of(points, [0.5, 0.7, 0.2, 0.2])[:1])
    assert alone_in_its_group[0]["top1_deviation"] is None


def test_rows_of_another_task_are_compared_by_its_headline(tmp_path):
    sweep = Sweep("digits", models=("resnet18", "resnet34"), seeds=(0, 1))
    points = grid(sweep)
    rows = [{"map" if name == "top1" else name: value for name, value in one.items()} | {"scored": 100}
            for one in rows_of(points, [0.5, 0.7, 0.9, 0.8])]  # fmt: skip
    means = summary(points, rows)
    assert [one["map"] for one in means] == pytest.approx([0.6, 0.85])
    assert summary_text(means, []).splitlines()[0].split()[-1] == "mAP"
    body = write_sweep_page(tmp_path, sweep, points, rows).read_text().partition("</style>")[2]
    assert "85.0%" in body.partition("mAP (test) of the best: resnet34")[0]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_page_speaks_of_a_deviation_where_there_is_one(tmp_path, seeds):
    sweep = Sweep("digits", models=("resnet18",), fractions=(0.1, 1.0), seeds=seeds)
    points = grid(sweep)
    rows = [one | {"scored": 100} for one in rows_of(points, [0.5] * len(points))]
    body = write_sweep_page(tmp_path, sweep, points, rows).read_text().partition("</style>")[2]
    assert ("deviation" in body) == ("Means over the seeds" in body) == (len(seeds) > 1)


def test_the_pages_table_begins_with_what_was_chosen_and_says_once_what_is_the_same(tmp_path):
    sweep = Sweep("digits", models=("resnet18",), fractions=(0.1, 1.0), values={"optim.lr": (0.1, 0.2)})
    points = grid(sweep)
    rows = [one | {"scored": 100} for one in rows_of(points, [0.5, 0.6, 0.7, 0.8])]
    body = write_sweep_page(tmp_path, sweep, points, rows).read_text().partition("<h2>Scores</h2>")[2]
    assert re.findall("<th[^>]*>(.*?)</th>", body) == ["fraction", "optim.lr", "top-1", "loss"]
    assert "model resnet18, images 10, batch 8" in body.partition("<table")[0]


def test_curves_are_named_by_what_tells_them_apart():
    points = grid(Sweep("digits", models=("resnet18", "resnet34"), seeds=(0, 1)))
    assert list(curves(points, rows_of(points, [0.1] * 4), "images")) == ["resnet18", "resnet34"]
    points = grid(Sweep("digits", models=("resnet18",), values={"optim.lr": (0.1, 0.2)}))
    assert list(curves(points, rows_of(points, [0.1] * 2), "images")) == ["lr 0.1", "lr 0.2"]


def test_a_budget_that_varies_moves_along_the_curve_against_compute():
    points = grid(Sweep("digits", models=("resnet18",), fractions=(0.1, 1.0), values={"train.steps": (5, 10)}))
    rows = rows_of(points, [0.1] * 4)
    assert {name: len(members) for name, members in curves(points, rows, "images").items()} == {
        "steps 5": 2,
        "steps 10": 2,
    }
    assert {name: len(members) for name, members in curves(points, rows, "compute").items()} == {
        "fraction 0.1": 2,
        "fraction 1.0": 2,
    }


def test_curves_are_drawn_against_what_is_varied():
    points = grid(Sweep("digits", models=("resnet18",), fractions=(0.1, 1.0), values={"train.steps": (5, 10)}))
    alike = rows_of(points, [0.1] * 4)  # all of 10 images and 6 multiply-adds
    assert axes(points, alike) == ["images"]
    longer = [one | {"compute": one["train.steps"]} for one in alike]
    assert axes(points, longer) == ["compute"]
    assert axes(points, [one | {"images": 100 * one["fraction"]} for one in longer]) == ["images", "compute"]


def test_a_search_finds_the_better_end_and_is_gone_through_again_the_same():
    pytest.importorskip("optuna")
    import threading

    sweep = Sweep(
        "digits", seeds=(0, 1), search=24, values={"optim.lr": Range(1e-5, 1.0, False), "model.depth": (1, 2)}
    )
    verify(sweep)
    trained = []

    def train(points):
        trained.append([point.name for point in points])
        return True

    def score(point):
        from math import log10

        assert point.recipe.train.score_split == "val"
        if point.recipe.optim.lr > 0.5:
            return None  # failed
        return 1 - abs(log10(point.recipe.optim.lr) + 2) / 5 - 0.1 * (point.recipe.model.get("depth") == 1)

    first = search(sweep, train, score, threading.Event())
    assert first is not None
    rounds, trained = trained, []
    assert search(sweep, train, score, threading.Event()) == first
    assert trained == rounds
    best = max(first[1], key=lambda trial: trial[0])[1][0].recipe
    assert best.model.get("depth") == 2
    assert 2e-3 < best.optim.lr < 5e-2
    assert search(sweep, lambda points: False, score, threading.Event()) is None


def test_a_chart_with_logarithmic_axes_and_bars():
    points = [(100.0, 0.5), (1000.0, 0.25), (10000.0, 0.125)]
    svg = line_chart("t", [Series("one", points, "c", bars=[0.1, 0.0, 0.2])], "n", x_log=True, y_log=True)
    places = [
        float(part.split('"')[0]) for part in svg.split('polyline class="line c" points="')[1].split()[0].split(",")
    ]
    assert svg.count('class="spread c"') == 2
    assert all(label in svg for label in (">100<", ">1k<", ">10k<"))
    xs = [float(pair.split(",")[0]) for pair in svg.split('class="line c" points="')[1].split('"')[0].split()]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)  # decades are equally wide
    assert places[0] == xs[0]
    assert "nan" not in svg


@pytest.mark.slow
def test_many_models_shares_and_seeds(capsys, tmp_path):
    models = (
        "vit_tiny_patch16_224",
        "deit_tiny_patch16_224",
        "resnet18",
        "deit_tiny_distilled_patch16_224",
        "cait_xxs24_224",
    )
    code, out, err = run(
        capsys, "sweep", "digits", "--models", *models, "--fractions", "0.1", "0.3", "1", "--seeds", "0", "1",
        "--steps", "3", "--batch-size", "16", "--jobs", "2", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    assert len(result["runs"]) == 30
    assert [one["runs"] for one in result["summary"]] == [2] * 15
    assert list(dict.fromkeys(one["name"] for one in result["runs"])) == list(models)
    said = list(dict.fromkeys(one["model"] for one in result["runs"]))
    assert said[0] == "ViT, width 192, 12 layers, patches of 2 at 8 px (from vit_tiny_patch16_224)"
    assert list(result["laws"]) == ["images"]  # the same number of steps costs the same at every share
    assert list(result["laws"]["images"]) == said


@pytest.mark.slow
def test_a_search_over_real_runs_leaves_the_best_recipe(capsys, tmp_path, recipes):
    pytest.importorskip("optuna")
    words = ("--recipes", recipes[0], "--fractions", "0.1", "--search", "3", "--set", "optim.lr=1e-4..1e-1", *BUDGET)
    code, _, err = run(capsys, "sweep", "digits", *words, "--out", tmp_path / "out")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert {row["split"] for row in rows} == {"val"}
    best = max(rows, key=lambda row: float(row["top1"]))
    recipe = read_recipe(tmp_path / "out" / "best.toml")
    assert recipe.optim.lr == float(best["optim.lr"])
    assert recipe.train == replace(recipe.train, score_split="test")


# A cluster of two nodes of one core each on this machine: says its address, waits until the sweep is over, and says how many nodes had runs.
CLUSTER = """
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True, "dashboard_port": 0})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
input()
ray.init(address=cluster.address, log_to_driver=False)
print(len({one.node_id for one in list_actors(limit=1000)}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_sweep_on_two_nodes_of_a_ray_cluster_has_the_same_table(tmp_path, recipes, monkeypatch):
    """12 runs, byte for byte; and both nodes had some of them."""
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15, as Ray has it, is last where other tests run
    words = ["--recipes", *recipes, "--fractions", "0.05", "0.1", "--seeds", "0", "1", "2", *BUDGET, "--jobs", "2"]
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.stdout.readline().strip())
        away = process_of("sweep", "digits", *words, "--ray", "--out", tmp_path / "ray")
        assert away.returncode == 0, away.stderr
        said, _ = cluster.communicate("over\n", timeout=PATIENCE)
    finally:
        cluster.kill()
        cluster.communicate()
    here = process_of("sweep", "digits", *words, "--out", tmp_path / "here")
    assert here.returncode == 0, here.stderr
    assert said.strip() == "2"
    for name in ("table.csv", "table.json", "summary.csv"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert len(json.loads((tmp_path / "ray/table.json").read_text())) == 12


def test_without_a_cluster_ray_is_refused_with_what_to_do(capsys, tmp_path, recipes, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nothing answers
    code, _, err = run(capsys, "sweep", "digits", "--recipes", recipes[0], *BUDGET, "--ray", "--out", tmp_path / "out")
    assert code == 2
    assert "ray start --head" in err

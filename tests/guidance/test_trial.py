"""What a run costs, by a trial: memory as in the run itself, sums that add up, and no trace left behind."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from vitral.cli import main
from vitral.cli.trial import _percent
from vitral.errors import VitralError
from vitral.guidance.plan import trial
from vitral.guidance.plan.trial import Cost, find_micro_batch, measure_cost
from vitral.guidance.plan.tryout import Clocked, _remembered, middle, try_out
from vitral.objectives.options import OBJECTIVES, BeitOptions
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.machine import ROOM, available_memory
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.settle import settle
from vitral.training.start import draft
from vitral.training.toml import to_toml

SMALL = Recipe(
    model=ModelOptions(patch_size=4, image_size=(16, 16), dim=32, depth=1, num_heads=2),
    optim=OptimOptions("adamw"),
    train=TrainOptions(epochs=2.0, batch_size=16, precision="fp32", device="cpu"),
)
TRAIN = """
import sys
from pathlib import Path
from vitral.report.run import report_run
from vitral.training.display import Display
from vitral.training.start import start
from vitral.training.toml import read_recipe

run = start(sys.argv[1], read_recipe(sys.argv[2]), Path(sys.argv[3]), Display())
run.train()
report_run(run.folder, run.data)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
MADE = Cost(
    parameters=1000, step_seconds=0.5, data_seconds=0.1, first_data_seconds=0.3, validation_seconds=7.0, start_seconds=3.0,
    finish_seconds=5.0, peak_bytes=1000, training_bytes=900, image_bytes=20.0, available_bytes=5000, micro_batch=16,
    accumulation=2, steps_per_epoch=10, images_per_step=30.0, precision="fp32", device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def cost(shapes_folder) -> Cost:
    """Measured by a process that holds half a gibibyte itself."""
    held = torch.ones(2**27)
    cost = measure_cost(str(shapes_folder), SMALL, 0.5)
    assert held.nbytes == 2**29
    return cost


def test_a_trial_tells_the_run_s_own_numbers(cost, shapes_folder, tmp_path):
    run, _ = draft(settle(str(shapes_folder), SMALL, Display()), tmp_path, Display())
    assert cost.parameters == sum(p.numel() for p in run.loop.model.parameters())
    assert cost.steps_per_epoch == run.loop.batches.steps_per_epoch
    assert cost.images_per_step == pytest.approx(len(run.data.splits["train"]) / cost.steps_per_epoch)
    assert (cost.micro_batch, cost.accumulation, cost.precision, cost.device) == (16, 1, "fp32", "cpu")
    assert 0 < cost.training_bytes <= cost.peak_bytes < cost.available_bytes
    assert 0 < cost.data_seconds < cost.step_seconds
    assert min(cost.validation_seconds, cost.start_seconds, cost.finish_seconds, cost.image_bytes) > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux keeps of a process's memory")
def test_peak_memory_is_that_of_the_run_and_not_of_who_asked(cost, shapes_folder, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(SMALL))
    words = [sys.executable, "-c", TRAIN, str(shapes_folder), str(tmp_path / "recipe.toml"), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    happened = int(done.stdout.splitlines()[-1]) * 1024
    assert 0.9 < cost.peak_bytes / happened < 1.1


def test_the_trial_raises_what_the_run_would_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(VitralError, match="nowhere"):
        measure_cost("nowhere", SMALL, 0.1)
    assert not list(tmp_path.iterdir())


def test_what_a_person_can_get_wrong(tmp_path):
    with pytest.raises(VitralError, match="more than 0"):
        measure_cost("digits", SMALL, 0.0)
    (tmp_path / "recipe.toml").write_text(to_toml(replace(SMALL, objective=BeitOptions())))
    with pytest.raises(VitralError, match="--tokenizer"):
        try_out("digits", tmp_path / "recipe.toml", 0.1, 0.0)


def test_a_killed_trial_is_explained(monkeypatch):
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(VitralError, match=r"signal 9.*--batch-size"):
        measure_cost("digits", SMALL)


def test_seconds_add_up():
    assert MADE.seconds(4, 0) == pytest.approx(4 * (0.5 + 0.2))  # in the first epoch images are decoded
    assert MADE.seconds(30, 3) == pytest.approx(30 * 0.5 + 10 * 0.2 + 3 * 7)


def test_the_largest_micro_batch_is_a_power_of_two_that_fits():
    largest = MADE.largest_micro_batch()
    assert largest == 128

    def held(micro_batch):  # along a straight line; for a smaller one at most this
        return max(MADE.peak_bytes, round(MADE.training_bytes + (micro_batch - MADE.micro_batch) * MADE.image_bytes))

    assert held(largest) <= ROOM * MADE.available_bytes < held(2 * largest)
    assert held(16) == MADE.peak_bytes
    assert replace(MADE, available_bytes=10).largest_micro_batch() == 1


@pytest.mark.parametrize("batch", [1, 16, 50, 100, 128, 1024])
def test_the_micro_batch_found_keeps_the_batch(monkeypatch, batch):
    tried = []
    monkeypatch.setattr(trial, "measure_cost", lambda data, recipe, seconds, opened: tried.append(recipe.train) or MADE)
    micro, accumulation = find_micro_batch("digits", SMALL, batch)
    assert micro <= MADE.largest_micro_batch()
    assert 0 <= micro * accumulation - batch < accumulation
    assert accumulation == -(-batch // 128)
    assert tried[0].batch_size <= 16
    assert tried[0].batch_size * tried[0].accumulation >= batch


@pytest.mark.parametrize("name", ["classify", "mae", "tokenizer"])
def test_every_kind_of_run_can_be_tried(shapes_folder, tmp_path, name):
    options = {"mae": {"decoder_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}, "tokenizer": {"codes": 8}}
    objective = OBJECTIVES[name](**options.get(name, {}))
    model = replace(SMALL.model, name="mae_vit_base_patch16") if name == "mae" else SMALL.model
    if name == "tokenizer":
        model = ModelOptions(patch_size=4, image_size=(16, 16))
    train = replace(SMALL.train, progressive=0.5 if name == "classify" else 1.0)
    (tmp_path / "recipe.toml").write_text(to_toml(replace(SMALL, objective=objective, model=model, train=train)))
    tried = try_out(str(shapes_folder), tmp_path / "recipe.toml", 0.1, 0.0)
    assert (tmp_path / "run" / "report.html").exists()
    assert tried.steps_per_epoch == 4 or name != "classify"
    assert tried.step_seconds > 0


def test_the_clock_changes_no_batch(shapes_folder, tmp_path):
    run, _ = draft(settle(str(shapes_folder), SMALL, Display()), tmp_path, Display())
    clocked = Clocked(run.loop.batches)
    for own, clocks in zip(run.loop.batches.stream(3, 6, 0), clocked.stream(3, 6, 0), strict=True):
        assert torch.equal(own.images, clocks.images)
        assert torch.equal(own.keys, clocks.keys)
    assert [number for number, _, _ in clocked.seconds] == [3, 4, 5]


def test_memory_stands_in_for_images_that_will_be_remembered(shapes_folder, tmp_path):
    loop = draft(settle(str(shapes_folder), SMALL, Display()), tmp_path, Display())[0].loop
    assert not _remembered(loop, 10)  # nothing has been kept so far
    loop.batches[0]
    stand_ins = _remembered(loop, 10)
    assert [each.nbytes for each in stand_ins] == [20 * 20] * 10
    loop.batches.read.room = 3 * 400
    assert len(_remembered(loop, 10)) == 3
    assert len(_remembered(loop, 10, fresh=True)) == 10


def test_the_middle_forgets_the_extremes():
    assert middle([1.0] * 9 + [100.0]) == 1.0
    assert middle([2.0, 4.0]) == 3.0


def test_available_memory_is_no_more_than_the_machine_has():
    assert 2**26 < available_memory("cpu") < 2**50


def test_the_command_tells_what_checkpointing_saves(shapes_folder, monkeypatch, capsys):
    asked = []

    def measured(data, recipe, seconds):
        asked.append(recipe.train.gradient_checkpointing)
        return replace(MADE, training_bytes=450, step_seconds=0.6) if asked[-1] else MADE

    monkeypatch.setattr(trial, "measure_cost", measured)
    with pytest.raises(SystemExit, match="0"):
        main(["memory", str(shapes_folder), "--epochs", "2"])
    said = capsys.readouterr().out
    assert asked == [False, True]
    assert "50% of the memory" in said
    assert "+20% longer" in said
    assert "128 images" in said
    with pytest.raises(SystemExit, match="0"):
        main(["memory", str(shapes_folder), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["largest_micro_batch"] == 128
    assert told["gradient_checkpointing"]["training_bytes"] == 450
    assert set(asdict(MADE)) <= set(told)
    monkeypatch.setattr(trial, "measure_cost", lambda *_: replace(MADE, steps_per_epoch=1, images_per_step=41.0))
    with pytest.raises(SystemExit, match="0"):
        main(["memory", str(shapes_folder)])
    said = capsys.readouterr().out
    assert "41 images (all there are)" in said
    assert "0% of the memory saved, a step 0% longer" in said
    with pytest.raises(SystemExit, match="2"):
        main(["memory", str(shapes_folder), "--gradient-checkpointing"])


def test_the_commands_need_no_torch_to_be_named():
    code = "import sys; from vitral.cli import trial; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("share", "said"), [(-0.004, "0%"), (0.004, "0%"), (-0.2, "-20%"), (0.123, "+12%")])
def test_a_change_too_small_to_show_has_no_sign(share, said):
    assert _percent(share) == said

"""The learning-rate range test: what it suggests, that it repeats itself, and that it leaves nothing behind."""

import json
import math
from dataclasses import replace

import pytest

from vitral.cli import main
from vitral.errors import VitralError
from vitral.guidance.plan.lr_finder import _losses, lr_find, smooth, suggest
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.options import ModelOptions, ObjectiveOptions, OptimOptions, TrainOptions
from vitral.training.start import draft

SMALL = Recipe(
    model=ModelOptions(patch_size=4, image_size=(16, 16), dim=32, depth=2, num_heads=2),
    optim=OptimOptions("adamw"),
    train=TrainOptions(epochs=1.0, batch_size=16, precision="fp32", device="cpu"),
)


def falling(count: int, middle: float) -> tuple[list[float], list[float]]:
    """Rates from 1e-6 to 1 and a loss that falls from 2 to 1 around the rate `middle`, and rises far above a hundred times that."""
    rates = [10 ** (-6 + 6 * i / (count - 1)) for i in range(count)]
    return rates, [1 + 1 / (1 + (rate / middle) ** 2) + (rate / (100 * middle)) ** 2 for rate in rates]


@pytest.mark.parametrize("count", [60, 100, 300])
@pytest.mark.parametrize("middle", [1e-4, 3e-3])
def test_suggests_where_the_loss_falls_fastest_however_many_steps(count, middle):
    rates, losses = falling(count, middle)
    suggestion, reason = suggest(rates, losses)
    assert middle / 1.6 < suggestion < middle * 1.6
    assert "falls fastest" in reason


def test_a_fall_after_the_lowest_loss_is_not_learning():
    rates, losses = falling(100, 1e-4)
    losses[90:] = [50.0, 80.0, 90.0, 60.0, 40.0, 20.0, 10.0, 5.0, 4.0, 3.0]  # broken, then by chance steeply down
    assert suggest(rates, losses)[0] < 3e-4


def test_smoothing_keeps_a_level_from_the_first_step_and_reaches_a_share_of_the_steps():
    assert smooth([3.0] * 7, 100) == pytest.approx([3.0] * 7)
    jump = smooth([0.0] * 50 + [1.0] * 10, 100)
    assert jump[49] == 0
    assert jump[59] == pytest.approx(1 - 0.9**10, abs=0.01)  # a tenth of 100 steps after the jump


def test_refuses_a_curve_without_a_suggestion():
    rates, losses = falling(100, 1e-3)
    with pytest.raises(VitralError, match="does not fall at any rate"):
        suggest(rates, [2.3] * 100)
    with pytest.raises(VitralError, match="--lowest"):
        suggest(rates, losses[:5])
    with pytest.raises(VitralError, match="--lowest"):
        suggest(rates, [])


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.0, 1.0, 100), (1e-2, 1e-3, 100), (1e-6, 1.0, 5)])
def test_refuses_rates_and_steps_that_make_no_curve(lowest, highest, steps):
    with pytest.raises(VitralError, match="give"):
        lr_find("digits", SMALL, lowest, highest, steps)


def test_the_curve_repeats_stops_where_the_loss_breaks_and_writes_nothing(shapes_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replace(SMALL, optim=OptimOptions("sgd"))
    first = lr_find(str(shapes_folder), recipe, 1e-3, 1e5, 40)
    assert first == lr_find(str(shapes_folder), recipe, 1e-3, 1e5, 40)
    assert 10 < len(first.rates) < 40
    assert len(first.rates) == len(first.losses) == len(first.smoothed)
    assert all(map(math.isfinite, first.losses))
    assert "breaks at" in first.reason
    assert 1e-3 < first.suggestion < first.rates[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_group_keeps_its_share_of_the_rate(shapes_folder, tmp_path, optimizer):
    recipe = replace(SMALL, optim=OptimOptions(optimizer, layer_decay=0.5))
    run, _, _ = draft(str(shapes_folder), recipe, tmp_path, Display())
    assert len(_losses(run.loop, [1e-4, 1e-3], Display())) == 2
    groups = [group for each in run.loop.optimizers for group in each.param_groups]
    assert len({group["scale"] for group in groups}) > 2
    assert all(group["lr"] == pytest.approx(1e-3 * group["scale"]) for group in groups)


def test_works_for_pretraining(shapes_folder):
    objective = ObjectiveOptions("mae", decoder_dim=16, decoder_depth=1, decoder_num_heads=2)
    model = replace(SMALL.model, name="mae_vit_base_patch16")
    curve = lr_find(str(shapes_folder), replace(SMALL, objective=objective, model=model), 1e-5, 1.0, 30)
    assert min(curve.smoothed) < curve.smoothed[0]


def test_the_command_prints_the_suggestion_and_draws_the_curve(shapes_folder, tmp_path, capsys):
    flags = "--patch-size 4 --image-size 16 16 --dim 32 --depth 1 --num-heads 2 --batch-size 16 --optimizer adamw --range-steps 40"
    words = ["lr-find", str(shapes_folder), *flags.split(), "--lowest", "1e-5", "--plot", str(tmp_path / "lr.html")]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--json"])
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["suggestion"] in found["rates"]
    assert f"--lr {found['suggestion']:.2g}" in said.err
    page = (tmp_path / "lr.html").read_text()
    assert "<svg" in page
    assert f"{found['suggestion']:.2g}" in page
    with pytest.raises(SystemExit, match="2"):
        main(["lr-find", str(shapes_folder), "--plot", "lr.jpg"])
    assert ".html" in capsys.readouterr().err

"""The learning-rate range test: what it suggests, that it repeats itself, and that it leaves nothing behind."""

import json
import math
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vitral.cli import main
from vitral.cli.trial import _next
from vitral.errors import VitralError
from vitral.guidance.plan.lr_finder import STEPS, _losses, lr_find, noise, smooth, suggest
from vitral.objectives.options import MaeOptions
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.settle import settle
from vitral.training.start import draft

SMALL = Recipe(
    model=ModelOptions(patch_size=4, image_size=(16, 16), dim=32, depth=2, num_heads=2),
    optim=OptimOptions("adamw"),
    train=TrainOptions(epochs=1.0, batch_size=16, precision="fp32", device="cpu"),
)


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Class folders dark, grey and light of 30 pictures each, so unlike that the loss falls clearly whatever the first weights are."""
    root = tmp_path_factory.mktemp("data") / "shades"
    for kind, label in enumerate(("dark", "grey", "light")):
        (root / label).mkdir(parents=True)
        for i in range(30):
            values = np.random.default_rng([kind, i]).normal(60 + 70 * kind, 20, (20, 20))
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(root / label / f"{i:02d}.png")
    return root


def falling(count: int, middle: float) -> tuple[list[float], list[float]]:
    """Rates from 1e-6 to 1 and a loss that falls from 2 to 1 around the rate `middle`, and rises far above a hundred times that."""
    rates = [10 ** (-6 + 6 * i / (count - 1)) for i in range(count)]
    return rates, [1 + 1 / (1 + (rate / middle) ** 2) + (rate / (100 * middle)) ** 2 for rate in rates]


@pytest.mark.parametrize("count", [60, 100, 300])
@pytest.mark.parametrize("middle", [1e-4, 3e-3])
def test_suggests_where_the_loss_falls_fastest_however_many_steps(count, middle):
    rates, losses = falling(count, middle)
    suggestion, reason = suggest(rates, losses, 0.0)
    assert middle / 1.6 < suggestion < middle * 1.6
    assert "falls fastest" in reason


def test_a_fall_after_the_lowest_loss_is_not_learning():
    rates, losses = falling(100, 1e-4)
    losses[90:] = [50.0, 80.0, 90.0, 60.0, 40.0, 20.0, 10.0, 5.0, 4.0, 3.0]  # broken, then by chance steeply down
    assert suggest(rates, losses, 0.0)[0] < 3e-4


def test_smoothing_keeps_a_level_from_the_first_step_and_reaches_a_share_of_the_steps():
    assert smooth([3.0] * 7, 100) == pytest.approx([3.0] * 7)
    jump = smooth([0.0] * 50 + [1.0] * 10, 100)
    assert jump[49] == 0
    assert jump[59] == pytest.approx(1 - 0.9**10, abs=0.01)  # a tenth of 100 steps after the jump


def test_refuses_a_curve_without_a_suggestion():
    rates, losses = falling(100, 1e-3)
    assert suggest(rates, [2.3] * 100, 0.0) is None
    assert suggest(rates, losses, 0.1) is not None
    assert suggest(rates, losses, 0.2) is None  # a fall by 1 is five times the noise
    with pytest.raises(VitralError, match="--lowest"):
        suggest(rates, losses[:5], 0.0)
    with pytest.raises(VitralError, match="--lowest"):
        suggest(rates, [], 0.0)


def test_the_noise_is_that_of_the_smoothed_loss_and_neither_its_fall_nor_its_break():
    drawn = np.random.default_rng(0).normal(size=4000)
    deviation = np.std(smooth(drawn.tolist(), 400)[400:])
    falling = (drawn - 0.01 * np.arange(4000)).tolist()
    assert noise(falling, smooth(falling, 400), 400) == pytest.approx(deviation, rel=0.1)
    broken = [*falling, *(300.0 * (i % 7) for i in range(400))]
    assert noise(broken, smooth(broken, 400), 400) == pytest.approx(deviation, rel=0.1)


def test_a_curve_of_nothing_but_noise_has_no_suggestion():
    generator = np.random.default_rng(0)
    rates = np.geomspace(1e-6, 1.0, STEPS).tolist()
    found = 0
    for _ in range(200):
        losses = (0.7 + 0.1 * generator.normal(size=STEPS)).tolist()
        smoothed = smooth(losses, STEPS)
        found += suggest(rates, smoothed, noise(losses, smoothed, STEPS)) is not None
    assert found <= 6


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.0, 1.0, 100), (1e-2, 1e-3, 100), (1e-6, 1.0, 5)])
def test_refuses_rates_and_steps_that_make_no_curve(lowest, highest, steps):
    with pytest.raises(VitralError, match="give"):
        lr_find(settle("digits", SMALL, Display()), lowest, highest, steps)


def test_the_curve_repeats_stops_where_the_loss_breaks_and_writes_nothing(shades, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replace(SMALL, optim=OptimOptions("sgd"))
    first = lr_find(settle(str(shades), recipe, Display()), 1e-3, 1e5, 40)
    assert first == lr_find(settle(str(shades), recipe, Display()), 1e-3, 1e5, 40)
    assert 10 < len(first.rates) < 40
    assert len(first.rates) == len(first.losses) == len(first.smoothed)
    assert all(map(math.isfinite, first.losses))
    assert "breaks at" in first.reason
    assert 1e-3 < first.suggestion < first.rates[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_group_keeps_its_share_of_the_rate(shapes_folder, tmp_path, optimizer):
    recipe = replace(SMALL, optim=OptimOptions(optimizer, layer_decay=0.5))
    run, _ = draft(settle(str(shapes_folder), recipe, Display()), tmp_path, Display())
    assert len(_losses(run.loop, [1e-4, 1e-3], Display())) == 2
    groups = [group for each in run.loop.optimizers for group in each.param_groups]
    assert len({group["scale"] for group in groups}) > 2
    assert all(group["lr"] == pytest.approx(1e-3 * group["scale"]) for group in groups)


def test_works_for_pretraining(shapes_folder):
    objective = MaeOptions(decoder_dim=16, decoder_depth=1, decoder_num_heads=2)
    model = replace(SMALL.model, name="mae_vit_base_patch16")
    curve = lr_find(
        settle(str(shapes_folder), replace(SMALL, objective=objective, model=model), Display()), 1e-5, 1.0, 30
    )
    assert min(curve.smoothed) < curve.smoothed[0]


def test_the_command_prints_the_suggestion_and_draws_the_curve(shades, tmp_path, capsys, monkeypatch):
    flags = "--patch-size 4 --image-size 16 16 --dim 32 --depth 1 --num-heads 2 --batch-size 16 --optimizer adamw --range-steps 40"
    monkeypatch.chdir(tmp_path)
    words = ["lr-find", str(shades), *flags.split(), "--lowest", "1e-5", "--plot", str(tmp_path / "lr.html")]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--json"])
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["suggestion"] in found["rates"]
    next_run = shlex.split(said.err.partition("Next: ")[2])
    assert next_run[-2:] == ["--out", "runs/" + shades.name]
    kept = flags.replace(" --range-steps 40", "").split()
    assert next_run[-5 - len(kept) : -2] == [str(shades), *kept, "--lr", f"{found['suggestion']:.2g}"]
    assert next_run[-6 - len(kept)] == "train"
    page = (tmp_path / "lr.html").read_text()
    assert "<svg" in page
    assert f"{found['suggestion']:.2g}" in page
    with pytest.raises(SystemExit, match="2"):
        main(["lr-find", str(shades), "--plot", "lr.jpg"])
    assert ".html" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "out"), [((), ""), (("--json",), "null\n")])
def test_without_a_clear_fall_the_command_suggests_nothing(shapes_folder, capsys, words, out):
    flags = "--patch-size 4 --image-size 16 16 --dim 32 --depth 1 --num-heads 2 --batch-size 16 --range-steps 20 --lowest 1e-9 --highest 1e-8"
    with pytest.raises(SystemExit, match="0"):
        main(["lr-find", str(shapes_folder), *flags.split(), *words])
    said = capsys.readouterr()
    assert said.out == out
    assert "no suggestion: keep the default 0.005" in said.err
    assert "--lr" not in said.err.replace("--show", "")


def test_the_next_command_leaves_out_what_was_for_the_test_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    given = SimpleNamespace(data="photos", settings=replace(SMALL, optim=OptimOptions("adamw", lr=0.1, lr_per=256)))
    words = [
        "--lowest=1e-5",
        "--range_steps",
        "40",
        "photos",
        "--json",
        "--lr",
        "0.1",
        "--plot",
        "a.html",
        "--lr-per",
        "256",
        "--mixup",
        "0.2",
    ]
    said = _next(words, given, 0.00321)
    assert said.partition(" train ")[2] == "photos --lr-per 256 --mixup 0.2 --lr 0.0032 --out runs/photos-2"
    pretrained = replace(SMALL, objective=MaeOptions())
    said = _next(["photos", "--objective", "mae"], SimpleNamespace(data="photos", settings=pretrained), 0.01)
    assert said.partition(" pretrain ")[2] == "photos --objective mae --lr 0.01 --out runs/photos-pretrained"

"""The plan: its rules, the ladder of sizes under made-up costs, devices that are not here, and the commands on real data."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from test_cli import run
from vitral.data import dataset
from vitral.data.moments import moments
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.beside import baselines
from vitral.guidance.plan import plan as plan_module
from vitral.guidance.plan import planner as planner_module
from vitral.guidance.plan import rate
from vitral.guidance.plan.choices import Estimate
from vitral.guidance.plan.glance import glance
from vitral.guidance.plan.ladder import climb, passes_worth
from vitral.guidance.plan.plan import frozen, make_plan
from vitral.guidance.plan.planner import Planner
from vitral.models.zoo import build
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions, TransferOptions
from vitral.training.settle import settle
from vitral.training.shape import open_shape, preprocess, shape, width
from vitral.training.sizes import MODEL, SIZES, UNSAID, model_for
from vitral.training.start import begin
from vitral.training.toml import merge, read_recipe, to_table


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", DataOptions())


def costing(per_width):
    """Estimates in which one pass takes `per_width` seconds for each unit of width."""

    def estimate(recipe, settled):
        return Estimate(per_width * width(settled.recipe.model), 10**8, 1000, "fp32", True)

    return estimate


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_fewer_images_are_worth_more_passes(a, b):
    fewer, more = sorted((a, b))
    assert passes_worth(fewer) >= passes_worth(more)


@settings(deadline=None, max_examples=25)
@given(st.integers(8, 400), st.integers(8, 400), st.sampled_from(SIZES), st.sampled_from([128, 224]))
def test_every_rung_is_a_model_for_images_of_any_size(height, width, rung, side):
    config = open_shape(Recipe(model=model_for(UNSAID, rung, height, width, side)), in_channels=3, num_classes=7)
    with torch.device("meta"):
        model = build(config)
        assert model(torch.zeros(1, 3, *config.image_size)).shape == (1, 7)
    tokens = [-(-side // config.patch_size) for side in config.image_size]
    assert min(tokens) >= 4


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5), st.floats(0.1, 100))
def test_the_climb_ends_on_the_largest_rung_that_sees_enough(passes, worth):
    rungs = SIZES[: len(passes)]
    table = dict(zip(rungs, sorted(passes, reverse=True), strict=True))
    asked = []
    found = climb(rungs, lambda rung: asked.append(rung) or table[rung], worth)
    enough = [rung for rung in rungs if table[rung] >= worth]
    assert found == (enough[-1] if enough else rungs[0])
    assert len(asked) <= 3


def test_a_glance_answers_for_few_images(digits):
    few = dataclasses.replace(digits, splits={**digits.splits, "train": digits.splits["train"].take(np.arange(40))})
    once = Recipe(train=TrainOptions(epochs=1.0))
    settled = settle("digits", once, Display(), few)
    found = glance(settled)
    assert found.glanced
    assert found.measured
    assert found.pass_seconds > 0
    assert found.parameters == sum(p.numel() for p in build(settled.config).parameters())
    assert glance(settle("digits", once, Display(), digits)) is None  # of 1,259 images a trial tells


def test_more_time_gives_a_larger_model_until_the_images_are_worth_no_more(digits):
    widths = []
    for budget in (1.0, 1e3, 1e9):
        plan = Planner(digits, "cpu", budget, costing(0.1)).plan(Recipe(train=TrainOptions(time=f"{budget:g}s")))
        widths.append(plan.recipe.model.get("dim"))
        assert plan.passes == pytest.approx(budget / (0.1 * widths[-1]))
        assert [choice.what for choice in plan.choices] == ["start", "model", "images", "length"]
    assert widths == [64, 128, 128]  # 1,259 digits are not worth a width of 192


def thinned(digits, count):
    return dataclasses.replace(digits, splits={**digits.splits, "train": digits.splits["train"].thinned(count)})


def test_of_few_images_edges_and_colours_answer_too_where_they_tell_more_than_pixels(digits, monkeypatch):
    few = thinned(digits, 200)

    def planned(data, **model):
        return Planner(data, "cpu", 60.0, costing(0.01)).plan(Recipe(model=ModelOptions(**model)))

    plan = planned(few)
    assert plan.recipe.model.get("beside") == "edges"
    (why,) = [choice.why for choice in plan.choices if choice.what == "beside"]
    assert "left out one by one it tells 9" in why
    assert planned(few, dim=96).recipe.model.get("beside") == "edges"
    for other in (planned(digits), planned(few, name=MODEL), planned(few, beside="none")):
        assert other.recipe.model.get("beside") in (None, "none")
        assert "beside" not in [choice.what for choice in other.choices]
    monkeypatch.setattr(planner_module, "edges_and_colours", lambda split, steps: np.zeros((len(split), 3), np.float32))
    (choice,) = [choice for choice in planned(few).choices if choice.what == "beside"]
    assert choice.value == "nothing"


def test_without_a_budget_the_passes_follow_the_number_of_images(digits):
    plan = Planner(digits, "cpu", None, costing(0.001)).plan(Recipe())
    assert plan.recipe.train.epochs == round(3 * passes_worth(1259))
    assert plan.recipe.train.time is None
    slow = Planner(digits, "cpu", None, costing(10)).plan(Recipe())
    assert slow.recipe.train.epochs * 10 * 64 <= 1800


def test_what_was_said_stays(digits):
    said = Recipe(
        model=ModelOptions(dim=32, depth=1, num_heads=2),
        optim=OptimOptions(optimizer="adamw", lr=3e-4),
        train=TrainOptions(batch_size=17, steps=9),
    )
    plan = Planner(digits, "cpu", None, costing(0.1)).plan(said)
    asked, got = to_table(said), to_table(plan.recipe)
    for part in ("model", "optim", "train"):
        assert asked[part].items() <= got[part].items()


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("augment", "hflip", 0.5), ("optim", "lr", 1e-3), ("objective", "smoothing", 0.0), ("view", "crop_fraction", 0.9),
        ("model", "patch_size", 4), ("model", "stem", ()), ("model", "depth", 6), ("model", "pooling", "cls"), ("model", "image_size", (16, 16)),
    ],
)  # fmt: skip
def test_one_thing_said_changes_the_plan_by_that_alone(digits, section, field, value):
    def planned(recipe):
        return to_table(Planner(digits, "cpu", None, costing(0.01)).plan(recipe).recipe)

    without, got = planned(Recipe()), planned(merge(Recipe(), {section: {field: value}}, "here"))
    assert got[section][field] == value != without[section].get(field)
    differ = {
        name for part in without for name in without[part] | got[part] if got[part].get(name) != without[part].get(name)
    }
    # what follows from it: convolutions end at the patch, and a class token is there to be read
    assert differ - {field} <= {
        "patch_size": {"stem"},
        "stem": {"patch_size"},
        "pooling": {"class_token"},
        "image_size": {"stem", "patch_size"},
    }.get(field, set())
    build(open_shape(Recipe(model=ModelOptions(**got["model"])), in_channels=1, num_classes=10))


def test_a_model_that_was_named_or_sized_pins_that_alone(digits):
    def planned(**model):
        recipe = Planner(digits, "cpu", 60.0, costing(0.01)).plan(Recipe(model=ModelOptions(**model))).recipe
        return recipe.model.arguments, to_table(recipe)

    plain, all_of_plain = planned()
    named, all_of_named = planned(name=MODEL)
    assert named == {"image_size": (8, 8), "patch_size": 2}  # linear patches, as whoever knows the name expects
    for section in ("data", "view", "augment", "train", "transfer"):
        assert all_of_named[section] == all_of_plain[section]
    wide, _ = planned(dim=96)
    assert wide == plain | {"dim": 96, "num_heads": 4, "stem": (96, 96)}
    with_patches, _ = planned(name=MODEL, patch_size=4)  # as a recipe file says it: nothing is added
    assert with_patches == {"image_size": (8, 8), "patch_size": 4}


def test_what_is_known_of_the_data_is_found_once(tmp_path, monkeypatch):
    """Sizes that are tried and the run that follows do not read images again for their mean."""
    read = []
    monkeypatch.setattr(dataset, "moments", lambda *given: read.append(given) or moments(*given))
    monkeypatch.setattr(plan_module, "measure_cost", lambda *given: pytest.fail("a trial is another process"))
    monkeypatch.setattr(plan_module, "tried", lambda display, brief: costing(0.001))
    made = make_plan("digits", Recipe(train=TrainOptions(time="1s", batch_size=32)), Display(), brief=True)
    begin(made.settled, tmp_path / "run", Display()).claim.release()
    assert len(read) == 1
    assert "moments" in vars(pickle.loads(pickle.dumps(made.settled.data)))  # so that a trial finds them, too


def test_few_images_from_trained_weights_get_a_new_head_only(tmp_path, digits, monkeypatch):
    from vitral.training.start import start

    small = Recipe(model=ModelOptions(dim=16, depth=1, num_heads=2), train=TrainOptions(steps=1))
    start("digits", small, tmp_path / "run", Display()).train()
    recipe = Recipe(transfer=TransferOptions(init=str(tmp_path / "run")), train=TrainOptions(steps=1))
    many = Planner(digits, "cpu", None, costing(0.1), brief=True).plan(recipe)
    assert many.recipe.transfer.freeze == "none"
    few = open_data("digits", DataOptions(train_fraction=0.1))
    for said in ("transfer.freeze", "optim.layer_decay"):  # each speaks of an encoder that learns
        whole = dataclasses.replace(recipe, said=frozenset({said}))
        assert Planner(few, "cpu", None, costing(0.1), brief=True).plan(whole).recipe.transfer.freeze == "none"
    planner = Planner(few, "cpu", None, costing(0.1), brief=True)
    plan = planner.plan(recipe)
    assert plan.recipe.transfer.freeze == "encoder"
    assert plan.recipe.model.get("dim") == 16
    choices = {choice.what: choice for choice in plan.choices}
    assert choices["images"].value == "8x8 pixels"
    assert choices["better"].value.startswith("leave out --init")  # one step has taught these weights nothing
    with monkeypatch.context() as blind:
        blind.setattr(planner_module, "edges_and_colours", lambda split, steps: np.zeros((len(split), 3), np.float32))
        assert "weights" in [c.what for c in Planner(few, "cpu", None, costing(0.1), brief=True).plan(recipe).choices]
    steps = preprocess(plan.recipe, few, shape(plan.recipe, few))
    found = baselines(few, "val", steps, frozen(planner.initial, few.channels))
    assert list(found) == ["the commonest answer to all", "a linear classifier on frozen features"]


def test_a_device_that_is_not_here_is_planned_from_the_table():
    from_t4 = make_plan("digits", Recipe(train=TrainOptions(device="t4")), Display(), hours=0.1)
    from_h100 = make_plan("digits", Recipe(train=TrainOptions(device="h100")), Display(), hours=0.1)
    assert not from_t4.estimate.measured
    assert from_t4.estimate.precision == "fp16"
    assert from_h100.passes > 2 * from_t4.passes
    assert from_t4.recipe.train.device == "auto"
    huge = Recipe(
        model=ModelOptions("vit_huge_patch14_224", image_size=(64, 64), patch_size=4),
        train=TrainOptions(device="t4", epochs=1.0, batch_size=64),
    )
    plan = make_plan("digits", huge, Display())
    assert plan.recipe.train.batch_size < 64
    assert plan.recipe.train.batch_size * plan.recipe.train.accumulation >= 64
    with pytest.raises(VitralError, match=r"device 'gtx': is not in the table; choose one of t4"):
        make_plan("digits", Recipe(train=TrainOptions(device="gtx")), Display())
    with pytest.raises(VitralError, match="more than 0"):
        make_plan("digits", Recipe(), Display(), hours=0)


@pytest.mark.parametrize(("found", "taken"), [(4e-3, None), (2.04e-4, 2e-4), (None, None)])
def test_a_rate_that_the_range_test_finds_far_off_is_taken(digits, monkeypatch, found, taken):
    tested = []

    def lr_find(settled, *, steps, display):
        tested.append(settled.recipe.optim.lr)
        if found is None:
            raise VitralError("the loss does not fall")
        return SimpleNamespace(suggestion=found)

    monkeypatch.setattr(rate, "lr_find", lr_find)
    plan = Planner(digits, "cpu", 1e6, costing(0.1)).plan(Recipe(train=TrainOptions(time="1000000s")))
    assert rate.far_rate(plan, Display()) == (taken and pytest.approx(taken))
    assert plan.choices[-1].what == "rate"
    short = Planner(digits, "cpu", 10.0, costing(0.1)).plan(Recipe(train=TrainOptions(time="10s")))
    assert rate.far_rate(short, Display()) is None  # the test would be as long as the run
    assert tested == [5e-3]


def test_a_rate_that_was_measured_has_no_other_reason(digits):
    planner = Planner(digits, "cpu", 60.0, costing(0.1))
    plan = planner.plan(Recipe(train=TrainOptions(time="60s")))
    before = plan.settled.reasons
    plan.change(batch_size=8, accumulation=16)
    planner.set_rate(plan, 2e-4)
    assert (plan.recipe.optim.lr, plan.recipe.train.accumulation) == (2e-4, 16)
    (usual,) = set(before) - set(plan.settled.reasons)
    assert usual.startswith("learning rate 0.005")
    assert set(plan.settled.reasons) < set(before)


def test_baselines_are_between_the_commonest_class_and_all_right(digits):
    recipe = Planner(digits, "cpu", 60.0, costing(0.1)).plan(Recipe(train=TrainOptions(time="60s"))).recipe
    found = baselines(digits, "val", preprocess(recipe, digits, shape(recipe, digits)))
    assert 0.09 < found["the commonest answer to all"] < 0.13
    assert found["a linear classifier on pixels"] > 0.85


def test_the_plan_of_the_command_line_is_a_recipe_that_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ("digits", "--train-fraction", "0.3")
    code, out, err = run(capsys, "plan", *few, "--device", "l4", "--hours", "0.01", "--json")
    assert code == 0, err
    printed = json.loads(out)
    recipe = read_recipe(tmp_path / "digits.toml")
    assert recipe.model.get("dim") == printed["recipe"]["model"]["dim"]
    assert "to beat" in err
    assert max(map(len, err.splitlines())) < 100
    code, _, err = run(capsys, "plan", *few, "--device", "l4")
    assert code == 0, err
    assert (tmp_path / "digits-2.toml").exists()  # nothing is written over
    code, _, err = run(capsys, "plan", *few, "--device", "l4", "--out", "no/folder.toml")
    assert code == 2
    assert "there is no folder no" in err


def test_train_with_nothing_else_said_follows_a_plan(tmp_path, capsys):
    code, _, err = run(capsys, "train", "digits", "--steps", "3", "--out", tmp_path / "run")
    assert code == 0, err
    assert "to beat on the validation images" in err
    assert read_recipe(tmp_path / "run" / "recipe.toml").model.get("stem") == (128, 128)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any(reason.startswith("start: from scratch") for reason in described["reasons"])
    code, _, err = run(capsys, "train", "digits", "--steps", "3", "--lr", "1e-3", "--out", tmp_path / "said")
    assert code == 0, err
    planned, said = (read_recipe(tmp_path / name / "recipe.toml") for name in ("run", "said"))
    assert said == dataclasses.replace(planned, optim=dataclasses.replace(planned.optim, lr=1e-3))


def test_of_few_images_a_class_trained_weights_are_named(digits):
    train = digits.splits["train"]
    few = dataclasses.replace(digits, splits={**digits.splits, "train": train.take(np.arange(400))})
    for data, named in ((few, True), (digits, False)):
        plan = Planner(data, "cpu", 60.0, costing(0.1)).plan(Recipe())
        said = [str(choice) for choice in plan.choices if "--init hf:" in str(choice)]
        assert bool(said) == named
        if named:
            assert "Apache 2.0" in said[0]
            assert "40 images a class" in said[0]


def test_a_plan_says_what_comes_after_training(digits):
    plan = Planner(digits, "cpu", 60.0, costing(0.1)).plan(Recipe(train=TrainOptions(time="60s")))
    line = next(line for line in plan.brief() if "of training" in line)
    assert "1:00 of training" in line
    assert "in all" in line
    assert plan.whole_seconds > 60

"""What to train on these images in this time, and why: a whole recipe, each choice with its reason, and what it will cost.

A plan fills what a recipe leaves open. What depends on the machine is measured by short trials (`trial.py`), or, for a device that is not here,
estimated from a table (`devices.py`). The rules are in `planner.py` and `ladder.py`, sizes of models in `training/sizes.py`, and what does not
depend on time in `training/defaults.py`.
"""

from collections.abc import Callable
from dataclasses import replace

from vitral.errors import VitralError
from vitral.evaluation.beside import baselines
from vitral.guidance.plan.choices import Choice, Estimate, Plan
from vitral.guidance.plan.devices import Device, device_row
from vitral.guidance.plan.glance import glance
from vitral.guidance.plan.ladder import open_size
from vitral.guidance.plan.planner import Planner, frozen
from vitral.guidance.plan.rate import far_rate
from vitral.guidance.plan.trial import find_micro_batch, measure_cost
from vitral.models.measure import measure
from vitral.training.config import Recipe, seconds
from vitral.training.defaults import check
from vitral.training.display import Display
from vitral.training.machine import ROOM, available_memory, choose_device
from vitral.training.settle import Settled, model_files, open_for, placed, rooted
from vitral.training.shape import width

TRIAL = 4.0  # seconds of a trial
HERE = ("auto", "cpu", "cuda", "mps")
CONTEXT = 10**9  # bytes that CUDA and its libraries hold before a model does


def make_plan(data: str, recipe: Recipe, display: Display, hours: float | None = None, *, brief: bool = False) -> Plan:
    """What to train on the data, as `vitral train` takes them, with what the recipe leaves open filled in.

    hours: how long to train at most; default: the recipe's budget, else as long as it is worth, up to half an hour. The recipe's device may be a row
    of `devices.py`; else the plan is for this machine, on which short trials are run. brief: measure only what decides something.
    Raises VitralError as training would.
    """
    if hours is not None:
        if not hours > 0:
            raise VitralError(f"hours {hours:g}: give more than 0")
        recipe = replace(recipe, train=replace(recipe.train, time=f"{hours:g}h", steps=None, epochs=None))
    row = None if recipe.train.device.split(":")[0] in HERE else device_row(recipe.train.device)
    if row is not None:
        recipe = replace(recipe, train=replace(recipe.train, device="auto"))
    recipe = placed(recipe)
    model_files(recipe)
    check(recipe)
    kind = "cuda" if row is not None else choose_device(recipe.train.device).type
    source = rooted(data)
    dataset = open_for(source, recipe, display)
    budget = None if recipe.train.time is None else seconds(recipe.train.time)
    estimate = tried(display, brief=brief) if row is None else tabled(row)
    planner = Planner(dataset, kind, budget, estimate, brief=brief, source=source)
    plan = planner.plan(recipe)
    if row is not None:
        fit(plan, row)
    elif plan.estimate is not None and plan.estimate.peak_bytes > ROOM * available_memory(kind):
        train = plan.recipe.train
        assert train.batch_size is not None
        whole = train.batch_size * train.accumulation
        micro, accumulation = find_micro_batch(source, plan.recipe, whole, opened=dataset)
        plan.change(batch_size=micro, accumulation=accumulation)
        plan.choices.append(Choice("batch", f"{micro} x {accumulation}", "that is what the memory holds at a time"))
    if recipe.optim.lr is None and (rate := far_rate(plan, display)) is not None:
        planner.set_rate(plan, rate)
    if not brief or open_size(recipe):  # who chose a model, or sweeps over many, does not wait for it
        display.doing("scoring what needs no training")
        plan.baselines = baselines(dataset, "val", plan.settled.preprocess, frozen(planner.initial, dataset.channels))
    return plan


def tried(display: Display, *, brief: bool = False) -> Callable[[Recipe, Settled], Estimate]:
    """Estimates by trials of a few seconds on this machine; brief: for few images by a glance."""

    def estimate(recipe: Recipe, settled: Settled) -> Estimate:
        wide = width(settled.recipe.model)
        if brief:
            display.doing(f"trying a few steps of width {wide}")
            if (glanced := glance(replace(settled, recipe=for_a_pass(settled.recipe)))) is not None:
                return glanced
        display.say(f"trying width {wide} for {TRIAL:g} s")
        cost = measure_cost(settled.source, for_a_pass(recipe), TRIAL, settled.data)
        return Estimate(cost.seconds(cost.steps_per_epoch, 1), cost.peak_bytes, cost.parameters, cost.precision, True)

    return estimate


def for_a_pass(recipe: Recipe) -> Recipe:
    """The recipe with one epoch for its budget."""
    return replace(recipe, train=replace(recipe.train, epochs=1.0, steps=None, time=None))


def tabled(device: Device) -> Callable[[Recipe, Settled], Estimate]:
    """Estimates for a device that is not here: three times the forward's multiply-adds, at the share of its rate that training reaches."""

    def estimate(recipe: Recipe, settled: Settled) -> Estimate:
        cost = measure(settled.config)
        splits, batch = settled.data.splits, settled.recipe.train.batch_size
        assert batch is not None
        work = cost.multiply_adds * (3 * len(splits["train"]) + (len(splits["val"]) if "val" in splits else 0))
        held = (
            CONTEXT + cost.training_bytes(0) + batch * cost.training_bytes_an_image // 2
        )  # activations in half precision
        return Estimate(work / (device.rate * device.share), held, cost.parameters, device.precision, False)

    return estimate


def fit(plan: Plan, device: Device) -> None:
    """Give the plan as many images at a time as the device's memory holds."""
    train, cost = plan.recipe.train, measure(plan.settled.config)
    assert train.batch_size is not None
    room = ROOM * device.memory - CONTEXT - cost.training_bytes(0)
    fits = int(room / (cost.training_bytes_an_image / 2))
    if fits >= train.batch_size:
        return
    if fits < 1:
        raise VitralError(
            f"{device.name}: {device.memory / 1e9:.0f} GB do not hold the training of one image; choose a smaller model or image size"
        )
    parts = -(-train.batch_size * train.accumulation // fits)
    micro = -(-train.batch_size * train.accumulation // parts)
    why = f"that is what {device.memory / 1e9:.0f} GB hold at a time"
    plan.choices.append(Choice("batch", f"{micro} x {parts}", why))
    plan.change(batch_size=micro, accumulation=parts)

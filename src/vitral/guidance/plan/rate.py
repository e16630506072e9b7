"""The learning rate of a plan: the usual one for its model, checked by a range test where that is short compared with the run."""

from vitral.errors import VitralError
from vitral.guidance.plan.choices import Choice, Plan
from vitral.guidance.plan.lr_finder import lr_find
from vitral.training.display import Display

STEPS = 60  # of the range test
SHARE = 0.05  # of the run's time that the test may take
FAR = 3.0  # times: on the models and data that the usual rates come from, the test stayed within twice and half


def far_rate(plan: Plan, display: Display) -> float | None:
    """The range test's learning rate if it is far from the plan's, the usual one; else None. The reason is added to the plan's choices."""
    recipe, cost = plan.recipe, plan.estimate
    assert recipe.optim.lr is not None
    assert recipe.train.batch_size is not None
    if cost is None or not cost.measured or cost.glanced:  # a test would show so few images many times
        return None
    a_pass = -(
        -len(plan.settled.data.splits["train"]) // (recipe.train.batch_size * recipe.train.accumulation)
    )  # steps
    if STEPS / a_pass > SHARE * plan.passes:
        return None
    usual, name = recipe.optim.lr, str(recipe.optim.optimizer)
    try:
        found = lr_find(plan.settled, steps=STEPS, display=display).suggestion
    except VitralError as error:
        plan.choices.append(Choice("rate", f"{usual:g}", f"{name}'s usual; the range test found nothing: {error}"))
        return None
    if usual / FAR <= found <= usual * FAR:
        why = f"{name}'s usual for this width; in a range test the loss falls fastest at {found:.1e}"
        plan.choices.append(Choice("rate", f"{usual:g}", why))
        return None
    taken = float(f"{found:.1e}")
    why = f"where the loss falls fastest in a range test; {name}'s usual for this width, {usual:g}, is far from it"
    plan.choices.append(Choice("rate", f"{taken:g}", why))
    return taken

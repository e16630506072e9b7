"""The learning rate of a plan: the one that is usual for its model, held against a range test where that is short beside the run."""

from dataclasses import replace

from vitral.errors import VitralError
from vitral.guidance.plan.lr_finder import lr_find
from vitral.guidance.plan.planner import Choice, Plan
from vitral.training.config import Recipe
from vitral.training.display import Display

STEPS = 60  # of the range test
SHARE = 0.05  # of the run's time that the test may take
FAR = (
    3.0  # times: on the models and data that the usual rates come from, the test stayed within a factor of two of them
)


def checked_rate(plan: Plan, source: str, display: Display) -> Recipe:
    """The plan's recipe, with the range test's learning rate if the usual one is far from it; the plan gets the reason."""
    recipe, cost = plan.recipe, plan.estimate
    assert recipe.optim.lr is not None
    assert recipe.train.batch_size is not None
    if cost is None or not cost.measured:
        return recipe
    a_pass = -(-len(plan.data.splits["train"]) // (recipe.train.batch_size * recipe.train.accumulation))  # steps
    if STEPS / a_pass > SHARE * plan.passes:
        return recipe
    usual, name = recipe.optim.lr, str(recipe.optim.optimizer)
    try:
        found = lr_find(source, recipe, steps=STEPS, display=display, opened=plan.data).suggestion
    except VitralError as error:
        plan.choices.append(Choice("rate", f"{usual:g}", f"{name}'s usual; the range test found nothing: {error}"))
        return recipe
    if usual / FAR <= found <= usual * FAR:
        why = f"{name}'s usual for this width; in a range test the loss falls fastest at {found:.1e}"
        plan.choices.append(Choice("rate", f"{usual:g}", why))
        return recipe
    taken = float(f"{found:.1e}")
    why = f"where the loss falls fastest in a range test; {name}'s usual for this width, {usual:g}, is far from it"
    plan.choices.append(Choice("rate", f"{taken:g}", why))
    plan.reasons = [reason for reason in plan.reasons if not reason.startswith("learning rate")]
    return replace(recipe, optim=replace(recipe.optim, lr=taken))

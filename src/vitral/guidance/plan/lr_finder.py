"""The learning-rate range test: training at a rate that grows with each step shows where learning begins and where it breaks down.

Smith 2015, https://arxiv.org/abs/1506.01186, section 3.3, and 2018, https://arxiv.org/abs/1803.09820, section 2. The rate grows exponentially, as in
most implementations since. The optimiser's groups keep their factors (layer decay), and the weights are discarded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from vitral.errors import VitralError
from vitral.training.display import Display
from vitral.training.loop import Budget, Loop
from vitral.training.settle import Settled
from vitral.training.start import draft
from vitral.training.state import Progress

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
# As shares of the steps, so that the suggestion does not depend on their number.
SMOOTHING = 0.1  # reach of the running mean
SLOPE = 0.16  # width over which the descent is measured
FALL = 0.01  # of the first loss: a smaller fall is no learning
CLEAR = 6.0  # deviations of the smoothed loss: of 100 curves of pure noise, 1 falls by more
BROKEN = 4.0  # times the best smoothed loss


class NoFall(VitralError):
    """No rate lowers the loss beyond noise. used: the rate that the recipe has."""

    def __init__(self, message: str, used: float) -> None:
        super().__init__(message)
        self.used = used


@dataclass(frozen=True)
class Curve:
    """Loss by learning rate, one entry for each training step, up to where it broke or the rates ended."""

    optimizer: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float
    reason: str
    used: float
    """The rate that the recipe has."""

    def unbroken(self) -> int:
        """How many entries to draw: those before the loss rises to 1.5 times its start."""
        return next((i for i, loss in enumerate(self.smoothed) if loss > 1.5 * self.smoothed[0]), len(self.smoothed))


class Silent:
    """A listener for a loop without a run: passes on its messages and writes nothing."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def trained(self, record: dict[str, float | int | str]) -> None:
        pass

    def message(self, text: str) -> None:
        self.display.say(text)

    def checkpoint(self, progress: Progress, *, validate: bool) -> None:
        pass


def lr_find(
    settled: Settled,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    display: Display | None = None,
) -> Curve:
    """Train the model for up to `steps` steps from `lowest` to `highest`; stops where the smoothed loss is 4 times the best, or not finite.

    The same recipe, data and machine give the same curve. Writes nothing. Raises
    NoFall where none of these rates lowers the loss beyond noise, and VitralError for what a run would raise it for.
    """
    if not 0 < lowest < highest:
        raise VitralError(f"learning rates from {lowest:g} to {highest:g}: give two above 0, the lower one first")
    if steps < 20:
        raise VitralError(f"{steps} steps: too few to see a curve; give 20 or more")
    shown = display or Display()
    run, _ = draft(settled, Path(), shown)
    optim = run.recipe.optim
    assert optim.optimizer is not None
    assert optim.lr is not None
    rates = [lowest * (highest / lowest) ** (i / (steps - 1)) for i in range(steps)]
    losses = _losses(run.loop, rates, shown)
    smoothed = smooth(losses, steps)
    found = suggest(rates, smoothed, noise(losses, smoothed, steps))
    if found is None:
        raise NoFall(
            f"no rate from {rates[0]:.1e} to {rates[len(losses) - 1]:.1e} lowers the loss beyond noise; "
            "try more --range-steps or other rates, and look at the data with --show-augmentation",
            optim.lr,
        )
    suggestion, reason = found
    taken = tuple(rates[: len(losses)])
    return Curve(optim.optimizer, taken, tuple(losses), tuple(smoothed), suggestion, reason, optim.lr)


def _losses(loop: Loop, rates: Sequence[float], display: Display) -> list[float]:
    """The loss of each step until it breaks down, without one that is not finite."""
    loop.budget = Budget(len(rates), None)
    losses: list[float] = []
    best, listener = math.inf, Silent(display)
    batches = loop.batches.stream(0, len(rates), loop.recipe.train.workers or 0)
    for rate, batch in zip(rates, batches, strict=True):
        outcome, _ = loop.step(batch, rate, listener)
        if not math.isfinite(outcome["loss"]):
            break
        losses.append(outcome["loss"])
        last = smooth(losses, len(rates))[-1]
        best = min(best, last)
        display.count("range test: step", len(losses), len(rates))
        if last > BROKEN * best:
            break
    return losses


def smooth(losses: Sequence[float], steps: int) -> list[float]:
    """The running mean up to each step of `steps`, bias-corrected as in Adam."""
    kept = 1 - 1 / (SMOOTHING * steps)
    means, mean = [], 0.0
    for i, loss in enumerate(losses, start=1):
        mean = kept * mean + (1 - kept) * loss
        means.append(mean / (1 - kept**i))
    return means


def noise(losses: Sequence[float], smoothed: Sequence[float], steps: int) -> float:
    """The deviation of the smoothed loss due to the choice of batches, from the changes between steps up to the lowest loss."""
    changes = [(b - a) ** 2 for a, b in pairwise(losses[: _lowest(smoothed) + 1])]
    each = fmean(changes) / 2 if changes else 0.0  # variance of a loss
    kept = 1 - 1 / (SMOOTHING * steps)
    return (each * (1 - kept) / (1 + kept)) ** 0.5


def _lowest(smoothed: Sequence[float]) -> int:
    return min(range(len(smoothed)), key=smoothed.__getitem__, default=0)


def suggest(rates: Sequence[float], smoothed: Sequence[float], noise: float) -> tuple[float, str] | None:
    """A rate, and why: where the smoothed loss falls fastest by the rate's logarithm; None where it falls by no more than noise.

    rates: all of them; smoothed: up to where the loss broke; noise: the deviation of `smoothed` that is chance. As the mean lags behind, this is
    somewhat above where the loss itself falls fastest. Of the usual rules (also: a third or a tenth of the rate at the lowest loss, a tenth of that
    at which it breaks) the one nearest to the good rates of AdamW and Muon on digits and fashion-mnist.
    """
    half = max(1, round(SLOPE * len(rates) / 2))
    lowest = _lowest(smoothed)
    if len(smoothed) <= 2 * half:
        raise VitralError(
            f"the loss breaks at {rates[len(smoothed)]:.1e} already; try again with a --lowest below that"
        )
    fell = smoothed[half] - smoothed[lowest]
    if lowest <= half or fell < max(FALL * abs(smoothed[half]), CLEAR * noise):
        return None
    middles = range(half, min(len(smoothed) - half, lowest + 1))
    steepest = min(middles, key=lambda i: smoothed[i + half] - smoothed[i - half])
    end = f"breaks at {rates[len(smoothed) - 1]:.1e}" if len(smoothed) < len(rates) else "never quite breaks"
    best = rates[steepest]
    return best, f"the loss falls fastest at {best:.1e}, is lowest at {rates[lowest]:.1e} and {end}"

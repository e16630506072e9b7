"""Power laws of the error: error = a n^-b + c for n training images or n multiply-adds, with confidence intervals.

The form of Hestness et al. 2017 (https://arxiv.org/abs/1712.00409, section 3) and of Zhai et al. 2021 (https://arxiv.org/abs/2106.04560, section 2.2,
without their shift of the compute). Deviations are relative to the error of the point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from scipy.stats import t as student_t

from vitral.randomness import derive

SLOPES = np.arange(1, 751) * 0.004  # the exponents that are tried
RESAMPLES = 1000
FREE = 3  # points beyond the law's own numbers that an interval needs
SIZES_WITH_FLOOR = 4
Interval = tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """error = a n^-b + c."""

    a: float
    b: float
    """In steps of 0.004."""
    c: float
    """The error that stays at any n; 0 where the points do not tell it from 0."""
    points: int
    intervals: dict[str, Interval] | None
    """95 % intervals of a, b and c; None where there are too few points for any."""
    note: str
    """What limits the fit, or ""."""

    def __call__(self, n: np.ndarray | float) -> np.ndarray:
        return np.asarray(self.a * np.asarray(n, np.float64) ** -self.b + self.c)

    def __str__(self) -> str:
        def told(name: str, value: float) -> str:
            if self.intervals is None:
                return f"{value:.3g}"
            low, high = self.intervals[name]
            return f"{value:.3g} ({low:.3g} to {high:.3g})"

        floor = f", c {told('c', self.c)}" if self.c else ""
        text = f"error = a n^-b{' + c' if self.c else ''}: b {told('b', self.b)}{floor}, from {self.points} points"
        return text + (f"; {self.note}" if self.note else "")


def fit_power_law(
    sizes: Sequence[float], errors: Sequence[float], *, resolution: float = 0.0, seed: int = 0
) -> PowerLaw | str:
    """The law through points (size, error), of which several may have one size; or the reason why there is none.

    sizes: above 0. errors: 0 to 1. resolution: half of the smallest error that can be measured, 1 / (2 x images scored), which replaces smaller
    ones. c is fitted where four sizes or more tell it from 0 (corrected Akaike criterion, https://doi.org/10.1093/biomet/76.2.297). Intervals
    are of a bootstrap over the relative residuals, widened for the numbers fitted and by Student's t; they hold the choice of c fixed.
    """
    assert len(sizes) == len(errors)
    n, measured = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    different = len(np.unique(n))
    if different < 3:
        return f"no law: {different} size{'s' if different != 1 else ''}, and any falling curve passes through two; give three or more"
    error = np.maximum(measured, resolution)
    if not error.max() > resolution:
        return "no law: no mistakes are left to count; take fewer images or a harder task"
    means = {
        size: float(np.mean([e for _, e in rows]))
        for size, rows in groupby(sorted(zip(n, error, strict=True)), lambda p: p[0])
    }
    if min(means.values()) <= 0:
        return "no law: an error of 0 has no logarithm; say how finely errors were measured (resolution)"
    if means[max(means)] >= means[min(means)] * (1 - 1e-9):
        return "no law: the error does not fall from the smallest size to the largest"
    centre = float(np.exp(np.log(n).mean()))
    x, weights = np.log(n / centre), np.array([means[size] for size in n]) ** -2.0  # [P]
    a, b, c, level = _chosen(x, error, weights, different)
    if not a[0] > 0:
        return "no law: the error does not fall as a power of the size"
    law = np.exp(-b[0] * x) * a[0] + c[0]
    numbers = 3 if level else 2
    free = len(n) - numbers
    notes = []
    if not level and different < SIZES_WITH_FLOOR:
        notes.append("without c: fewer than four sizes")
    elif not level:
        notes.append("without c: not told from 0 by these points")
    if b[0] in (SLOPES[0], SLOPES[-1]):
        notes.append("b is at the end of what is tried")
    if int((measured < resolution).sum()):
        notes.append("errors of 0 count as half a mistake")
    intervals = None
    if free < FREE:
        notes.append(f"too few points for an interval: {numbers + FREE} or more are needed")
    else:
        residuals = (error - law) / law * (len(n) / free) ** 0.5 * student_t.ppf(0.975, free) / 1.96
        draws = np.random.default_rng(derive(seed, "bootstrap")).integers(len(n), size=(RESAMPLES, len(n)))
        again = _solve(x, law * (1 + residuals[draws]), weights, level)
        found = {"a": again[0] * centre ** again[1], "b": again[1], "c": again[2]}
        low_high = {name: np.percentile(values, [2.5, 97.5]) for name, values in found.items()}
        intervals = {name: (float(low), float(high)) for name, (low, high) in low_high.items()}
    return PowerLaw(
        float(a[0] * centre ** b[0]), float(b[0]), float(c[0]), len(n), intervals, "; ".join(notes)
    )  # fmt: skip


Solution = tuple[np.ndarray, np.ndarray, np.ndarray]


def _chosen(
    x: np.ndarray, error: np.ndarray, weights: np.ndarray, different: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """a, b, c (each [1]) of the law with or without c, whichever the criterion prefers, and whether that is the one with c."""
    best: tuple[float, Solution, bool] | None = None
    for level in (False, True):
        count = 4 if level else 3  # the numbers of the law, and the deviation
        if level and (different < SIZES_WITH_FLOOR or len(x) < count + 2):
            continue
        a, b, c = _solve(x, error[None], weights, level)
        law = np.exp(-b[0] * x) * a[0] + c[0]
        spread = max(float((weights * (law - error) ** 2).mean()), 1e-20)
        free = max(len(x) - count - 1, 1)
        value = len(x) * np.log(spread) + 2 * count + 2 * count * (count + 1) / free
        if best is None or (value < best[0] and c[0] > 0):
            best = value, (a, b, c), level
    assert best is not None
    return *best[1], best[2]


def _solve(x: np.ndarray, errors: np.ndarray, weights: np.ndarray, level: bool) -> Solution:
    """Least squares: for each exponent a and c (0 or more) in closed form, then the best exponent.

    x: log of the size [P]. errors: [R, P], a problem a row. weights: [P]. level: whether there is a c. Returns a, b, c, each [R].
    """
    powers = np.exp(-SLOPES[:, None] * x)  # [G, P]
    weighted = weights * powers
    uu, u, one = (weighted * powers).sum(1), weighted.sum(1), weights.sum()  # [G], [G], scalar
    uy, y = errors @ weighted.T, (errors @ weights)[:, None]  # [R, G], [R, 1]
    a, c = np.maximum(uy, 0) / uu, np.zeros_like(uy)
    if level:
        determinant = uu * one - u**2  # [G]; above 0, as the powers differ
        slope, constant = (uy * one - u * y) / determinant, (uu * y - u * uy) / determinant
        inside = (slope > 0) & (constant > 0)
        a, c = np.where(inside, slope, a), np.where(inside, constant, c)
    squares = a**2 * uu + 2 * a * c * u + c**2 * one - 2 * a * uy - 2 * c * y  # less what does not depend on a, b, c
    rows, best = np.arange(len(errors)), squares.argmin(1)
    return a[rows, best], SLOPES[best], c[rows, best]

"""A sweep as one page, OUT/report.html: score and error against training images and against compute, the laws, and the numbers behind them.

As figures 3 to 5 of the ViT paper (https://arxiv.org/abs/2010.11929), with a deviation at each point where there are several seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from vitral.drawing.charts import KINDS, Series, line_chart
from vitral.guidance.sweep.cost import PASSES
from vitral.guidance.sweep.scaling import PowerLaw
from vitral.guidance.sweep.sweep import Point, Sweep, write_sweep
from vitral.guidance.sweep.table import COST, LAWS, Laws, Row, curves, laws, mean_text, scores_in, summary
from vitral.report.frame import tiles, write_page
from vitral.report.parts import escape, percent, table

CURVE_POINTS = 40
FOLLOWS = ("images", *COST, "split", "runs")  # of a mean: what follows from what was chosen


def write_sweep_page(folder: Path, sweep: Sweep, points: Sequence[Point], rows: Sequence[Row]) -> Path:
    """Write the page of the runs so far; returns its path."""
    name = Path(sweep.data).name
    done = [one for one in rows if one["state"] == "done"]
    failed = [one for one in rows if one["state"] == "failed"]
    means, fitted = summary(points, rows), laws(points, rows)
    body = [f"<h1>Sweep over {escape(name)}</h1>", _headline(means, done, failed)]
    if done:
        cards = "".join(_cards(curves(points, rows, against), fitted[against], against) for against in fitted)
        body += [f"<div class=pair>{cards}</div>", _laws_section(fitted), _means_section(means)]
    if failed:
        lines = [[escape(one["run"]), escape(one["message"])] for one in failed]
        body.append(f"<section><h2>Failed</h2>{table(['run', 'why'], lines, names=2)}</section>")
    words = "<p class=soft>vitral sweep --file sweep.toml, with this in the file:</p>"
    body.append(f"<section><h2>How it was made</h2>{words}<pre>{escape(write_sweep(sweep))}</pre></section>")
    return write_page(folder, f"Sweep over {name}", body)


def _headline(means: Sequence[Row], done: Sequence[Row], failed: Sequence[Row]) -> str:
    numbers = [(f"{len(done)} of {len(done) + len(failed)}", "runs finished")]
    if means:
        scores = scores_in(means[0])
        best = max(means, key=lambda one: one[scores.HEADLINE])
        words = f"{scores.TITLE} ({best['split']}) of the best: {best['model']}, {best['images']:,} images"
        compute = sum(one["compute"] for one in done)
        about = f"multiply-adds of training in all ({PASSES} forward passes an image)"
        numbers = [(percent(best[scores.HEADLINE]), words), *numbers, (f"{compute:.2g}", about)]
    return tiles(numbers, {})


def _cards(groups: Mapping[str, Sequence[Row]], fitted: Mapping[str, PowerLaw | str], against: str) -> str:
    """The score, and the error with its law, as two cards."""
    label, title = LAWS[against], scores_in(next(iter(groups.values()))[0]).TITLE
    title = title.capitalize() if title.islower() else title
    scored, error, repeated = [], [], False
    for i, (name, members) in enumerate(groups.items()):
        kind = KINDS[i % len(KINDS)]
        at = _by_size(members, against)
        repeated |= any(len(values) > 1 for _, values in at)
        spread = [stdev(values) if len(values) > 1 else 0.0 for _, values in at]
        means = [(x, fmean(values)) for x, values in at]
        scored.append(Series(name, means, kind, marks=True, bars=spread))
        missed = [(x, 1 - mean, wide) for (x, mean), wide in zip(means, spread, strict=True) if mean < 1]
        law, bars = fitted[name], [wide for *_, wide in missed]
        points = [(x, e) for x, e, _ in missed]
        error.append(Series(name, points, kind, marks=True, joined=isinstance(law, str), bars=bars))
        if isinstance(law, PowerLaw):
            xs = np.geomspace(at[0][0], at[-1][0], CURVE_POINTS)
            error.append(Series("", list(zip(xs.tolist(), law(xs).tolist(), strict=True)), kind, dashed=True))
    heads = (f"{title} against {label}", f"Error against {label}")
    one = line_chart(heads[0], scored, label, lambda v, d: f"{v:.{d}%}", x_log=True)
    two = line_chart(heads[1], error, label, lambda v, d: f"{v:.{d}%}", x_log=True, y_log=True)
    law_words = " Dashed: the power law." if any(one.dashed for one in error) else ""
    seeds = "<p class=soft>Points are means over the seeds, bars their standard deviation.</p>" if repeated else ""
    return (
        f"<section><h3>{heads[0]}</h3>{one}{seeds}</section>"
        f"<section><h3>{heads[1]}</h3>{two}<p class=soft>The error is 1 − {title}; both axes are logarithmic.{law_words}</p></section>"
    )


def _by_size(members: Sequence[Row], against: str) -> list[tuple[float, list[float]]]:
    """(mean of what is on the axis, score of each seed) of runs that differ in their seed alone, with rising x."""
    groups: dict[str, list[Row]] = {}
    for one in members:
        groups.setdefault(one["setting"], []).append(one)
    key = scores_in(members[0]).HEADLINE
    return sorted((fmean(one[against] for one in group), [one[key] for one in group]) for group in groups.values())


def _laws_section(fitted: Laws) -> str:
    def numbers(law: PowerLaw | str) -> list[str]:
        if isinstance(law, str):
            return ["–", "–", "–"]
        told = []
        for name, value in (("b", law.b), ("c", law.c)):
            span = "" if law.intervals is None else " ({:.3g} to {:.3g})".format(*law.intervals[name])
            told.append("–" if name == "c" and not law.c else f"{value:.3g}{span}")
        return [*told, str(law.points)]

    lines = []
    for against, named in fitted.items():
        for name, law in named.items():
            note = law if isinstance(law, str) else law.note
            words = f"<br><small class=soft>{escape(note)}</small>" if note else ""
            lines.append([escape(name), f"{LAWS[against]}{words}", *numbers(law)])
    words = (
        "error = a n^-b + c, in brackets 95 % intervals of a bootstrap over the points; without brackets there are too few points for one. "
        "A law holds for these runs: between the sizes that were tried, on this budget and recipe. Training counts as "
        f"{PASSES} forward passes an image. Where images are made smaller or patches left out in training, they are counted as whole."
    )
    return f"<section><h2>Scaling laws</h2><p class=soft>{words}</p>{table(['curve', 'n', 'b', 'c', 'points'], lines, names=2)}</section>"


def _means_section(means: Sequence[Row]) -> str:
    """A row each, what was chosen for it first and the scores next; what is the same in all is said above."""
    scores = scores_in(means[0])
    hidden = {f"{name}{end}" for name in (scores.HEADLINE, "loss") for end in ("", "_deviation")}
    heads = [name for name in means[0] if name not in hidden and any(one[name] not in ("", None) for one in means)]
    alike = [name for name in heads if len(means) > 1 and all(one[name] == means[0][name] for one in means)]
    chosen = [name for name in heads if name not in (*alike, *FOLLOWS)]
    follows = [name for name in heads if name in FOLLOWS and name not in alike]

    def told(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if 1e3 <= value < 1e7 else f"{value:.4g}"
        return f"{value:,}" if type(value) is int else escape(str(value))

    forms = {scores.HEADLINE: ".2%", "loss": ".3f"}
    lines = [
        [told(one[name]) for name in chosen]
        + [mean_text(one, name, form) for name, form in forms.items()]
        + [told(one[name]) for name in follows]
        for one in means
    ]
    heads = [name.replace("_", " ") for name in (*chosen, scores.TITLE, "loss", *follows)]
    title = "Means over the seeds" if any(one["runs"] > 1 for one in means) else "Scores"
    same = ", ".join(f"{name.replace('_', ' ')} {told(means[0][name])}" for name in alike)
    words = f"<p class=soft>All of them: {same}.</p>" if alike else ""
    return f"<section><h2>{title}</h2>{words}{table(heads, lines)}</section>"

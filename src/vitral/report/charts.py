"""Line charts and reliability diagrams as inline SVG: no script, no network, colours from the page's CSS.

The classes used here (`axis`, `grid`, `line a`, `dot b`, ...) are set in report.css for light and dark pages.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vitral.evaluation.calibration import ReliabilityBin

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 32, 42  # the top holds the legend
MAX_POINTS = 600  # more cannot be told apart at this width
MANY_MARKS = 40
Format = Callable[[float, int], str]


@dataclass(frozen=True)
class Series:
    """One line: finite (x, y) points with rising x. `kind` picks the colour, "a" or "b".

    smoothed: draw the points faint and their running mean bold. marks: a dot at each point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "a"
    smoothed: bool = False
    marks: bool = False


@dataclass(frozen=True)
class _Frame:
    """Data coordinates to places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_format: Format = lambda value, digits: f"{value:g}",
    y_range: tuple[float, float] | None = None,
) -> str:
    """An SVG with axes, ticks, the lines, and a legend if there are several; "" when there are no points.

    y_format: a value on the axis as text, with as many more digits as it takes to tell the ticks apart.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    y_low, y_high = y_range or _padded(min(ys), max(ys))
    y_ticks = ticks(y_low, y_high)
    x_low, x_high = min(0.0, *xs), max(xs)
    if x_high <= x_low:
        x_high = x_low + 1.0
    frame = _Frame(x_low, x_high, min(y_low, y_ticks[0]), max(y_high, y_ticks[-1]))
    parts = [_axes(frame, ticks(x_low, x_high), y_ticks, x_label, y_format)]
    parts += [_line(frame, one) for one in drawn]
    if len(drawn) > 1:
        parts.append(_legend([(one.name, f"line {one.kind}") for one in drawn]))
    return _svg(title, parts)


def reliability_chart(
    title: str,
    bins: Sequence[ReliabilityBin],
    *,
    axis: str = "probability of the predicted class",
    counted: str = "images",
    right: str = "right",
) -> str:
    """Accuracy against confidence: a bar a bin, the gap to its mean confidence over it, the diagonal dashed.

    After Guo et al. 2017, figure 1; a bin of few images is drawn faint. axis, counted, right: words for the confidence, for what is in a bin,
    and for what the accuracy is the share of.
    """
    frame = _Frame(0.0, 1.0, 0.0, 1.0)
    fifths = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [_axes(frame, fifths, fifths, axis, _whole_percent, _whole_percent)]
    most = max(b.images for b in bins)
    for b in bins:
        if b.accuracy is None or b.confidence is None:
            continue
        left, width = frame.x(b.low) + 1, frame.x(b.high) - frame.x(b.low) - 2
        low, high = sorted((b.accuracy, b.confidence))
        said = (
            f"{b.low:.0%} to {b.high:.0%}: {b.images} {counted}, {b.accuracy:.1%} {right}, "
            f"{b.confidence:.1%} mean probability"
        )
        faint = 0.35 + 0.65 * math.sqrt(b.images / most)  # few images, little to go by
        parts.append(
            f'<g opacity="{faint:.2f}"><title>{said}</title>'
            + _box("bar", left, frame.y(b.accuracy), width, frame.y(0) - frame.y(b.accuracy))
            + _box("gap", left, frame.y(high), width, frame.y(low) - frame.y(high))
            + "</g>"
        )
    corners = f'x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(1)}" y2="{frame.y(1)}"'
    parts.append(f'<line class="ideal" {corners}/>')
    parts.append(_legend([(f"share {right}", "bar"), ("gap to its probability", "gap")]))
    return _svg(title, parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, steps of 1, 2 or 5 times a power of ten, from within [low, high]."""
    assert high > low, f"no range from {low} to {high}"
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each point's y as the mean of its neighbours, up to a fortieth of all on either side (no lag)."""
    sums = [0.0, *accumulate(y for _, y in points)]
    reach = max(1, len(points) // 40)
    smooth = []
    for i, (x, _) in enumerate(points):
        first, last = max(0, i - reach), min(len(points), i + reach + 1)  # one-sided at the ends
        smooth.append((x, (sums[last] - sums[first]) / (last - first)))
    return smooth


def thinned(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> Sequence[tuple[float, float]]:
    """At most `most` points, each the mean of its neighbours."""
    if len(points) <= most:
        return points
    cuts = [round(i * len(points) / most) for i in range(most + 1)]
    groups = [points[a:b] for a, b in pairwise(cuts)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _padded(low: float, high: float) -> tuple[float, float]:
    """The range of the values with a little air; from 0 when they come near it."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return (0.0, 2 * high) if high > 0 else (low - 1.0, low + 1.0)
    air = (high - low) * 0.05
    return (0.0 if 0 <= low < (high - low) * 0.6 else low - air), high + air


def _axes(
    frame: _Frame,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_format: Format,
    x_format: Format = lambda value, digits: f"{value:g}",
) -> str:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick, words in zip(y_ticks, _distinct(y_ticks, y_format), strict=True):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, words, "tick", "end"))
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    for tick, words in zip(x_ticks, _distinct(x_ticks, x_format), strict=True):
        x = frame.x(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
        parts.append(_text(x, bottom + 17, words, "tick", "middle"))
    parts.append(_text((left + right) / 2, HEIGHT - 6, x_label, "label", "middle"))
    return "".join(parts)


def _distinct(ticks: Sequence[float], form: Format) -> list[str]:
    """The ticks' labels, with as few digits as keep them apart."""
    labels = [form(tick, 0) for tick in ticks]
    for digits in range(1, 4):
        if len(set(labels)) == len(labels):
            break
        labels = [form(tick, digits) for tick in ticks]
    return labels


def _line(frame: _Frame, series: Series) -> str:
    def path(points: Sequence[tuple[float, float]], kind: str) -> str:
        places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in thinned(points))
        return f'<polyline class="{kind}" points="{places}"/>'

    if series.smoothed and len(series.points) >= MANY_MARKS:
        raw = path(series.points, f"line {series.kind} raw")
        return raw + path(running_mean(series.points), f"line {series.kind}")
    drawn = path(series.points, f"line {series.kind}")
    if len(series.points) == 1 or (series.marks and len(series.points) <= MANY_MARKS):
        for x, y in series.points:
            drawn += f'<circle class="dot {series.kind}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
    return drawn


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names and their marks (a CSS class: a line's, or a box's) in a row above the drawing."""
    x, parts = float(LEFT), []
    for name, kind in entries:
        if kind.startswith("line"):
            parts.append(f'<line class="{kind}" x1="{x + 1:.0f}" y1="12" x2="{x + 17:.0f}" y2="12"/>')
        else:
            parts.append(_box(kind, x + 2, 7, 14, 10))
        parts.append(_text(x + 24, 16, name, "label"))
        x += 48 + 7.2 * len(name)
    return "".join(parts)


def _box(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _svg(title: str, parts: Sequence[str]) -> str:
    name = html.escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _whole_percent(value: float, digits: int) -> str:
    return f"{value:.{digits}%}"

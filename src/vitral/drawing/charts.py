"""Line charts and reliability diagrams as inline SVG: no script, no network, colours from the page's CSS.

The classes used here (`axis`, `grid`, `line a`, `dot b`, ...) are set in charts.css, whose colours a page chooses for light and dark.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import accumulate, pairwise
from typing import Protocol

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 32, 42  # the top holds the legend
LEGEND_ROW = 18
LETTER = 5.8  # pixels of a letter in the legend, on average
MAX_POINTS = 600  # more cannot be told apart at this width
MANY_MARKS = 40
KINDS = ("a", "b", "c", "d", "e", "f")  # colours
ALONE = "--soft: #888; --rule: #8884; --paper: transparent; --a: #d98b1f; --b: #5b8fb9; --c: #888;"  # on light and dark alike
Format = Callable[[float, int], str]


class Bin(Protocol):
    """The images whose predicted probability lies between `low` and `high`."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def images(self) -> int: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def confidence(self) -> float | None: ...


def style() -> str:
    """The rules for the charts of a page that sets the colours."""
    return resources.files("vitral.drawing").joinpath("charts.css").read_text("utf-8")


def standing_alone(charts: str) -> str:
    """Charts with their rules and colours beside them, for where there is no page of ours, such as a notebook."""
    return f'<div class="vitral-charts"><style>.vitral-charts {{ {ALONE} {style()} }}</style>{charts}</div>'


@dataclass(frozen=True)
class Series:
    """One line: finite (x, y) points with rising x. `kind` picks the colour, one of KINDS. Without a name it is not in the legend.

    smoothed: draw the points faint and their running mean bold. marks: a dot at each point. joined: a line through them. bars: how far each point
    may be off, up and down.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "a"
    smoothed: bool = False
    marks: bool = False
    joined: bool = True
    dashed: bool = False
    bars: Sequence[float] = ()

    def ends(self) -> list[tuple[float, float, float]]:
        """(x, lower end, upper end) of each bar."""
        if not self.bars:
            return []
        return [(x, y - bar, y + bar) for (x, y), bar in zip(self.points, self.bars, strict=True) if bar]


@dataclass(frozen=True)
class _Frame:
    """Data coordinates to places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_log: bool = False
    y_log: bool = False
    top: int = TOP

    def x(self, value: float) -> float:
        low, high, at = _scaled((self.x_low, self.x_high, value), self.x_log)
        return LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high, at = _scaled((self.y_low, self.y_high, value), self.y_log)
        return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - self.top - BOTTOM)


def _scaled(values: tuple[float, float, float], log: bool) -> tuple[float, ...]:
    return tuple(math.log10(value) for value in values) if log else values


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_format: Format = lambda value, digits: f"{value:g}",
    y_range: tuple[float, float] | None = None,
    x_log: bool = False,
    y_log: bool = False,
) -> str:
    """An SVG with axes, ticks, the lines, and a legend if there are several colours; "" without points.

    x_log, y_log: logarithmic axes, for values above 0. y_format: a value on the axis as text, with as few digits as keep the ticks apart.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    ys += [end for one in drawn for _, *pair in one.ends() for end in pair]
    if y_log:
        y_low, y_high = y_range or _apart(min(y for y in ys if y > 0), max(ys))
        y_ticks = powers(y_low, y_high)
    else:
        y_low, y_high = y_range or _padded(min(ys), max(ys))
        y_ticks = ticks(y_low, y_high)
        y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    if x_log:
        x_low, x_high = _apart(min(xs), max(xs))
        x_ticks = powers(x_low, x_high)
    else:
        x_low, x_high = min(0.0, *xs), max(xs)
        x_high = x_high if x_high > x_low else x_low + 1.0
        x_ticks = ticks(x_low, x_high)
    named = [(one.name, f"line {one.kind}") for one in drawn if one.name]
    rows = _legend_rows(named) if len({one.kind for one in drawn}) > 1 else []
    frame = _Frame(x_low, x_high, y_low, y_high, x_log, y_log, TOP + LEGEND_ROW * max(0, len(rows) - 1))
    x_format = compact if x_log else lambda value, digits: f"{value:g}"
    parts = [_axes(frame, x_ticks, y_ticks, x_label, y_format, x_format)]
    parts += [_line(frame, one) for one in drawn]
    parts += [_legend(row, LEGEND_ROW * i) for i, row in enumerate(rows)]
    return _svg(title, parts)


def reliability_chart(
    title: str,
    bins: Sequence[Bin],
    *,
    axis: str = "probability of the predicted class",
    counted: str = "images",
    right: str = "right",
) -> str:
    """Accuracy against confidence: a bar a bin, the gap to its mean confidence over it, the diagonal dashed.

    After Guo et al. 2017, figure 1; a bin of few images is drawn faint. axis, counted, right: words for the confidence, for what is in a bin,
    and for the accuracy.
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
        faint = 0.35 + 0.65 * math.sqrt(b.images / most)
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


def powers(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis from within [low, high]: powers of ten, or where there are few of them also twice and five times those."""
    assert high > low > 0, f"no logarithmic range from {low} to {high}"
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        wide = max(1, (last - first) // 7)
        found = [
            f * 10.0**e for e in range(first, last + 1, wide) for f in factors if low <= f * 10.0**e <= high * 1.0001
        ]
        if len(found) >= 3:
            return found
    return ticks(low, high)


def compact(value: float, digits: int) -> str:
    """1000 as 1k, 2e6 as 2M, 3e9 as 3G, and so on up to 1e15."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g}{letter}"
    return f"{value:g}"


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


def _apart(low: float, high: float) -> tuple[float, float]:
    """A range on a logarithmic axis with a little air."""
    air = max((high / low) ** 0.04, 1.02)
    return low / air, high * air


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
        parts.append(text(left - 8, y + 4, words, "tick", "end"))
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    for tick, words in zip(x_ticks, _distinct(x_ticks, x_format), strict=True):
        x = frame.x(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
        parts.append(text(x, bottom + 17, words, "tick", "middle"))
    parts.append(text((left + right) / 2, HEIGHT - 6, x_label, "label", "middle"))
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
    drawn = "" if not series.joined else path(series.points, f"line {series.kind}{' dashed' if series.dashed else ''}")
    for x, low, high in series.ends():
        top, bottom = (min(max(frame.y(max(end, frame.y_low)), frame.top), HEIGHT - BOTTOM) for end in (high, low))
        place = f'x1="{frame.x(x):.1f}" y1="{bottom:.1f}" x2="{frame.x(x):.1f}" y2="{top:.1f}"'
        drawn += f'<line class="spread {series.kind}" {place}/>'
    if len(series.points) == 1 or (series.marks and len(series.points) <= MANY_MARKS):
        for x, y in series.points:
            drawn += f'<circle class="dot {series.kind}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
    return drawn


Entry = tuple[str, str]


def _legend_rows(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries in rows that fit the drawing."""
    rows: list[list[Entry]] = [[]]
    for entry in entries:
        if rows[-1] and sum(_wide(name) for name, _ in [*rows[-1], entry]) > WIDTH - LEFT:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _wide(name: str) -> float:
    return 48 + 7.2 * len(name)


def _legend(entries: Sequence[Entry], down: int = 0) -> str:
    """Names and their marks (a CSS class: a line's, or a box's) in a row above the drawing."""
    x, parts = float(LEFT), []
    for name, kind in entries:
        if kind.startswith("line"):
            parts.append(f'<line class="{kind}" x1="{x + 1:.0f}" y1="{down + 12}" x2="{x + 17:.0f}" y2="{down + 12}"/>')
        else:
            parts.append(_box(kind, x + 2, down + 7, 14, 10))
        room = int((WIDTH - x - 24) / LETTER)
        parts.append(text(x + 24, down + 16, name if len(name) <= room else f"{name[: room - 1]}…", "label"))
        x += _wide(name)
    return "".join(parts)


def _box(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _svg(title: str, parts: Sequence[str]) -> str:
    name = html.escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _whole_percent(value: float, digits: int) -> str:
    return f"{value:.{digits}%}"

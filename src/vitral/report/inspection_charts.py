"""The charts of an inspection's page that need images: attention by depth, norms, similarities."""

from collections.abc import Iterator, Sequence

import numpy as np

from vitral.drawing.charts import MANY_MARKS, Series, compact, line_chart
from vitral.drawing.colours import colourise
from vitral.drawing.heat import exact_picture, heat_map
from vitral.errors import counted
from vitral.explain.inspection.heads import Heads
from vitral.explain.inspection.images import QUANTILES, Floats, LayerAttention, LayerTokens
from vitral.report.parts import card, percent, table

DEPTH = "attention layer"
EXTREMES = 5  # heads in each table
WIDE = 10.0  # times the median: norms then need a logarithmic axis
ABOUT_ENTROPY = (
    "Attention entropy as a share of the largest possible: 0 % where a head reads one token, 100 % where it reads all alike. Heads near "
    "100 % in late layers add little; heads near 0 % from the first layer on can make training unstable."
)


def about_distance(diagonal: float) -> str:
    """What to see in the attention distances. diagonal: of the image, in pixels."""
    return (
        "Attention distance: the mean distance from a patch to the patches it reads, weighted by attention; a dot is a head (figure 7, right, "
        f"of the ViT paper; without class and register tokens). The image's diagonal is {diagonal:.0f} px. Low heads in early "
        "layers work like convolutions; a head on the dashed line reads all patches alike."
    )


def about_norms(found: Sequence[LayerTokens]) -> str:
    """What to see in the norms of the patch tokens."""
    high = [i for i, one in enumerate(found) if one.cut is not None]
    if not high:
        return "No layer has patches with an outlying norm (a second mode at twice the median or more)."
    return (
        f"Some patches have an outlying norm in {counted(len(high), 'layer')}, first in layer {high[0]}: the norms there have two modes, "
        "the upper at twice the median or more. Such patches often carry information on the whole image and not on what is seen there "
        "(Darcet et al. 2024); register tokens take over that role."
    )


def reading_cards(found: Sequence[LayerAttention], diagonal: float) -> list[str]:
    """How far and how evenly each head reads, by depth. diagonal: of the image, in pixels."""
    uniform = [(float(i), one.uniform) for i, one in enumerate(found) if one.uniform is not None]
    far = [*_heads_by_depth([one.distance for one in found]), Series("read alike", uniform, "c", dashed=True)]
    top = 1.05 * max((y for one in far for _, y in one.points), default=1.0) or 1.0
    even = list(_heads_by_depth([one.entropy / one.most if one.most > 0 else None for one in found]))
    title = "Mean attention distance of each head by layer"
    distances = line_chart(title, far, DEPTH, lambda v, d: f"{v:.{d}f} px", (0.0, top))
    entropies = line_chart("Entropy of each head by layer", even, DEPTH, lambda v, d: f"{v:.{d}%}", (0.0, 1.0))
    return [
        card("How far a head reads", distances, about_distance(diagonal)),
        card("How evenly a head reads", entropies, ABOUT_ENTROPY),
    ]


def elsewhere_cards(found: Sequence[LayerAttention]) -> list[str]:
    """How much attention goes to tokens that are no patches."""
    points = [(float(i), float(one.elsewhere.mean())) for i, one in enumerate(found) if one.elsewhere is not None]
    if not any(share > 0 for _, share in points):
        return []
    series = [Series("", points, marks=True)]
    chart = line_chart("Attention to other tokens by layer", series, DEPTH, lambda v, d: f"{v:.{d}%}")
    words = (
        "The share of their attention that patches give to class, distillation and register tokens (and to padding, in windows). A large "
        "share in late layers means that heads find nothing to read, or that these tokens store information on the whole image."
    )
    return [card("Attention to tokens that are no patches", chart, words)]


def _heads_by_depth(layers: Sequence[Floats | None]) -> Iterator[Series]:
    """A dot for each head, and the line of their means."""
    measured = [(float(i), heads) for i, heads in enumerate(layers) if heads is not None]
    dots = sorted((i, float(head)) for i, heads in measured for head in heads)
    for start in range(0, len(dots), MANY_MARKS):  # in parts, for a longer series is drawn without marks
        yield Series("one head" if start == 0 else "", dots[start : start + MANY_MARKS], marks=True, joined=False)
    yield Series("mean of heads", [(i, float(heads.mean())) for i, heads in measured], "b")


def heads_sections(found: Heads) -> list[str]:
    """How much worse the model is without each head."""
    rises = [(one.loss - found.loss).tolist() for one in found.layers]
    drawn = heat_map("Rise of the loss without each head", rises, "head", "attention layer", lambda v: f"{v:+.3f}")
    ranked = sorted(
        (rise, i, head, found.accuracy - float(found.layers[i].accuracy[head]))
        for i, row in enumerate(rises)
        for head, rise in enumerate(row)
    )
    dispensable = sum(rise <= 0 for rise, *_ in ranked)

    def lines(some: Sequence[tuple[float, int, int, float]]) -> str:
        cells = [[f"layer {i}, head {head}", f"{rise:+.4f}", f"{0.0 - drop:+.1%}"] for rise, i, head, drop in some]
        return table(["without", "loss", "accuracy"], cells)

    words = (
        f"One head at a time is set to zero, on {counted(found.images, 'image')} where the whole model has a loss of {found.loss:.4f} and an "
        f"accuracy of {percent(found.accuracy)}. {dispensable} of {counted(len(ranked), 'head')} can be left out without a higher loss, if only "
        "one is; several at once are another matter (Michel et al. 2019)."
    )
    few = min(EXTREMES, len(ranked) // 2)
    most, least = ranked[::-1][:few], ranked[:few]
    tables = f"<h3>Missed most</h3>{lines(most)}<h3>Missed least</h3>{lines(least)}"
    inside = (
        f"<p class=soft>{words}</p><div class=pair style='margin-top:0'><div>{drawn}</div><div>{tables}</div></div>"
    )
    return [f"<section><h2>Which heads matter</h2>{inside}</section>"]


def norms_cards(found: Sequence[LayerTokens]) -> list[str]:
    """Norms by layer, and where the outlying ones are."""
    by = {q: [(float(i), float(one.norms[k])) for i, one in enumerate(found)] for k, q in enumerate(QUANTILES)}
    prefix = [(float(i), float(one.prefix[0])) for i, one in enumerate(found) if len(one.prefix)]
    lines = [
        Series("largest", by[1.0], "b"),
        Series("99 %", by[0.99], "f"),
        Series("median", by[0.5], "a", marks=True),
        Series("class token", prefix, "d", dashed=True),
    ]
    wide = any(one.norms[-1] > WIDE * one.norms[2] > 0 for one in found)
    chart = line_chart(
        "Norms of tokens by layer", lines, "layer (0: embedding)",
        compact if wide else lambda v, d: f"{v:.{d}f}", y_log=wide,
    )  # fmt: skip
    cards = [card("Norms of the patch tokens", chart, about_norms(found))]
    high = [(i, one) for i, one in enumerate(found) if one.cut is not None]
    if not high:
        return cards
    i, last = high[-1]
    peak = float(last.where.max())
    picture = exact_picture(colourise(last.where / peak), "where norms are outlying", 320)
    there = f"Layer {i}: {percent(last.share)} of the patches lie above {last.cut:.3g}; at the lightest place in {percent(peak)} of the images."
    return [*cards, card("Where norms are outlying", picture, there)]


def similarity_cards(found: Sequence[LayerTokens]) -> list[str]:
    """Whether tokens collapse, and how much each layer changes them."""
    alike = [(float(i), one.similarity) for i, one in enumerate(found) if np.isfinite(one.similarity)]
    step = [(float(i), one.step) for i, one in enumerate(found) if one.step is not None]
    lines = [
        Series("between patches", alike, "a", marks=True),
        Series("with the layer before", step, "b", marks=True, dashed=True),
    ]
    chart = line_chart("Cosine similarity of tokens by layer", lines, "layer (0: embedding)", lambda v, d: f"{v:.{d}f}")
    words = (
        "The mean cosine of two patches of one image: near 1 they have collapsed (over-smoothing), and later layers cannot tell them "
        "apart. Dashed: the mean cosine of a patch with itself one layer before; near 1 the layer changes little."
    )
    return [card("Do the patches become alike?", chart, words)]


def cka_cards(found: Floats) -> list[str]:
    """The similarity of every two layers."""
    low = float(np.nanmin(found)) if np.isfinite(found).any() else 0.0
    limits = (min(low, 0.99), 1.0)
    drawn = heat_map("CKA between layers", found.tolist(), "layer", "layer", lambda v: f"{v:.2f}", limits)
    words = (
        "Linear CKA (Kornblith et al. 2019; unbiased, over minibatches) of the input of the blocks (0) and the output of each: 1 where two "
        "layers tell images apart in the same way. In a light square little changes from layer to layer."
    )
    return [card("Which layers represent the same?", drawn, words)]

"""The charts of an inspection's page that need images: heads by depth, norms, similarities."""

from collections.abc import Iterator, Sequence

import numpy as np

from vitral.drawing.charts import MANY_MARKS, Series, compact, line_chart
from vitral.drawing.colours import colourise
from vitral.drawing.heat import exact_picture, heat_map
from vitral.errors import counted
from vitral.explain.inspection.heads import Heads
from vitral.explain.inspection.images import QUANTILES, Floats, LayerAttention, LayerTokens
from vitral.report.parts import escape, percent, table

DEPTH = "attention layer"
EXTREMES = 5  # heads in each table
WIDE = 10.0  # times the median: norms then need a logarithmic axis
ABOUT_ENTROPY = (
    "Attention entropy, of the largest possible: 0 % where a head reads one token, 100 % where it reads all alike. Many heads at "
    "100 % in late layers add little; heads near 0 % from the first layer on can make training unstable."
)


def about_distance(diagonal: float) -> str:
    """What to see in the attention distances, for people. diagonal: of the image, in pixels."""
    return (
        "Attention distance: how far from a patch lies what it reads, the mean weighted by attention, one dot a head (figure 7, right, "
        f"of the ViT paper; attention to class and register tokens left out). The image's diagonal is {diagonal:.0f} px. Heads that stay "
        "low in early layers work like convolutions; at the dashed line a head reads alike everything that it may."
    )


def about_norms(found: Sequence[LayerTokens]) -> str:
    """What to see in the norms of the patch tokens, for people."""
    high = [i for i, one in enumerate(found) if one.cut is not None]
    if not high:
        return "In no layer do the norms of some patches stand apart from the rest, at twice the median or more."
    return (
        f"Some patches have an outlying norm in {counted(len(high), 'layer')}, first in layer {high[0]}: there their norms have two modes, "
        "and the upper is at least twice the median. Such patches often hold what the whole image is about and not what is seen there "
        "(Darcet et al. 2024); register tokens take over that part."
    )


def reading_cards(found: Sequence[LayerAttention] | str, diagonal: float) -> list[str]:
    """How far and how evenly each head reads, by depth. diagonal: of the image, in pixels."""
    if isinstance(found, str):
        return []
    uniform = [(float(i), one.uniform) for i, one in enumerate(found) if one.uniform is not None]
    far = [*_heads_by_depth([one.distance for one in found]), Series("read alike", uniform, "c", dashed=True)]
    top = 1.05 * max((y for one in far for _, y in one.points), default=1.0) or 1.0
    even = list(_heads_by_depth([one.entropy / one.most if one.most > 0 else None for one in found]))
    return [
        _card(
            "How far a head reads",
            line_chart(
                "Mean attention distance of each head by layer", far, DEPTH, lambda v, d: f"{v:.{d}f} px", (0.0, top)
            ),
            about_distance(diagonal),
        ),
        _card(
            "How evenly a head reads",
            line_chart("Entropy of each head by layer", even, DEPTH, lambda v, d: f"{v:.{d}%}", (0.0, 1.0)),
            ABOUT_ENTROPY,
        ),
    ]


def elsewhere_card(found: Sequence[LayerAttention] | str) -> str:
    """How much attention goes to what is no patch."""
    if isinstance(found, str):
        return ""
    points = [(float(i), float(one.elsewhere.mean())) for i, one in enumerate(found) if one.elsewhere is not None]
    if not any(share > 0 for _, share in points):
        return ""
    return _card(
        "Attention that leaves the patches",
        line_chart(
            "Attention to other tokens by layer", [Series("", points, marks=True)], DEPTH, lambda v, d: f"{v:.{d}%}"
        ),
        "The share of their attention that patches give to class, distillation and register tokens (and to padding, in windows). Much of it "
        "in late layers says that heads have nothing to read, or that these tokens store what concerns the whole image.",
    )


def _heads_by_depth(layers: Sequence[Floats | None]) -> Iterator[Series]:
    """A dot for each head, and the line of their means."""
    measured = [(float(i), heads) for i, heads in enumerate(layers) if heads is not None]
    dots = sorted((i, float(head)) for i, heads in measured for head in heads)
    for start in range(0, len(dots), MANY_MARKS):  # in parts, for a longer series is drawn without marks
        yield Series("one head" if start == 0 else "", dots[start : start + MANY_MARKS], marks=True, joined=False)
    yield Series("mean of heads", [(i, float(heads.mean())) for i, heads in measured], "b")


def heads_section(found: Heads | str) -> str:
    """How much worse the model is without each head."""
    if isinstance(found, str):
        return ""
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
        f"Each head in turn says nothing (its output is set to zero), everything else stays as it is; on {counted(found.images, 'image')}, where the "
        f"whole model has a loss of {found.loss:.4f} and {percent(found.accuracy)} right answers. "
        f"{dispensable} of {counted(len(ranked), 'head')} could be left out alone without a higher loss. "
        "Several at once are another matter (Michel et al. 2019)."
    )
    few = min(EXTREMES, len(ranked) // 2)
    most, least = ranked[::-1][:few], ranked[:few]
    return (
        "<section><h2>Which heads matter</h2>"
        f"<p class=soft>{words}</p><div class=pair style='margin-top:0'><div>{drawn}</div><div><h3>Missed most</h3>{lines(most)}"
        f"<h3 style='margin-top:16px'>Missed least</h3>{lines(least)}</div></div></section>"
    )


def norms_cards(found: Sequence[LayerTokens] | str) -> list[str]:
    """Norms by layer, and where the artefacts are."""
    if isinstance(found, str):
        return []
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
    card = _card("Norms of the patch tokens", chart, about_norms(found))
    high = [(i, one) for i, one in enumerate(found) if one.cut is not None]
    if not high:
        return [card]
    i, last = high[-1]
    peak = float(last.where.max())
    picture = exact_picture(colourise(last.where / peak), "where norms are outlying", 320)
    there = f"Layer {i}: {percent(last.share)} of the patches lie above {last.cut:.3g}. Light is where most are, in {percent(peak)} of the images."
    return [card, _card("Where norms are outlying", picture, there)]


def similarity_card(found: Sequence[LayerTokens] | str) -> str:
    """Whether tokens collapse, and how much each layer changes them."""
    if isinstance(found, str):
        return ""
    alike = [(float(i), one.similarity) for i, one in enumerate(found) if np.isfinite(one.similarity)]
    step = [(float(i), one.step) for i, one in enumerate(found) if one.step is not None]
    lines = [
        Series("between patches", alike, "a", marks=True),
        Series("with the layer before", step, "b", marks=True, dashed=True),
    ]
    chart = line_chart("Cosine similarity of tokens by layer", lines, "layer (0: embedding)", lambda v, d: f"{v:.{d}f}")
    return _card(
        "Do the patches become alike?",
        chart,
        "The mean cosine between two patches of one image: near 1 they have collapsed (over-smoothing) and further layers can tell them "
        "apart no more. Dashed: the mean cosine between a patch and itself one layer before; near 1 a layer changes little.",
    )


def cka_card(found: Floats | str) -> str:
    """The similarity of every two layers."""
    if isinstance(found, str):
        return ""
    low = float(np.nanmin(found)) if np.isfinite(found).any() else 0.0
    drawn = heat_map(
        "CKA between layers", found.tolist(), "layer", "layer", lambda v: f"{v:.2f}", (min(low, 0.99), 1.0)
    )
    return _card(
        "Which layers say the same?",
        drawn,
        "Linear CKA (Kornblith et al. 2019; unbiased, over minibatches) between what enters the blocks (0) and what each gives: 1 where two layers "
        "tell images apart in the same way. Blocks of light are stretches in which little changes.",
    )


def _card(title: str, drawn: str, words: str) -> str:
    return (
        f"<section><h3>{escape(title)}</h3>{drawn}<p class=soft style='margin:8px 0 0'>{escape(words)}</p></section>"
        if drawn
        else ""
    )

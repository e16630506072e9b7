"""One forward pass of a model over one picture, stored so that the attention of any query in any layer and head is read within milliseconds.

Each layer is packed as soon as it is computed (see `attention`), so at most one is in memory as float32: a ViT-L/14 at 518 pixels has 24 layers of
120 MB and keeps 0.8 GB.
"""

from dataclasses import dataclass, field

import torch

from vitral.deploy.viewer.attention import KeptLayer
from vitral.deploy.viewer.images import Stored
from vitral.deploy.viewer.pack import text, to_bytes
from vitral.deploy.viewer.places import listed
from vitral.drawing.colours import evenness
from vitral.errors import VitralError
from vitral.explain.attention import extent
from vitral.explain.capture import Pass, capture, in_float32
from vitral.explain.features import early_answers
from vitral.explain.geometry import in_words, weights
from vitral.explain.maps import Query
from vitral.explain.methods import undefined
from vitral.explain.removal import cut
from vitral.models.common import CLASS_TOKEN, ImageModel
from vitral.predict import Predictor

TOP, EARLY = 5, 3
"""Classes that are shown of the answer, and of the early answer after a layer."""


@dataclass(frozen=True)
class Look:
    """What a model makes of a picture: its answer, the early answers, and the attention of all layers."""

    picture: dict[str, object]
    box: tuple[int, int, int, int]
    view: tuple[int, int]
    grid: tuple[int, int]
    """Of the patches that can be a query: that of the finest attention layer, or of the finest features of a model without attention."""
    stride: int
    prefix: tuple[str, ...]
    own: str
    removal: dict[str, object]
    answer: dict[str, object]
    lens: dict[str, object]
    layers: list[KeptLayer] = field(repr=False)
    why: str | None
    """Why there are no layers."""

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def describe(self) -> dict[str, object]:
        """For JSON."""
        return {
            "picture": self.picture,
            "box": list(self.box),
            "view": list(self.view),
            "grid": list(self.grid),
            "extent": list(extent(self.grid, self.stride, self.view)),
            "prefix": [{"key": key, "name": name} for key, name in zip(self.keys, self.prefix, strict=True)],
            "own": self.own,
            "layers": [layer.describe(self.view) for layer in self.layers],
            **({"why": self.why} if self.why else {}),
            "removal": self.removal,
            "answer": self.answer,
            "lens": self.lens,
        }

    @property
    def keys(self) -> list[str]:
        """The prefix tokens as queries: cls, or t and a number."""
        return ["cls" if name == CLASS_TOKEN else f"t{i}" for i, name in enumerate(self.prefix)]

    def attention(self, query: str) -> dict[str, object]:
        """The attention of a query in each layer and head, for JSON.

        Args:
            query: own, cls, mean, t1 (the prefix token of that number) or R,C (a patch of `grid`).

        Raises:
            VitralError: a query that is none of these.
        """
        asked = parse_query(query)
        return {"query": query, "layers": [self._layer(i, asked) for i in range(len(self.layers))]}

    def patch_in(self, patch: tuple[int, int], layer: int | None) -> tuple[int, int]:
        """The place in a layer's grid (default: the last layer's) that holds the middle of a patch of `grid`; VitralError outside the grid."""
        weights(patch, 0, self.grid)
        if not self.layers:
            return patch
        geometry = self.layers[-1 if layer is None else layer].geometry
        row, column = (
            min(n - 1, int((i + 0.5) * self.stride) // geometry.stride)
            for i, n in zip(patch, geometry.grid, strict=True)
        )
        return row, column

    def _layer(self, number: int, query: Query | None) -> dict[str, object]:
        if isinstance(query, tuple):
            query = self.patch_in(query, number)
        try:
            maps, prefix = self.layers[number].read(query)
        except VitralError as error:
            return {"why": str(error)}
        tops = maps.max(axis=(1, 2))  # [M]
        return {
            "tops": tops.tolist(),
            "even": [evenness(one, _percent) for one in maps],
            "data": text(to_bytes(maps, 0.0, tops[:, None, None])),
            "prefix": prefix.tolist(),
        }


def look_at(predictor: Predictor, stored: Stored) -> Look:
    """One forward pass over a picture.

    Raises:
        VitralError: a picture smaller than a patch.
    """
    model, steps = explainable(predictor), predictor.card.preprocess
    pixels = predictor.decode(stored.data)
    batch = steps(pixels)[None].to(next(model.parameters()).device)  # [1, C, H, W]
    names = block_names(model)
    layers: list[KeptLayer] = []
    found = capture(model, batch, receive=lambda layer: layers.append(KeptLayer.of(layer, *names[len(layers)])))
    why = undefined(predictor.model, "attention")
    finest = layers[0].geometry if layers else found.features[0]
    view = (steps.height, steps.width)
    side, cells = cut(predictor.model, *view)
    if predictor.answers.of_whole:
        answer: dict[str, object] = {
            "independent": predictor.answers.independent,
            "top": top(predictor, found.logits[0], TOP),
        }
        early = lens(predictor, model, found, len(layers))
    else:
        answer, early = listed(predictor, pixels), {"why": "its answers are places, of which no single token has one"}
    return Look(
        picture=stored.describe(),
        box=steps.box(stored.height, stored.width),
        view=view,
        grid=finest.grid,
        stride=finest.stride,
        prefix=model.prefix_names if layers else (),
        own=in_words(layers[-1].geometry.own if layers else model.reader),
        removal={"grid": list(cells), "extent": list(extent(cells, side, view))},
        answer=answer,
        lens=early,
        layers=layers,
        why=why,
    )


def explainable(predictor: Predictor) -> ImageModel:
    """The part of a model that reads whole images, in float32; VitralError where there is none."""
    if (why := undefined(predictor.model, "similarity")) is not None:
        raise VitralError(why)
    return in_float32(predictor.model.backbone)


def block_names(model: ImageModel) -> list[tuple[str, int]]:
    """(name, stage) of each block in the order of computation; an attention layer has those of its block."""
    several = model.blocks_by_stage()
    names = [
        (f"stage {i}, block {j}" if len(several) > 1 else f"block {j}", i)
        for i, blocks in enumerate(several)
        for j in range(len(blocks))
    ]
    return names + [(f"class block {j}", 0) for j in range(len(model.class_blocks))]


def top(predictor: Predictor, logits: torch.Tensor, count: int) -> list[dict[str, object]]:
    """The most probable classes of logits [K], best first; none for a model without labels."""
    if not predictor.labels:
        return []
    p = predictor.probabilities(logits.detach().float().cpu()[None])[0]
    best = p.topk(min(count, len(p)))
    return [
        {"index": i, "label": predictor.labels[i], "p": q}
        for i, q in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def lens(predictor: Predictor, model: ImageModel, found: Pass, attention: int) -> dict[str, object]:
    """The early answers: the head applied after each block, for JSON. attention: the number of attention layers, one a block or none."""
    if not predictor.labels:
        return {"why": "this model has no labels, so it has no answer"}
    answers, names = early_answers(model, found), block_names(model)
    final = int(found.logits[0].argmax())
    layers = [
        {
            "name": names[block][0],
            "after": block if attention else None,
            "top": top(predictor, logits, EARLY),
            "answer": float(predictor.probabilities(logits[None].float().cpu())[0, final]),
        }
        for block, logits in answers
    ]
    first = answers[0][0]
    note = f"the head cannot read what comes before {names[first][0]}" if first else None
    return {"layers": layers, "note": note}


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def parse_query(query: str) -> Query | None:
    """A query as `explain` takes it, from its text; None for own."""
    if query == "own":
        return None
    if query in ("cls", "mean"):
        return query  # type: ignore[return-value]
    row, comma, column = query.partition(",")
    if comma and row.isdecimal() and column.isdecimal():
        return int(row), int(column)
    if query.startswith("t") and query[1:].isdecimal():
        return int(query[1:])
    raise VitralError(f"query {query[:40]!r}: choose own, cls, mean, t and a token's number, or a patch as row,column")

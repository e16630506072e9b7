"""Answers for the viewer's explanation, mask and compare modes: maps, their scores, masked answers and counterfactuals, for JSON.

The mathematics is in `vitral.explain`; here results are cached and packed.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitral.answers.objects import ObjectAnswers
from vitral.deploy.viewer.looks import block_names, explainable, parse_query
from vitral.deploy.viewer.pack import packed, text
from vitral.errors import VitralError, some
from vitral.explain.capture import decoder_reads
from vitral.explain.counterfactual import Counterfactual
from vitral.explain.counterfactual import counterfactual as fewest
from vitral.explain.explain import explain
from vitral.explain.faithfulness import RANDOM, Curves, Faithfulness, curves, knowing_nothing
from vitral.explain.figure import Explanation
from vitral.explain.maps import Query
from vitral.explain.methods import METHODS
from vitral.explain.removal import Removable, Removal, check_ordered
from vitral.explain.versus import agreement, gain, truer
from vitral.layers.attention import check_layer
from vitral.predict import Predictor

if TYPE_CHECKING:
    from vitral.deploy.viewer.session import Session

TOP = 5
"""Classes of each answer that are compared for a masked picture."""
Answer = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A map of a picture, as a request names it."""

    model: int
    image: str
    method: str
    target: int | None = None
    """Index of the class that the map is about; None for the most probable, or for a method without a class."""
    layer: int | None = None
    query: str | None = None
    """As in `Look.attention`; None for what the head reads."""

    @classmethod
    def side(cls, image: str, text: str, target: int | None) -> "Asked":
        """One side of a comparison, written as a model's number and a method: 0:relevance."""
        model, colon, method = text.partition(":")
        if not colon or not model.isdecimal():
            raise VitralError(f"{text[:40]!r}: give a model's number and a method, as in 0:relevance")
        return cls(int(model), image, method, target)


def explanation(session: "Session", asked: Asked) -> Answer:
    """The packed map, the value that means nothing (`floor`), and what the map shows, in words."""
    began = time.perf_counter()
    found = _explained(session, asked)
    return {
        "method": asked.method,
        "words": found.words,
        "target": _target(session, asked, found),
        "layers": _layers(session, asked),
        "map": packed(found.grid, found.extent),
        "floor": found.floor,
        "colours": None if found.colours is None else text(np.rint(255 * found.colours).astype(np.uint8)),
        "seconds": time.perf_counter() - began,
    }


def score(session: "Session", asked: Asked, removal: str = "mean") -> Answer:
    """How faithful the map is: deletion and insertion beside random orders and the centre, and the verdict."""
    found = _faithfulness(session, asked, removal)
    return {
        "target": found.target,
        "removal": removal,
        "shares": found.map.shares.tolist(),
        "map": _curves(found.map),
        "random": _band(found),
        "centre": _curves(found.centre),
        "verdict": found.verdict(),
        "gain": gain(found),
        "seconds": found.seconds,
    }


def compare(session: "Session", left: Asked, right: Asked, removal: str = "mean") -> Answer:
    """Two maps of one picture: their rank correlation, None where one has no contrast, and a sentence on which is the more faithful."""
    assert left.image == right.image, "the sides show one picture"
    maps = [_explained(session, asked) for asked in (left, right)]
    together = None if any(found.even for found in maps) else agreement(*maps)
    names = [METHODS[asked.method].said for asked in (left, right)]
    if left.model != right.model:
        names = [f"{name} of {session.names[asked.model]}" for name, asked in zip(names, (left, right), strict=True)]
    first, second = (_faithfulness(session, asked, removal) for asked in (left, right))
    return {"agreement": together, "verdict": truer(first, second, (names[0], names[1]))}


def mask(session: "Session", model: int, image: str, removed: Sequence[int], removal: str = "mean") -> Answer:
    """The answer before and after patches are removed, for the top classes of both, ordered by the answer before.

    removed: the patches' numbers, row by row, in the grid of `Look.removal`.
    """
    picture = _removable(session, model, image, removal)
    outside = [str(number) for number in removed if not 0 <= number < picture.count]
    if outside:
        h, w = picture.grid
        raise VitralError(
            f"removed {some(outside)}: the picture has {h} x {w} patches, numbered 0 to {picture.count - 1}"
        )
    kept = np.ones((2, picture.count), bool)
    kept[1, list(removed)] = False
    before = _once(session, ("whole", model, image, removal), lambda: picture.probabilities(kept[:1])[0])  # [K]
    after = picture.probabilities(kept[1:])[0]
    classes = sorted(
        {*np.argsort(-before)[:TOP].tolist(), *np.argsort(-after)[:TOP].tolist()}, key=lambda k: -before[k]
    )
    labels = picture.predictor.labels
    before_all, after_all = (
        [{"index": k, "label": labels[k], "p": float(p[k])} for k in classes] for p in (before, after)
    )
    return {"before": before_all, "after": after_all, "answer": max(after_all, key=lambda answer: answer["p"])}


def counterfactual(
    session: "Session", model: int, image: str, method: str | None = None, removal: str = "mean"
) -> Answer:
    """Few patches whose removal changes the answer. method: whose map guides the search; without one all patches are tried."""
    checked = _removable(session, model, image, removal).removal

    def make() -> Counterfactual:
        guide = None if method is None else _explained(session, Asked(model, image, method))
        return fewest(session.model(model), _pixels(session, model, image), guide, removal=checked)

    found = _once(session, ("counterfactual", model, image, method, removal), make)
    width = found.grid[1]
    return {
        "label": found.label,
        "instead": found.instead,
        "patches": [row * width + column for row, column in found.patches],
        "steps": [row * width + column for row, column in found.steps],
        "probabilities": found.probabilities,
        "proven": found.proven,
        "words": str(found).splitlines()[0],
    }


def _once(session: "Session", key: Hashable, make: Callable[[], T]) -> T:
    """The cached result of this key; makes it where there is none."""
    known: T | None = session.results.get(key)
    return session.results.put(key, make()) if known is None else known


def _explained(session: "Session", asked: Asked) -> Explanation:
    def make() -> Explanation:
        predictor = session.model(asked.model)
        pixels, query = _pixels(session, asked.model, asked.image), _query(session, asked)
        number, target = _what(predictor, asked.target)
        found = explain(predictor, pixels, asked.method, asked.layer, query=query, target=target, object=number)
        return replace(
            found, image=np.broadcast_to(np.uint8(0), found.image.shape)
        )  # of the picture only its size is needed

    return _once(session, ("explanation", asked), make)


def _what(predictor: Predictor, target: int | None) -> tuple[int | None, int | None]:
    """What a map is about, as `explain` takes it: the number of an object, or a class."""
    return (target, None) if isinstance(predictor.answers, ObjectAnswers) else (None, target)


def _query(session: "Session", asked: Asked) -> Query | None:
    """The query for `explain`: a patch of the look's grid becomes the place of the map's grid that holds it."""
    query = None if asked.query is None else parse_query(asked.query)
    if not isinstance(query, tuple):
        return query
    look = session.look(asked.model, asked.image)
    layer = asked.layer
    if look.layers and layer is not None:
        check_layer(layer, len(look.layers))
    return look.patch_in(query, layer)


def _layers(session: "Session", asked: Asked) -> list[str] | None:
    """Names of the layers that can be chosen for the method; None where it takes none."""
    if "layer" not in METHODS[asked.method].takes:
        return None
    if asked.method == "attention" and (reads := decoder_reads(session.models[asked.model].model)):
        return [f"decoder layer {i}" for i in range(len(reads))]
    if asked.method == "attention":
        return [layer.name for layer in session.look(asked.model, asked.image).layers]
    model = explainable(session.models[asked.model])
    blocks = sum(map(len, model.blocks_by_stage()))  # those of the class token alone come after them
    return [name for name, _ in block_names(model)[:blocks]]


def _target(session: "Session", asked: Asked, found: Explanation) -> Answer | None:
    if not found.target:
        return None
    predictor = session.models[asked.model]
    if isinstance(predictor.answers, ObjectAnswers):
        return {"index": asked.target or 0, "label": found.target}
    return {"index": predictor.labels.index(found.target), "label": found.target}


def _pixels(session: "Session", model: int, image: str) -> Tensor:
    """The picture as this model's preprocessing takes it, [C, h, w]."""
    return session.model(model).decode(session.images.get(image).data)


def _removable(session: "Session", model: int, image: str, removal: str) -> Removable:
    return _once(
        session,
        ("removable", model, image, removal),
        lambda: Removable(session.model(model), _pixels(session, model, image), cast(Removal, removal)),  # checks it
    )


def _faithfulness(session: "Session", asked: Asked, removal: str) -> Faithfulness:
    """As `faithfulness.scored`, but the baselines, six sevenths of the work, are measured once for all methods."""
    found, began = _explained(session, asked), time.perf_counter()
    check_ordered(found)
    picture = _removable(session, asked.model, asked.image, removal)
    labels = picture.predictor.labels
    target = labels.index(found.target or found.label)

    def path(key: Hashable, values: NDArray[np.floating]) -> Curves:
        # cached one by one, so that a request that is given up and repeated goes on
        whole = ("curves", key, asked.model, asked.image, removal, target)
        return _once(session, whole, lambda: curves(picture, [values], target)[0])

    *random, centre = (path(i, values) for i, values in enumerate(knowing_nothing(picture, RANDOM)))
    own = path(asked, picture.explained(found))
    seconds = time.perf_counter() - began
    return Faithfulness(labels[target], picture.removal, own, tuple(random), centre, seconds, found.even)


def _curves(found: Curves) -> Answer:
    return {
        "deletion": found.deletion,
        "insertion": found.insertion,
        "deleted": found.deleted.tolist(),
        "inserted": found.inserted.tolist(),
    }


def _band(found: Faithfulness) -> Answer:
    """The random orders: mean and deviation of the areas; mean, lowest and highest of the curves at each share."""
    deleted, inserted = (np.stack([getattr(c, name) for c in found.random]) for name in ("deleted", "inserted"))
    spread = found.spread
    return {
        "deletion": [found.random_deletion, spread[0]],
        "insertion": [found.random_insertion, spread[1]],
        "deleted": [deleted.mean(0).tolist(), deleted.min(0).tolist(), deleted.max(0).tolist()],
        "inserted": [inserted.mean(0).tolist(), inserted.min(0).tolist(), inserted.max(0).tolist()],
    }

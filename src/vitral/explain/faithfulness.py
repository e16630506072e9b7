"""Is a map faithful to the model? Patches are removed, or put back, in the map's order, and the class's probability is followed.

Deletion and insertion of RISE, https://arxiv.org/abs/1806.07421 (section 4.3): the areas under the probability of the class while patches are
removed, the most important first, and while they are inserted into an empty picture. On one image they are the positive and the negative
perturbation of https://arxiv.org/abs/2012.09838 (section 4): removing the least important patches first is insertion backwards, with the same
area. One filling serves both here; RISE inserts into a blurred picture and deletes to a grey one.

A number alone says little, as it depends on the model, the picture and the filling: so the same curves for random orders and for patches from
the centre outwards always come with it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitral.explain.figure import Explanation
from vitral.explain.notebook import curves_html
from vitral.explain.removal import IN_WORDS, Removable, Removal, centre_map, check_ordered, order_of, random_maps
from vitral.predict import ImageLike, Predictor

STEPS = 32
"""Steps of a curve at most: more cost time and hardly move the area."""
RANDOM = 5
"""Random orders."""
LEAST = 0.01
"""Smaller differences of areas do not count, however little random orders vary."""
NEAR = 0.9
"""This share of the way to the best possible area counts, however much random orders vary: they do where one patch decides."""
STEADY = 0.05
"""An answer that moves by less than this in all curves does not depend on the patches."""
UNMOVED = "the answer hardly changes when patches are removed, so this test says nothing here"


def area(values: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Under straight lines between the points, both [P]."""
    return float(((values[1:] + values[:-1]) / 2 * np.diff(shares)).sum())


@dataclass(frozen=True)
class Curves:
    """The probability of a class while patches are removed, and while they are inserted, in one order."""

    shares: NDArray[np.float64]
    """[P], rising from 0 to 1: the share of the patches that are removed, or inserted."""
    deleted: NDArray[np.float64]
    """[P]: from the whole picture to the empty one."""
    inserted: NDArray[np.float64]
    """[P]: from the empty picture to the whole one."""

    @property
    def deletion(self) -> float:
        """The area under `deleted`, in [0, 1]: lower is better."""
        return area(self.deleted, self.shares)

    @property
    def insertion(self) -> float:
        """The area under `inserted`, in [0, 1]: higher is better."""
        return area(self.inserted, self.shares)


@dataclass(frozen=True)
class Faithfulness:
    """The curves of one map, and those of orders that are independent of the model, on the same picture."""

    target: str
    """The class whose probability is followed."""
    removal: Removal
    map: Curves
    random: tuple[Curves, ...]
    centre: Curves
    """From the centre outwards."""
    seconds: float
    even: str = ""
    """That the map has no contrast, as `evenness` says it."""

    @property
    def deletion(self) -> float:
        return self.map.deletion

    @property
    def insertion(self) -> float:
        return self.map.insertion

    @property
    def random_deletion(self) -> float:
        """The mean of the random orders, as is `random_insertion`."""
        return float(np.mean([curves.deletion for curves in self.random]))

    @property
    def random_insertion(self) -> float:
        return float(np.mean([curves.insertion for curves in self.random]))

    @property
    def centre_deletion(self) -> float:
        return self.centre.deletion

    @property
    def centre_insertion(self) -> float:
        return self.centre.insertion

    @property
    def spread(self) -> tuple[float, float]:
        """The standard deviations of the random orders' deletion and insertion."""
        return (
            float(np.std([curves.deletion for curves in self.random])),
            float(np.std([curves.insertion for curves in self.random])),
        )

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest probability in any of the curves."""
        every = np.concatenate([[*c.deleted, *c.inserted] for c in (self.map, *self.random, self.centre)])
        return float(every.min()), float(every.max())

    @property
    def tells(self) -> bool:
        """Whether the answer moves enough for the areas to mean something."""
        lowest, highest = self.range
        return highest - lowest >= STEADY

    def verdict(self) -> str:
        """One sentence: whether the map is better than random orders, by more than chance, and than the centre, as in `standing`.

        It also notes where the map hardly has values to order patches by, and where the class is as probable without any patch.
        """
        low, high = (f"{share:.1%}" for share in self.range)
        if not self.tells:
            return f"{UNMOVED}: {self.target!r} stays {f'between {low} and {high}' if low != high else f'at {low}'}"
        but = [f"its values are {self.even}"] if self.even else []
        whole, empty = self.map.deleted[0], self.map.deleted[-1]
        if empty > whole - STEADY:
            but.append(f"without any patch {self.target!r} has {empty:.1%}, with all {whole:.1%}")
        return self._stands() + (f"; note that {' and that '.join(but)}" if but else "")

    def _stands(self) -> str:
        lowest, highest = self.range
        deletion, insertion = ((self.random_deletion, self.spread[0]), (self.random_insertion, self.spread[1]))
        stands = {
            "deletion": standing(self.deletion, deletion, self.centre_deletion, best=lowest, worst=highest),
            "insertion": standing(self.insertion, insertion, self.centre_insertion, best=highest, worst=lowest),
        }
        beaten, worse = ([name for name, where in stands.items() if where == wanted] for wanted in (1, -1))
        if worse:
            but = f", though better in {beaten[0]}" if beaten else ""
            return f"the map is worse than random orders in {' and '.join(worse)}{but}: do not trust it"
        if len(beaten) == 2:
            return f"the map finds what the answer {self.target!r} rests on better than random orders and the centre do"
        if beaten:
            return f"the map clearly beats random orders and the centre in {beaten[0]} only: trust it halfway"
        return f"the map says no more about the answer {self.target!r} than random orders or the centre do"

    def to_json(self) -> dict[str, object]:
        """Areas, curves and how they were made, for `json.dumps`."""
        return {
            "target": self.target,
            "removal": self.removal,
            "shares": self.map.shares.tolist(),
            **{
                name: {
                    "deletion": [c.deletion for c in several],
                    "insertion": [c.insertion for c in several],
                    "deleted": [c.deleted.tolist() for c in several],
                    "inserted": [c.inserted.tolist() for c in several],
                }
                for name, several in (("map", [self.map]), ("random", self.random), ("centre", [self.centre]))
            },
            "seconds": self.seconds,
        }

    def _repr_html_(self) -> str:
        return curves_html(self)

    def __str__(self) -> str:
        chance = (
            f"{mean:.3f} ± {sd:.3f}"
            for mean, sd in zip((self.random_deletion, self.random_insertion), self.spread, strict=True)
        )
        rows = [
            ("", "deletion", "insertion"),
            ("the map", f"{self.deletion:.3f}", f"{self.insertion:.3f}"),
            (f"random ({len(self.random)} orders)", *chance),
            ("centre first", f"{self.centre_deletion:.3f}", f"{self.centre_insertion:.3f}"),
        ]
        lines = [
            f"mean probability of {self.target!r} while patches are removed in order, {IN_WORDS[self.removal]} (deletion, lower is better),",
            "and while they are inserted into the empty picture (insertion, higher is better):",
        ]
        return "\n".join([*lines, *(f"  {a:18}  {b:13}  {c:13}".rstrip() for a, b, c in rows), self.verdict()])


def standing(own: float, random: tuple[float, float], centre: float, *, best: float, worst: float) -> int:
    """1 where a map's area is better than random orders' by more than chance, and than the centre's; -1 where it is worse than random; else 0.

    Chance is two standard deviations, but at most `NEAR` of the way to the bound, and at least `LEAST`.

    random: mean and standard deviation. best, worst: the bounds of an area.
    """
    mean, deviation = random
    up = 1 if best > worst else -1
    by_chance = {end: max(min(2 * deviation, NEAR * abs(end - mean)), LEAST) for end in (best, worst)}
    if up * (own - mean) > by_chance[best] and up * (own - centre) > LEAST:
        return 1
    return -1 if up * (mean - own) > by_chance[worst] else 0


def scored(
    predictor: Predictor, image: ImageLike, explanation: Explanation, *, removal: Removal = "mean", random: int = RANDOM
) -> Faithfulness:
    """How faithful an explanation of this image is, for the class that it is about, else for the predicted one.

    removal: how patches are removed, as in `Removable`. random: the number of random orders.

    Raises:
        VitralError: the model was trained without labels, or the explanation is a picture in colours, which has no order of patches.
    """
    check_ordered(explanation)
    predictor.check_head()
    target = predictor.labels.index(explanation.target or explanation.label)
    extent = explanation.extent
    found = measure(predictor, image, explanation.grid, target, extent=extent, removal=removal, random=random)
    return replace(found, even=explanation.even)


def measure(
    predictor: Predictor,
    image: ImageLike,
    values: NDArray[np.floating],
    target: int,
    *,
    extent: tuple[float, float] = (1.0, 1.0),
    removal: Removal = "mean",
    random: int = RANDOM,
) -> Faithfulness:
    """As `scored`, of any map [h, w]. target: a position in the predictor's labels. extent: the map's height and width over the view's."""
    began = time.perf_counter()
    picture = Removable(predictor, image, removal)
    maps = [picture.on_grid(values, extent), *knowing_nothing(picture, random)]
    own, *others, centre = curves(picture, maps, target)
    seconds = time.perf_counter() - began
    return Faithfulness(predictor.labels[target], removal, own, tuple(others), centre, seconds)


def knowing_nothing(picture: Removable, random: int) -> list[NDArray[np.float64]]:
    """`random` random maps and, last, the centre's, each [h, w]."""
    return [*random_maps(picture.grid, random), centre_map(picture.grid)]


def curves(picture: Removable, maps: Sequence[NDArray[np.floating]], target: int) -> list[Curves]:
    """The curves of each map [h, w], all in the same forward passes."""
    n = picture.count
    counts = np.unique(np.round(np.linspace(0, n, min(n, STEPS) + 1)).astype(np.int64))  # [P]
    ranks = np.stack([order_of(values).argsort() for values in maps])  # [maps, n]: each patch's place in the order
    first = ranks[:, None, :] < counts[None, :, None]  # [maps, P, n]: the first so many
    kept = np.stack([~first, first])  # [2, maps, P, n]
    answers = picture.probabilities(kept.reshape(-1, n))[:, target].reshape(2, len(maps), len(counts))
    return [Curves(counts / n, deleted, inserted) for deleted, inserted in zip(*answers, strict=True)]

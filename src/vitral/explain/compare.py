"""Methods side by side on many images: faithfulness, localisation, sanity and time of their maps, beside random and centred maps."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitral.data.dataset import Split
from vitral.errors import VitralError
from vitral.explain.explain import METHODS, explain, undefined
from vitral.explain.faithfulness import RANDOM, curves, knowing_nothing
from vitral.explain.figure import Explanation
from vitral.explain.localise import localised
from vitral.explain.removal import Removable, Removal
from vitral.explain.sanity import Mapper, cascade, max_sensitivity, spearman
from vitral.predict import Predictor
from vitral.randomness import Permutation

NOTHING = ("random", "centre")
UNORDERED = ("pca",)  # three values a patch
COLUMNS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "pointing": "pointing game ↑",
    "miou": "mIoU ↑",
    "pixel_accuracy": "pixel accuracy ↑",
    "average_precision": "mAP ↑",
    "sanity": "sanity →0",
    "sensitivity": "sensitivity ↓",
    "seconds": "s an image",
}
Scores = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One picture to explain."""

    name: str
    pixels: Tensor
    """[C, h, w] on the 0..255 scale, as `Predictor` takes it."""
    mask: NDArray[np.bool_] | None = None
    """[H, W] over the model's view: where the object is, if that is known."""


@dataclass(frozen=True)
class Row:
    """The scores of one method's map of one image; the class explained is the one predicted."""

    image: str
    method: str
    scores: Scores
    """By the names in COLUMNS; what was not asked for is not there."""


def cases(predictor: Predictor, split: Split, count: int, seed: int = 0) -> list[Case]:
    """`count` images of the split (all, if it has fewer), drawn without repetition."""
    steps = predictor.card.preprocess
    chosen = Permutation(len(split), seed, 0)(np.arange(min(count, len(split))))
    return [Case(split.names[i], split.read(i, steps.channels)) for i in chosen.tolist()]


def compare(
    predictor: Predictor,
    images: Sequence[Case],
    methods: Sequence[str],
    *,
    removal: Removal = "mean",
    random: int = RANDOM,
    sane: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """A row for each image and method, and for each image the rows `random` (the mean of `random` random maps) and `centre`.

    sane: the number of images, as these are slow, with two more scores: `sanity`, Spearman's correlation with the maps of the model randomised
        from the head down, the mean over the stages; and `sensitivity`, the change of the map under noise too small to see.
    progress: called with (images done, images in all).

    Raises:
        VitralError: a method is not known, or undefined for this model.
    """
    check_methods(predictor, methods)
    before: dict[tuple[int, str], Explanation] = {}
    targets, found = [], []
    for i, case in enumerate(images):
        picture = Removable(predictor, case.pixels, removal)
        targets.append(int(picture.probabilities(np.ones((1, picture.count), bool))[0].argmax()))
        seconds = {}
        for method in methods:
            began = time.perf_counter()
            before[i, method] = explain(predictor, case.pixels, method, target=targets[i])
            seconds[method] = time.perf_counter() - began
        maps = [(before[i, method].grid, before[i, method].extent) for method in methods]
        maps += [(values, picture.extent) for values in knowing_nothing(picture, random)]
        scores = scores_of(picture, maps, targets[i], case.mask)
        known, guesses, centre = scores[: len(methods)], scores[len(methods) : -1], scores[-1]
        chance = {name: float(np.mean([guess[name] for guess in guesses])) for name in centre}
        timed = ((method, {**own, "seconds": seconds[method]}) for method, own in zip(methods, known, strict=True))
        found += [Row(case.name, name, own) for name, own in (*timed, *zip(NOTHING, (chance, centre), strict=True))]
        if progress:
            progress(i + 1, len(images))
    late = steadiness(predictor, images[:sane], methods, targets, before, seed) if sane else {}
    for row in found:
        yield Row(row.image, row.method, row.scores | late.get((row.image, row.method), {}))


def steadiness(
    predictor: Predictor,
    images: Sequence[Case],
    methods: Sequence[str],
    targets: Sequence[int],
    before: dict[tuple[int, str], Explanation],
    seed: int,
) -> dict[tuple[str, str], Scores]:
    """(image, method) -> `sanity` and, unless the map is 0 everywhere, `sensitivity`."""
    agreement: dict[tuple[int, str], list[float]] = {}
    for _, randomised in cascade(predictor, seed):
        for i, case in enumerate(images):
            for method in methods:
                after = explain(randomised, case.pixels, method, target=targets[i]).grid
                agreement.setdefault((i, method), []).append(spearman(before[i, method].grid, after))
    scores = {}
    for (i, method), several in agreement.items():
        own = scores[images[i].name, method] = {"sanity": float(np.mean(several))}
        if before[i, method].grid.any():
            own["sensitivity"] = max_sensitivity(predictor, images[i].pixels, mapper(method, targets[i]), seed=seed)
    return scores


def mapper(method: str, target: int) -> Mapper:
    """A method and its target as `sanity` and `max_sensitivity` take them."""
    return lambda predictor, image: explain(predictor, image, method, target=target).grid


def scores_of(
    picture: Removable,
    maps: Sequence[tuple[NDArray[np.floating], tuple[float, float]]],
    target: int,
    mask: NDArray[np.bool_] | None,
) -> list[Scores]:
    """The scores of maps, each values [h, w] and their extent, on one picture; with a mask of the object those of localisation, too."""
    paths = curves(picture, [picture.on_grid(*each) for each in maps], target)
    return [
        {"deletion": path.deletion, "insertion": path.insertion}
        | ({} if mask is None else asdict(localised(values, mask, extent)))
        for path, (values, extent) in zip(paths, maps, strict=True)
    ]


def comparable(predictor: Predictor) -> list[str]:
    """The methods that are defined for this model and whose maps order the patches."""
    return [m for m in METHODS if m not in UNORDERED and undefined(predictor.model, m) is None]


def check_methods(predictor: Predictor, methods: Sequence[str]) -> None:
    """A VitralError for a method that does not exist, is undefined for this model, or gives no order of patches."""
    if methods:
        predictor.check_whole()
    for method in methods:
        if why := undefined(predictor.model, method):
            raise VitralError(why)
        if method in UNORDERED:
            raise VitralError(f"method {method}: a picture in colours, which has no order of patches; leave it out")


def means(rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """method -> score -> (mean over the images, its standard error, None of a single image)."""
    table: dict[str, dict[str, tuple[float, float | None]]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row.scores for row in rows if row.method == method]
        for name in COLUMNS:
            values = np.array([scores[name] for scores in own if name in scores])
            if len(values):
                error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
                table.setdefault(method, {})[name] = float(values.mean()), error
    return table


def to_json(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The `means` with their names, for `json.dumps`."""
    return {
        method: {name: {"mean": mean, "error": error} for name, (mean, error) in scores.items()}
        for method, scores in means(rows).items()
    }


def markdown(rows: Sequence[Row]) -> str:
    """The table of `means`, aligned, ± one standard error."""
    table = means(rows)
    columns = [name for name in COLUMNS if any(name in scores for scores in table.values())]
    lines = [["method", *(COLUMNS[name] for name in columns)]]
    for method, scores in table.items():
        cells = [with_error(*scores[name], name != "seconds") if name in scores else "" for name in columns]
        lines.append([method, *cells])
    wide = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "|".join(["", "-" * (wide[0] + 2), *("-" * (w + 1) + ":" for w in wide[1:]), ""])
    aligned = [[line[0].ljust(wide[0]), *map(str.rjust, line[1:], wide[1:])] for line in lines]
    drawn = [f"| {' | '.join(cells)} |" for cells in aligned]
    return "\n".join([drawn[0], rule, *drawn[1:]])


def with_error(mean: float, error: float | None, shown: bool = True) -> str:
    """A mean and, if there is one and it is to be shown, its standard error."""
    return f"{mean:.3f}" if error is None or not shown else f"{mean:.3f} ± {error:.3f}"

"""The command that explains: maps of what in an image a model's answer rests on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitral.cli.options import argument
from vitral.cli.reading import ReadingOptions
from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.explain.figure import Explanation
    from vitral.predict import Predictor

MethodName = Literal[
    "attention",
    "rollout",
    "gradient_rollout",
    "relevance",
    "grad_cam",
    "legrad",
    "integrated_gradients",
    "occlusion",
    "logit_lens",
    "similarity",
    "pca",
]  # the names of vitral.explain.methods.METHODS, which cannot be asked for here: it needs torch


@dataclass
class Explain:
    """Draw what in an image the model's answer rests on: a map over the image, in its own shape.

    Example: vitral explain runs/photos cat.jpg --layer 5 --head 0 -o cat.png

    Example: vitral explain runs/photos cat.jpg --method relevance --target dog

    Example: vitral explain runs/photos cat.jpg --compare rollout relevance occlusion -o row.png

    Example: vitral explain runs/photos cat.jpg --all -o heads.png --npz cat.npz

    Example: vitral explain runs/street street.jpg --object 2 --method relevance
    """

    model: Path = argument()
    """Run folder or model file."""
    image: Path = argument()
    """Picture to explain."""
    out: Path | None = argument(None, flags=("-o",))
    """Picture to write: .png, .jpg or .webp; default: the method's name with .png."""
    method: MethodName = "attention"
    """What is drawn: attention, rollout, relevance or another. attention, rollout: what is read.
    gradient_rollout, relevance, legrad, grad_cam: what of that speaks for a class, by gradients.
    integrated_gradients, occlusion: which pixels speak for a class. logit_lens, similarity, pca: what the patches represent."""
    compare: tuple[MethodName, ...] = ()
    """Draw these methods side by side, instead of one."""
    target: str | None = None
    """Class that the map is about, by name or number. Not for attention, rollout, similarity and pca, but where answers are places; default: the
    most probable, or the commonest class of a map."""
    object: int | None = None
    """Object or segment that the map is about, of a model that finds some: its number in the picture of vitral predict; default: the surest."""
    at: tuple[float, float] | None = None
    """Place that the map is about, of a model that answers places: X and Y in pixels of the picture; default: the object, or the class as a whole."""
    threshold: float | None = None
    """Score from which an object counts as found; default: what was best on the validation images, else 0.4."""
    layer: int | Literal["mean"] | None = None
    """Layer from 0, or from the end if negative, or for attention mean for all. Of attention (an object's is that of the decoder, if there is one),
    logit_lens and pca; default: the last."""
    head: int | None = None
    """Head of attention, from 0; default: the mean of all."""
    query: tuple[int, int] | int | Literal["cls", "mean"] | None = None
    """Whose attention: cls (the class token), mean (the average patch) or the patch at ROW COLUMN. A number is a token before the patches (0 the
    class token, then distillation or registers); default: what the model's head reads."""
    all: bool = False
    """Draw the attention of every layer and head in one picture."""
    score: bool = False
    """Also test the map: remove patches in its order and put them back, beside random orders and the centre, and see the answer change. A caption
    below the picture says what came out."""
    counterfactual: bool = False
    """Also find few patches whose removal changes the answer: in the map's order, without those that are not needed."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    npz: Path | None = None
    """Also write the raw arrays to this file: all layers for attention and rollout, else the map's values."""


def explain(given: Explain, words: list[str]) -> int:
    check(given)
    from vitral.drawing.figure import colourless, save_picture
    from vitral.explain.attention import save_arrays
    from vitral.explain.counterfactual import counterfactual
    from vitral.explain.explain import attention_maps
    from vitral.explain.faithfulness import scored
    from vitral.explain.methods import METHODS
    from vitral.explain.row import row_figure
    from vitral.predict import load

    out = given.out or Path(f"{'compared' if given.compare else given.method}.png")
    for flag, written in (("-o", out), ("--npz", given.npz)):
        if written is not None and written.exists() and given.image.exists() and written.samefile(given.image):
            raise VitralError(f"{written}: is the picture that is explained; name another file with {flag}")
    predictor = given.reading.read_by(load(given.model))
    check_places(predictor, given)
    if given.all:
        attention = attention_maps(predictor, given.image)
        said = answer(attention.label, attention.probability)
        drawn = f"attention of {attention.geometry[-1].words(given.query)}, by layer and head"
        save_picture(attention.figure(f"{given.image.name}: {said}\n{drawn}", given.query), out)
        drawn = "; ".join(filter(None, (drawn, colourless(attention.heads(given.query)))))
    else:
        names = given.compare or (given.method,)
        maps = maps_of(predictor, given, names)
        first = maps[names[0]]
        said = answer(first.label, first.probability)
        tests = {name: str(scored(predictor, given.image, e)) for name, e in maps.items()} if given.score else {}
        title = f"{given.image.name}: {said}".removesuffix(": ")
        if given.compare:
            save_picture(row_figure(maps, title), out)
        else:
            verdicts = [test.rpartition("\n")[2] for test in tests.values()]
            first.save(out, caption=". ".join([title, first.words, *verdicts]) if verdicts else "")
        drawn = "\n       ".join(e.words for e in maps.values())
        if first.framed:
            drawn += "; the frame is the part of the picture that the model sees"
    if isinstance(given.query, tuple):
        drawn += "; the outlined patch is the query"
    if given.npz is not None:
        whole = predictor.answers.of_whole and given.method in ("attention", "rollout") and not given.compare
        if given.all or whole:
            attention_maps(predictor, given.image).save(given.npz)
        else:
            save_arrays(given.npz, {name: e.grid if e.colours is None else e.colours for name, e in maps.items()})
    wrote = f"wrote {out}" + (f" and {given.npz}" if given.npz else "")
    print(f"{said}; {wrote}\ndrawn: {drawn}" if said else f"{wrote}\ndrawn: {drawn}", file=sys.stderr)
    for name, explanation in maps.items() if not given.all else ():
        if given.score:
            print(f"{METHODS[name].said}: {tests[name]}", flush=True)
        if given.counterfactual:
            print(f"{METHODS[name].said}: {counterfactual(predictor, given.image, explanation)}", flush=True)
    return 0


def check(given: Any) -> None:
    """VitralError for flags that contradict each other."""
    if given.all and (given.score or given.counterfactual):
        raise VitralError("--all draws many maps; leave it out, or leave out --score and --counterfactual")
    if given.all and (given.method, given.compare, given.layer, given.head) != ("attention", (), None, None):
        raise VitralError(
            "--all draws the attention of every layer and head; leave out --method, --compare, --layer and --head"
        )
    if given.compare and given.method != "attention":
        raise VitralError(f"--compare {' '.join(given.compare)} and --method {given.method}: give one of them")
    if given.all and given.target is not None:
        raise VitralError("--target: attention is about no class; leave it out")


def check_places(predictor: "Predictor", given: Any) -> None:
    """VitralError for flags that do not suit the model's answers; the threshold is set."""
    whole = predictor.answers.of_whole
    for name in ("object", "at", "threshold"):
        if whole and getattr(given, name) is not None:
            raise VitralError(
                f"--{name}: is for models that answer places, and {given.model} says one thing of an image; leave it out"
            )
    for name in ("all", "score", "counterfactual"):
        if not whole and getattr(given, name):
            raise VitralError(
                f"--{name}: is for models with one answer an image, and {given.model} answers places; leave it out"
            )
    if given.threshold is not None:
        predictor.find_from(given.threshold)


def maps_of(predictor: "Predictor", given: Any, names: Sequence[str]) -> "dict[str, Explanation]":
    """The maps by their methods. Each of several gets the options that it takes; an option that none takes is refused."""
    from vitral.explain.explain import explain
    from vitral.explain.methods import METHODS

    options = {name: getattr(given, name) for name in ("target", "layer", "head", "query")}
    options = {name: value for name, value in options.items() if value is not None}
    several = len(names) > 1
    for name in options:
        if (
            predictor.answers.of_whole
            and (several or name == "target")
            and not any(name in METHODS[method].takes for method in names)
        ):
            some = [method for method in METHODS if name in METHODS[method].takes]
            raise VitralError(
                f"--{name}: {' and '.join(names)} cannot take it; leave it out, or choose a --method that can: {', '.join(some)}"
            )
    place = {name: v for name in ("object", "at") if (v := getattr(given, name)) is not None}
    if not predictor.answers.of_whole and "target" in options:
        place["target"] = options.pop("target")
    return {
        method: explain(
            predictor,
            given.image,
            method,
            **place,
            **{name: v for name, v in options.items() if not several or name in METHODS[method].takes},
        )
        for method in names
    }


def answer(label: str, probability: float) -> str:
    """The class and its probability; nothing for a model without classes."""
    return f"{label} {probability:.1%}" if label else ""

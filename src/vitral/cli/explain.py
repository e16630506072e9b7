"""The command that explains: maps of what in one image a model's answer comes from."""

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
    """Draw what in an image the model's answer comes from, over the image in its own shape.

    Example: vitral explain runs/photos cat.jpg --layer 5 --head 0 -o cat.png

    Example: vitral explain runs/photos cat.jpg --method relevance --target dog

    Example: vitral explain runs/photos cat.jpg --compare rollout relevance occlusion -o row.png

    Example: vitral explain runs/photos cat.jpg --all -o heads.png --npz cat.npz
    """

    model: Path = argument()
    """Run folder or model file."""
    image: Path = argument()
    """Picture to explain."""
    out: Path | None = argument(None, flags=("-o",))
    """Picture to write: .png, .jpg or .webp; default: the method's name with .png."""
    method: MethodName = "attention"
    """What is drawn: attention, rollout, relevance or another. attention, rollout: what is read.
    gradient_rollout, relevance, legrad, grad_cam: what of it speaks for a class, by gradients.
    integrated_gradients, occlusion: what in the pixels does. logit_lens, similarity, pca: what the patches have become."""
    compare: tuple[MethodName, ...] = ()
    """Draw these methods side by side, instead of one."""
    target: str | None = None
    """Class that the map is about, by its name or its number. Not for attention, rollout, similarity and pca; default: the most probable."""
    layer: int | Literal["mean"] | None = None
    """Layer from 0, or from the end if negative, or for attention mean for all. Of attention, logit_lens and pca; default: the last."""
    head: int | None = None
    """Head of attention, from 0; default: the mean of all."""
    query: tuple[int, int] | int | Literal["cls", "mean"] | None = None
    """Who looks: cls (the class token), mean (the average patch) or the patch at ROW COLUMN. A number is a token before the patches (0 the class
    token, then distillation or registers); default: what the model's head reads."""
    all: bool = False
    """Draw the attention of every layer and head in one picture."""
    score: bool = False
    """Also say whether the map is true. Patches go and come in its order, beside random orders and the centre, and the answer is watched."""
    counterfactual: bool = False
    """Also say which patches change the answer when they are removed. They go in the map's order, and are put back where not needed."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    npz: Path | None = None
    """Also write the raw arrays to this file: of attention and rollout all layers, of other methods their values."""


def explain(given: Explain, words: list[str]) -> int:
    check(given)
    from vitral.drawing.figure import colourless, save_picture
    from vitral.explain.attention import save_arrays
    from vitral.explain.counterfactual import counterfactual
    from vitral.explain.explain import attention_maps
    from vitral.explain.faithfulness import scored
    from vitral.explain.row import row_figure
    from vitral.predict import load

    predictor = given.reading.read_by(load(given.model))
    out = given.out or Path(f"{'compared' if given.compare else given.method}.png")
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
        if given.compare:
            save_picture(row_figure(maps, f"{given.image.name}: {said}"), out)
        else:
            first.save(out)
        drawn = "\n       ".join(e.words for e in maps.values())
        if first.framed:
            drawn += "; the frame is the part of the picture that the model sees"
    if isinstance(given.query, tuple):
        drawn += "; the outlined patch is the query"
    if given.npz is not None:
        if given.all or (given.method in ("attention", "rollout") and not given.compare):
            attention_maps(predictor, given.image).save(given.npz)
        else:
            save_arrays(given.npz, {name: e.grid if e.colours is None else e.colours for name, e in maps.items()})
    wrote = f"wrote {out}" + (f" and {given.npz}" if given.npz else "")
    print(f"{said}; {wrote}\ndrawn: {drawn}" if said else f"{wrote}\ndrawn: {drawn}", file=sys.stderr)
    for name, explanation in maps.items() if not given.all else ():
        if given.score:
            print(f"{name}: {scored(predictor, given.image, explanation)}", flush=True)
        if given.counterfactual:
            print(f"{name}: {counterfactual(predictor, given.image, explanation)}", flush=True)
    return 0


def check(given: Any) -> None:
    """Refuse flags that say different things."""
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


def maps_of(predictor: "Predictor", given: Any, names: Sequence[str]) -> "dict[str, Explanation]":
    """The maps by their methods. Of several, each is asked for what it can be asked for; what none can is refused."""
    from vitral.explain.explain import explain
    from vitral.explain.methods import METHODS

    options = {name: getattr(given, name) for name in ("target", "layer", "head", "query")}
    options = {name: value for name, value in options.items() if value is not None}
    several = len(names) > 1  # then an option is for those that have it
    for name in options:
        if (several or name == "target") and not any(name in METHODS[method].takes for method in names):
            some = [method for method in METHODS if name in METHODS[method].takes]
            raise VitralError(
                f"--{name}: nothing that {' and '.join(names)} can be asked for; leave it out, or choose a --method that has one: {', '.join(some)}"
            )
    return {
        method: explain(
            predictor,
            given.image,
            method,
            **{name: v for name, v in options.items() if not several or name in METHODS[method].takes},
        )
        for method in names
    }


def answer(label: str, probability: float) -> str:
    """The class and its probability; nothing for a model without classes."""
    return f"{label} {probability:.1%}" if label else ""

"""`vitral evaluate`: a model's scores on data."""

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitral.cli.explain import MethodName
from vitral.cli.options import argument, names_said
from vitral.cli.parse import at_least, values_said
from vitral.data.options import DataOptions
from vitral.errors import VitralError, counted

if TYPE_CHECKING:
    from vitral.data.dataset import DataSet, Split
    from vitral.deploy.fastest.price import Price, Scored
    from vitral.evaluation.evaluator import Scores
    from vitral.explain.compare import Row
    from vitral.predict import Predictor


@dataclass
class Evaluate:
    """Score a model on labelled images: top-1 and top-5, precision, recall and F1 a class, confusion, calibration error, intervals.
    Where an image can have several labels: mean average precision (mAP), F1, exact matches, calibration error. Of maps: mIoU, of boxes: AP.

    Example: vitral evaluate runs/photos photos/ --split test --json > scores.json

    Example: vitral evaluate runs/photos photos/ --explanations rollout relevance
    """

    model: Path = argument()
    """Run folder or model file."""
    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Split to score; default: test if the model was trained on these data or they have a test split, else all."""
    json: bool = False
    """Print JSON on stdout. Its trained_on counts the images that the model was trained on, null if that is not known."""
    merge: int = 0
    """Tokens that become one with others in each layer of a plain ViT, which is faster: scores the model so, and says what it loses beside the model
    as it is, and how fast both are; default: none."""
    keep_shape: bool = False
    """Let a plain ViT see whole images in their own shapes, at about as many pixels as its view has, nothing cropped or padded: scores the model so,
    and says what that loses or wins beside the model as it is, and how fast both are."""
    explanations: tuple[MethodName, ...] = ()
    """Also test how faithful the maps of these methods are. By deletion and insertion, beside random maps and the centre: attention, rollout,
    gradient_rollout, relevance, grad_cam, legrad, integrated_gradients, occlusion, logit_lens, similarity or pca."""
    images: int = 50
    """How many images --explanations takes, drawn at random."""
    batch_size: int = 64
    """Images in one forward pass."""
    workers: int = 0
    """Processes that read images."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What runs the model: torch, onnx (ONNX Runtime) or openvino; auto takes what vitral optimize found fastest for it here, or the model's own."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Numbers to compute with: auto, fp32 or bf16."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def evaluate(given: Evaluate, words: list[str]) -> int:
    at_least(1, batch_size=given.batch_size, images=given.images)
    at_least(0, workers=given.workers, merge=given.merge)
    from vitral.evaluation.evaluate import evaluate as score
    from vitral.evaluation.seen import count_seen
    from vitral.explain.compare import cases, compare
    from vitral.training.display import Display
    from vitral.training.machine import choose_device, choose_precision
    from vitral.training.reopen import open_as_in_training

    whole, predictor = _opened(given)
    with Display() as display:
        data = open_as_in_training(
            given.data,
            given.model,
            predictor.card,
            values_said(given.options, given.said),
            partial(display.count, "checking images"),
        )
        name, split = _chosen_split(given, data, predictor)
        if predictor.engine.library != "PyTorch":
            display.say(f"run by {predictor.engine.library}")
        display.say(f"{predictor.card.model}: scoring {counted(len(split), 'image')} ({name})")
        trained_on = count_seen(given.model, predictor.card, split)
        for note in _notes(data, trained_on):
            display.say(f"- {note}")
        precision = choose_precision(given.precision, choose_device("cpu"))
        scored = partial(
            score, split=split, data_labels=data.labels, name=given.data, batch_size=given.batch_size, workers=given.workers,
            precision=precision, progress=lambda n, total: display.count("evaluating", n, total),
        )  # fmt: skip
        result, evaluator = scored(predictor)
        other = f"merging {given.merge}" if given.merge else "keeping shapes" if given.keep_shape else ""
        lost = _beside(whole, scored(whole), predictor, (result, evaluator), split, precision) if other else None
        maps = list(compare(
            predictor, cases(predictor, split, given.images) if given.explanations else [], given.explanations,
            progress=lambda n, total: display.count("explaining", n, total),
        ))  # fmt: skip
    about = {"data": given.data, "split": name, "fingerprint": data.fingerprint, "trained_on": trained_on}
    if given.json:
        beside = {} if lost is None else {"merging" if given.merge else "keeping_shape": lost.to_json()}
        _print_json({**about, "skipped": len(data.skipped), **beside}, result, maps)
    else:
        _print_tables(result, maps, min(given.images, len(split)))
    if lost is not None:
        print(lost.lines(result.TITLE, other), file=sys.stderr)
    if trained_on:
        print(
            f"{trained_on:,} of these {counted(len(split), 'image was', 'images were')} in the model's training, "
            "so this score says little about new images",
            file=sys.stderr,
        )
    return 0


def _opened(given: Evaluate) -> "tuple[Predictor, Predictor]":
    """The model as it is, and as it is to be scored."""
    from vitral.deploy.fastest.choice import opened
    from vitral.explain.compare import check_methods

    itself = given.explanations or given.merge or given.keep_shape or given.precision != "fp32"  # no exported file can
    whole = opened(given.model, "own" if itself and given.engine == "auto" else given.engine)
    predictor = whole.merging(given.merge) if given.merge else whole
    predictor = predictor.keeping_shape() if given.keep_shape else predictor
    if given.explanations:
        check_methods(predictor, given.explanations)
    return whole, predictor


def _chosen_split(given: Evaluate, data: "DataSet", predictor: "Predictor") -> "tuple[str, Split]":
    """The split to score: the one that was asked for, else the images that are new to the model."""
    from vitral.evaluation.evaluate import merged

    same = predictor.card.data.get("fingerprint") == data.fingerprint
    name = given.split or ("test" if "test" in data.splits and (same or "test" in data.given) else "all")
    split = merged(data) if name == "all" else data.splits.get(name)
    if split is None:
        raise VitralError(f"{given.data}: has no {name} split; there are {', '.join(data.splits)} and all")
    return name, split


def _beside(
    whole: "Predictor", scored: "Scored", other: "Predictor", other_scored: "Scored", split: "Split", precision: str
) -> "Price":
    """What another way of running a model costs beside the model as it is; both are timed."""
    from vitral.cli.bench import seen
    from vitral.deploy.fastest.contest import Way
    from vitral.deploy.fastest.price import BATCH, price

    ways = Way("as it is", "torch", whole), Way("the other", "torch", other)
    with whole.engine.computing(precision):
        views = [seen(split, each.card, BATCH) for each in (whole, other)]
        return price(ways, (scored, other_scored), split, views)


def _notes(data: "DataSet", trained_on: int | None) -> list[str]:
    """What to know before reading the score."""
    from vitral.evaluation.seen import NAME

    if trained_on is not None:
        return data.notes
    return [
        *data.notes,
        f"whether the model was trained on any of them is unknown: there is no {NAME} of its run beside it",
    ]


def _print_json(about: dict[str, object], result: "Scores", maps: "list[Row]") -> None:
    from vitral.explain.compare import to_json

    explained = {"explanations": to_json(maps)} if maps else {}
    print(json.dumps({**about, **result.to_json(), **explained}))
    print(result.summary(), file=sys.stderr)


def _print_tables(result: "Scores", maps: "list[Row]", explained: int) -> None:
    """explained: of how many images the maps are."""
    from vitral.explain.compare import markdown

    print(f"{result.summary()}\n\n{result.table()}", flush=True)
    if maps:
        print(f"\nmaps of {counted(explained, 'image')}, ± one standard error\n{markdown(maps)}", flush=True)

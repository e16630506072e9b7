"""The command that measures how useful a frozen model's features are: probe."""

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import argument, names_said
from vitral.cli.parse import at_least, values_said
from vitral.data.options import DataOptions
from vitral.errors import VitralError, counted

if TYPE_CHECKING:
    import numpy as np

    from vitral.data.dataset import DataSet
    from vitral.predict import Predictor
    from vitral.training.display import Display

SHOTS = (1, 5, 10, 25)
COLUMNS = {"model": "the model", "random": "random weights", "pixels": "pixels"}


@dataclass
class Probe:
    """How useful a frozen model's features are: top-1 of linear probes on a few training images a class and on all, and of nearest neighbours.

    Probes are fitted in closed form on features of the training images and scored on the test images (or validation images, where there is
    no test split). The model needs no head: it may come from vitral pretrain, or from elsewhere.

    Example: vitral probe runs/photos-pretrained photos/

    Example: vitral probe runs/photos-pretrained photos/ --baseline
    """

    model: Path = argument()
    """Run folder or model file, with or without a head."""
    data: str = argument()
    """Folder, table or built-in name, with labels."""
    shots: tuple[int, ...] | None = None
    """Training images a class; default: those of 1 5 10 25 that the smallest class has."""
    seeds: int = 3
    """How many times the few images are drawn."""
    baseline: bool = False
    """Also with random weights of the same architecture, and on the pixels."""
    json: bool = False
    """Print JSON on stdout."""
    batch_size: int = 64
    """Images in one forward pass."""
    workers: int = 0
    """Processes that read images."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def probe(given: Probe, words: list[str]) -> int:
    at_least(1, seeds=given.seeds, batch_size=given.batch_size)
    at_least(0, workers=given.workers)
    from vitral.predict import load
    from vitral.training.display import Display
    from vitral.training.machine import choose_device
    from vitral.training.reopen import open_as_in_training

    predictor = load(given.model)
    predictor.model.to(choose_device("auto"))
    with Display() as display:
        options = values_said(given.options, given.said)
        data = open_as_in_training(
            given.data, given.model, predictor.card, options, partial(display.count, "checking images"), training=True
        )
        shots, scored = _asked(data, given.shots)
        for note in [*data.notes, *_left_out(given.shots, shots)]:
            display.say(f"- {note}")
        read = _read(predictor, data, given, display)
        results = {who: _results(data, scored, by_split, shots, given.seeds) for who, by_split in read.items()}
    count = counted(len(data.splits[scored]), "image")
    print(
        f"{predictor.card.model}\ntop-1 on {count} ({scored}), {len(data.labels)} classes, {given.seeds} seeds",
        file=sys.stderr,
    )
    if given.json:
        print(json.dumps({"data": given.data, "split": scored, "fingerprint": data.fingerprint, **results}))
    else:
        print(_table(results, shots), flush=True)
        if not given.baseline:
            print("to see how much is learned, --baseline adds random weights and the pixels", file=sys.stderr)
    return 0


def _asked(data: "DataSet", shots: tuple[int, ...] | None) -> tuple[tuple[int, ...], str]:
    """The numbers of training images a class, and the split to score on."""
    if not data.splits["train"].targets.one_class:
        raise VitralError(f"{data.name}: its task is {data.task}; probe with data of one class an image")
    scored = next((name for name in ("test", "val") if name in data.splits), None)
    if scored is None:
        raise VitralError(f"{data.name}: has neither a test nor a validation split; give --test-fraction above 0")
    if shots is not None and min(shots, default=0) < 1:
        raise VitralError(f"--shots {' '.join(map(str, shots))}: give one or more numbers of at least 1")
    least = min(len(each) for each in data.splits["train"].targets.members())
    return shots or tuple(each for each in SHOTS if each <= least), scored


def _left_out(asked: tuple[int, ...] | None, shots: tuple[int, ...]) -> list[str]:
    """A note on the usual numbers of images that the smallest class does not have."""
    left = " ".join(str(each) for each in SHOTS if each not in shots)
    return [f"not from {left} images a class: the smallest class has fewer"] if asked is None and left else []


def _read(
    predictor: "Predictor", data: "DataSet", given: Any, display: "Display"
) -> "dict[str, dict[str, np.ndarray]]":
    """The features [n, D] of every split: the model's, and with --baseline those without training."""
    from vitral.evaluation.probes import features, pixels, untrained
    from vitral.predict import Predictor

    readers = {"model": predictor}
    if given.baseline:
        readers["random"] = Predictor(untrained(predictor.model), predictor.card)
    read = {
        who: {
            name: features(
                reader, split, batch_size=given.batch_size, workers=given.workers,
                progress=lambda n, total: display.count("reading images", n, total),
            )
            for name, split in data.splits.items()
        }
        for who, reader in readers.items()
    }  # fmt: skip
    if given.baseline:
        steps = predictor.card.preprocess
        read["pixels"] = {name: pixels(split, steps, workers=given.workers) for name, split in data.splits.items()}
    return read


def _results(
    data: "DataSet", scored: str, read: "dict[str, np.ndarray]", shots: tuple[int, ...], seeds: int
) -> dict[str, object]:
    """The scores of one kind of features, by split."""
    from vitral.evaluation.probes import few_shot, k_nn, linear

    train, test = data.splits["train"].targets.values, data.splits[scored].targets.values
    val = (read["val"], data.splits["val"].targets.values) if "val" in read and scored != "val" else None
    few = few_shot(read["train"], train, read[scored], test, shots, seeds)
    answers, l2 = linear(read["train"], train, read[scored], val)
    return {
        "few_shot": {str(n): {"mean": float(top1.mean()), "deviation": float(top1.std())} for n, top1 in few.items()},
        "k_nn": float((k_nn(read["train"], train, read[scored]) == test).mean()),
        "linear": {"top1": float((answers == test).mean()), "l2": l2},
    }


def _table(results: dict[str, dict], shots: tuple[int, ...]) -> str:
    """A line for each probe, a column for each kind of features."""
    lines = [f"{'':28}" + "".join(f"{COLUMNS[who]:>17}" for who in results)]
    for n in shots:
        cells = (result["few_shot"][str(n)] for result in results.values())
        text = "".join(f"{cell['mean']:>9.1%} ± {cell['deviation']:5.1%}" for cell in cells)
        lines.append(f"{counted(n, 'image') + ' a class':28}{text}")
    lines.append(f"{'20 nearest neighbours':28}" + "".join(f"{result['k_nn']:>17.1%}" for result in results.values()))
    tops = "".join(f"{result['linear']['top1']:>17.1%}" for result in results.values())
    return "\n".join([*lines, f"{'linear, all training images':28}{tops}"])

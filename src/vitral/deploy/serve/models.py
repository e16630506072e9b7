"""The models of a server: loaded and tried before they answer, and loaded anew where their file has changed."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from vitral.data.resample import Pixels
from vitral.data.values import Range
from vitral.data.view import Placed
from vitral.deploy.serve.metrics import Metrics
from vitral.deploy.worker import Together, Worker
from vitral.errors import VitralError
from vitral.predict import Predictor, load

LOOK = 1.0
"""Seconds between two looks at a model's file. One that has changed is read when two looks see the same."""
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as its model sees it, and where that lies in the image."""

    name: str
    view: Pixels
    placed: Placed
    clipped: Range | None = None
    since: float = field(default_factory=time.monotonic)
    """When it began to wait for the engine."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model as one state of its file has it. Its images are computed together, and with no other state's."""

    predictor: Predictor
    version: str
    """The first 12 hex digits of the SHA-256 of its file, or files."""
    together: Together


class Served:
    """A model that is served: its name, and what answers now."""

    def __init__(self, name: str, path: str, read: Callable[[str], Predictor], metrics: Metrics, most: int) -> None:
        """read: path -> predictor. most: images in a batch. Raises VitralError where the model cannot be read."""
        self.name, self.path = name, path
        self._read, self._metrics, self._most = read, metrics, most
        self._stamp = self._seen = stamp(path)
        self.loaded = self._load()
        self.ready = False

    def _load(self) -> Loaded:
        predictor = self._read(self.path)
        predictor.check_head()
        version = digest(self.path)

        def compute(images: Sequence[Prepared]) -> list[Any]:
            return run(predictor, images, self._metrics, {"model": self.name, "version": version})

        return Loaded(predictor, version, Together(compute, self._most))

    def warm_up(self, worker: Worker) -> None:
        """Compute one image and a whole batch of grey ones, so that the first request is as fast as others; from then on it is ready."""
        worker.run(lambda: self._try(self.loaded))
        self.ready = True

    def _try(self, loaded: Loaded) -> None:
        """Raises VitralError where the model gives no answers, or answers that are no numbers."""
        predictor = loaded.predictor
        steps = predictor.card.preprocess
        pixels = np.full((steps.channels, steps.height, steps.width), 128, np.uint8)
        for number in (1, self._most):
            images = [Prepared("grey", steps.view(pixels), predictor.placed(pixels)) for _ in range(number)]
            outputs = loaded.together.timed(images)
        (answer,) = predictor.answered(outputs[0], ["grey"], [images[0].placed])
        try:
            json.dumps(answer.to_json(), allow_nan=False)
        except ValueError as error:
            raise VitralError(
                f"{self.path}: answers {answer.line(1)} for a grey picture, which is no number"
            ) from error

    def look(self, worker: Worker) -> None:
        """Load the model anew if its file has changed and stays as it is. It is tried first; where that fails the old one goes on answering."""
        seen, self._seen = self._seen, stamp(self.path)
        if self._seen != seen or seen == self._stamp:
            return
        self._stamp = seen
        try:
            loaded = self._load()
            if loaded.predictor.card.task != self.loaded.predictor.card.task:
                raise VitralError(
                    f"{self.path}: its task is {loaded.predictor.card.task} now; serve it under another name, as its answers have another form"
                )
            worker.run(lambda: self._try(loaded))
            if stamp(self.path) != seen:  # changed while it was read: it is looked at again
                self._stamp = ()
                return
        except Exception as error:  # whatever is wrong with the file, the server goes on
            self._metrics.count("vitral_reload", model=self.name, result="refused")
            print(f"vitral serve: {self.name} stays {self.loaded.version}: {error}", file=sys.stderr, flush=True)
            return
        self.loaded = loaded
        self._metrics.count("vitral_reload", model=self.name, result="loaded")
        print(f"vitral serve: {self.name} is {loaded.version} now", file=sys.stderr, flush=True)


def run(predictor: Predictor, images: Sequence[Prepared], metrics: Metrics, labels: dict[str, str]) -> list[Any]:
    """The outputs of each image, those of one size and kind in one forward pass."""
    now = time.monotonic()
    metrics.count("nv_inference_queue_duration_us", 1e6 * sum(now - image.since for image in images), **labels)
    kinds: dict[Any, list[int]] = {}
    for i, image in enumerate(images):
        kinds.setdefault((image.view.shape, image.view.dtype), []).append(i)
    results: list[Any] = [None] * len(images)
    for rows in kinds.values():
        began = time.monotonic()
        outputs = predictor.run([images[i].view for i in rows])
        took = time.monotonic() - began
        for k, i in enumerate(rows):
            results[i] = outputs[k : k + 1]
            metrics.predict.labels(labels["model"]).observe(took)
        metrics.count("nv_inference_compute_infer_duration_us", 1e6 * took, **labels)
        metrics.count("nv_inference_count", len(rows), **labels)
        metrics.count("nv_inference_exec_count", 1, **labels)
    return results


def watch(models: Iterable[Served], worker: Worker, ended: Event) -> None:
    """Look at the models' files until `ended` is set."""
    while not ended.wait(LOOK):
        for model in models:
            model.look(worker)


def load_all(given: Sequence[str], read: Callable[[str], Predictor] = load) -> list[tuple[str, str]]:
    """(name, path) of NAME=PATH or PATH, which is called as its run or file. Raises VitralError where two have one name."""
    named = [_named(each) for each in given]
    twice = [name for name, _ in named if [other for other, _ in named].count(name) > 1]
    if twice:
        raise VitralError(
            f"{twice[0]}: two models have this name; give them others, as in a={named[0][1]} b={named[-1][1]}"
        )
    return named


def _named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    if not equals or Path(given).exists():
        place = Path(given)
        name, path = (
            (place.parent.name if place.name == "model.safetensors" else place.stem if place.suffix else place.name),
            given,
        )
        name = re.sub(r"[^\w.-]+", "-", name or "model", flags=re.ASCII)
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise VitralError(f"{name!r}: is no name for a model; take letters, digits, points, - and _")
    return name, path


def files_of(path: str) -> list[Path]:
    """What a model is read from; nothing of one that is not on this disk."""
    place = Path(path)
    if not place.is_dir():
        weights = [place.with_suffix(".bin")] if place.suffix == ".xml" else []  # OpenVINO's
        return [each for each in (place, *weights) if each.exists()]
    own = place / "model.safetensors"
    if own.is_file() and not (place / "config.json").is_file():
        return [own]
    return sorted(each for each in place.iterdir() if each.is_file())


def stamp(path: str) -> Stamp:
    """What changes when one of the files does."""
    found = []
    for file in files_of(path):
        try:
            said = os.stat(file)
        except OSError:  # it has gone since
            continue
        found.append((str(file), said.st_ino, said.st_size, said.st_mtime_ns))
    return tuple(found)


def digest(path: str) -> str:
    """The first 12 hex digits of the SHA-256 of the model's files, or of its name where it is not on this disk."""
    told = sha256()
    for file in files_of(path):
        with open(file, "rb") as opened:
            while block := opened.read(2**20):
                told.update(block)
    return (told if files_of(path) else sha256(path.encode())).hexdigest()[:12]

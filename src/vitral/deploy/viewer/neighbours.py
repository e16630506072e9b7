"""The training images that are most similar to a picture for a model: nearest neighbours of the features that its head reads, by cosine.

As the retrieval of DINO, https://arxiv.org/abs/2104.14294, section 4.1. The index of a model is made on the first request, in a thread that takes
turns with the page's computing, and kept in the user's cache folder. Axes: n images, D features.
"""

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitral.checkpoints.atomic import read_safetensors, write_safetensors
from vitral.checkpoints.card import ModelCard
from vitral.data.bands import COLOURS, to_rgb
from vitral.data.dataset import DataSet, Split
from vitral.data.decode import decode
from vitral.data.files import cache_folder
from vitral.data.folder import UNLABELLED
from vitral.data.images import content_hash
from vitral.data.listers import list_data
from vitral.data.preprocess import Preprocess
from vitral.data.progress import OnProgress
from vitral.data.sources import SMALL
from vitral.drawing.figure import data_url
from vitral.errors import VitralError, counted
from vitral.evaluation.evaluate import merged
from vitral.evaluation.probes import features
from vitral.predict import Predictor
from vitral.randomness import Permutation, derive
from vitral.training.reopen import open_as_in_training, training_images_left
from vitral.training.toml import stored_data_options

MOST = 5000  # images of an index: half a minute for a small model, and a few megabytes
TURN = 0.1  # seconds of computing after which requests of the page get their turn
SIDE = 128  # pixels of a picture's longer side
NEAREST = 12  # images of an answer
CACHED = 16  # indices that are kept on disk
Features = NDArray[np.float16]


@dataclass
class Index:
    """The index of one model's training images, or how far it has come."""

    doing: str = "checking images"
    done: int = 0
    total: int = 0
    why: str | None = None
    """Why it cannot be made."""
    ready: "Known | None" = None

    def count(self, done: int, total: int) -> None:
        self.done, self.total = done, total


@dataclass(frozen=True)
class Known:
    """The indexed images and their features."""

    words: str
    split: Split
    labels: list[str]
    rows: Features
    """[n, D], of unit length."""


def check_data(data: str, models: Sequence[Predictor]) -> None:
    """VitralError for data that do not exist or that the models cannot read. Opens no image."""
    for model in models:
        options = replace(stored_data_options(model.card.recipe), skip_unreadable=True)
        list_data(data, options, training=False, labelled=False)


Read = tuple[NDArray[np.float32], float]  # features [n, D], and the seconds that they took


@dataclass
class Neighbours:
    """The indices of the models of one viewer.

    paths: of the models, to find their runs' own data. data: a folder, table or built-in name to use instead. turn: calls a function when the
    page computes nothing, and returns its result. most: images of an index, drawn at random where there are more.
    """

    models: Sequence[Predictor]
    paths: Sequence[str]
    data: str | None
    turn: Callable[[Callable[[], Read]], Read]
    most: int = MOST
    indices: dict[int, Index] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, model: int, image: bytes, count: int = NEAREST) -> dict[str, Any]:
        """The `count` nearest images to an encoded picture, or the progress of their index, or why there is none.

        The first call starts the index. VitralError for a picture that the model cannot read.
        """
        index = self.indices.get(model)
        if index is None:
            index = self.indices[model] = Index()
            turns = Turns(self.models[model], self.turn, self.ended)
            name, given = f"neighbours of model {model}", (self.paths[model], turns, index)
            threading.Thread(target=self._fill, args=given, name=name, daemon=True).start()
        if index.why is not None:
            return {"state": "none", "why": index.why}
        if index.ready is None:
            return {"state": "indexing", "doing": index.doing, "done": index.done, "total": index.total}
        return nearest(self.models[model], index.ready, image, count)

    def close(self) -> None:
        """Stop making indices after the current turn."""
        self.ended.set()

    def _fill(self, path: str, turns: "Turns", index: Index) -> None:
        """Make an index, or set the reason why not: in either case it ends, so that no page waits forever."""
        try:
            index.ready = self._known(path, turns, index)
        except VitralError as error:
            index.why = str(error)
        except Exception:
            index.why = "the index of training images could not be made; the server's terminal says more"
            if not self.ended.is_set():
                raise

    def _known(self, path: str, turns: "Turns", index: Index) -> Known:
        card, gone = turns.predictor.card, None
        if self.data is None:
            data, split, gone = images_of_run(path, card, index.count)
        else:
            said = {"skip_unreadable": True}
            data = open_as_in_training(self.data, Path(path), card, said, index.count, labelled=False, strict=False)
            split = data.splits.get("train") or merged(data)
        chosen = sample(split, self.most)
        index.doing = "reading images"
        index.count(0, len(chosen))
        words = in_words(card, data, split, chosen, gone)
        return Known(words, chosen, data.labels, rows_of(turns, chosen, index.count))


@dataclass(frozen=True)
class Turns:
    """A model that computes in turn with the page, as `Neighbours` says."""

    predictor: Predictor
    turn: Callable[[Callable[[], Read]], Read]
    ended: threading.Event

    def features(self, split: Split) -> Read:
        def timed() -> Read:
            began = time.perf_counter()
            return features(self.predictor, split, batch_size=len(split)), time.perf_counter() - began

        if self.ended.is_set():
            raise VitralError("the viewer has ended")
        return self.turn(timed)


def rows_of(turns: Turns, split: Split, progress: OnProgress) -> Features:
    """[n, D] of unit length, from the cache, or computed turn by turn and then cached."""
    path = cache_folder() / "neighbours" / f"{identity(turns.predictor, split)}.safetensors"
    if (cached := _read(path, len(split))) is not None:
        return cached
    parts: list[Features] = []
    done, size = 0, 4
    while done < len(split):
        part = split.take(np.arange(done, min(done + size, len(split))))
        rows, seconds = turns.features(part)
        parts.append(unit(rows))
        done += len(part)
        progress(done, len(split))
        size = max(1, min(2 * size, int(size * TURN / max(seconds, 1e-6))))
    together = np.concatenate(parts)
    _write(path, together)
    return together


def sample(split: Split, most: int) -> Split:
    """At most so many images of a split, the same each time, in its order."""
    if len(split) <= most:
        return split
    order = Permutation(len(split), derive(0, "neighbours"), 0)
    return split.take(np.sort(order(np.arange(most))))


def images_of_run(path: str, card: ModelCard, progress: OnProgress) -> tuple[DataSet, Split, int]:
    """As `training_images_left`; VitralError also where no run lies beside the model."""
    elsewhere = "name some with vitral view --neighbours DATA"
    try:
        found = training_images_left(Path(path), card, progress)
    except VitralError as error:
        raise VitralError(f"{error}; or {elsewhere}") from error
    if found is None:
        raise VitralError(f"the training images are unknown, for there is no run beside the model; {elsewhere}")
    return found


def in_words(card: ModelCard, data: DataSet, split: Split, chosen: Split, gone: int | None) -> str:
    """A sentence on the indexed images. gone: how many of the run's training images no longer exist; None for other data."""
    kind = "training image" if split.name == "train" else "image"
    whole = counted(len(split), kind) if not gone else counted(
        len(split), f"{kind} that is still there", f"{kind}s that are still there"
    )  # fmt: skip
    which = f"all {whole}" if len(chosen) == len(split) else f"{len(chosen):,} of {whole}, drawn at random"
    words = f"the nearest in {data.name}, among {which}"
    small = sum(reason.startswith(SMALL) for _, reason in data.skipped)
    broken = len(data.skipped) - small
    left_out = [counted(broken, "image that cannot be read", "images that cannot be read")] if broken else []
    left_out += [counted(small, f"image that is {SMALL}", f"images that are {SMALL}")] if small else []
    if left_out:
        words += f" ({' and '.join(left_out)} left out)"
    if gone:
        words += (
            f"; {gone:,} of the {gone + len(split):,} that the model was trained on {'is' if gone == 1 else 'are'} gone"
        )
    if gone is not None or card.data.get("fingerprint", data.fingerprint) == data.fingerprint:
        return words
    return f"{words}; the model was trained on other images, or on these divided otherwise"


def nearest(predictor: Predictor, known: Known, image: bytes, count: int) -> dict[str, Any]:
    """The nearest images and their votes. A copy of the picture itself is marked and has no vote."""
    model = predictor.model
    with torch.inference_mode():
        read = model.represent(predictor.preprocess(image)[None].to(next(model.parameters()).device))
    asked = unit(read.float().cpu().numpy())[0].astype(np.float32)  # [D]
    cosines = known.rows.astype(np.float32) @ asked  # [n]
    best = np.argsort(-cosines, kind="stable")[:count].tolist()
    own = _contents(image, predictor.card.preprocess)
    found = [
        {
            "name": known.split.names[i],
            "labels": labels_of(known, i),
            "similarity": round(min(1.0, float(cosines[i])), 4),
            "same": int(known.split.contents[i]) in own,
            "picture": picture(known.split, i, predictor.card.preprocess.show_bands),
        }
        for i in best
    ]
    votes = Counter(label for one in found if not one["same"] for label in one["labels"])
    voters = sum(1 for one in found if not one["same"] and one["labels"])
    return {
        "state": "ready",
        "words": known.words,
        "neighbours": found,
        "votes": [{"label": label, "share": n / voters} for label, n in votes.most_common()],
    }


def _contents(image: bytes, steps: Preprocess) -> set[int]:
    """The picture's content hashes, as `Split.contents` holds them: of its file's bytes, or of the pixels of a grey picture."""
    hashes = [content_hash(image)]
    if steps.channels in COLOURS:
        hashes.append(content_hash(decode(image, 1, reading=steps.reading)[0].numpy().tobytes()))
    return {int.from_bytes(digest[:8], "big") for digest in hashes}


def labels_of(known: Known, i: int) -> list[str]:
    """The classes of an image; none for data without labels."""
    if known.labels == [UNLABELLED]:
        return []
    return known.split.targets.named(i, known.labels)


def picture(split: Split, i: int, bands: tuple[int, int, int] | None = None) -> str:
    """An image as a data URL, shrunk to SIDE pixels; smaller ones exactly."""
    drawn = Image.fromarray(to_rgb(split.read(i, None, SIDE), bands))
    exact = max(drawn.size) <= SIDE
    drawn.thumbnail((SIDE, SIDE))
    return data_url(drawn, exact)


def unit(rows: NDArray[np.float32]) -> Features:
    """[n, D] to unit length in half precision, which keeps cosines to a thousandth."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float16)


def identity(predictor: Predictor, split: Split) -> str:
    """A hash of all that an index depends on: weights, preprocessing, and the images in their order."""
    total = hashlib.blake2b(digest_size=16)
    card = predictor.card
    total.update(json.dumps([card.architecture, card.arguments, card.preprocess.to_json()], sort_keys=True).encode())
    for name, tensor in predictor.model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    total.update(split.contents.tobytes())
    return total.hexdigest()


def _read(path: Path, count: int) -> Features | None:
    """The cached index; None where there is none, or a broken one, which is then made again."""
    if not path.exists():
        return None
    try:
        rows = read_safetensors(path)[0]["rows"].numpy()
    except (VitralError, KeyError):
        return None
    return rows if rows.shape[:1] == (count,) and rows.dtype == np.float16 else None


def _write(path: Path, rows: Features) -> None:
    """Cache an index, and drop the oldest ones."""
    try:
        write_safetensors(path, {"rows": torch.from_numpy(rows)}, {})
        for old in sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[:-CACHED]:
            old.unlink(missing_ok=True)
    except (VitralError, OSError) as error:
        print(f"the index of training images is not cached: {error}", file=sys.stderr)

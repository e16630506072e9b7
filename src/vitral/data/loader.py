"""Batches by number: batch `step` of a run is a pure function of (data, seed, step), whoever computes it and whenever."""

import itertools
import signal
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vitral.data.augment import Augmentation
from vitral.data.preprocess import Preprocess
from vitral.data.sources import Split
from vitral.errors import VitralError
from vitral.randomness import Permutation

REMEMBERED = 2**30  # bytes
Batch = tuple[Tensor, Tensor]  # pixels [B, C, H, W] on the 0..255 scale, targets [B]


class TrainingBatches(Dataset[Batch]):
    """Item `step` is the step-th batch of an endless run: shuffled anew each epoch, the last batch of an epoch may be short."""

    def __init__(
        self, split: Split, preprocess: Preprocess, augmentation: Augmentation, batch_size: int, seed: int
    ) -> None:
        self.split, self.preprocess, self.augmentation = split, preprocess, augmentation
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = -(-len(split) // batch_size)
        self.read = Reader(split, preprocess, augmentation.hint)

    def indices(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch that `step` lies in, and the samples of its batch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        positions = np.arange(batch * self.batch_size, min((batch + 1) * self.batch_size, len(self.split)))
        return epoch, Permutation(len(self.split), self.seed, epoch)(positions)

    def __getitem__(self, step: int) -> Batch:
        epoch, indices = self.indices(step)
        draws = self.augmentation.draw(self.seed, epoch, indices)
        images = [self.augmentation(self.read(i), [d[row] for d in draws]) for row, i in enumerate(indices.tolist())]
        return stack(images), torch.from_numpy(self.split.targets[indices])

    def stream(self, start: int, stop: int | None, workers: int) -> Iterator[Batch]:
        """Batches start, start + 1, ... (without end if `stop` is None), computed ahead by `workers` processes."""
        steps = itertools.count(start) if stop is None else range(start, stop)
        return _stream(self, steps, workers)


class EvaluationBatches(Dataset[Batch]):
    """The split in its own order, each image as the model will see it in use."""

    def __init__(self, split: Split, preprocess: Preprocess, batch_size: int) -> None:
        self.split, self.preprocess, self.batch_size = split, preprocess, batch_size
        self.read = Reader(split, preprocess, preprocess.hint)

    def __getitem__(self, number: int) -> Batch:
        rows = range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.split)))
        images = [self.preprocess.view(self.read(i)) for i in rows]
        return stack(images), torch.from_numpy(self.split.targets[rows.start : rows.stop])

    def stream(self, workers: int) -> Iterator[Batch]:
        return _stream(self, range(-(-len(self.split) // self.batch_size)), workers)


class Reader:
    """Image `index` of a split with the channels that the model takes, refused if it is smaller than a patch.

    In the main process decoded images are remembered, up to a gibibyte: most data sets that a person collects are then decoded once.
    """

    def __init__(self, split: Split, preprocess: Preprocess, hint: int) -> None:
        self.split, self.preprocess, self.hint = split, preprocess, hint
        self.kept: dict[int, Tensor] = {}
        self.room = REMEMBERED

    def __call__(self, index: int) -> Tensor:
        """[C, h, w]"""
        if index in self.kept:
            return self.kept[index]
        image = self.split.read(index, self.preprocess.channels, self.hint)
        self.preprocess.check(image.shape[1], image.shape[2], self.split.names[index])
        if self.split.path(index) is not None and self.room >= image.nbytes and get_worker_info() is None:
            self.kept[index] = image
            self.room -= image.nbytes
        return image


def stack(images: list[Tensor]) -> Tensor:
    """[B, C, H, W]; float32 if any image came with more than 8 bits."""
    deep = any(image.dtype != torch.uint8 for image in images)
    return torch.stack([image.float() for image in images] if deep else images)


class Carried(Dataset[Batch | VitralError]):
    """Batches, with an error of the user's in place of the batch: it crosses from a worker process without its traceback."""

    def __init__(self, batches: Dataset[Batch]) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Batch | VitralError:
        try:
            return self.batches[number]
        except VitralError as error:
            return VitralError(str(error))


def _stream(batches: Dataset[Batch], numbers: Iterable[int], workers: int) -> Iterator[Batch]:
    """The batches of these numbers in order, computed ahead by `workers` processes, or here if 0."""
    # The explicit generator keeps the loader's own draws away from the global one; nothing here uses what it draws.
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="This DataLoader will create"
        )  # more workers than cores is the caller's choice
        loader: DataLoader[Batch | VitralError] = DataLoader(
            Carried(batches),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            generator=generator,
            worker_init_fn=_ignore_interrupt,
        )
        items = iter(loader)
    for item in items:
        if isinstance(item, VitralError):
            raise item
        yield item


def _ignore_interrupt(worker: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the main process decides when to stop

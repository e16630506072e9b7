"""Batches by number: batch `step` of a run is a pure function of (data, seed, step), in any process and any order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from vitral.data.augment import Augmentation
from vitral.data.compose import Compose, Sample, together
from vitral.data.dataset import Split
from vitral.data.mix import MIX_DRAWS, Mix
from vitral.data.preprocess import Preprocess
from vitral.data.view import Placed, View
from vitral.data.workers import Failed, stream, tell
from vitral.errors import VitralError
from vitral.randomness import Permutation, derive, keys, uniforms

REMEMBERED = 2**30  # bytes
Pixels = tuple[Any, Any]
"""Images [B, C, H, W] on the 0..255 scale, or apart a list of [C, H, W], and what outputs are compared with."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    views: tuple[Tensor, ...]
    """Each [B, C, H, W]: one view of every image, or several for objectives that compare them; each view has its own size."""
    targets: Any
    """Classes int64 [B], shares of classes float32 [B, K], or what the task's `Targets.batch` gives."""
    keys: Tensor
    """int64 [B]: `vitral.randomness.keyed` derives a sample's own random numbers from its key."""
    whole: float | None = None
    """Of an objective that counts otherwise than by images, its count of the whole step's batch, whatever part of it this is."""
    total: int | None = None
    """Images of the whole step's batch, of which this is a part; None: these are all."""
    idle: bool = False
    """Whether these images are another process's, here only because every process takes every step, and count nothing."""
    remarks: tuple[str, ...] = ()
    """What reading the images has met, for the run's log."""

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def images_in_step(self) -> int:
        return len(self) if self.total is None else self.total

    def split(self, size: int) -> Iterator["Batch"]:
        """The batch in parts of up to `size` samples."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            views = tuple(view[part] for view in self.views)
            yield replace(self, views=views, targets=self.targets[part], keys=self.keys[part])

    def to(self, device: torch.device) -> "Batch":
        """Pixels and targets on the device; the keys stay on the CPU, where numpy reads them."""
        views = tuple(view.to(device, non_blocking=True) for view in self.views)
        return replace(self, views=views, targets=self.targets.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Pixels and targets in pinned memory, from which a GPU copies while it computes."""
        return replace(self, views=tuple(view.pin_memory() for view in self.views), targets=self.targets.pin_memory())


class TrainingBatches(Dataset[Batch]):
    """Item `step` is the step-th batch of an endless run: shuffled anew each epoch; the last batch of an epoch may be short.

    augmentations: one for each view. mix: Mixup and CutMix, on the first view. compose: images with objects joined, instead. repeats: how often each
    image is in a batch. balanced: each class equally often; an epoch keeps its number of images. part: (r, n), of n processes that share each
    batch the one with number r.
    """

    def __init__(
        self,
        split: Split,
        preprocess: Preprocess,
        augmentations: Sequence[Augmentation],
        batch_size: int,
        seed: int,
        *,
        mix: Mix | None = None,
        compose: Compose | None = None,
        repeats: int = 1,
        balanced: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.part = part
        self.split, self.preprocess, self.augmentations = split, preprocess, augmentations
        self.batch_size, self.seed, self.mix, self.repeats = batch_size, seed, mix, repeats
        self.compose = compose
        self.steps_per_epoch = -(-len(split) // batch_size)
        hint = None if split.targets.in_place else max(augmentation.hint for augmentation in augmentations)
        self.read = Reader(split, preprocess, hint)
        self.members = split.targets.members() if balanced else None

    def indices(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The epoch of `step`, the samples of this process's part of its batch, and the repetition number of each.

        Where the part is empty it is the batch's first sample.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        slots = batch * self.batch_size + (rows_of(self.whole(step), *self.part) if self.shares(step) else np.arange(1))
        positions, repetition = np.divmod(slots, self.repeats)
        order = Permutation(len(self.split), self.seed, epoch)
        return epoch, order(positions) if self.members is None else self._balanced(epoch, order(positions)), repetition

    def whole(self, step: int) -> int:
        """Images of the whole batch."""
        return min(self.batch_size, len(self.split) - step % self.steps_per_epoch * self.batch_size)

    def shares(self, step: int) -> bool:
        """Whether any of the batch is this process's."""
        return len(rows_of(self.whole(step), *self.part)) > 0

    def _balanced(self, epoch: int, shuffled: np.ndarray) -> np.ndarray:
        """The shuffled numbers 0..n-1 dealt to the classes in turn; the members of a class follow in its own shuffled order."""
        assert self.members is not None
        turn, of_class = np.divmod(shuffled, len(self.members))
        chosen = np.empty_like(shuffled)
        for k, members in enumerate(self.members):
            here = of_class == k
            order = Permutation(len(members), derive(self.seed, "balance", k), epoch)
            chosen[here] = members[order(turn[here] % len(members))]
        return chosen

    def __getitem__(self, step: int) -> Batch:
        return self._made(step, *self.indices(step))

    def ends(self, step: int) -> Batch:
        """The first and last image of a batch, as they are in the whole batch: Mixup and CutMix pair these two."""
        epoch, indices, repetition = self.indices(step)
        return self._made(step, epoch, indices[[0, -1]], repetition[[0, -1]])

    def _made(self, step: int, epoch: int, indices: np.ndarray, repetition: np.ndarray) -> Batch:
        occasions = indices * self.repeats + repetition
        if self.compose is not None:
            composed = self._composed(self.compose, epoch, indices, occasions)
            return replace(composed, **self._shared(step))
        images = [self.read(i) for i in indices.tolist()]
        drawn = [augmentation.draw(self.seed, epoch, occasions) for augmentation in self.augmentations]
        views = [
            stack([augmentation(image, [d[row] for d in draws]) for row, image in enumerate(images)])
            for augmentation, draws in zip(self.augmentations, drawn, strict=True)
        ]

        def placed(k: int) -> Placed:
            h, w = images[k].shape[1:]
            return Placed(h, w, self.augmentations[0].where(h, w, [d[k] for d in drawn[0]]))

        targets = self.split.targets.batch(indices, placed)
        if self.mix is not None:
            views[0], targets = self.mix(
                views[0], targets, uniforms(self.seed, "mix", 0, np.array([step]), MIX_DRAWS)[0]
            )
        sample_keys = torch.from_numpy(keys(self.seed, "sample", epoch, occasions))
        return Batch(tuple(views), targets, sample_keys, **self._shared(step))

    def _shared(self, step: int) -> dict[str, Any]:
        """What a batch knows of the step's whole batch, and of reading."""
        said = self.split.images.happened()
        return {
            "total": self.whole(step),
            "idle": not self.shares(step),
            "remarks": () if said is None else (said,),
        }

    def _composed(self, compose: Compose, epoch: int, indices: np.ndarray, occasions: np.ndarray) -> Batch:
        """Images in one view, each with its partners as they are augmented in this epoch."""
        partners = compose.partners(self.seed, epoch, occasions)
        made = []
        for index, occasion, others in zip(indices.tolist(), occasions.tolist(), partners, strict=True):
            joined = self.samples(
                epoch, np.array([index, *others]), np.array([occasion, *(k * self.repeats for k in others)])
            )
            made.append(compose(joined, self.seed, epoch, occasion))
        things = together([each.things for each in made])
        return Batch(
            (stack([each.pixels for each in made]),),
            things,
            torch.from_numpy(keys(self.seed, "sample", epoch, occasions)),
        )

    def one(self, epoch: int, index: int) -> Batch:
        """A batch of one image as it is joined with others in an epoch."""
        assert self.compose is not None
        return self._composed(self.compose, epoch, np.array([index]), np.array([index * self.repeats]))

    def samples(self, epoch: int, indices: np.ndarray, occasions: np.ndarray) -> list[Sample]:
        """Images as the first view augments them, each with its objects."""
        augmentation = self.augmentations[0]
        drawn, found = augmentation.draw(self.seed, epoch, occasions), []
        for row, index in enumerate(indices.tolist()):
            image, own = self.read(index), [d[row] for d in drawn]
            h, w = image.shape[1:]
            view = augmentation.where(h, w, own)
            things = self.split.targets.batch(indices[row : row + 1], partial(_placed_in, h, w, view))
            found.append(Sample(augmentation(image, own), things))
        return found

    def stream(
        self, start: int, stop: int | None, workers: int, failed: Failed = tell, *, pinned: bool = False
    ) -> Iterator[Batch]:
        """Batches start, start + 1, ... (endless if `stop` is None), computed ahead by `workers` processes; see `vitral.data.workers`."""
        return stream(self, start, stop, workers, failed, pinned=pinned)


def _placed_in(h: int, w: int, view: View, k: int) -> Placed:
    """Where a view lies in the one image of a batch."""
    return Placed(h, w, view)


def rows_of(count: int, number: int, processes: int) -> np.ndarray:
    """The rows of a batch of `count` images that a process computes: row i together with row count - 1 - i, as Mixup pairs them.

    The first process has rows of every batch; of a small one others may have none.
    """
    pairs = -(-count // 2)
    first, end = (-(-pairs * n // processes) for n in (number, number + 1))
    near = np.arange(first, end)
    far = count - 1 - near[::-1]
    return np.concatenate([near, far[far >= end]])  # the middle one once


class EvaluationBatches(Dataset[Pixels]):
    """The split in its own order, each image in the evaluation view. apart: as a list, so that each may have its own size."""

    def __init__(self, split: Split, preprocess: Preprocess, batch_size: int, *, apart: bool = False) -> None:
        self.split, self.preprocess, self.batch_size, self.apart = split, preprocess, batch_size, apart
        self.read = Reader(split, preprocess)

    def __getitem__(self, number: int) -> Pixels:
        rows = np.arange(number * self.batch_size, min((number + 1) * self.batch_size, len(self.split)))
        images = [self.preprocess.view(self.read(i)) for i in rows.tolist()]
        return images if self.apart else stack(images), self.split.targets.truth(rows, self.placed(rows))

    def placed(self, rows: np.ndarray) -> Callable[[int], Placed]:
        """Where the model's pixels lie in the k-th of these images."""

        def each(k: int) -> Placed:
            h, w = self.read(int(rows[k])).shape[1:]
            return Placed(h, w, self.preprocess.where(h, w))

        return each

    def stream(self, workers: int, failed: Failed = tell) -> Iterator[Pixels]:
        return stream(self, 0, -(-len(self.split) // self.batch_size), workers, failed)


class Reader:
    """Reads image `index` of a split with the model's channels; a VitralError if it is smaller than a patch.

    The main process keeps up to a gibibyte of decoded images, so that most data sets collected by hand are decoded once.
    """

    def __init__(self, split: Split, preprocess: Preprocess, hint: int | None = None) -> None:
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
    """[B, C, H, W]; float32 if any image came with more than 8 bits.

    Raises VitralError if the images differ in size, as with other libraries' preprocessing without a crop.
    """
    if len(shapes := {tuple(image.shape[1:]) for image in images}) > 1:
        raise VitralError(
            f"the model's preprocessing gives images of different sizes ({sorted(shapes)[:3]}), which cannot be one batch; predict one by one, "
            "or convert the model with a preprocessing that crops"
        )
    deep = any(image.dtype != torch.uint8 for image in images)
    return torch.stack([image.float() for image in images] if deep else images)

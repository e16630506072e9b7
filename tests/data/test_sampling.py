"""Which images a step sees: repeated, balanced, or a share of the training images."""

import numpy as np
import pytest

from vitral.data.augment import Augmentation
from vitral.data.dataset import Split
from vitral.data.loader import TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.errors import VitralError

STEPS = Preprocess(20, 20, 1, (0.5,), (0.5,))


@pytest.fixture(scope="module")
def shapes(shapes_folder):
    return open_data(shapes_folder, DataOptions(val_fraction=0, test_fraction=0)).splits["train"]


def batches(split, **options):
    return TrainingBatches(split, STEPS, [Augmentation(AugmentOptions(crop="padded"), STEPS)], 12, 3, **options)


def test_repeated_images_stand_side_by_side_each_changed_otherwise(shapes):
    source = batches(shapes, repeats=3)
    epoch, indices, repetition = source.indices(1)
    assert epoch == 0
    assert indices.tolist() == np.repeat(indices[::3], 3).tolist()
    assert repetition.tolist() == [0, 1, 2] * 4
    batch = source[1]
    assert any((batch.images[i] != batch.images[i + 1]).any() for i in range(0, 12, 3))
    assert len(set(batch.keys.tolist())) == 12
    seen = np.concatenate([source.indices(step)[1] for step in range(source.steps_per_epoch)])
    assert np.unique(seen, return_counts=True)[1].max() == 3
    assert len(np.unique(seen)) == len(shapes) // 3


def test_balanced_sampling_shows_every_class_equally_often(shapes):
    kept = np.concatenate([np.flatnonzero(shapes.targets.values == k)[:count] for k, count in enumerate((30, 10, 3))])
    names = [shapes.names[i] for i in kept]
    few = Split("train", names, shapes.targets.take(kept), shapes.images, shapes.rows[kept], shapes.contents[kept])
    source = batches(few, balanced=True)
    for epoch in range(2):
        steps = range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch)
        seen = np.concatenate([source.indices(step)[1] for step in steps])
        counts = np.bincount(few.targets.values[seen])
        assert counts.max() - counts.min() <= 1
        assert set(seen[few.targets.values[seen] == 2]) == set(
            np.flatnonzero(few.targets.values == 2)
        )  # the rare ones all come


def test_a_share_of_the_training_images_is_the_same_each_time_and_part_of_a_larger_one(shapes_folder):
    def names(fraction):
        data = open_data(shapes_folder, DataOptions(train_fraction=fraction))
        return {name: list(split.names) for name, split in data.splits.items()}, data.splits["train"].targets.values

    (tenth, targets), (half, _), (whole, every) = names(0.1), names(0.5), names(1.0)
    assert tenth == names(0.1)[0]
    assert set(tenth["train"]) < set(half["train"]) < set(whole["train"])
    assert tenth["test"] == whole["test"]
    assert tenth["val"] == whole["val"]
    assert np.bincount(targets).tolist() == [max(1, round(0.1 * n)) for n in np.bincount(every)]
    with pytest.raises(VitralError, match="train_fraction 0"):
        DataOptions(train_fraction=0)

"""The contact sheet shows what the run will see: the very pixels, enlarged."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.data.augment import Augmentation
from vitral.data.loader import TrainingBatches
from vitral.data.mix import Mix
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sheet import GAP, LETTERS, LINE, contact_sheet, fitting, picture, shares
from vitral.data.sources import open_data
from vitral.drawing.letters import wide


@pytest.fixture(scope="module")
def data(shapes_folder):
    return open_data(shapes_folder, DataOptions(val_fraction=0, test_fraction=0))


def sheet_of(data, options, *, kinds=1, images=3, views=2):
    preprocess = Preprocess(20, 20, 1, (0.5,), (0.5,))
    mix = Mix(options, len(data.labels)) if options.mixup or options.cutmix else None
    augmentations = [Augmentation(options, preprocess, f"view{k}") for k in range(kinds)]
    batches = TrainingBatches(data.splits["train"], preprocess, augmentations, 16, 5, mix=mix, repeats=options.repeats)
    return batches, np.asarray(contact_sheet(batches, data.labels, images, views))


def cell(sheet, row, column, side=140, first=2 * GAP + LINE - GAP // 2):
    """The pixels of one picture, of a sheet that starts with a heading, brought back to 20 x 20."""
    top, left = first + row * (side + LINE + GAP), GAP + column * (side + GAP)
    return sheet[top + 3 : top + side : 7, left + 3 : left + side : 7, 0]


def test_rows_are_images_as_evaluated_and_in_each_epoch(data):
    options = AugmentOptions(crop="padded", hflip=0.5, policy="randaugment", repeats=3)
    batches, sheet = sheet_of(data, options, kinds=2)
    assert sheet.shape[1] == 5 * (140 + GAP) + GAP
    chosen = list(dict.fromkeys(batches.indices(0)[1].tolist()))[:3]
    for row, index in enumerate(chosen):
        image = batches.read(index)
        assert (cell(sheet, row, 0) == batches.preprocess.view(image)[0].numpy()).all()
        for kind, augmentation in enumerate(batches.augmentations):
            for epoch in range(2):
                seen = augmentation(image, [d[0] for d in augmentation.draw(5, epoch, np.array([index * 3]))])
                assert (cell(sheet, row, 1 + 2 * kind + epoch) == seen[0].numpy()).all()


def test_mixed_images_are_those_of_the_runs_first_batches(data):
    plain = sheet_of(data, AugmentOptions(crop="padded"))[1]
    batches, sheet = sheet_of(data, AugmentOptions(crop="padded", mixup=0.8, cutmix=1.0))
    below = plain.shape[0] - GAP + LINE + GAP // 2  # after the first heading
    further = below + 140 + LINE + GAP + LINE + GAP // 2  # and the second
    for column in range(3):
        assert (cell(sheet, 0, column, first=below) == batches[column].images[0, 0].numpy()).all()
        assert (cell(sheet, 0, column, first=further) == batches[3 + column].images[0, 0].numpy()).all()


@pytest.mark.parametrize(
    "options", [{"mixup": 0.2}, {"cutmix": 1.0, "repeats": 3}, {"mixup": 0.8, "mix_probability": 0.5}]
)
def test_the_ends_of_a_batch_are_as_in_the_whole(data, options):
    batches, _ = sheet_of(data, AugmentOptions(crop="padded", **options), kinds=2)
    for step in range(7):  # the sixth batch is short
        whole, ends = batches[step], batches.ends(step)
        for full, two in ((whole.views[0], ends.views[0]), (whole.views[1], ends.views[1]), (whole.keys, ends.keys)):
            assert torch.equal(full[[0, -1]], two)
        torch.testing.assert_close(whole.targets[[0, -1]], ends.targets)


def test_pictures_are_of_a_size_to_look_at():
    assert picture(torch.zeros(1, 8, 6)).size == (108, 144)
    assert picture(torch.zeros(3, 384, 192, dtype=torch.uint8)).size == (72, 144)
    assert picture(torch.full((3, 100, 100), 65535 / 257)).getpixel((5, 5)) == (255, 255, 255)
    assert isinstance(picture(torch.zeros(3, 8, 8, dtype=torch.uint8)), Image.Image)


def test_shares_are_the_largest_two_in_words():
    labels = ["cat", "dog", "owl"]
    assert shares(torch.tensor([0.25, 0.0, 0.75]), labels) == "75% owl, 25% cat"
    assert shares(torch.tensor([0.0, 1.0, 0.0]), labels) == "100% dog"


def test_long_texts_are_cut_to_their_room():
    assert fitting("short", 200) == "short"
    cut = fitting("a rather long name of a class", 60)
    assert cut.endswith("…")
    assert wide(cut, LETTERS) <= 60

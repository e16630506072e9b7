"""What is decided from the data is right, and stays as it was said otherwise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions, ViewOptions
from vitral.training.shape import preprocess, shape


@pytest.fixture(scope="module")
def shapes(shapes_folder):
    return open_data(shapes_folder, DataOptions())


def test_nothing_stays_open_and_each_decision_has_its_reason(shapes):
    recipe, reasons = resolve(Recipe(), shapes, "cpu")
    assert recipe.model.get("image_size") == (20, 20)
    assert recipe.model.get("patch_size") == 4
    assert None not in (
        recipe.view.crop_fraction,
        recipe.view.mean,
        recipe.augment.crop,
        recipe.augment.scale,
        recipe.augment.hflip,
    )
    assert None not in (
        recipe.optim.lr,
        recipe.optim.optimizer,
        recipe.train.batch_size,
        recipe.train.epochs,
        recipe.train.workers,
    )
    assert len(reasons) >= 7
    config = shape(recipe, shapes)
    assert (config.in_channels, config.num_classes) == (1, 3)
    assert resolve(recipe, shapes, "cpu") == (recipe, [])


def test_what_was_said_is_kept(shapes):
    said = Recipe(
        model=ModelOptions("vit_tiny_patch16_224", dim=64, num_heads=4, image_size=(24, 16), patch_size=8),
        view=ViewOptions(mean=(0.25,), std=(0.5,)),
        augment=AugmentOptions(crop="none", hflip=0.1),
        optim=OptimOptions("adamw", lr=0.3),
        train=TrainOptions(steps=7, batch_size=5, workers=1),
    )
    recipe, _ = resolve(said, shapes, "cpu")
    for section in ("model", "optim", "train"):
        assert getattr(recipe, section) == getattr(said, section)
    assert (recipe.view.mean, recipe.augment.hflip) == ((0.25,), 0.1)
    assert shape(recipe, shapes).depth == 12  # the zoo's, as a width was chosen


def test_a_level_of_augreg_becomes_its_settings(shapes):
    recipe, reasons = resolve(Recipe(augment=AugmentOptions(augreg="medium2")), shapes, "cpu")
    augment = recipe.augment
    assert (augment.augreg, augment.policy, augment.magnitude, augment.mixup) == (None, "randaugment", 15.0, 0.5)
    assert "RandAugment and Mixup at AugReg's level medium2" in reasons


def test_the_normalisation_is_the_training_images(shapes):
    recipe, _ = resolve(Recipe(), shapes, "cpu")
    train = shapes.splits["train"]
    pixels = np.stack([train.read(i, 1).numpy() for i in range(len(train))]) / 255
    assert recipe.view.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert recipe.view.std[0] == pytest.approx(pixels.std(), abs=1e-4)
    steps = preprocess(recipe, shapes, shape(recipe, shapes))
    x = torch.stack([steps(train.read(i, 1)) for i in range(len(train))])
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.std().item() == pytest.approx(1, abs=0.01)


def test_two_budgets_are_one_too_many(shapes):
    with pytest.raises(VitralError, match="steps and time: a run has one budget"):
        resolve(Recipe(train=TrainOptions(steps=3, time="1m")), shapes, "cpu")


def varied(shapes, *aspects):
    return replace(shapes, height=200, width=300, aspects=aspects)


def said_of_framing(reasons):
    return next((r for r in reasons if "--resize" in r), None)


def test_images_whose_ends_a_crop_would_cut_are_shown_whole(shapes):
    wide = varied(shapes, 1.0, 2.0, 4.0)
    recipe, reasons = resolve(Recipe(), wide, "cpu")
    assert (recipe.view.resize, recipe.view.crop_fraction, recipe.augment.crop) == ("pad", 1.0, "framed")
    assert "leave out 42% of them" in said_of_framing(reasons)
    fitting = Recipe(model=ModelOptions(image_size=(64, 128)))
    assert resolve(fitting, varied(shapes, 1.9, 2.0, 2.1), "cpu")[0].view.resize == "crop"
    square, reasons = resolve(Recipe(), varied(shapes, 0.95, 1.0, 1.05), "cpu")
    assert (square.view.resize, square.view.crop_fraction, square.augment.crop) == ("crop", 0.875, "resized")
    assert "the middle 74% of an image is judged" in said_of_framing(reasons)


@pytest.mark.parametrize(
    ("view", "crop"),
    [
        (ViewOptions(crop_fraction=0.9), "resized"),
        (ViewOptions(resize="crop"), "resized"),
        (ViewOptions(resize="pad"), "framed"),
    ],
)
def test_a_view_that_was_said_is_kept(shapes, view, crop):
    recipe, _ = resolve(Recipe(view=view), varied(shapes, 1.0, 2.0, 4.0), "cpu")
    assert recipe.view.resize == view.resize or recipe.view.resize == "crop"
    assert recipe.view.crop_fraction == (view.crop_fraction or (1.0 if view.resize == "pad" else 0.875))
    assert recipe.augment.crop == crop
    model = shape(recipe, shapes)
    assert preprocess(recipe, shapes, model).resize == recipe.view.resize


@pytest.mark.parametrize(
    ("train", "every"),
    [
        (TrainOptions(time="2m", batch_size=8), 15 * 8),  # of 63 images: 945 seen from one to the next
        (TrainOptions(epochs=200, batch_size=8), 4 * 8),
        (TrainOptions(steps=1600, batch_size=8), 4 * 8),
        (TrainOptions(epochs=3, batch_size=8), None),
        (TrainOptions(time="2m", batch_size=8, validate_every=3), 3),
    ],
)
def test_few_images_are_not_validated_at_every_epoch(shapes, train, every):
    assert len(shapes.splits["train"]) == 63
    assert resolve(Recipe(train=train), shapes, "cpu")[0].train.validate_every == every

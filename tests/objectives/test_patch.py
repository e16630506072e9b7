"""Masked patch prediction: colours by hand, corruption by its definition, and a loss that only corrupted patches have."""

import math

import pytest
import torch
from by_heart import cut, gradient, learn, make_loop, masked_prediction, shapes
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.patch import patchify
from vitral.models.zoo import build, model_config
from vitral.objectives.masking import MaskedPrediction, mean_by_image
from vitral.objectives.patch import MeanColours, colour_classes

GREY = MeanColours((0.5,), (0.5,))
COLOUR = MeanColours((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))


@pytest.fixture
def make_model(tiny_vit):
    def make(family="vit", channels=1, **overrides):
        return masked_prediction(tiny_vit, colour_classes(channels), family, in_channels=channels, **overrides)

    return make


def normalised(pixels, objective):
    """0..255 to the objective's input."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (objective.mean, objective.std))
    return (pixels / 255 - mean) / std


def test_colours_by_hand(make_model):
    model = make_model(channels=3)
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[0, :, :4, 4:8] = torch.tensor([255.0, 0.0, 128.0])[:, None, None]  # digits 7, 0, 4
    pixels[0, 0, 4:8, :4] = torch.tensor([0.0, 130.0]).repeat(8).view(4, 4)  # mean 65: digit 2
    pixels[0, 2, 12:, 12:] = 31.0  # a whit below the first boundary
    pixels[0, 1, 12:, 12:] = 33.0  # a whit above
    classes = COLOUR.classes(COLOUR.colours(model, normalised(pixels, COLOUR)))
    wanted = torch.zeros(1, 16, dtype=torch.long)
    wanted[0, 1], wanted[0, 4], wanted[0, 15] = 7 * 64 + 4, 2 * 64, 8
    assert torch.equal(classes, wanted)
    assert [colour_classes(channels) for channels in (1, 3, 4)] == [8, 512, 4096]
    with pytest.raises(VitralError, match="with 6 bands is one of 262,144; choose another"):
        colour_classes(6)


def test_a_class_is_shown_in_its_middle():
    classes = torch.arange(512)
    shown = COLOUR.shown(classes, 3)
    assert torch.equal(COLOUR.classes(shown * torch.tensor(COLOUR.std) + torch.tensor(COLOUR.mean)), classes)
    assert GREY.shown(torch.tensor([0, 7]), 1)[:, 0].tolist() == pytest.approx([1 / 8 - 1, 15 / 8 - 1])


def test_padding_has_no_colour(make_model):
    """10x14 pixels in patches of 4: the patches at the rim are half or quarter padding."""
    white = normalised(torch.full((1, 3, 10, 14), 255.0), COLOUR)
    colours = COLOUR.colours(make_model(channels=3), white)
    assert colours.shape == (1, 12, 3)
    assert torch.allclose(colours, torch.ones(()), atol=1e-5)


def test_corruption_follows_its_definition(make_model):
    count = 2000
    batch = shapes(1, normalised=True)
    batch = type(batch)((batch.images.expand(count, -1, -1, -1),), torch.zeros(count), torch.arange(count) * 7919)
    model = make_model()
    corrupted, masked, source = GREY.corrupt(model, batch)
    swapped = source != torch.arange(16)
    assert torch.equal(corrupted.sum(1), torch.full((count,), 8))
    assert (corrupted.float().mean(0) - 0.5).abs().max() < 0.05
    assert not (masked & ~corrupted).any()
    assert not (swapped & (masked | ~corrupted)).any()
    assert masked.sum() / corrupted.sum() == pytest.approx(0.8, abs=0.02)
    assert swapped.sum() / corrupted.sum() == pytest.approx(0.1, abs=0.02)
    distance = (source - torch.arange(16))[swapped] % 16
    assert distance.min() == 1
    assert (torch.bincount(distance, minlength=16)[1:] / len(distance) - 1 / 15).abs().max() < 0.03
    for one, few in zip((corrupted, masked, source), GREY.corrupt(model, next(batch.split(3))), strict=True):
        assert torch.equal(one[:3], few)


@pytest.mark.parametrize("family", ["vit", "beit"])
def test_the_loss_is_of_corrupted_patches_and_masked_ones_are_not_seen(make_model, family):
    model, batch = make_model(family).eval(), shapes(4, normalised=True)
    corrupted, masked, source = GREY.corrupt(model, batch)
    with torch.no_grad():
        told = GREY(model, batch)
        everywhere = model(batch.images, torch.ones_like(corrupted), masked, source).unflatten(0, (4, 16))
        wanted = GREY.classes(GREY.colours(model, batch.images))
        losses = F.cross_entropy(everywhere.transpose(1, 2), wanted, reduction="none")
        assert told["loss"].item() == pytest.approx(losses[corrupted].mean().item(), rel=1e-5)
        assert told["accuracy"] == (everywhere.argmax(-1) == wanted)[corrupted].float().mean()

        unseen = masked & ~torch.zeros_like(masked).scatter(1, source * ~masked, True)
        unseen[:, 0] = False  # the scatter marks it for every masked patch
        assert unseen.any()
        other = torch.where(unseen.view(4, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3), 9.0, batch.images)
        assert not torch.equal(other, batch.images)
        again = model(other, torch.ones_like(corrupted), masked, source).unflatten(0, (4, 16))
    assert torch.equal(everywhere, again)


@pytest.mark.parametrize(("family", "steps"), [("vit", 60), ("beit", 250)])
def test_learns_a_batch_by_heart(make_model, family, steps):
    losses = learn(make_loop(make_model(family), GREY), shapes(8), steps)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("images", [32, 25])
def test_accumulated_gradients_are_the_large_batchs(make_model, images):
    batch = shapes(images)
    whole, one = gradient(make_loop(make_model(), GREY, 32), batch)
    parts, four = gradient(make_loop(make_model(), GREY, 8, 4), batch)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert one == pytest.approx(four, rel=1e-6)


def test_images_count_alike_in_the_mean():
    asked = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert mean_by_image(torch.tensor([1.0, 2.0, 6.0, 5.0]), asked).item() == pytest.approx((3 + 5 + 0) / 3)


@pytest.mark.parametrize("size", [(16, 16), (14, 11)])
def test_pictures(make_model, size):
    model, objective = make_model(channels=3, image_size=size).eval(), COLOUR
    batch = shapes(4, channels=3, normalised=True)
    batch = cut(batch, *size)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data[7 * 64 + 4] = 9.0  # it says red with some blue, always
    corrupted, masked, source = objective.corrupt(model, batch)
    with torch.inference_mode():
        made = objective.pictures(model, batch)
    assert list(made) == ["image", "what it saw", "painted"]
    assert torch.equal(made["image"], batch.images)
    assert all(x.shape == batch.images.shape for x in made.values())

    image, saw, painted = (patchify(x, (4, 4)) for x in made.values())
    assert torch.equal(painted[~corrupted], image[~corrupted])
    real = patchify(torch.ones_like(batch.images), (4, 4)).bool()
    assert (saw[masked] == 0).all()
    moved = image.gather(1, source[..., None].expand_as(image))
    both = real & ~masked[..., None]
    assert torch.equal(saw[both], moved[both])
    said = objective.shown(torch.tensor(7 * 64 + 4), 3).repeat_interleave(16).expand_as(image)
    assert torch.allclose(painted[real & corrupted[..., None]], said[real & corrupted[..., None]])


def test_what_cannot_be_is_refused(tiny_vit):
    with pytest.raises(VitralError, match="mask_ratio=1"):
        MeanColours((0.5,), (0.5,), 1.0)
    with pytest.raises(VitralError, match="only a ViT or a BEiT"):
        MaskedPrediction(build(model_config("resnet18", num_classes=0)), 8)
    with pytest.raises(VitralError, match="patch_drop"):
        MaskedPrediction(tiny_vit(num_classes=0, patch_drop=0.5), 8)


def test_the_first_loss_is_that_of_a_guess(make_model):
    with torch.no_grad():
        assert GREY(make_model(), shapes(8, normalised=True))["loss"].item() == pytest.approx(math.log(8), abs=0.3)

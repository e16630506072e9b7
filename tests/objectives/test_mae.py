"""Painting hidden patches: what is hidden, that the loss does not depend on the micro-batch, and what the pictures show."""

import pytest
import torch
from by_heart import cut, gradient, learn, make_loop, shapes

from vitral.layers.patch import patchify
from vitral.models.mae import MAEConfig, MaskedAutoencoder
from vitral.objectives.mae import PaintPatches

GREY = 0.0  # the mean colour, normalised


@pytest.fixture
def make_mae():
    def make(**overrides):
        torch.manual_seed(0)
        shape = {"image_size": 16, "patch_size": 4, "in_channels": 1, "dim": 32, "depth": 2, "num_heads": 4,
                 "decoder_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4}  # fmt: skip
        return MaskedAutoencoder(MAEConfig(**(shape | overrides)))

    return make


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_learns_a_batch_by_heart(make_mae, norm_pixels):
    loop = make_loop(make_mae(norm_pixels=norm_pixels, mask_ratio=0.5), PaintPatches())
    losses = learn(loop, shapes(8), 120)
    assert losses[-1] < 0.15 * losses[0]


@pytest.mark.parametrize("images", [32, 25])
def test_accumulated_gradients_are_the_large_batchs(make_mae, images):
    batch = shapes(images)
    whole, one = gradient(make_loop(make_mae(), PaintPatches(), 32), batch)
    parts, four = gradient(make_loop(make_mae(), PaintPatches(), 8, 4), batch)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-6)


def test_three_quarters_are_hidden_everywhere_and_by_the_key_alone(make_mae):
    model, batch = make_mae().eval(), shapes(400, normalised=True)
    with torch.no_grad():
        mask = PaintPatches().paint(model, batch).mask
        alone = PaintPatches().paint(model, next(batch.split(3))).mask
    assert torch.equal(mask.sum(1), torch.full((400,), 12.0))
    assert (mask.mean(0) - 0.75).abs().max() < 0.1  # a deviation is 0.02
    assert len(mask.unique(dim=0)) > 300
    assert torch.equal(mask[:3], alone)


def test_the_result_is_the_encoder_of_whole_images(make_mae):
    model, batch = make_mae().eval(), shapes(2, normalised=True)
    encoder = PaintPatches().result(model)
    assert encoder is model.encoder
    assert encoder.num_classes == 0
    assert encoder(batch.images).shape == (2, 32)


def test_the_loss_is_computed_in_float32(make_mae):
    model, batch = make_mae().eval(), shapes(8, normalised=True)
    with torch.no_grad():
        exact = PaintPatches()(model, batch)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = PaintPatches()(model, batch)["loss"]
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)


@pytest.mark.parametrize(("norm_pixels", "size"), [(True, (16, 16)), (False, (16, 16)), (True, (15, 10))])
def test_pictures(make_mae, norm_pixels, size):
    """A decoder that answers 0.5 paints half a deviation above each patch's own mean, or with plain pixels 0.5."""
    model, batch = make_mae(norm_pixels=norm_pixels, image_size=size).eval(), shapes(4, normalised=True)
    batch = cut(batch, *size)
    torch.nn.init.zeros_(model.decoder_pred.weight)
    torch.nn.init.constant_(model.decoder_pred.bias, 0.5)
    with torch.inference_mode():
        made = PaintPatches().pictures(model, batch)
        hidden = PaintPatches().paint(model, batch).mask.bool()
    assert list(made) == ["image", "what it saw", "painted"]
    assert torch.equal(made["image"], batch.images)
    assert all(x.shape == batch.images.shape for x in made.values())

    image, saw, painted = (patchify(x, (4, 4)) for x in made.values())
    assert torch.equal(saw[~hidden], image[~hidden])
    assert torch.equal(painted[~hidden], image[~hidden])
    assert (saw[hidden] == GREY).all()
    if norm_pixels:
        wanted = (image.mean(-1, keepdim=True) + 0.5 * image.std(-1, keepdim=True)).expand_as(image)
    else:
        wanted = torch.full_like(image, 0.5)
    real = patchify(torch.ones_like(batch.images), (4, 4)).bool() & hidden[..., None]
    assert torch.allclose(painted[real], wanted[real], atol=1e-3)

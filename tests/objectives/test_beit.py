"""BEiT: blocks against the paper's generator written out, tokens through another normalisation, and the loss of hidden patches."""

import functools
import math
import random

import numpy as np
import pytest
import torch
from by_heart import cut, gradient, learn, make_loop, masked_prediction, shapes
from torch.nn import functional as F

from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.patch import patchify
from vitral.models.tokenizer import Tokenizer, TokenizerConfig
from vitral.objectives.beit import PredictTokens, VisualTokens, block_masks
from vitral.predict import Predictor
from vitral.randomness import keys

HALF = Preprocess(16, 16, 1, (0.5,), (0.5,))


def predictor(steps=HALF, **overrides):
    torch.manual_seed(0)
    shape = {
        "image_size": 16,
        "patch_size": 4,
        "in_channels": steps.channels,
        "dim": 16,
        "depth": 1,
        "codes": 12,
        "code_dim": 6,
    }
    model = Tokenizer(TokenizerConfig(**(shape | overrides)))
    # Codes at what the patches of random images look like, so that several are in use.
    vectors = model.embed(shapes(8, channels=steps.channels, normalised=True).images).flatten(0, 1)
    model.codebook.vectors.copy_(vectors.detach()[torch.randperm(len(vectors))[: model.config.codes]])
    return Predictor(model, ModelCard("tokenizer", model.config.arguments(), [], steps))


@pytest.fixture
def make_model(tiny_vit):
    return functools.partial(masked_prediction, tiny_vit, 12)


@pytest.fixture
def objective():
    return PredictTokens(VisualTokens(predictor(), HALF, 4))


def sample_keys(count):
    return torch.from_numpy(keys(0, "sample", 0, np.arange(count)))


def papers_masks(count, grid, most, smallest):
    """The generator of the paper's code, by its description and with Python's own random numbers: bool [count, h, w]."""
    rng, (height, width) = random.Random(0), grid
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        placed = True
        while placed and mask.sum() < most:
            placed, left_over = False, most - mask.sum()
            for _ in range(10):
                area = rng.uniform(smallest, left_over)
                aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
                h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if h >= height or w >= width:
                    continue
                y, x = rng.randint(0, height - h), rng.randint(0, width - w)
                new = h * w - mask[y : y + h, x : x + w].sum()
                if 0 < new <= left_over:
                    mask[y : y + h, x : x + w] = placed = True
                    break
    return masks


@pytest.mark.parametrize(("grid", "ratio", "most", "smallest"), [((14, 14), 0.383, 75, 16), ((7, 10), 0.5, 35, 5)])
def test_blocks_are_those_of_the_papers_code(grid, ratio, most, smallest):
    wanted = torch.from_numpy(papers_masks(1500, grid, most, smallest)).flatten(1).float()
    got = block_masks(sample_keys(1500), grid, ratio).float()
    assert got.sum(1).max() <= most
    assert got.sum(1).mean().item() == pytest.approx(wanted.sum(1).mean().item(), rel=0.01)
    assert got.sum(1).std().item() == pytest.approx(wanted.sum(1).std().item(), rel=0.2)
    assert (got.mean(0) - wanted.mean(0)).abs().max() < 0.08  # a deviation of the difference is 0.018
    edges = [(m.unflatten(1, grid).diff(dim=1).abs().sum((1, 2))).mean().item() for m in (got, wanted)]
    assert edges[0] == pytest.approx(edges[1], rel=0.03)


def test_a_mask_is_its_keys_whatever_batch_it_is_in():
    own = sample_keys(40)
    masks = block_masks(own, (14, 14), 0.4)
    assert torch.equal(masks[7:9], block_masks(own[7:9], (14, 14), 0.4))
    assert len(masks.unique(dim=0)) == 40
    assert masks.sum(1).max() <= 78


def test_few_patches_have_small_blocks():
    masks = block_masks(sample_keys(500), (4, 4), 0.4)
    assert set(masks.sum(1).tolist()) <= set(range(7))
    assert masks.sum(1).float().mean() > 5
    assert masks.any(0).all()
    with pytest.raises(VitralError, match="1x8 patches"):
        block_masks(sample_keys(1), (1, 8), 0.4)


def test_tokens_are_the_same_through_another_normalisation():
    images = shapes(4, channels=3).images.float() / 255
    own = Preprocess(16, 16, 3, (0.5,) * 3, (0.5,) * 3)
    ours = Preprocess(16, 16, 3, (0.1, 0.4, 0.7), (0.2, 0.5, 0.9))
    made = predictor(own)
    tokens = VisualTokens(made, ours, 4)
    codes = made.model.tokenise(own.normalise(images * 255))
    assert torch.equal(tokens(ours.normalise(images * 255)), codes)
    assert len(codes.unique()) > 3
    painted = tokens.paint(codes, (16, 16))
    theirs = made.model.decode(made.model.codebook.vectors[codes], (16, 16))
    assert torch.allclose(painted * torch.tensor(ours.std)[:, None, None] + torch.tensor(ours.mean)[:, None, None],
                          theirs * 0.5 + 0.5, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("family", ["vit", "beit"])
def test_the_loss_is_of_hidden_patches_which_are_not_seen(make_model, family):
    objective = PredictTokens(VisualTokens(predictor(patch_size=2), HALF, 2))
    model, batch = make_model(family, patch_size=2).eval(), shapes(6, normalised=True)  # 8x8 patches
    hidden = objective.hide(model, batch)
    assert hidden.sum(1).unique().numel() > 1
    with torch.no_grad():
        told = objective(model, batch)
        logits = model(batch.images, torch.ones_like(hidden), hidden).unflatten(0, (6, 64))
        losses = F.cross_entropy(logits.transpose(1, 2), objective.tokens(batch.images), reduction="none")
        by_image = [row[mask].mean() for row, mask in zip(losses, hidden, strict=True)]
        assert told["loss"].item() == pytest.approx(torch.stack(by_image).mean().item(), rel=1e-5)
        under = hidden.view(6, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
        again = model(torch.where(under, 9.0, batch.images), torch.ones_like(hidden), hidden)
    assert torch.equal(logits.flatten(0, 1), again)


@pytest.mark.parametrize(("family", "steps"), [("vit", 60), ("beit", 250)])
def test_learns_a_batch_by_heart(make_model, objective, family, steps):
    losses = learn(make_loop(make_model(family), objective), shapes(8), steps)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("images", [32, 25])
def test_accumulated_gradients_are_the_large_batchs(make_model, objective, images):
    batch = shapes(images)
    whole, one = gradient(make_loop(make_model(), objective, 32), batch)
    parts, four = gradient(make_loop(make_model(), objective, 8, 4), batch)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert one == pytest.approx(four, rel=1e-6)


def test_the_tokenizer_does_not_learn(make_model):
    made = predictor()
    before = {name: t.clone() for name, t in made.model.state_dict().items()}
    objective = PredictTokens(VisualTokens(made, HALF, 4))
    learn(make_loop(make_model(), objective), shapes(8), 3)
    assert not made.model.training
    assert not any(p.requires_grad for p in made.model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in made.model.state_dict().items())


@pytest.mark.parametrize("size", [(16, 16), (14, 11)])
def test_pictures(make_model, objective, size):
    model, batch = make_model("beit", image_size=size).eval(), cut(shapes(4, normalised=True), *size)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data[5] = 9.0  # it always says code 5
    with torch.inference_mode():
        made = objective.pictures(model, batch)
        hidden = objective.hide(model, batch)
        codes = objective.tokens(batch.images)
    assert list(made) == ["image", "what it saw", "painted"]
    assert torch.equal(made["image"], batch.images)
    assert all(x.shape == batch.images.shape for x in made.values())
    image, saw = (patchify(made[name], (4, 4)) for name in ("image", "what it saw"))
    assert torch.equal(saw[~hidden], image[~hidden])
    assert (saw[hidden] == 0).all()
    assert torch.equal(made["painted"], objective.tokens.paint(torch.where(hidden, 5, codes), size))
    assert not torch.equal(made["painted"], objective.tokens.paint(codes, size))


def test_the_result_is_the_backbone(make_model, objective):
    model = make_model("beit")
    result = objective.result(model)
    assert result is model.backbone
    assert result.num_classes == 0


def test_other_tokenizers_are_refused(tiny_vit):
    made = predictor()
    with pytest.raises(VitralError, match="--patch-size 4"):
        VisualTokens(made, HALF, 8)
    with pytest.raises(VitralError, match="--channels 1"):
        VisualTokens(made, Preprocess(16, 16, 3, (0.5,) * 3, (0.5,) * 3), 4)
    vit = tiny_vit(num_classes=0)
    other = Predictor(vit, ModelCard("vit", vit.config.arguments(), [], HALF))
    with pytest.raises(VitralError, match="no visual tokens"):
        VisualTokens(other, HALF, 4)
    with pytest.raises(VitralError, match="mask_ratio=0"):
        PredictTokens(VisualTokens(made, HALF, 4), 0.0)

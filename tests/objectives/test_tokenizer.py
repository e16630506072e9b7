"""The tokenizer: its codebook by hand, what it learns, that neither depends on micro-batches or on being resumed, and its file."""

import pytest
import torch
from by_heart import gradient, learn, make_loop, shapes

from vitral.checkpoints.bundle import load_model, save_model
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.tokenizer import DECAY, PATIENCE, Codebook, Tokenizer, TokenizerConfig
from vitral.models.zoo import build, family_of
from vitral.objectives.tokenizer import Tokenise
from vitral.predict import Predictor
from vitral.training.state import collect, restore


@pytest.fixture
def make_tokenizer():
    def make(**overrides):
        torch.manual_seed(0)
        shape = {"image_size": 16, "patch_size": 4, "in_channels": 1, "dim": 32, "depth": 1, "codes": 24, "code_dim": 8}
        return Tokenizer(TokenizerConfig(**(shape | overrides)))

    return make


@pytest.fixture
def book():
    """Codes at 0, 90 and 180 degrees."""
    made = Codebook(3, 2)
    made.vectors.copy_(unit(0, 90, 180))
    return made


def unit(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_the_nearest_code_by_hand(book):
    assert book.nearest(unit(10, 44, 46, 134, 136, 200, 269, 271)).tolist() == [0, 0, 1, 1, 2, 2, 2, 0]
    assert book.nearest(unit(10, 100)[None]).shape == (1, 2)


def test_codes_follow_the_mean_of_what_chose_them(book):
    vectors = unit(10, 30, 80)
    book.gather(vectors, book.nearest(vectors), torch.full((3,), 0.5))
    book.update()
    x, y = (1 - DECAY) * unit(20, 80).T  # 20 degrees is the mean direction of 10 and 30
    wanted = torch.stack(
        [unit(0)[0] * DECAY + torch.stack([x[0], y[0]]), unit(90)[0] * DECAY + torch.stack([x[1], y[1]])]
    )
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    assert torch.allclose(book.vectors[:2], wanted, atol=1e-6)
    assert book.usage.tolist() == pytest.approx([0.02 / 3, 0.01 / 3, 0], rel=1e-4)


def test_a_code_that_nobody_chooses_moves_to_a_badly_described_patch(book):
    book.idle.zero_()
    vectors = unit(0, 90, 50)  # only the last is far from its code
    for step in range(PATIENCE):
        assert book.idle.tolist() == [0, 0, step]
        assert torch.equal(book.vectors[2], unit(180)[0])
        book.gather(vectors, torch.tensor([0, 1, 1]), torch.full((3,), 0.5))
        book.update()
    assert torch.allclose(book.vectors[2], unit(50)[0])
    assert book.idle.tolist() == [0, 0, 0]


def test_badly_described_patches_are_drawn_more_often():
    """By the squared distance: of 90 and 180 degrees from the code the second is first twice as often."""
    first = 0
    uniform = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    for draw in uniform:
        book = Codebook(2, 2)
        book.vectors.copy_(unit(0, 0))
        book.gather(unit(90, 180), torch.tensor([0, 0]), draw)
        first += bool(torch.allclose(book.spare[0], unit(180)[0], atol=1e-6))
    assert first / 2000 == pytest.approx(2 / 3, abs=0.04)


def test_what_is_gathered_does_not_depend_on_micro_batches():
    torch.manual_seed(0)
    vectors, uniform = torch.nn.functional.normalize(torch.randn(60, 4), dim=1), torch.rand(60)
    books = []
    for size in (60, 7):
        torch.manual_seed(1)
        book = Codebook(16, 4)
        for part in range(0, 60, size):
            v = vectors[part : part + size]
            book.gather(v, book.nearest(v), uniform[part : part + size])
        book.update()
        books.append(book)
    for name, value in books[0].state_dict().items():
        assert torch.allclose(value, books[1].state_dict()[name], atol=1e-6), name
    assert (books[0].idle == 0).all()  # those that were not chosen were placed on patches


def test_perplexity_counts_the_codes_in_use(book):
    book.usage.copy_(torch.tensor([0.2, 0.2, 0.0]))
    assert book.perplexity().item() == pytest.approx(2)
    book.usage.copy_(torch.tensor([0.75, 0.25, 0.0]))
    assert book.perplexity().item() == pytest.approx(4 / 3**0.75)


@pytest.mark.parametrize("patch", [1, 2, 4, 6, 7, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_patch_and_size(make_tokenizer, patch, channels):
    model = make_tokenizer(patch_size=patch, image_size=2 * patch, in_channels=channels)
    for height, width in ((2 * patch, 2 * patch), (3 * patch, patch), (2 * patch + patch // 2, 4 * patch - patch // 2)):
        images = torch.randn(2, channels, height, width)
        h, w = model.grid(height, width)
        vectors, codes = model.embed(images), model.tokenise(images)
        assert vectors.shape == (2, h * w, 8)
        assert torch.allclose(vectors.norm(dim=2), torch.ones(()), atol=1e-5)
        assert (codes.shape, codes.dtype) == ((2, h * w), torch.int64)
        assert torch.equal(model.encode(vectors, (h, w)), model.codebook.vectors[codes])
        assert torch.equal(model(images), model.codebook.vectors[codes].mean(1))
        assert model.features(images)[0].shape == (2, h, w, 8)
        assert model.decode(model.encode(vectors, (h, w)), (height, width)).shape == images.shape


def test_learns_a_batch_by_heart(make_tokenizer):
    losses = learn(make_loop(make_tokenizer(depth=1, codes=128), Tokenise()), shapes(8), 100)
    assert losses[-1] < 0.25 * losses[0]


def test_many_codes_are_in_use_after_a_few_steps(make_tokenizer):
    loop = make_loop(make_tokenizer(), Tokenise())
    learn(loop, shapes(16), 60)
    assert loop.model.codebook.perplexity() > 12
    assert len(loop.model.tokenise(shapes(16, normalised=True).images).unique()) > 16


@pytest.mark.parametrize("images", [32, 25])
def test_accumulation_gives_the_large_batchs_gradients_and_codes(make_tokenizer, images):
    batch, loops = shapes(images), [make_loop(make_tokenizer(), Tokenise(), *cut) for cut in ((32, 1), (8, 4))]
    (whole, one), (parts, four) = (gradient(loop, batch) for loop in loops)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert one == pytest.approx(four, rel=1e-6)
    for loop in loops:
        loop.objective.stepped(loop.model, 0.0)
    for name, value in loops[0].model.codebook.state_dict().items():
        assert torch.allclose(value, loops[1].model.codebook.state_dict()[name], atol=1e-6), name


def test_a_resumed_run_ends_with_the_same_bits(make_tokenizer):
    straight = make_loop(make_tokenizer(), Tokenise())
    learn(straight, shapes(8, step=0), PATIENCE + 3)
    tensors = {name: t.clone() for name, t in collect(straight.model, straight.optimizers, None).items()}
    learn(straight, shapes(8, step=1), PATIENCE + 3)

    torch.manual_seed(5)
    resumed = make_loop(build(make_tokenizer().config), Tokenise())
    restore(tensors, resumed.model, resumed.optimizers, None)
    learn(resumed, shapes(8, step=1), PATIENCE + 3)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_step_that_is_tried_again_counts_once(make_tokenizer):
    """As after running out of memory: what was gathered before is forgotten."""
    loops = [make_loop(make_tokenizer(), Tokenise()) for _ in range(2)]
    loops[0].objective(loops[0].model, next(shapes(8, normalised=True).split(4)))
    for loop in loops:
        learn(loop, shapes(8), 1)
    assert torch.equal(loops[0].model.codebook.usage, loops[1].model.codebook.usage)


def test_the_gradient_goes_straight_through_and_the_losses_are_what_they_say(make_tokenizer):
    model, batch = make_tokenizer().eval(), shapes(4, normalised=True)
    told = Tokenise(0.5)(model, batch)
    assert model.codebook.counts.sum() == 0  # in evaluation nothing is gathered
    vectors = model.embed(batch.images)
    codes = model.encode(vectors, model.grid_of(batch.images))
    painted = model.decode(codes, (16, 16))
    reconstruction = (painted - batch.images).square().mean()
    commitment = (2 - 2 * (vectors * codes).sum(2)).mean()  # of unit vectors
    assert told["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert told["commitment"].item() == pytest.approx(commitment.item(), rel=1e-4)
    assert told["loss"].item() == pytest.approx((reconstruction + 0.5 * commitment).item(), rel=1e-5)

    Tokenise(0.0)(model, batch)["loss"].backward()
    got = model.encoder[0].weight.grad.clone()
    leaf = codes.detach().requires_grad_()
    (to_codes,) = torch.autograd.grad((model.decode(leaf, (16, 16)) - batch.images).square().mean(), leaf)
    (wanted,) = torch.autograd.grad(vectors, model.encoder[0].weight, to_codes)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-7)
    assert got.abs().max() > 0


def test_pictures_are_the_image_and_what_is_left_of_it(make_tokenizer):
    loop, batch = make_loop(make_tokenizer(codes=128), Tokenise()), shapes(8, normalised=True)
    before = Tokenise().pictures(loop.model, batch)
    learn(loop, shapes(8), 60)
    after = Tokenise().pictures(loop.model.eval(), batch)
    assert list(after) == ["image", "painted"]
    assert torch.equal(after["image"], batch.images)
    assert after["painted"].shape == batch.images.shape
    errors = [(made["painted"] - made["image"]).square().mean() for made in (before, after)]
    assert errors[1] < 0.5 * errors[0]


def test_its_file_describes_itself(make_tokenizer, tmp_path):
    model, images = make_tokenizer().eval(), shapes(4, normalised=True).images
    path = tmp_path / "tokenizer.safetensors"
    card = ModelCard(family_of(model.config), model.config.arguments(), [], Preprocess(16, 16, 1, (0.5,), (0.5,)))
    save_model(path, model, card)
    loaded, card = load_model(path)
    assert isinstance(loaded, Tokenizer)
    assert loaded.config == model.config
    assert torch.equal(loaded.tokenise(images), model.tokenise(images))
    predictor = Predictor(loaded, card)
    assert torch.equal(predictor.model.represent(images), model(images))


def test_half_precision_is_finite_and_nearly_the_same(make_tokenizer):
    model, batch = make_tokenizer(), shapes(8, normalised=True)
    exact = Tokenise()(model.eval(), batch)["reconstruction"]
    with torch.autocast("cpu", torch.bfloat16):
        told = Tokenise()(model.train(), batch)
    told["loss"].backward()
    assert told["loss"].dtype == torch.float32
    assert told["reconstruction"].item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"num_classes": 3}, "no classes"), ({"codes": 1}, "codes=1"), ({"code_dim": 0}, "code_dim=0")],
)
def test_what_cannot_be_built_is_refused(make_tokenizer, overrides, message):
    with pytest.raises(VitralError, match=message):
        make_tokenizer(**overrides)
    with pytest.raises(VitralError, match="channels"):
        make_tokenizer().tokenise(torch.zeros(1, 3, 16, 16))

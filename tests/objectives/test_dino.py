"""Self-distillation against algorithm 1 of the paper, written out; the teacher, the centres, masks, accumulation and resume."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitral.checkpoints.create import create_model
from vitral.data.augment import Augmentation
from vitral.data.loader import Batch, TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.objectives.dino import SelfDistil, SelfDistillation
from vitral.training.config import Recipe
from vitral.training.loop import Loop
from vitral.training.optim import build_optimizers
from vitral.training.options import OptimOptions, TrainOptions
from vitral.training.state import Progress, collect, restore

K = 24
SMALL = {"prototypes": K, "hidden": 32, "bottleneck": 16}


class Silent:
    """A listener."""

    def __init__(self):
        self.records = []

    def trained(self, record):
        self.records.append(record)

    def message(self, text):
        pass

    def checkpoint(self, progress, *, validate):
        pass


@pytest.fixture
def make_model(tiny_vit):
    def make(patches=False, **overrides):
        model = SelfDistillation(tiny_vit(num_classes=0, **overrides), patches=patches, **SMALL)
        torch.manual_seed(1)
        with torch.no_grad():  # a teacher that is not the student, centres that are not 0
            for p in model.teacher.parameters():
                p += 0.02 * torch.randn_like(p)
            for center in model.centers:
                center.value.normal_(std=0.1)
        return model.train()

    return make


def views(B=6, large=16, small=8, count=3, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sides = [large] * 2 + [small] * count
    images = tuple(torch.randn(B, channels, side, side, generator=generator) for side in sides)
    return Batch(images, torch.zeros(B, dtype=torch.long), torch.arange(B) * 7919 + seed)


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def algorithm_1(model, batch, teacher_temperature, student_temperature=0.1):
    """The paper's, pair by pair and sample by sample, for any number of small views; the last layer by its weight norm's definition."""

    def answer(branch, images):
        x = branch.head.mlp(branch.backbone(images))
        weight = branch.head.last_layer.weight
        return (x / x.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=1, keepdim=True)).T

    t = [answer(model.teacher, view).detach() for view in batch.views[:2]]
    s = [answer(model.student, view) for view in batch.views]
    losses = []
    for i, theirs in enumerate(t):
        for j, ours in enumerate(s):
            if i == j:
                continue
            for row in range(len(batch)):
                p = torch.softmax((theirs[row] - model.center.value) / teacher_temperature, 0)
                q = torch.softmax(ours[row] / student_temperature, 0)
                losses.append(-(p * q.log()).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize(
    "shape", [{}, {"pooling": "mean", "class_token": False}, {"num_registers": 2, "fc_norm": True}]
)
def test_loss_and_gradients_are_those_of_algorithm_1(make_model, count, shape):
    model, batch = make_model(**shape), views(count=count)
    objective = SelfDistil(teacher_temperature=0.05, warmup=0, frozen=0)
    told = objective(model, batch)
    told["loss"].backward()
    got = gradients(model)
    model.zero_grad()
    wanted = algorithm_1(model, batch, 0.05)
    wanted.backward()
    assert told["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert got.keys() == gradients(model).keys() == {n for n, _ in model.named_parameters() if n.startswith("student.")}
    for name, gradient in gradients(model).items():
        assert torch.allclose(got[name], gradient, rtol=1e-3, atol=1e-6), name
    assert (told["entropy"] + told["divergence"]).item() == pytest.approx(told["loss"].item(), rel=1e-6)
    assert 0 < told["entropy"] < math.log(K)


def test_the_patch_loss_is_that_of_masked_patches_only(make_model):
    model, batch = make_model(patches=True), views(B=3)
    objective = SelfDistil(patch_loss=0.5, mask_ratio=0.3, warmup=0, frozen=0)
    told = objective(model, batch)
    told["loss"].backward()
    got = gradients(model)
    model.zero_grad()

    large = torch.cat(batch.views[:2])
    places = objective.places(model, batch, large)  # [2B, M]
    student, teacher = model.student, model.teacher
    by_patch, by_view, said = [], [], []
    for row, image in enumerate(large):
        masked = torch.zeros(1, 16, 1, dtype=torch.bool)
        for place in places[row]:
            masked[0, place] = True
        tokens = student.backbone.embed(image[None], lambda t, m=masked: torch.where(m, model.mask_token, t))
        tokens = student.backbone.encode(tokens, student.backbone.grid_of(image[None]))[0]
        theirs = teacher.backbone.encode(teacher.backbone.embed(image[None]), teacher.backbone.grid_of(image[None]))[0]
        said.append(student.head(tokens[0]).div(0.1).log_softmax(-1))
        for place in places[row].tolist():
            p = teacher.head(theirs[1 + place]).sub(model.patch_center.value).div(0.04).softmax(-1).detach()
            by_patch.append(-(p * student.head(tokens[1 + place]).div(0.1).log_softmax(-1)).sum())
    for i in range(2):
        p = teacher(batch.views[i])[0].sub(model.center.value).div(0.04).softmax(-1).detach()
        by_view.append(-(p * torch.stack(said[3 * (1 - i) : 3 * (2 - i)])).sum(-1))
        by_view += [-(p * student(view)[0].div(0.1).log_softmax(-1)).sum(-1) for view in batch.views[2:]]
    wanted = torch.stack(by_view).mean() + 0.5 * torch.stack(by_patch).mean()
    wanted.backward()
    assert told["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert told["patch_loss"].item() == pytest.approx(torch.stack(by_patch).mean().item(), rel=1e-5)
    assert "mask_token" in got
    for name, gradient in gradients(model).items():
        assert torch.allclose(got[name], gradient, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize(("ratio", "masked"), [(0.3, 5), (0.5, 8), (0.01, 1)])
def test_masks_have_their_share_and_belong_to_the_sample(make_model, ratio, masked):
    model, batch, objective = make_model(patches=True), views(B=64), SelfDistil(patch_loss=1, mask_ratio=ratio)
    places = objective.places(model, batch, torch.cat(batch.views[:2]))
    assert places.shape == (128, masked)
    assert all(len(set(row)) == masked for row in places.tolist())
    first, second = places.chunk(2)
    assert (first != second).any()  # the two views are masked apart
    frequency = torch.bincount(places.flatten(), minlength=16) / 128
    assert (frequency - masked / 16).abs().max() < 5 * (masked / 16 / 128) ** 0.5
    parts = [objective.places(model, part, torch.cat(part.views[:2])).chunk(2) for part in batch.split(24)]
    assert torch.equal(first, torch.cat([a for a, _ in parts]))
    assert torch.equal(second, torch.cat([b for _, b in parts]))


def test_what_lies_under_a_mask_does_not_reach_the_student_and_unmasked_targets_do_not_count(make_model):
    model, batch, objective = make_model(patches=True), views(B=2, count=0), SelfDistil(patch_loss=1, warmup=0)
    large = torch.cat(batch.views[:2])
    places = objective.places(model, batch, large)
    hidden = torch.zeros(4, 16).scatter(1, places, 1).view(4, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    seen = model.student(large, places, model.mask_token)
    changed = model.student(torch.where(hidden == 1, 9.0, large), places, model.mask_token)
    assert torch.equal(seen[0], changed[0])
    assert torch.equal(seen[1], changed[1])
    other = model.student(torch.where(hidden == 0, 9.0, large), places, model.mask_token)
    assert not torch.allclose(seen[1], other[1], atol=1e-3)

    logits = torch.randn(4, 17, 32, requires_grad=True)  # what the encoder made of the tokens
    model.student.backbone.encode = lambda tokens, grid: logits
    objective(model, batch)["patch_loss"].backward()
    touched = logits.grad.abs().sum(-1)[:, 1:] > 0
    assert torch.equal(touched, torch.zeros(4, 16, dtype=torch.bool).scatter(1, places, True))


def test_teacher_and_centre_follow_by_hand(make_model):
    model, batch = make_model(patches=True), views()
    objective = SelfDistil(teacher_momentum=0.8, center_momentum=0.7, patch_loss=1, mask_ratio=0.25)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    large = torch.cat(batch.views[:2])
    answers, patches = model.teacher(large, objective.places(model, batch, large))
    objective(model, batch)
    objective.stepped(model, 0.5)
    after = model.state_dict()
    momentum = 1 - (1 - 0.8) * (math.cos(math.pi * 0.5) + 1) / 2
    assert momentum == pytest.approx(0.9)
    for name in (n.removeprefix("teacher.") for n in before if n.startswith("teacher.")):
        wanted = momentum * before[f"teacher.{name}"] + (1 - momentum) * before[f"student.{name}"]
        assert torch.allclose(after[f"teacher.{name}"], wanted, atol=1e-6)
        assert torch.equal(after[f"student.{name}"], before[f"student.{name}"])
    for name, mean in (("center", answers.mean(0)), ("patch_center", patches.mean((0, 1)))):
        wanted = 0.7 * before[f"{name}.value"] + 0.3 * mean
        assert torch.allclose(after[f"{name}.value"], wanted, atol=1e-6)
    assert after["share"] == 0.5

    teacher = {n: t.clone() for n, t in model.teacher.state_dict().items()}
    objective(model, batch)
    objective.stepped(model, 1.0)
    assert all(torch.equal(teacher[n], t) for n, t in model.teacher.state_dict().items())


def test_no_gradient_and_no_dropping_reaches_the_teacher(make_model):
    model, batch = make_model(drop_path=0.9, dropout=0.5), views()
    answers = []
    model.teacher.register_forward_hook(lambda module, given, output: answers.append(output[0]))
    for seed in (0, 1):
        torch.manual_seed(seed)
        SelfDistil()(model.train(), batch)["loss"].backward()
    assert torch.equal(answers[0], answers[1])
    assert not answers[0].requires_grad
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert not any(m.training for m in model.teacher.modules())
    assert all(m.training for m in model.student.modules())


def test_the_temperature_warms_up_and_the_prototypes_thaw(make_model):
    model, batch = make_model(), views()
    objective = SelfDistil(teacher_temperature=0.07, warmup=0.3, frozen=0.1)
    for share, temperature, learns in ((0, 0.04, False), (0.09, 0.049, False), (0.15, 0.055, True), (0.6, 0.07, True)):
        model.zero_grad()
        model.share.fill_(share)
        told = objective(model, batch)
        told["loss"].backward()
        assert told["loss"].item() == pytest.approx(algorithm_1(model, batch, temperature).item(), rel=1e-5)
        assert (model.student.head.last_layer.weight.grad is not None) == learns
    model.share.fill_(0)
    told = SelfDistil(teacher_temperature=0.02)(model, batch)
    assert told["loss"].item() == pytest.approx(algorithm_1(model, batch, 0.02).item(), rel=1e-5)


def test_bfloat16_gives_nearly_the_same_float32_losses(make_model):
    model, batch, objective = make_model(patches=True), views(), SelfDistil(patch_loss=1)
    exact = objective(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective(model, batch)
        assert model.student.head(torch.randn(2, 32)).dtype == torch.float32
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05)
    rough["loss"].backward()


@pytest.mark.parametrize("value", [0.0, 1.0, -100.0])
def test_constant_images_give_finite_losses_and_gradients(tiny_vit, value):
    model = SelfDistillation(tiny_vit(num_classes=0), patches=True, **SMALL).train()
    constant = Batch(tuple(torch.full_like(v, value) for v in views().views), views().targets, views().keys)
    objective = SelfDistil(patch_loss=1, frozen=0)
    for _ in range(3):
        told = objective(model, constant)
        told["loss"].backward()
        objective.stepped(model, 0.0)
    assert all(torch.isfinite(v) for v in told.values())
    assert all(torch.isfinite(g).all() for g in gradients(model).values())


@pytest.fixture
def make_loop(shapes_folder, make_model):
    data = open_data(shapes_folder, DataOptions(val_fraction=0, test_fraction=0))

    def make(batch_size=8, accumulation=1, objective=None, lr=1e-3, steps=4, drop_path=0.0):
        train = TrainOptions(batch_size=batch_size, accumulation=accumulation, workers=0, steps=steps)
        recipe = Recipe(optim=OptimOptions("adamw", lr=lr, warmup_fraction=0.1), train=train)
        whole, small = (Preprocess(side, side, 1, (0.3,), (0.3,)) for side in (20, 12))
        augmentations = [
            *(Augmentation(AugmentOptions(crop="resized", scale=(0.4, 1.0)), whole, f"view{i}") for i in range(2)),
            *(Augmentation(AugmentOptions(crop="resized", scale=(0.05, 0.4)), small, f"local{i}") for i in range(2)),
        ]
        batches = TrainingBatches(data.splits["train"], whole, augmentations, batch_size * accumulation, 0)
        model = make_model(patches=True, image_size=20, drop_path=drop_path)
        objective = objective or SelfDistil(patch_loss=1, frozen=0.3, teacher_momentum=0.9)
        progress = Progress(batch_size=batch_size, accumulation=accumulation)
        optimizers = build_optimizers(model, recipe.optim)
        return Loop(model, objective, batches, optimizers, None, progress, recipe, torch.device("cpu"), "fp32")

    return make


class Hungry(SelfDistil):
    """Runs out of memory in the second micro-batch, when the first one's sums are already gathered."""

    seen = ()

    def __call__(self, model, batch):
        told = super().__call__(model, batch)
        object.__setattr__(self, "seen", (*self.seen, len(batch)))
        if self.seen == (8, 8):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return told


@pytest.mark.parametrize("images", [24, 21, 5])
@pytest.mark.parametrize("out_of_memory", [False, True])
def test_accumulation_equals_the_large_batch(make_loop, images, out_of_memory):
    """Gradients, teacher and centres, with a short last part, and after a step that was tried again."""
    options = {"patch_loss": 1, "frozen": 0}
    ends = []
    for loop in (
        make_loop(24, objective=SelfDistil(**options)),
        make_loop(8, 3, objective=(Hungry if out_of_memory else SelfDistil)(**options)),
    ):
        batch = next(loop.batches[0].split(images))
        outcome = loop.gradients(batch, Silent())
        gradient = torch.cat([p.grad.flatten() for p in loop.model.parameters() if p.grad is not None])
        centers = [center.total / center.count for center in loop.model.centers]
        loop.objective.stepped(loop.model, 0.0)
        ends.append((outcome, gradient, centers, [center.value for center in loop.model.centers]))
    (outcome, gradient, *_), (parts, pieces, *_) = ends
    assert loop.progress.batch_size == (4 if out_of_memory and images > 8 else 8)
    assert (gradient - pieces).norm() <= 1e-6 * gradient.norm()
    for name, value in outcome.items():
        assert parts[name] == pytest.approx(value, rel=1e-5)
    for whole, cut in zip(ends[0][2] + ends[0][3], ends[1][2] + ends[1][3], strict=True):
        assert (whole - cut).norm() <= 1e-6 * whole.norm()


def test_resume_is_bit_exact(make_loop):
    """Through the steps in which the prototypes are frozen, into the warm-up of the temperature, with drop path."""
    whole = make_loop(4, 2, steps=8, drop_path=0.3)
    tensors = {}

    class Saver(Silent):
        def checkpoint(self, progress, *, validate):
            tensors[progress.step] = {
                n: t.clone() for n, t in collect(whole.model, whole.optimizers, whole.average).items()
            }

    object.__setattr__(whole.recipe.train, "checkpoint_every", 1)
    assert whole.run(Saver())
    for step in (1, 2, 3, 4, 7):
        again = make_loop(4, 2, steps=8, drop_path=0.3)
        restore(tensors[step], again.model, again.optimizers, again.average)
        again.progress.step = step
        assert again.run(Silent())
        for name, t in collect(again.model, again.optimizers, again.average).items():
            assert torch.equal(t, tensors[8][name]), (step, name)


def test_one_batch_is_learned_by_heart_and_told_apart(tiny_vit):
    B = 8
    model = SelfDistillation(tiny_vit(num_classes=0), prototypes=64, hidden=64, bottleneck=32).train()
    images = views(B).images
    noisy = [images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    batch = Batch((*noisy, images[:, :, 4:12, 4:12]), torch.zeros(B), torch.arange(B))
    objective = SelfDistil(teacher_momentum=0.95, frozen=0, warmup=0)
    optimizer = torch.optim.AdamW(model.student.parameters(), lr=1e-3, weight_decay=0)
    first = objective(model, batch)["loss"].item()
    steps = 120
    for step in range(steps):
        told = objective(model, batch)
        optimizer.zero_grad()
        told["loss"].backward()
        optimizer.step()
        objective.stepped(model, step / steps)
    assert first > 0.5 * math.log(64)
    assert told["loss"] < 0.05 * math.log(64)
    assert told["divergence"] < 0.1
    with torch.no_grad():
        answers = objective.sharpened(model, model.teacher(images)[0], model.center).exp()  # [B, 64]
    spread = torch.special.entr(answers.mean(0)).sum() - torch.special.entr(answers).sum(1).mean()
    assert spread > math.log(3)  # what an answer tells about whose it is, of log(B): 0 where training has collapsed


@pytest.mark.parametrize(
    ("name", "patches", "overrides"),
    [
        ("vit_tiny_patch16_224", True, {"patch_size": 4, "dim": 32, "depth": 2, "num_heads": 2}),
        ("vit_tiny_patch16_224", True, {"patch_size": 4, "dim": 32, "depth": 2, "num_heads": 2, "position": "learned2d",
                                        "pooling": "mean", "class_token": False, "fc_norm": True}),
        ("beit_base_patch16_224", True, {"patch_size": 4, "dim": 32, "depth": 2, "num_heads": 2}),
        ("swin_tiny_patch4_window7_224", False, {"dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window": (7, 7)}),
        ("resnet50", False, {"depths": (1, 1, 1, 1), "width": 8}),
    ],
)  # fmt: skip
def test_every_kind_of_backbone_on_small_images(name, patches, overrides):
    """28 pixels, small views of 16 and of 14, which patches do not tile."""
    backbone = create_model(name, image_size=28, in_channels=1, num_classes=0, **overrides)
    model, objective = (
        SelfDistillation(backbone, patches=patches, **SMALL).train(),
        SelfDistil(patch_loss=float(patches)),
    )
    assert backbone.training
    for small in (16, 14):
        objective(model, views(4, 28, small))["loss"].backward()
        objective.stepped(model, 0.5)
    result = objective.result(model)
    assert result is model.teacher.backbone
    assert result.num_classes == 0
    assert torch.isfinite(result(views(4, 28).images)).all()
    for theirs, ours in zip(model.teacher.buffers(), model.student.buffers(), strict=True):
        assert torch.equal(theirs, ours)


def test_what_cannot_be_is_refused(tiny_vit):
    for wrong in (
        {"teacher_momentum": 1.5},
        {"center_momentum": 1.0},
        {"teacher_temperature": 0.0},
        {"student_temperature": -1.0},
        {"patch_loss": -1.0},
        {"mask_ratio": 1.0},
    ):
        (name,) = wrong
        with pytest.raises(VitralError, match=f"{name}={wrong[name]}: choose"):
            SelfDistil(**wrong)
    with pytest.raises(VitralError, match="prototypes=1"):
        SelfDistillation(tiny_vit(num_classes=0), prototypes=1)
    resnet = create_model("resnet50", image_size=32, num_classes=0, depths=(1, 1, 1, 1), width=8)
    with pytest.raises(VitralError, match="ResNet: only a ViT"):
        SelfDistillation(resnet, patches=True)
    for name, value in (("representation_dim", 16), ("patch_drop", 0.5)):
        with pytest.raises(VitralError, match=f"{name}: predicting hidden patches"):
            SelfDistillation(tiny_vit(num_classes=0, **{name: value}), patches=True)


def test_noise_is_the_samples_own():
    from vitral.objectives.noise import noise

    keys = torch.from_numpy(np.array([5, 6, 2**52]))
    cpu = torch.device("cpu")
    whole = noise(keys, "masks", 1000, cpu)
    assert whole.dtype == torch.float32
    assert torch.equal(whole[1:2], noise(keys[1:2], "masks", 1000, cpu))
    assert not torch.equal(whole, noise(keys, "other", 1000, cpu))
    assert F.relu(-whole).sum() == 0
    assert whole.max() <= 1
    assert whole.mean(1).tolist() == pytest.approx([0.5] * 3, abs=0.05)

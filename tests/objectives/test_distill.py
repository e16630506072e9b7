"""Distillation: both losses against the paper's equations, teachers of another kind, size and order of classes, and refusals."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import create_model
from vitral.data.loader import Batch
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.objectives.classify import Classify
from vitral.objectives.distill import Distill, Teacher
from vitral.predict import Predictor

STEPS = Preprocess(16, 16, 1, (0.4,), (0.3,))
LABELS = ["a", "b", "c"]


def predictor(name="resnet18", labels=LABELS, steps=STEPS, **overrides):
    torch.manual_seed(1)
    options = {"image_size": (steps.height, steps.width), "in_channels": steps.channels, "num_classes": len(labels)}
    model = create_model(name, **(options | overrides)).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return Predictor(model, ModelCard(name, model.config.arguments(), list(labels), steps))


def student(distilled):
    torch.manual_seed(2)
    name = "deit_tiny_distilled_patch16_224" if distilled else "deit_tiny_patch16_224"
    return create_model(
        name, image_size=16, patch_size=4, in_channels=1, num_classes=3, dim=32, depth=2, num_heads=2
    ).eval()


def batch():
    torch.manual_seed(3)
    return Batch((torch.randn(6, 1, 16, 16),), torch.tensor([0, 1, 2, 2, 1, 0]), torch.arange(6))


@pytest.mark.parametrize("distilled", [True, False])
def test_hard_distillation_is_equation_3(distilled):
    given, model, learned = batch(), student(distilled), predictor(width=8, depths=(1, 1, 1, 1))
    out = Distill(Classify(), Teacher(learned, LABELS, STEPS), "hard", 0.5)(model, given)
    teacher = learned.model(given.images).argmax(-1)
    of_class, of_teacher = model.both(given.images) if distilled else (model(given.images),) * 2
    wanted = 0.5 * F.cross_entropy(of_class, given.targets) + 0.5 * F.cross_entropy(of_teacher, teacher)
    assert torch.allclose(out["loss"], wanted, atol=1e-6)
    assert int(out["correct"]) == int((model(given.images).argmax(-1) == given.targets).sum())


def test_soft_distillation_is_equation_2():
    given, model, learned = batch(), student(False), predictor(width=8, depths=(1, 1, 1, 1))
    out = Distill(Classify(), Teacher(learned, LABELS, STEPS), "soft", 0.1, 3.0)(model, given)
    ours, theirs = (m(given.images).double() for m in (model, learned.model))
    p, log_q = (theirs / 3).softmax(-1), (ours / 3).log_softmax(-1)
    divergence = (p * (p.log() - log_q)).sum(-1).mean()
    wanted = 0.9 * F.cross_entropy(ours, given.targets) + 0.1 * 9 * divergence
    assert out["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_teacher_sees_its_own_preprocessing_and_answers_in_the_students_classes():
    steps = dataclasses.replace(STEPS, height=24, width=32, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    learned = predictor(labels=["c", "x", "a", "b"], steps=steps, width=8, depths=(1, 1, 1, 1))
    teacher = Teacher(learned, LABELS, STEPS)
    pixels = torch.rand(2, 1, 16, 16)
    seen = teacher.see((pixels - 0.4) / 0.3)
    larger = F.interpolate(pixels, (24, 32), mode="bilinear", antialias=True, align_corners=False).expand(-1, 3, -1, -1)
    by_hand = (larger - torch.tensor(steps.mean)[:, None, None]) / torch.tensor(steps.std)[:, None, None]
    assert torch.allclose(seen, by_hand, atol=1e-5)
    assert torch.allclose(teacher((pixels - 0.4) / 0.3), learned.model(by_hand)[:, [2, 3, 0]], atol=1e-5)


def test_no_gradient_reaches_the_teacher():
    learned, model = predictor(width=8, depths=(1, 1, 1, 1)), student(True)
    Distill(Classify(), Teacher(learned, LABELS, STEPS))(model, batch())["loss"].backward()
    assert all(p.grad is None for p in learned.model.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_a_teacher_that_does_not_fit_is_refused():
    with pytest.raises(VitralError, match=r"does not know 'c'.*same classes"):
        Teacher(predictor(labels=["a", "b"], width=8, depths=(1, 1, 1, 1)), LABELS, STEPS)
    colour = dataclasses.replace(STEPS, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(VitralError, match=r"sees grey images and the student colour; .*--channels 1"):
        Teacher(predictor(width=8, depths=(1, 1, 1, 1)), LABELS, colour)
    for teacher, student, said in (
        (3, 4, "colour images and the student 4 bands"),
        (4, 1, "4 bands images and the student grey"),
    ):
        steps, own = (
            dataclasses.replace(STEPS, channels=n, mean=(0.5,) * n, std=(0.5,) * n) for n in (teacher, student)
        )
        with pytest.raises(VitralError, match=said):
            Teacher(predictor(steps=steps, width=8, depths=(1, 1, 1, 1)), LABELS, own)

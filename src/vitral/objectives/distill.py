"""Distillation: a student learns from a teacher's predictions beside the labels.

Training data-efficient image transformers & distillation through attention, https://arxiv.org/abs/2012.12877, section 4: hard (equation 3) or
soft (equation 2, after https://arxiv.org/abs/1503.02531), through the distillation token where the student has one, else through its only head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.bands import in_words
from vitral.data.loader import Batch
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.common import ImageModel
from vitral.objectives.classify import Classify, hits
from vitral.objectives.objective import Objective
from vitral.predict import Predictor


class Teacher:
    """Any predictor as a teacher: it gets the student's images at its own size and normalisation, and its logits are put in the student's order."""

    def __init__(self, predictor: Predictor, labels: list[str], preprocess: Preprocess) -> None:
        steps = predictor.card.preprocess
        if not predictor.labels:
            raise VitralError(
                "the teacher was trained without labels, so it predicts no classes; train one on these classes"
            )
        if missing := [label for label in labels if label not in predictor.labels]:
            raise VitralError(
                f"the teacher does not know {', '.join(map(repr, missing[:5]))}; it was trained on {', '.join(predictor.labels[:5])}"
                f"{', ...' if len(predictor.labels) > 5 else ''}: train a teacher on the same classes"
            )
        seen, own = steps.channels, preprocess.channels
        if seen != own and (own, seen) != (1, 3):
            raise VitralError(
                f"the teacher sees {in_words(seen)} images and the student {in_words(own)}; train the student with --channels {seen}, "
                f"or choose a teacher of {in_words(own)} images"
            )
        self.scores = predictor.card.scores
        """Of its own run, by split."""
        self.model = predictor.model.eval().requires_grad_(False)
        self.classes = [predictor.labels.index(label) for label in labels]
        self.student, self.own = preprocess, steps

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The student's normalised images [B, C, H, W] to the teacher's logits [B, K]."""
        self.model.to(images.device)
        return self.model(self.see(images))[:, self.classes].float()

    def see(self, images: Tensor) -> Tensor:
        """The student's images as the teacher takes them: its normalisation, size and channels."""
        pixels = images * _column(self.student.std, images) + _column(self.student.mean, images)  # 0..1
        size = (self.own.height, self.own.width)
        if pixels.shape[2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        pixels = pixels.expand(-1, self.own.channels, -1, -1)  # grey images for a teacher of colour images
        return (pixels - _column(self.own.mean, images)) / _column(self.own.std, images)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]


@dataclass(frozen=True)
class Distill(Objective):
    """(1 - weight) x the labels' loss + weight x the teacher's; student and teacher see the same mixed images."""

    classify: Classify
    teacher: Teacher
    how: str = "hard"
    weight: float = 0.5
    temperature: float = 3.0
    """Of soft distillation."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, ImageModel)
        logits, distilled = (each.float() for each in model.both(batch.images))  # each [B, K]
        label_loss = self.classify.of(logits, batch.targets)
        teacher_loss = self.distance(distilled, self.teacher(batch.images))
        return {
            "loss": (1 - self.weight) * label_loss + self.weight * teacher_loss,
            "label_loss": label_loss,
            "teacher_loss": teacher_loss,
            "correct": hits((logits + distilled) / 2, batch.targets),
        }

    def in_words(self, source: str) -> str:
        """Who the teacher is, how good it was, and how much its loss counts. source: where it comes from."""
        known = {
            split: next(iter(scores.items()))
            for split, scores in self.teacher.scores.items()
            if isinstance(scores, dict) and scores
        }
        worth = ", ".join(
            f"{name} {value:.1%} on {split}" for split, (name, value) in known.items() if isinstance(value, float)
        )
        return f"learns from {source} ({worth or 'its scores are not known'}): {self.how} answers, {self.weight:.0%} of the loss"

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of logits [B, K] from the teacher's: cross-entropy with its class, or the divergence of softened probabilities."""
        if self.how == "hard":
            return F.cross_entropy(student, teacher.argmax(-1))
        t = self.temperature
        student_log_probs, teacher_log_probs = (logits.div(t).log_softmax(-1) for logits in (student, teacher))
        return F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True) * t**2

    def result(self, model: nn.Module) -> ImageModel:
        return self.classify.result(model)

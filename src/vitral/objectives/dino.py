"""Self-distillation without labels: from one view of an image a student predicts what a teacher, its own moving average, outputs for another view.

DINO, https://arxiv.org/abs/2104.14294 (algorithm 1), and as an option iBOT's loss on masked patches, https://arxiv.org/abs/2111.07832, through the
same head. https://arxiv.org/abs/2210.07240 does the same on small images and small data sets, with smaller views and fewer prototypes.

Deviations. Warm-up and freezing are shares of the budget, not epochs. Of every large view that the student sees the same share of patches is
masked, at random places; iBOT draws that share, and masks nothing in half of the views. As in DINOv2's code
(https://github.com/facebookresearch/dinov2) only masked patches pass the head, and their centre is the mean over them.

Axes: V views, B batch, N patches, M masked patches, D width, K prototypes.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.errors import VitralError
from vitral.layers.initialise import truncated_normal
from vitral.models.common import ImageModel
from vitral.objectives.masking import maskable
from vitral.objectives.noise import noise
from vitral.objectives.objective import Objective, Together

LARGE = 2  # views of the whole image, which the teacher sees
FIRST_TEMPERATURE = 0.04  # where the teacher's warm-up starts


class Head(nn.Module):
    """Representations [..., D] to logits [..., K], their cosines with the prototypes: three layers, a bottleneck, L2 normalisation; appendix C."""

    def __init__(self, dim: int, prototypes: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        truncated_normal(self)
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp(x)
        # In float32: rounding a cosine to bfloat16 would shift a logit, over the teacher's temperature, by a tenth.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.normalize(x.float(), dim=-1, eps=1e-6), F.normalize(self.last_layer.weight, dim=-1))


class Branch(nn.Module):
    """Student or teacher: a backbone without a classifier, and the projection head; images [B, C, H, W] to logits [B, K]."""

    def __init__(self, backbone: ImageModel, prototypes: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        config, mode = backbone.config, backbone.training
        with torch.no_grad():
            dim = backbone.eval()(torch.zeros(1, config.in_channels, *config.image_size)).shape[1]
        self.backbone = backbone.train(mode)
        self.head = Head(dim, prototypes, hidden, bottleneck)

    def forward(
        self, images: Tensor, places: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, K] of the images, and [B, M, K] of their patches at `places` [B, M], which a mask token [1, 1, D] may replace."""
        if places is None:
            return self.head(self.backbone(images)), None
        backbone = maskable(self.backbone)

        def hide(patches: Tensor) -> Tensor:  # [B, N, D]
            if mask_token is None:
                return patches
            hidden = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device).scatter(1, places, True)
            return torch.where(hidden[..., None], mask_token.to(patches.dtype), patches)

        tokens = backbone.encode(backbone.embed(images, hide), backbone.grid_of(images))  # [B, prefix + N, D]
        patches = tokens[:, backbone.num_prefix :]
        patches = patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))  # [B, M, D]
        return self.head(backbone.pool(tokens)), self.head(backbone.fc_norm(patches))


class Center(nn.Module):
    """The moving mean [K] of the teacher's logits, from sums over a step's micro-batches; equation 4."""

    value: Tensor
    total: Tensor

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(prototypes))
        self.register_buffer("total", torch.zeros(prototypes), persistent=False)
        self.count = 0

    def clear(self) -> None:
        self.total.zero_()
        self.count = 0

    def gather(self, logits: Tensor) -> None:
        """Add the logits [..., K] of a micro-batch."""
        logits = logits.flatten(0, -2)
        self.total += logits.sum(0)
        self.count += len(logits)

    def update(self, momentum: float) -> None:
        assert self.count
        self.value.lerp_(self.total / self.count, 1 - momentum)
        self.clear()


class SelfDistillation(nn.Module):
    """What is trained: the student. Beside it the teacher, the centres and the share of the budget that is spent, so that checkpoints hold them.

    backbone: any image model with num_classes=0; for masked patches (`patches`) a ViT or a BEiT without patch_drop and representation_dim.
    prototypes: outputs of the heads. hidden, bottleneck: widths of their three layers.
    """

    share: Tensor

    def __init__(
        self,
        backbone: ImageModel,
        prototypes: int = 1024,
        *,
        patches: bool = False,
        hidden: int = 2048,
        bottleneck: int = 256,
    ) -> None:
        super().__init__()
        assert backbone.num_classes == 0
        if prototypes < 2:
            raise VitralError(f"prototypes={prototypes}: DINO needs at least 2; 1024 suit small data sets")
        self.student = Branch(backbone, prototypes, hidden, bottleneck)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.center = Center(prototypes)
        self.patch_center = Center(prototypes) if patches else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, maskable(backbone).dim)) if patches else None
        self.register_buffer("share", torch.zeros(()))

    def train(self, mode: bool = True) -> "SelfDistillation":
        """The teacher stays in evaluation mode: nothing is dropped in it."""
        super().train(mode)
        self.teacher.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The share stays on the CPU, where reading it waits for no device."""
        super()._apply(fn, recurse)
        self.share = self.share.cpu()
        return self

    @property
    def centers(self) -> list[Center]:
        return [center for center in (self.center, self.patch_center) if center is not None]

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """teacher = momentum * teacher + (1 - momentum) * student; the statistics of batch norms are copied."""
        torch._foreach_lerp_([*self.teacher.parameters()], [*self.student.parameters()], 1 - momentum)
        for teacher, student in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            teacher.copy_(student)


@dataclass(frozen=True)
class SelfDistil(Objective):
    """The batch's views are two large ones [B, C, H, W], then any number of small ones [B, C, h, w] of one size."""

    teacher_momentum: float = 0.996
    """At the start; it rises to 1 along a cosine. Smaller batches need a higher one: DINO's code suggests 0.9995 for 256 images."""
    teacher_temperature: float = 0.04
    """After the warm-up."""
    patch_loss: float = 0.0
    """Weight of the loss on masked patches; above 0 the module must have been made with `patches`."""
    mask_ratio: float = 0.3
    """Share of the patches that are masked for that loss, at least one."""
    student_temperature: float = 0.1
    center_momentum: float = 0.9
    warmup: float = 0.3
    """Share of the budget in which the teacher's temperature rises from 0.04; in the paper 30 of 100 epochs."""
    frozen: float = 0.01
    """Share of the budget in which the prototypes are frozen; in the paper the first of 100 epochs."""

    def __post_init__(self) -> None:
        for name, fine, allowed in (
            ("teacher_momentum", 0 <= self.teacher_momentum <= 1, "from 0 to 1"),
            ("center_momentum", 0 <= self.center_momentum < 1, "from 0 to below 1"),
            ("teacher_temperature", self.teacher_temperature > 0, "above 0, up to 0.07"),
            ("student_temperature", self.student_temperature > 0, "above 0, such as 0.1"),
            ("patch_loss", self.patch_loss >= 0, "0 for no masked patches, or above"),
            ("mask_ratio", 0 < self.mask_ratio < 1, "between 0 and 1"),
        ):
            if not fine:
                raise VitralError(f"{name}={getattr(self, name)}: choose a value {allowed}")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `entropy` of the teacher and `divergence` of the student from it; `patch_loss` where patches are masked.

        Training has collapsed where the divergence is 0 and the entropy is log K (all prototypes alike) or 0 (always the same one).
        """
        assert isinstance(model, SelfDistillation)
        large, small = torch.cat(batch.views[:LARGE]), batch.views[LARGE:]
        model.student.head.last_layer.requires_grad_(float(model.share) >= self.frozen)
        places = self.places(model, batch, large) if self.patch_loss else None

        student, student_patches = model.student(large, places, model.mask_token)
        with torch.no_grad():
            teacher, teacher_patches = model.teacher(large, places)
        if model.training and not batch.idle:
            self.gather(model, teacher, teacher_patches)

        teacher_log_probs = self.sharpened(model, teacher, model.center).unflatten(0, (LARGE, -1))  # [2, B, K]
        teacher_probs = teacher_log_probs.exp()
        student_log_probs = self.softened(student).unflatten(0, (LARGE, -1))  # [2, B, K]
        total = -(teacher_probs.flip(0) * student_log_probs).sum()  # each large view against the other one
        if small:
            logits, _ = model.student(torch.cat(small))
            student_log_probs = self.softened(logits).unflatten(0, (len(small), -1))  # [V - 2, B, K]
            total = total - (teacher_probs.sum(0) * student_log_probs).sum()  # each small view against both large ones
        loss = total / (len(batch) * LARGE * (len(batch.views) - 1))
        entropy = -(teacher_probs * teacher_log_probs).sum(-1).mean()
        losses = {"loss": loss, "entropy": entropy, "divergence": loss.detach() - entropy}
        if student_patches is not None:
            assert model.patch_center is not None
            teacher_probs = self.sharpened(model, teacher_patches, model.patch_center).exp()  # [2B, M, K]
            losses["patch_loss"] = -(teacher_probs * self.softened(student_patches)).sum(-1).mean()
            losses["loss"] = loss + self.patch_loss * losses["patch_loss"]
        return losses

    def places(self, model: SelfDistillation, batch: Batch, large: Tensor) -> Tensor:
        """[2B, M]: which patches of each large view are masked."""
        backbone = maskable(model.student.backbone)
        N = math.prod(backbone.grid_of(large))
        M = max(1, round(N * self.mask_ratio))
        order = noise(batch.keys, "masked patches", LARGE * N, large.device)
        order = order.unflatten(1, (LARGE, N)).transpose(0, 1).flatten(0, 1)  # [B, 2N] -> [2B, N]
        return order.argsort(dim=1)[:, :M]

    def sharpened(self, model: SelfDistillation, logits: Tensor, center: Center) -> Tensor:
        """The teacher's logits [..., K] as log-probabilities: centred, so that no prototype always wins, and sharp, so that not all are alike."""
        first = min(FIRST_TEMPERATURE, self.teacher_temperature)
        risen = min(1.0, float(model.share) / self.warmup) if self.warmup else 1.0
        temperature = first + (self.teacher_temperature - first) * risen
        return ((logits - center.value) / temperature).log_softmax(-1)

    def softened(self, logits: Tensor) -> Tensor:
        """The student's logits [..., K] as log-probabilities."""
        return (logits / self.student_temperature).log_softmax(-1)

    def gather(self, model: SelfDistillation, logits: Tensor, patch_logits: Tensor | None) -> None:
        """Add the teacher's logits of a micro-batch to the centres' sums."""
        model.center.gather(logits)
        if patch_logits is not None:
            assert model.patch_center is not None
            model.patch_center.gather(patch_logits)

    def begun(self, model: nn.Module) -> None:
        """The centres' sums start from 0."""
        assert isinstance(model, SelfDistillation)
        for center in model.centers:
            center.clear()

    def gathered(self, model: nn.Module, together: Together) -> None:
        """The centres follow the mean over the logits of all."""
        assert isinstance(model, SelfDistillation)
        for center in model.centers:
            together.add(center.total)
            center.count = int(together.total(center.count))

    @torch.no_grad()
    def stepped(self, model: nn.Module, share: float) -> None:
        """Move the teacher towards the student, and the centres towards the teacher's mean logits."""
        assert isinstance(model, SelfDistillation)
        model.follow(1 - (1 - self.teacher_momentum) * (1 + math.cos(math.pi * share)) / 2)
        for center in model.centers:
            center.update(self.center_momentum)
        model.share.fill_(share)

    def result(self, model: nn.Module) -> ImageModel:
        """The teacher's backbone, which the paper evaluates: it is better than the student's throughout training (figure 6)."""
        assert isinstance(model, SelfDistillation)
        return model.teacher.backbone

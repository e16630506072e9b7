"""Self-distillation without labels: a student learns, from one view of an image, what its own moving average says of another.

DINO, https://arxiv.org/abs/2104.14294 (algorithm 1), and as an option iBOT's loss on masked patches, https://arxiv.org/abs/2111.07832, through the
same head. On small images and small data sets as in https://arxiv.org/abs/2210.07240: the same objective with smaller views and fewer prototypes.

Deviations. Warm-up and freezing are shares of the budget, not epochs. Every large view of the student has the same share of its patches masked, at
random places; iBOT draws the share, and none for half of the views. As in DINOv2's code (https://github.com/facebookresearch/dinov2) only masked
patches pass the head, and their centre is the mean over them.

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
from vitral.objectives.objective import Objective

LARGE = 2  # views of the whole image, which the teacher sees
FIRST_TEMPERATURE = 0.04  # where the teacher's warm-up starts


class Head(nn.Module):
    """Representations [..., D] to cosines with the prototypes [..., K]: three layers to a bottleneck, both sides of unit length; appendix C."""

    def __init__(self, dim: int, prototypes: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        truncated_normal(self)
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp(x)
        # In float32: divided by the teacher's temperature, a bfloat16's rounding of a cosine would be a tenth of a nat.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.normalize(x.float(), dim=-1, eps=1e-6), F.normalize(self.last_layer.weight, dim=-1))


class Branch(nn.Module):
    """Student or teacher, a backbone without a head of its own and the projection: images [B, C, H, W] -> [B, K]."""

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
        """Answers [B, K] of the images, and [B, M, K] of their patches at `places` [B, M], which a mask token [1, 1, D] may hide."""
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
    """The moving mean [K] of the teacher's answers, from sums over a step's micro-batches; equation 4."""

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

    def gather(self, answers: Tensor) -> None:
        """Answers [..., K] of a micro-batch."""
        answers = answers.flatten(0, -2)
        self.total += answers.sum(0)
        self.count += len(answers)

    def update(self, momentum: float) -> None:
        assert self.count
        self.value.lerp_(self.total / self.count, 1 - momentum)
        self.clear()


class SelfDistillation(nn.Module):
    """What is trained: the student, and beside it the teacher, the centres and the spent share of the budget, so that checkpoints hold them.

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
        """The teacher never drops anything."""
        super().train(mode)
        self.teacher.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The share stays where it is read without waiting for a device."""
        super()._apply(fn, recurse)
        self.share = self.share.cpu()
        return self

    @property
    def centers(self) -> list[Center]:
        return [center for center in (self.center, self.patch_center) if center is not None]

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """The teacher's weights by `momentum` theirs and by the rest the student's; statistics of batch norms are the student's."""
        torch._foreach_lerp_([*self.teacher.parameters()], [*self.student.parameters()], 1 - momentum)
        for theirs, ours in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            theirs.copy_(ours)


@dataclass(frozen=True)
class SelfDistil(Objective):
    """The batch's views are two large ones [B, C, H, W], then any number of small ones [B, C, h, w] of one size."""

    teacher_momentum: float = 0.996
    """At the start; it rises to 1 along a cosine. The nearer to 1, the smaller the batch: DINO's code suggests 0.9995 for 256 images."""
    teacher_temperature: float = 0.04
    """After the warm-up."""
    patch_loss: float = 0.0
    """Weight of the loss on masked patches; above 0 the module must be made with `patches`."""
    mask_ratio: float = 0.3
    """Share of the patches that are masked then, at least one."""
    student_temperature: float = 0.1
    center_momentum: float = 0.9
    warmup: float = 0.3
    """Share of the budget in which the teacher's temperature rises from 0.04: 30 of the paper's 100 epochs."""
    frozen: float = 0.01
    """Share of the budget in which the prototypes stay as they are: the first of 100 epochs."""

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
        """`loss`; `entropy` of the teacher, which is log K or 0 and `divergence` from it 0 where training has collapsed; with masks `patch_loss`."""
        assert isinstance(model, SelfDistillation)
        large, small = torch.cat(batch.views[:LARGE]), batch.views[LARGE:]
        model.student.head.last_layer.requires_grad_(float(model.share) >= self.frozen)
        places = self.places(model, batch, large) if self.patch_loss else None

        ours, our_patches = model.student(large, places, model.mask_token)
        with torch.no_grad():
            theirs, their_patches = model.teacher(large, places)
        if model.training:
            self.gather(model, theirs, their_patches)

        wanted = self.sharpened(model, theirs, model.center).unflatten(0, (LARGE, -1))  # [2, B, K] log-probabilities
        said = self.softened(ours).unflatten(0, (LARGE, -1))  # [2, B, K]
        p = wanted.exp()
        total = -(p.flip(0) * said).sum()  # each view of the student against each other large view of the teacher
        if small:
            said = self.softened(model.student(torch.cat(small))[0]).unflatten(0, (len(small), -1))  # [V - 2, B, K]
            total = total - (p.sum(0) * said).sum()
        loss = total / (len(batch) * LARGE * (len(batch.views) - 1))
        entropy = -(p * wanted).sum(-1).mean()
        told = {"loss": loss, "entropy": entropy, "divergence": loss.detach() - entropy}
        if our_patches is not None:
            assert model.patch_center is not None
            p = self.sharpened(model, their_patches, model.patch_center).exp()  # [2B, M, K]
            told["patch_loss"] = -(p * self.softened(our_patches)).sum(-1).mean()
            told["loss"] = loss + self.patch_loss * told["patch_loss"]
        return told

    def places(self, model: SelfDistillation, batch: Batch, large: Tensor) -> Tensor:
        """[2B, M]: which patches of each large view are masked."""
        backbone = maskable(model.student.backbone)
        N = math.prod(backbone.grid_of(large))
        M = max(1, round(N * self.mask_ratio))
        order = noise(batch.keys, "masked patches", LARGE * N, large.device)
        order = order.unflatten(1, (LARGE, N)).transpose(0, 1).flatten(0, 1)  # [B, 2N] -> [2B, N]
        return order.argsort(dim=1)[:, :M]

    def sharpened(self, model: SelfDistillation, answers: Tensor, center: Center) -> Tensor:
        """The teacher's answers [..., K] as log-probabilities: centred, so that no prototype wins always, and sharp, so that all do not tie."""
        first = min(FIRST_TEMPERATURE, self.teacher_temperature)
        risen = min(1.0, float(model.share) / self.warmup) if self.warmup else 1.0
        temperature = first + (self.teacher_temperature - first) * risen
        return ((answers - center.value) / temperature).log_softmax(-1)

    def softened(self, answers: Tensor) -> Tensor:
        """The student's answers [..., K] as log-probabilities."""
        return (answers / self.student_temperature).log_softmax(-1)

    def gather(self, model: SelfDistillation, theirs: Tensor, their_patches: Tensor | None) -> None:
        """Add a micro-batch to the centres' sums, which start anew with each step."""
        # No gradient yet: the step's first micro-batch, perhaps after one for which memory ran out.
        if model.student.head.mlp[0].weight.grad is None:
            for center in model.centers:
                center.clear()
        model.center.gather(theirs)
        if their_patches is not None:
            assert model.patch_center is not None
            model.patch_center.gather(their_patches)

    @torch.no_grad()
    def stepped(self, model: nn.Module, share: float) -> None:
        """The teacher follows the student, the centres the teacher."""
        assert isinstance(model, SelfDistillation)
        model.follow(1 - (1 - self.teacher_momentum) * (1 + math.cos(math.pi * share)) / 2)
        for center in model.centers:
            center.update(self.center_momentum)
        model.share.fill_(share)

    def result(self, model: nn.Module) -> ImageModel:
        """The teacher's backbone, which the paper evaluates: it is better than the student's throughout (figure 6)."""
        assert isinstance(model, SelfDistillation)
        return model.teacher.backbone

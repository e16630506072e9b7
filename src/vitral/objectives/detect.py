"""Detection: every stage of a query head learns class, box and mask of the objects that its answers are matched to.

The dense stage is matched one to many, by class^.5 IoU^2 (task-aligned assignment, https://arxiv.org/abs/2108.07755, section 3.2), each decoder layer
one to one by the Hungarian method (https://arxiv.org/abs/2005.12872, section 3.1). Classes learn by LW-DETR's IoU-aware cross-entropy
(https://arxiv.org/abs/2406.03459, section 3.3), boxes by L1 and GIoU, masks by cross-entropy and dice at sampled points
(https://arxiv.org/abs/2112.01527, section 3.3). Stuff has no box that is learned or that costs.

Axes: B images, M most objects of an image, N answers of a stage, K classes, P points, n matches.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.layers.lora import merged
from vitral.models.common import ImageModel
from vitral.models.heads.outputs import Found
from vitral.objectives.boxes import area, giou, intersection, iou
from vitral.objectives.objective import Objective
from vitral.objectives.truth import Truth, at

BOX, GIOU, MASK, DICE = 5.0, 2.0, 5.0, 5.0  # weights of the losses; of the class it is 1
CLASS_COST = 2.0  # the others cost what they weigh
FOCUS, BALANCE = 2.0, 0.25  # the focal loss's gamma and alpha, https://arxiv.org/abs/1708.02002
SURE = 0.25  # exponent of the probability in the class's target, that of the overlap is 1 - SURE
LEAST_TARGET = 0.01
IN_CROWD = 0.5  # of an answer's box


@dataclass(frozen=True, eq=False)
class Matches:
    """Which answers learn which objects: n rows."""

    image: Tensor
    answer: Tensor
    object: Tensor
    weight: Tensor
    """Of the losses of box and mask: those of an object add up to 1."""


@dataclass(frozen=True)
class Detect(Objective):
    """Losses are sums over objects, divided by the objects of the whole batch of a step."""

    cells: int = 8
    """Answers of the dense stage that learn each object."""

    def count(self, batch: Batch) -> float:
        return float(sum(map(len, batch.targets.classes)))

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        found: Found = model(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            sums = self.of(found.float(), batch)
        assert batch.whole is not None
        whole = max(1.0, batch.whole)
        losses = {name: value / whole for name, value in sums.items()}
        return {"loss": torch.stack([*losses.values()]).sum(), **losses}

    def of(self, found: Found, batch: Batch) -> dict[str, Tensor]:
        """Each loss as its sum over the objects of the batch and over the stages."""
        truth = Truth.of(batch.targets, batch.keys)
        stuff = torch.isin(truth.classes, torch.tensor(sorted(found.stuff), device=truth.classes.device))  # [B, M]
        sums: dict[str, Tensor] = {}
        for stage in (*found.earlier, found):
            size = batch.images.shape[2:]
            sampled = None if truth.points is None else pixels_at(stage, truth.points, (size[0], size[1]))
            if stage.centres is None:
                matches = one_to_one(stage, truth, stuff, sampled)
            else:
                matches = one_to_many(stage, truth, stuff, batch.targets.masks, self.cells)
            for name, value in stage_losses(stage, truth, matches, stuff, sampled).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def result(self, model: nn.Module) -> ImageModel:
        """The model, with LoRA, where it has it, merged into plain layers."""
        assert isinstance(model, ImageModel)
        return merged(model)


def pixels_at(stage: Found, points: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels' vectors at points [B, M, P, 2] of inputs of `size` (height, width), [B, M, C, P]."""
    assert stage.pixels is not None
    h, w = (
        side * stage.stride for side in stage.pixels.shape[2:]
    )  # what the pixels cover, which may reach beyond the input
    places = points * torch.tensor([size[1] / w, size[0] / h], device=points.device) * 2 - 1
    sampled = F.grid_sample(stage.pixels, places, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.transpose(1, 2)


@torch.no_grad()
def one_to_many(stage: Found, truth: Truth, stuff: Tensor, masks: tuple[Tensor, ...] | None, cells: int) -> Matches:
    """For each object up to `cells` places inside its box, or inside stuff: those of the largest class^.5 IoU^2, and the one nearest to its middle.

    A place that several objects want is that of the largest overlap.
    """
    assert stage.centres is not None
    own, middles = truth.boxes[:, :, None], stage.centres[:, None]  # [B, M, 1, 4], [B, 1, N, 2]
    overlap = iou(stage.boxes[:, None], own)  # [B, M, N]
    inside = ((middles > own[..., :2]) & (middles < own[..., 2:])).all(-1)
    if stuff.any():
        assert masks is not None
        for b, each in enumerate(masks):
            n = len(each)
            covers = at(each, stage.centres[b].expand(n, -1, -1)).bool()
            inside[b, :n] = torch.where(stuff[b, :n, None], covers, inside[b, :n])
        overlap = torch.where(stuff[..., None], 1.0, overlap)
    away = (middles - (own[..., :2] + own[..., 2:]) / 2).square().sum(-1)  # [B, M, N]
    inside = inside.scatter(2, away.argmin(-1, keepdim=True), True)
    of_class = stage.logits.sigmoid().transpose(1, 2).gather(1, truth.classes[..., None].expand_as(overlap))
    worth = (of_class.sqrt() * overlap.square() + 1e-6 / (1 + away)) * inside
    chosen = torch.zeros_like(inside).scatter(2, worth.topk(min(cells, worth.shape[2]), -1).indices, True)
    chosen &= inside & truth.real[..., None]
    wants = torch.where(chosen, overlap, -1.0)
    chosen &= wants == wants.amax(1, keepdim=True)
    image, thing, answer = chosen.nonzero(as_tuple=True)
    worth = worth * chosen
    return Matches(image, answer, thing, (worth / worth.sum(-1, keepdim=True).clamp(min=1e-12))[image, thing, answer])


@torch.no_grad()
def one_to_one(stage: Found, truth: Truth, stuff: Tensor, sampled: Tensor | None) -> Matches:
    """The cheapest assignment of each object to an answer of its own. What is not finite does not stop it: then the loss is not finite either."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and only this task needs it

    logits, p = stage.logits, stage.logits.sigmoid()
    yes = BALANCE * (1 - p) ** FOCUS * -F.logsigmoid(logits)
    no = (1 - BALANCE) * p**FOCUS * -F.logsigmoid(-logits)
    wanted = truth.classes[:, None].expand(-1, logits.shape[1], -1)
    cost = CLASS_COST * (yes - no).gather(2, wanted)  # [B, N, M]
    boxes, own = stage.boxes[:, :, None], truth.boxes[:, None]
    placed = BOX * (boxes - own).abs().sum(-1) - GIOU * giou(boxes, own)
    if stuff.any():
        assert sampled is not None
        assert stage.kernels is not None
        assert truth.inside is not None
        masks = torch.einsum("bnc,bmcp->bnmp", stage.kernels, sampled)
        inside = truth.inside[:, None].expand_as(masks)
        covered = MASK * cross_entropy(masks, inside) + DICE * dice(masks, inside)
        placed = torch.where(stuff[:, None], covered, placed)
    costs = (cost + placed).nan_to_num().cpu().numpy()
    pairs = [linear_sum_assignment(costs[b, :, :n]) for b, n in enumerate(truth.real.sum(1).tolist())]
    numbers = np.repeat(np.arange(len(pairs)), [len(answers) for answers, _ in pairs])
    columns = (numbers, *(np.concatenate(column) for column in zip(*pairs, strict=True)))
    image, answer, thing = (torch.from_numpy(each).to(logits.device) for each in columns)
    return Matches(image, answer, thing, torch.ones(len(numbers), device=logits.device))


def stage_losses(
    stage: Found, truth: Truth, matches: Matches, stuff: Tensor, sampled: Tensor | None
) -> dict[str, Tensor]:
    """Each loss of a stage, summed over the objects."""
    answers, things = (matches.image, matches.answer), (matches.image, matches.object)
    boxes, own = stage.boxes[answers], truth.boxes[things]  # [n, 4]
    overlap = iou(boxes, own).detach()
    weight = matches.weight * ~stuff[things]
    losses = {
        "box": BOX * ((boxes - own).abs().sum(-1) * weight).sum(),
        "giou": GIOU * ((1 - giou(boxes, own)) * weight).sum(),
    }
    if sampled is not None:
        assert stage.kernels is not None
        assert truth.inside is not None
        assert truth.masked is not None
        masks = torch.einsum("nc,ncp->np", stage.kernels[answers], sampled[things])
        inside = truth.inside[things]
        weight = matches.weight * truth.masked[things]
        apart = dice(masks, inside)
        losses["mask"] = MASK * (cross_entropy(masks, inside) * weight).sum()
        losses["dice"] = DICE * (apart * weight).sum()
        overlap = torch.where(stuff[things], 1 - apart.detach(), overlap)
    return {"class": class_loss(stage, truth, matches, overlap), **losses}


def class_loss(stage: Found, truth: Truth, matches: Matches, overlap: Tensor) -> Tensor:
    """Cross-entropy to p^.25 IoU^.75 where a match says so, else to 0 with a weight of p^2; nothing is wrong inside a crowd."""
    logits, p = stage.logits, stage.logits.detach().sigmoid()
    target, weight = torch.zeros_like(p), p**FOCUS
    share = intersection(stage.boxes.detach()[:, :, None], truth.crowds[:, None]) / area(stage.boxes.detach())[
        ..., None
    ].clamp(min=1e-9)
    weight = torch.where((share > IN_CROWD).any(-1)[..., None], 0.0, weight)
    at_match = matches.image, matches.answer, truth.classes[matches.image, matches.object]
    target[at_match] = (p[at_match] ** SURE * overlap ** (1 - SURE)).clamp(min=LEAST_TARGET)
    weight[at_match] = 1.0
    return (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()


def cross_entropy(logits: Tensor, inside: Tensor) -> Tensor:
    """Of logits at points [..., P] the mean, [...]."""
    return F.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(-1)


def dice(logits: Tensor, inside: Tensor) -> Tensor:
    """1 - 2 |A B| / (|A| + |B|) of points [..., P], with 1 added to both sides of the fraction."""
    p = logits.sigmoid()
    return 1 - (2 * (p * inside).sum(-1) + 1) / (p.sum(-1) + inside.sum(-1) + 1)

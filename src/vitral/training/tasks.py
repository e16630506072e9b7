"""For each task learned from labels: the options it refuses, and its objective."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.data.dataset import DataSet
from vitral.data.maps import SemanticMaps
from vitral.data.things import Boxes, Things, ThingTruth
from vitral.errors import VitralError
from vitral.models.heads.options import HeadOptions, LinearOptions, QueryOptions, SegformerOptions
from vitral.models.heads.outputs import Found, Maps
from vitral.objectives.classify import Classify, balanced_weights
from vitral.objectives.detect import Detect
from vitral.objectives.objective import Objective
from vitral.objectives.options import ClassifyOptions, DetectOptions, ObjectiveOptions, SegmentOptions
from vitral.objectives.segment import Segment, rarity_weights
from vitral.training.config import Recipe

CERTAIN = 8.0  # logit of a model that makes no mistake


def _as_it_is(head: HeadOptions, data: DataSet) -> HeadOptions:
    return head


def _unknown(scores: Any) -> float | None:
    return None


def _none_small(seen: Any, truth: Any, height: int, width: int) -> tuple[int, int, int]:
    return 0, 0, 0


@dataclass(frozen=True)
class Learning:
    """objective: made from options and data. settle: raises VitralError for options without meaning for the task; returns reasons to log. options:
    of the objective. head: of a dense task, from whether the model is a pyramid, and whether its stem has maps finer than the patches; None
    where the architecture's own head answers. perfect: of a dense
    task, from what `Targets.batch` gives, the number of classes and a stride to the outputs of a model that makes no mistake. fitted: the head as the
    data need it; raises VitralError for one that cannot learn them.

    certain: of the truth's own scores the one that is 1 where nothing is lost, if one is. small: of a batch's targets, its truth, and a view's height
    and width how many objects there are, how many are lost in the view, and how many are so small there that a pixel's rounding counts.
    """

    objective: Callable[[Any, DataSet], Objective]
    settle: Callable[[Any], list[str]]
    options: type[ObjectiveOptions] = ClassifyOptions
    head: Callable[[bool, bool], HeadOptions] | None = None
    perfect: Callable[[Any, int, int], Any] | None = None
    fitted: Callable[[HeadOptions, DataSet], HeadOptions] = _as_it_is
    certain: Callable[[Any], float | None] = _unknown
    small: Callable[[Any, Any, int, int], tuple[int, int, int]] = _none_small

    @property
    def dense(self) -> bool:
        """Whether places in the image are answered, so that all of it must be seen."""
        return self.head is not None


def _classes(options: ClassifyOptions, data: DataSet) -> Classify:
    weights = None
    if options.class_weights == "balanced":
        counts = data.splits["train"].targets.counts(len(data.labels))
        weights = balanced_weights(torch.from_numpy(counts).float())
    return Classify(options.smoothing, options.loss or "ce", weights, binarise=options.binarise)


def _label_sets(options: ClassifyOptions, data: DataSet) -> Classify:
    return Classify(options.smoothing, "bce", independent=True, binarise=options.binarise)


def _settle_label_sets(options: ClassifyOptions) -> list[str]:
    for name, value, fine, instead in (
        ("loss", options.loss, (None, "bce"), "bce"),
        ("class_weights", options.class_weights, ("none",), "none"),
        ("sampling", options.sampling, ("uniform",), "uniform"),
        ("teacher", options.teacher, (None,), "no teacher"),
    ):
        if value not in fine:
            raise VitralError(
                f"{name} {value}: needs one class an image, and these images can have several labels; choose {instead}"
            )
    return ["loss bce, a yes or no for each label: an image can have several labels, or none"]


def _every_pixel(options: SegmentOptions, data: DataSet) -> Segment:
    targets = data.splits["train"].targets
    assert isinstance(targets, SemanticMaps)
    shares = targets.shares(len(data.labels))
    return Segment(rarity_weights(shares.tolist(), options.rarity))


def _settle_pixels(options: SegmentOptions) -> list[str]:
    rare = f"; rare classes weigh more, by their share to the power of -{options.rarity:g}" if options.rarity else ""
    return [f"a class for each pixel (cross-entropy); void is left out{rare}"]


def _perfect_maps(targets: Tensor, classes: int, stride: int) -> Maps:
    """Of each cell the share of each class among its labelled pixels [B, H, W]."""
    _, H, W = targets.shape
    shares = F.one_hot(targets + 1, classes + 1)[..., 1:].permute(0, 3, 1, 2).float()  # void is in no class
    padded = F.pad(shares, (0, -W % stride, 0, -H % stride))
    return Maps(F.avg_pool2d(padded, stride), stride)


def _map_head(pyramid: bool, finer: bool) -> HeadOptions:
    return (
        SegformerOptions() if pyramid else SegformerOptions(head_dim=64, head_upscale=2) if finer else LinearOptions()
    )


def _objects(options: DetectOptions, data: DataSet) -> Detect:
    return Detect(options.cells)


def _object_head(pyramid: bool, finer: bool) -> HeadOptions:
    return QueryOptions()


def _segment_head(pyramid: bool, finer: bool) -> HeadOptions:
    return QueryOptions(decoder_layers=1)  # less has not been measured


def _perfect_objects(seen: Things, classes: int, stride: int) -> Found:
    """Every object as it is seen, its mask in cells of `stride` pixels."""
    most = max(1, *map(len, seen.classes))
    logits, boxes = torch.full((len(seen), most, classes), -CERTAIN), torch.zeros(len(seen), most, 4)
    for b, (index, own) in enumerate(zip(seen.classes, seen.boxes, strict=True)):
        logits[b, torch.arange(len(index)), index] = CERTAIN
        boxes[b, : len(own)] = own
    if seen.masks is None:
        return Found(logits, boxes)
    covered = [F.avg_pool2d(each[:, None].float(), stride, ceil_mode=True)[:, 0] for each in seen.masks]
    masks = torch.stack([F.pad(each - 0.5, (0, 0, 0, 0, 0, most - len(each)), value=-0.5) for each in covered])
    return Found(logits, boxes, masks, float(stride))


FINE = 4.0  # pixels of a side, below which half a pixel costs an overlap of .5


def _small_objects(seen: Things, truth: ThingTruth, height: int, width: int) -> tuple[int, int, int]:
    every = sum(not (each.crowd or each.hard) for one in truth.annotated for each in one.objects)
    sides = torch.cat([boxes[:, 2:] - boxes[:, :2] for boxes in seen.boxes]) * torch.tensor([width, height])
    return every, every - len(sides), int((sides.amin(1) < FINE).sum())


def _for_objects(head: HeadOptions, data: DataSet) -> HeadOptions:
    """With the data's stuff, with masks where they are learned, and with queries for the most objects that an image has."""
    if not isinstance(head, QueryOptions):
        raise VitralError(f"head {head.name}: finds no objects, and the task is {data.task}; choose --head query")
    targets = data.splits["train"].targets
    assert isinstance(targets, Boxes)
    if (most := targets.most()) > head.queries:
        raise VitralError(
            f"head.queries {head.queries}: an image has {most:,} objects; give --head query --queries {most} or more"
        )
    stuff = sorted(int(targets.place[k]) for k in targets.data.classes.stuff)
    return replace(head, stuff=tuple(stuff), masks=targets.masked)


def _for_maps(head: HeadOptions, data: DataSet) -> HeadOptions:
    if isinstance(head, QueryOptions):
        raise VitralError(
            "head query: finds objects, and the task is semantic; choose --head linear or segformer, or another --task"
        )
    return head


OBJECTS = Learning(
    _objects,
    lambda options: [
        f"each object is learned at {options.cells} places and by one query: class (IoU-aware), box (L1, GIoU) and, where there are masks, its mask"
    ],
    DetectOptions,
    _object_head,
    _perfect_objects,
    _for_objects,
    lambda scores: scores.ap50,
    _small_objects,
)
LEARNING = {
    "classify": Learning(_classes, lambda options: []),
    "multilabel": Learning(_label_sets, _settle_label_sets),
    "semantic": Learning(
        _every_pixel,
        _settle_pixels,
        SegmentOptions,
        _map_head,
        _perfect_maps,
        _for_maps,
    ),
    "detect": OBJECTS,
    "instance": OBJECTS,
    "panoptic": replace(OBJECTS, head=_segment_head, certain=_unknown, small=_none_small),
}


def learning_of(task: str) -> Learning:
    """The row of a task. Raises VitralError where none is learned yet."""
    if task not in LEARNING:
        raise VitralError(f"task {task}: cannot be trained yet; choose --task of {', '.join(LEARNING)}")
    return LEARNING[task]


def objective_for(recipe: Recipe, task: str) -> ObjectiveOptions:
    """The options of the objective: those of the recipe, or of the task where it leaves the objective open. VitralError where the two differ."""
    asked, kind = recipe.objective, learning_of(task).options
    if isinstance(asked, kind):
        return asked
    said = [each.name for each in fields(asked) if getattr(asked, each.name) != each.default]
    if said or not isinstance(asked, ClassifyOptions):
        what = f"objective.{said[0]}: is for {asked.name}" if said else f"objective {asked.name}: is for other data"
        raise VitralError(f"{what}, and these are for {kind.name} (task {task}); leave it out, or give another --task")
    return kind()


def refuse_for_places(recipe: Recipe, task: str) -> None:
    """VitralError for options that lose which place of the image is meant."""
    for name, value, fine, instead in (
        ("augment.mixup", recipe.augment.mixup, 0.0, "0"),
        ("augment.cutmix", recipe.augment.cutmix, 0.0, "0"),
        ("train.progressive", recipe.train.progressive, 1.0, "1"),
        ("transfer.head_norm", recipe.transfer.head_norm, False, "none"),
        (
            "view.resize",
            None if recipe.view.resize != "crop" else "crop",
            None,
            "pad or squash, which show all of an image",
        ),
    ):
        if value != fine:
            raise VitralError(
                f"{name} {value}: is for answers to whole images, and task {task} answers places in them; choose {instead}"
            )

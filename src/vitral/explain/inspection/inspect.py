"""An inspection: a model's weights and its behaviour on images, in pictures and numbers, with a sentence for each thing that it lacks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vitral.data.dataset import DataSet, Split
from vitral.data.folder import UNLABELLED
from vitral.data.loader import EvaluationBatches
from vitral.errors import VitralError
from vitral.evaluation.evaluate import matched, merged
from vitral.explain.inspection.heads import Heads, head_importance
from vitral.explain.inspection.images import LEAST_FOR_CKA, Floats, LayerAttention, LayerTokens, Seen, look_at_images
from vitral.explain.inspection.watch import named_blocks
from vitral.explain.inspection.weights import Filters, OffsetBias, Positions, filters, offset_biases, positions
from vitral.layers.attention import attention_layers
from vitral.predict import ImageLike, Predictor

IMAGES = 128  # as many as the ViT paper averages attention distances over
HEAD_IMAGES = 64
ALL_POSITIONS = 32  # rows or columns: their cosines are a million numbers
NO_DATA = "needs images: give DATA"
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Inspection:
    """The results. A string instead of a result is the sentence that says why there is none."""

    architecture: str
    model: str
    """The same in words."""
    parameters: int
    image_size: tuple[int, int]
    images: int
    split: str
    filters: Filters
    positions: list[Positions] | str
    offset_biases: list[OffsetBias] | str
    attention: list[LayerAttention] | str
    layers: list[LayerTokens] | str
    cka: Floats | str
    heads: Heads | str

    def missing(self) -> dict[str, str]:
        """Why each result that is missing is missing."""
        return {name: value for name in PARTS if isinstance(value := getattr(self, name), str)}


PARTS = ("positions", "offset_biases", "attention", "layers", "cka", "heads")


def inspect(
    predictor: Predictor,
    data: DataSet | None = None,
    *,
    images: int = IMAGES,
    head_images: int = HEAD_IMAGES,
    batch_size: int = 32,
    progress: OnProgress | None = None,
) -> Inspection:
    """Inspect a model's weights, and its behaviour on the images of the data's test split (else validation, else all).

    images: at most so many, evenly spaced in the split. head_images: at most so many of these for head importance, which takes one pass for
    each head; 0 leaves it out. The model is left as it was.
    """
    model = predictor.model.backbone
    looked, split = None, None
    heads: Heads | str = NO_DATA
    if data is not None:
        split = chosen_split(data).thinned(images)
        batches = _counted(_inputs(predictor, split, batch_size), len(split), progress)
        looked = look_at_images(model, batches)
        heads = _heads(predictor, data, split.thinned(head_images), batch_size, progress)
    return _inspection(predictor, positions(model), looked, "" if split is None else split.name, heads)


def inspect_image(predictor: Predictor, image: ImageLike) -> Inspection:
    """Inspect a model, and its behaviour on one image, with all positions in grids of up to 32 x 32. The model is left as it was."""
    model = predictor.model.backbone
    pixels = predictor.preprocess(image)[None].to(next(model.parameters()).device)  # [1, C, H, W]
    return _inspection(predictor, positions(model, ALL_POSITIONS), look_at_images(model, [pixels]), "", NO_DATA)


def _inspection(
    predictor: Predictor, found: list[Positions] | str, looked: Seen | None, split: str, heads: Heads | str
) -> Inspection:
    model, steps = predictor.model.backbone, predictor.card.preprocess
    kind, blocks, attention = type(model).__name__, named_blocks(model), attention_layers(model)
    cka: Floats | str = NO_DATA
    if looked is not None:
        cka = f"needs {LEAST_FOR_CKA} images or more in a batch" if looked.cka is None else looked.cka
    without = f"{kind} has no attention"
    return Inspection(
        architecture=predictor.card.architecture,
        model=predictor.card.model,
        parameters=sum(p.numel() for p in predictor.model.parameters()),
        image_size=(steps.height, steps.width),
        images=0 if looked is None else looked.images,
        split=split,
        filters=filters(model),
        positions=found,
        offset_biases=offset_biases(model),
        attention=without if not attention else NO_DATA if looked is None else looked.attention,
        layers=f"{kind} has no blocks" if not blocks else NO_DATA if looked is None else looked.layers,
        cka=f"{kind} has no blocks to compare" if not blocks else cka,
        heads=heads if attention else without,
    )


def chosen_split(data: DataSet) -> Split:
    """The images that the model was most likely not trained on."""
    return next((data.splits[name] for name in ("test", "val") if name in data.splits), None) or merged(data)


def _inputs(predictor: Predictor, split: Split, batch_size: int) -> Iterator[Tensor]:
    """The split's preprocessed images in order, [B, C, H, W]."""
    steps, device = predictor.card.preprocess, next(predictor.model.parameters()).device
    for pixels, _ in EvaluationBatches(split, steps, batch_size).stream(0):
        yield steps.normalise(pixels.to(device))


def _counted(batches: Iterator[Tensor], total: int, progress: OnProgress | None) -> Iterator[Tensor]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        if progress:
            progress("looking at images", done, total)


def _heads(
    predictor: Predictor, data: DataSet, split: Split, batch_size: int, progress: OnProgress | None
) -> Heads | str:
    model = predictor.model
    if not len(split) or not attention_layers(model):
        return "left out, as asked"
    if not predictor.labels:
        return "the model has no head for classes, so there is no score that could change"
    if data.labels == [UNLABELLED]:
        return "the images have no labels, so there is no score that could change"
    try:
        targets = matched(split, data.labels, predictor, data.name).targets.values
    except VitralError as error:
        return f"there is no score that could change: {error}"
    truth = torch.from_numpy(targets).split(batch_size)
    batches = list(zip(_inputs(predictor, split, batch_size), truth, strict=True))
    report = partial(progress, "leaving out heads") if progress else None
    return head_importance(model, batches, independent=predictor.answers.independent, progress=report)

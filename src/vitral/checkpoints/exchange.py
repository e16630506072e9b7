"""From one format to another, proven: what is written is read back and must answer alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.checkpoints.bundle import LoadReport, ModelCard, save_model
from vitral.checkpoints.create import Opened, open_model
from vitral.checkpoints.write import write_folder
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.position import RESIZES
from vitral.models.common import ImageModel
from vitral.randomness import derive

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-5


@dataclass
class Exchanged:
    report: LoadReport
    says: str
    """What was assumed, and how equal the written model is."""


def exchange(
    source: str,
    out: Path,
    to: str = "vitral",
    architecture: str | None = None,
    labels: list[str] | None = None,
    *,
    resize: str = "timm",
    allow_pickle: bool = False,
    **changes: Any,
) -> Exchanged:
    """Read `source`, write it to `out` in the layout `to` ("vitral", "timm", "hf"), read that back and compare."""
    opened = open_model(source, architecture=architecture, resize=resize, allow_pickle=allow_pickle, **changes)
    model = opened.model.eval()
    if out.exists() and (to == "vitral") == out.is_dir():
        raise VitralError(
            f"{out}: {'is a folder; name a .safetensors file' if out.is_dir() else 'is a file; name a folder'}"
        )
    labels = labels or opened.labels
    if labels is not None and len(labels) != model.num_classes:
        raise VitralError(
            f"{len(labels)} labels for {model.num_classes} classes; give one line for each class, in order"
        )
    steps, assumed, dropped = opened.preprocess, [], []
    if to == "vitral":
        if labels is None and model.num_classes:
            raise VitralError(
                f"{source}: does not name its {model.num_classes} classes, and nothing predicts without labels; give --labels FILE"
            )
        if steps is None:
            steps = assume(opened)
            assumed.append(
                f"preprocessing is not in the source; assumed: {steps.height}x{steps.width}, mean {steps.mean}, std {steps.std}"
            )
        card = ModelCard(
            opened.architecture, model.config.arguments(), labels or [], steps, data={"converted from": source},
            task=opened.task,
        )  # fmt: skip
        save_model(out, model, card)
    else:
        if opened.unprepared:
            raise VitralError(
                f"{opened.unprepared}; convert it to our own format with --to vitral, or remove that file for the weights alone"
            )
        same = opened.report.layout.split("5")[0] == to  # a layout of Transformers keeps its dialect
        layout = opened.report.layout if same else to
        unlike = write_folder(out, model, layout, labels, steps, opened.report if same else None, task=opened.task)
        assumed += [f"preprocessing: {each}" for each in unlike]
        dropped += [] if steps is None else unsaid(steps)
        if opened.task == "multilabel" and to == "timm":
            assumed.append(
                "timm's config.json cannot say that an image can have several labels: take the sigmoid of the logits"
            )
    back = open_model(out)
    difference = change(model, back.model.eval())
    if not difference <= TOLERANCE:
        raise VitralError(
            f"{out}: read back, its representation differs by {difference:.1e}; please report this, and do not use it"
        )
    says = [*assumed, *dropped, f"read back: the representation of a test image differs by {difference:.1e}"]
    if steps is not None:
        says.append(_pixels(steps, back.preprocess, out, told=bool(assumed)))
    return Exchanged(opened.report, "\n".join(says))


def unsaid(steps: Preprocess) -> list[str]:
    """What of how files are read no other library's format can say, a sentence each."""
    said = []
    if steps.value_range is not None:
        low, high = steps.value_range
        said.append(
            f"left out: the value range {low:g} to {high:g}, which that format cannot say; bring the values to 0..255 before its processor"
        )
    if steps.page is not None:
        said.append(
            f"left out: page {steps.page} of files with several, which that format cannot say; open it yourself"
        )
    return said


SHAPES = ((97, 33), (51, 200), (64, 64), (240, 427), (333, 250))  # of the test pictures
LEVEL = 1.0


def _pixels(steps: Preprocess, again: Preprocess | None, out: Path, *, told: bool) -> str:
    """How far the pixels that the written preprocessing makes are from those of the source, in words; a VitralError if that was not told."""
    assert again is not None, f"{out}: written without preprocessing"
    most, total, count, shapes = 0.0, 0.0, 0, 0
    for h, w in SHAPES:
        if min(h, w) < steps.min_size:
            continue
        picture = test_picture(steps.channels, h, w)
        one, other = steps(picture), again(picture)
        if one.shape != other.shape:
            raise VitralError(
                f"{out}: read back, a picture of {h}x{w} becomes {tuple(other.shape)} pixels and not {tuple(one.shape)}"
            )
        levels = (one - other).abs() * 255 * torch.tensor(steps.std)[:, None, None]
        most, total, count, shapes = (
            max(most, float(levels.max())),
            total + float(levels.sum()),
            count + levels.numel(),
            shapes + 1,
        )
    if most > LEVEL and not told:
        raise VitralError(
            f"{out}: read back, its pixels differ by {most:.1f} levels of 255; please report this, and do not use it"
        )
    return f"read back: the pixels of {shapes} test pictures differ by at most {most:.2g} levels of 255, {total / max(1, count):.2g} on average"


def test_picture(channels: int, height: int, width: int) -> Tensor:
    """Coarse noise made smooth, uint8 [C, h, w]."""
    generator = torch.Generator().manual_seed(derive(0, "test picture"))
    coarse = torch.randint(0, 256, (1, channels, 7, 9), generator=generator, dtype=torch.uint8).float()
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    return smooth.round().to(torch.uint8)


def assume(opened: Opened) -> Preprocess:
    """The preprocessing of the family's releases, where the source has none: Google's ViTs scale to -1..1, the others by ImageNet's statistics."""
    if opened.unprepared:
        raise VitralError(
            f"{opened.unprepared}; remove that file to have the family's usual preprocessing instead, which is another"
        )
    config = opened.model.config
    C = config.in_channels
    google = opened.report.layout == "google" or (
        opened.architecture.startswith("vit_") and "dino" not in opened.architecture
    )
    half = (0.5,) * C
    mean, std = (half, half) if google or C != 3 else IMAGENET
    fraction = 0.875 if max(config.image_size) <= 256 else 1.0
    return Preprocess(*config.image_size, C, mean, std, crop_fraction=fraction, min_size=opened.model.patch_size)


def compare_resizes(
    source: str, architecture: str | None, resize: str, allow_pickle: bool = False, **changes: Any
) -> dict[str, float]:
    """For each rule of resizing positions how much the representation of a test image differs from that under `resize`."""
    models = {
        rule: open_model(
            source, architecture=architecture, resize=rule, allow_pickle=allow_pickle, **changes
        ).model.eval()
        for rule in RESIZES
    }
    return {rule: change(models[resize], model) for rule, model in models.items()}


@torch.inference_mode()
def change(one: ImageModel, other: ImageModel) -> float:
    """max |one - other| / max |one| of the representation of two smooth test images."""
    images = test_images(one)
    a, b = (model.represent(images).double() for model in (one, other))
    return float((a - b).abs().max() / a.abs().max())


def test_images(model: ImageModel) -> Tensor:
    """Two images of coarse noise made smooth, of the model's size."""
    generator = torch.Generator().manual_seed(derive(0, "test images"))
    coarse = torch.randn(2, model.config.in_channels, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, model.image_size, mode="bicubic", align_corners=False)

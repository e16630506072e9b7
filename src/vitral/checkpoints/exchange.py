"""From one format to another, checked: what is written is read back and must give the same answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.checkpoints.bundle import LoadReport, save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import Opened, open_model
from vitral.checkpoints.processors import IMAGENET
from vitral.checkpoints.write import write_folder
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.position import RESIZES
from vitral.models.common import ImageModel
from vitral.randomness import derive

TOLERANCE = 1e-5
WHOLE = ("classify", "multilabel")  # tasks with one answer an image, which the representation decides
REPORT = "do not use it, and please report this"


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
        raise VitralError(f"{out}: is a {'folder; name a .safetensors' if out.is_dir() else 'file; name a folder'}")
    labels = labels or opened.labels
    if labels is not None and len(labels) != model.num_classes:
        raise VitralError(f"{len(labels)} labels for {model.num_classes} classes; give a line for each class, in order")
    steps, assumed, dropped = opened.preprocess, [], []
    if to == "vitral":
        if labels is None and model.num_classes:
            raise VitralError(f"{source}: does not name its {model.num_classes} classes; give --labels FILE")
        if steps is None:
            steps = assume(opened)
            about = f"{steps.height}x{steps.width}, mean {steps.mean}, std {steps.std}"
            assumed.append(f"preprocessing is not in the source; assumed: {about}")
        origin: dict[str, object] = {"converted from": source}
        arguments = model.config.arguments()
        head = None if opened.head is None else opened.head.to_json()
        card = ModelCard(opened.architecture, arguments, labels or [], steps, data=origin, task=opened.task, head=head)
        save_model(out, model, card)
    else:
        if opened.unprepared:
            raise VitralError(f"{opened.unprepared}; choose --to vitral, or remove that file for the weights alone")
        same = opened.report.layout.split("5")[0] == to  # a layout of Transformers keeps its dialect
        layout = opened.report.layout if same else to
        unlike = write_folder(out, model, layout, labels, steps, opened.report if same else None, task=opened.task)
        assumed += [f"preprocessing: {each}" for each in unlike]
        dropped += [] if steps is None else unsaid(steps)
        if opened.task == "multilabel" and to == "timm":
            assumed.append("timm's config.json has no task: of several labels an image, take the sigmoid of the logits")
    back = open_model(out)
    differences = {"representation of a test image": change(model, back.model.eval())}
    if opened.task not in WHOLE:
        differences["answer to a test image"] = change_of_places(model, back.model)
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise VitralError(f"{out}: read back, its {what} differs by {difference:.1e}; {REPORT}")
    says = [*assumed, *dropped, *(f"read back: the {what} differs by {d:.1e}" for what, d in differences.items())]
    if steps is not None:
        says.append(_pixels(steps, back.preprocess, out, told=bool(assumed)))
    return Exchanged(opened.report, "\n".join(says))


def unsaid(steps: Preprocess) -> list[str]:
    """How files are read, as far as no other library's format can say it, a sentence each."""
    said = []
    if steps.value_range is not None:
        values = "the value range {:g} to {:g}".format(*steps.value_range)
        said.append(f"left out, as that format has none: {values}; scale values to 0..255 before its processor")
    if steps.page is not None:
        said.append(f"left out, as that format has none: page {steps.page} of files with several; open it yourself")
    return said


SHAPES = ((97, 33), (51, 200), (64, 64), (240, 427), (333, 250))  # of the test pictures
LEVEL = 1.0


def _pixels(steps: Preprocess, again: Preprocess | None, out: Path, *, told: bool) -> str:
    """How far the pixels of the written preprocessing are from the source's, in words; a VitralError where that is not `told` already."""
    assert again is not None, f"{out}: written without preprocessing"
    levels = []
    for h, w in SHAPES:
        if min(h, w) < steps.min_size:
            continue
        picture = test_picture(steps.channels, h, w)
        one, other = steps(picture), again(picture)
        if one.shape != other.shape:
            became = f"{tuple(other.shape)} pixels and not {tuple(one.shape)}"
            raise VitralError(f"{out}: read back, a picture of {h}x{w} becomes {became}")
        levels.append(((one - other).abs() * 255 * torch.tensor(steps.std)[:, None, None]).flatten())
    every = torch.cat(levels) if levels else torch.zeros(1)
    most = float(every.max())
    if most > LEVEL and not told:
        raise VitralError(f"{out}: read back, its pixels differ by {most:.1f} levels of 255; {REPORT}")
    differ = f"differ by at most {most:.2g} levels of 255, {float(every.mean()):.2g} on average"
    return f"read back: the pixels of {len(levels)} test pictures {differ}"


def test_picture(channels: int, height: int, width: int) -> Tensor:
    """Coarse noise made smooth, uint8 [C, h, w]."""
    generator = torch.Generator().manual_seed(derive(0, "test picture"))
    coarse = torch.randint(0, 256, (1, channels, 7, 9), generator=generator, dtype=torch.uint8).float()
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    return smooth.round().to(torch.uint8)


def assume(opened: Opened) -> Preprocess:
    """The usual preprocessing of the family's releases: Google's ViTs scale to -1..1, the others by ImageNet's statistics."""
    if opened.unprepared:
        raise VitralError(f"{opened.unprepared}; remove that file to use the family's usual preprocessing")
    config, name = opened.model.config, opened.architecture
    C = config.in_channels
    google = opened.report.layout == "google" or (name.startswith("vit_") and "dino" not in name)
    half = (0.5,) * C
    mean, std = (half, half) if google or C != 3 else IMAGENET
    fraction = 0.875 if max(config.image_size) <= 256 else 1.0
    return Preprocess(*config.image_size, C, mean, std, crop_fraction=fraction, min_size=opened.model.patch_size)


def compare_resizes(
    source: str, architecture: str | None, resize: str, allow_pickle: bool = False, **changes: Any
) -> dict[str, float]:
    """For each rule of resizing positions how much the representation of a test image differs from that under `resize`."""
    options = {"architecture": architecture, "allow_pickle": allow_pickle, **changes}
    models = {rule: open_model(source, resize=rule, **options).model.eval() for rule in RESIZES}
    return {rule: change(models[resize], model) for rule, model in models.items()}


@torch.inference_mode()
def change(one: ImageModel, other: ImageModel) -> float:
    """max |one - other| / max |one| of the representation of two smooth test images."""
    images = test_images(one)
    a, b = (model.represent(images).double() for model in (one, other))
    return float((a - b).abs().max() / a.abs().max())


@torch.inference_mode()
def change_of_places(one: ImageModel, other: ImageModel) -> float:
    """max |one - other| / max |one| of the logits, boxes and masks, the largest of these, for two smooth test images."""
    images = test_images(one)
    found: list[list[Tensor]] = [
        [value.double() for value in vars(model(images)).values() if isinstance(value, Tensor)]
        for model in (one, other)
    ]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True))


def test_images(model: ImageModel) -> Tensor:
    """Two images of coarse noise made smooth, of the model's size."""
    generator = torch.Generator().manual_seed(derive(0, "test images"))
    coarse = torch.randn(2, model.config.in_channels, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, model.image_size, mode="bicubic", align_corners=False)

"""Weights in and out: other libraries' names translated, positions resized, and every tensor accounted for."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.checkpoints.bundle import LoadReport, fill
from vitral.checkpoints.layouts import Layout, layouts_of
from vitral.checkpoints.recognise import Source, read_source
from vitral.errors import VitralError, counted, some
from vitral.layers.position import resize_bias_table, resize_positions
from vitral.models.common import ImageModel

OURS = Layout("vitral")


def load_weights(
    model: ImageModel,
    source: str | Path | Mapping[str, Any],
    *,
    strict: bool = True,
    new_head: bool = False,
    resize: str = "timm",
    allow_pickle: bool = False,
) -> LoadReport:
    """Fill `model` from weights in any known layout: ours, timm's, Hugging Face's, Google's .npz, or the paper's release.

    Args:
        source: a file, a folder, "hf:org/name", or a state dict.
        strict: raise a VitralError, which lists both sides, unless every tensor of the source and of the model has a match.
        new_head: leave the model's head as it is, for fine-tuning on other classes.
        resize: whose rule brings positions to another grid: timm, hf, torchvision, jax or dinov2.
        allow_pickle: read .pt and .pth files, which can run code when opened.

    Returns:
        What was loaded, and in `notes` what was changed on the way.
    """
    return place(model, read_source(source, allow_pickle), strict=strict, new_head=new_head, resize=resize)


def place(
    model: ImageModel, source: Source, *, strict: bool = True, new_head: bool = False, resize: str = "timm"
) -> LoadReport:
    """`load_weights` for a source that is already read."""
    layout, base = recognise_layout(model, source)
    named, rest = to_ours(model, source.tensors, layout, base)
    notes: list[str] = []
    spread_bias(model, named, rest, notes)
    adapt(model, named, notes, resize, new_head)
    left_out = {k: t for k, t in rest.items() if re.search(layout.left_out, k)}
    if new_head:
        left_out |= {k: t for k, t in rest.items() if re.match(layout.heads, k)}
    if left_out:
        notes.append(f"left out, no part of this model: {some(sorted(left_out))}")
    unexpected = {k: t for k, t in rest.items() if k not in left_out}
    optional = [
        k for k in model.state_dict() if k.endswith("num_batches_tracked") or (new_head and k.startswith("head."))
    ]
    report = fill(model, {**named, **unexpected}, source.name, strict=strict, optional=optional)
    report.notes, report.layout, report.base, report.left_out = notes, layout.name, base, left_out
    return report


def recognise_layout(model: ImageModel, source: Source) -> tuple[Layout, str]:
    """The layout and prefix under which most of the model's tensors are found in the source."""
    own = list(model.state_dict())
    candidates = [(layout, base) for layout in (OURS, *layouts_of(model)) for base in dict.fromkeys((layout.base, ""))]
    counts = [sum(all(n in source.tensors for n in layout.theirs(k, base)) for k in own) for layout, base in candidates]
    if not max(counts):
        raise VitralError(
            f"{source.name}: none of its {len(source.tensors)} tensors belongs to a {type(model).__name__}: it holds "
            f"{some(list(source.tensors))}; create the model that these weights are for"
        )
    return candidates[counts.index(max(counts))]


def to_ours(
    model: ImageModel, tensors: Mapping[str, Tensor], layout: Layout, base: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The source's tensors under our names, and those that have none."""
    named: dict[str, Tensor] = {}
    used: set[str] = set()
    for key in model.state_dict():
        theirs = layout.theirs(key, base)
        if all(name in tensors for name in theirs):
            parts = [layout.read(name, tensors[name]) for name in theirs]
            named[key] = torch.cat(parts) if len(parts) > 1 else parts[0]
            used.update(theirs)
    return named, {k: t for k, t in tensors.items() if k not in used}


def to_layout(model: ImageModel, name: str, like: LoadReport | None = None) -> dict[str, Tensor]:
    """The model's state dict in layout `name`, with the tensors that loading left out, if `like` is the report of a source in that layout."""
    layout = next((each for each in layouts_of(model) if each.name == name), None)
    if layout is None or name == "google":
        known = ", ".join(dict.fromkeys(each.name for each in layouts_of(model) if each.name != "google"))
        raise VitralError(f"{type(model).__name__} has no layout {name!r}; choose one of {known or 'vitral'}")
    tensors: dict[str, Tensor] = {**layout.added(model), **(like.left_out if like else {})}
    for key, tensor in model.state_dict().items():
        theirs = layout.theirs(key, like.base if like else None)
        parts = [tensor] if len(theirs) == 1 else tensor.chunk(len(theirs))
        tensors.update((name, layout.write(name, part)) for name, part in zip(theirs, parts, strict=True))
    return {k: t.clone().contiguous() for k, t in tensors.items()}


def spread_bias(model: ImageModel, named: dict[str, Tensor], rest: dict[str, Tensor], notes: list[str]) -> None:
    """One relative bias that all layers shared in pre-training starts each layer's own table (BEiT's run_class_finetuning.py)."""
    tables = model.bias_tables()
    spare = [key for key in rest if key.endswith("relative_position_bias_table")]
    if len(tables) > 1 and len(spare) == 1 and not any(key in named for key in tables):
        shared = rest.pop(spare[0])
        named.update({key: shared.clone() for key in tables})
        notes.append(f"{spare[0]}: shared by all layers, now the start of each layer's own")


def adapt(model: ImageModel, named: dict[str, Tensor], notes: list[str], resize: str, new_head: bool) -> None:
    """Resize tensors to the model's shapes where there is a rule for it, and note each; the rest stay as they are."""
    own = model.state_dict()
    grids, windows = model.grids(), model.bias_tables()
    changed: dict[str, list[str]] = {}
    for key, tensor in list(named.items()):
        wanted = own[key].shape
        if tensor.shape == wanted:
            continue
        if new_head and key.startswith("head."):
            del named[key]
            notes.append(f"{key}: not loaded, a new head of {wanted[0]} classes stays")
        elif key in grids and tensor.shape[-1] == wanted[-1]:
            named[key], note = _resized_positions(key, tensor, grids[key], resize, named)
            notes.append(note)
        elif key in windows and tensor.shape[1] == wanted[1]:
            extra = wanted[0] - math.prod(2 * side - 1 for side in windows[key])
            old = _square(tensor.shape[0] - extra, key)
            before = ((old + 1) // 2,) * 2
            named[key] = resize_bias_table(tensor, before, windows[key])
            changed.setdefault(f"relative bias {_by(before)} to {_by(windows[key])}, bicubic", []).append(key)
        elif (
            tensor.ndim == 4
            and tensor.shape[1] in (1, 3)
            and wanted[1] == model.config.in_channels
            and (tensor.shape[0], *tensor.shape[2:]) == (wanted[0], *wanted[2:])
        ):
            named[key] = adapt_channels(tensor, wanted[1])
            notes.append(f"{key}: from {counted(tensor.shape[1], 'channel')} to {wanted[1]}")
    notes.extend(f"{what}: {some(keys)}" for what, keys in changed.items())


def _resized_positions(
    key: str, table: Tensor, place: tuple[tuple[int, int], int], mode: str, named: dict[str, Tensor]
) -> tuple[Tensor, str]:
    """The table [1, n, D] on the model's grid; a row for the class token that the model has no place for joins the token."""
    grid, prefix = place
    rows = table.shape[1]
    if not prefix and math.isqrt(rows) ** 2 != rows and math.isqrt(rows - 1) ** 2 == rows - 1 and "cls_token" in named:
        named["cls_token"] = named["cls_token"] + table[:, :1]
        table, rows = table[:, 1:], rows - 1
    side = _square(rows - prefix, key)
    resized = resize_positions(table, (side, side), grid, mode, prefix)
    return resized, f"{key}: from {side}x{side} to {_by(grid)} by the rule of {mode}"


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A first layer [D, C, p, q] for another number of channels: summed for one, else repeated and rescaled (timm's rule)."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    known = weight.shape[1]
    repeats = -(-channels // known)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (known / channels)


def _square(count: int, key: str) -> int:
    side = math.isqrt(max(count, 0))
    if side * side != count:
        raise VitralError(f"{key}: {count} rows are not a square grid; create the model at the weights' image size")
    return side


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"

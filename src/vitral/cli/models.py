"""Commands about models and weights: models, convert."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument
from vitral.errors import VitralError


@dataclass
class Models:
    """List the models by name, with their size and their papers' scores, or show one: its stages, parameters, multiply-adds and memory.

    Example: vitral models --family swin

    Example: vitral models vit_small_patch16_224
    """

    name: str | None = argument(None)
    """Model to show in full."""
    family: (
        Literal["vit", "hybrid", "deit", "cait", "beit", "mae", "dino", "swin", "swinv2", "pvt", "pvt_v2", "resnet"]
        | None
    ) = None
    """List one family: vit, hybrid, deit, cait, beit, mae, dino, swin, swinv2, pvt, pvt_v2 or resnet; default: all."""
    json: bool = False
    """Print JSON on stdout."""


def models(given: Models, words: list[str]) -> int:
    from vitral.models.sizes import SIZES
    from vitral.models.zoo import MODELS

    if given.name is not None:
        return _show(given.name, given.json)
    chosen = {name: entry for name, entry in MODELS.items() if given.family in (None, entry.family)}
    if given.json:
        rows = {
            name: {
                "family": entry.family,
                "parameters": SIZES[name][0],
                "multiply_adds": SIZES[name][1],
                "paper": entry.paper,
                "top1": entry.top1,
                "arguments": entry.config.arguments(),
            }
            for name, entry in chosen.items()
        }
        print(json.dumps(rows))
        return 0
    print(f"{'name':38} {'pixels':>6} {'parameters':>11} {'mult-adds':>9}  {'paper':16} ImageNet-1k top-1, as reported")
    for name, entry in chosen.items():
        parameters, multiply_adds = SIZES[name]
        print(
            f"{name:38} {entry.config.image_size[0]:6} {parameters / 1e6:9.2f} M {multiply_adds / 1e9:7.2f} G  {entry.paper:16} {entry.top1}".rstrip()
        )
    return 0


def _show(name: str, as_json: bool) -> int:
    """One model's table."""
    from vitral.models.measure import measure
    from vitral.models.zoo import MODELS, model_config, peers

    config = model_config(name)
    cost = measure(config)
    entry = MODELS.get(name)
    batch = 32
    about = {
        "paper": f"https://arxiv.org/abs/{entry.paper.removeprefix('arXiv:')}" if entry else "",
        "top1": entry.top1 if entry else "",
        **(peers(name) if entry else {}),
    }
    if as_json:
        parts = [
            {"name": p.name, "shape": p.shape, "parameters": p.parameters, "multiply_adds": p.multiply_adds}
            for p in cost.parts
        ]
        memory = {"inference_bytes": cost.inference_bytes, f"training_bytes_batch_{batch}": cost.training_bytes(batch)}
        totals = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
        print(json.dumps({"name": name, **about, **totals, **memory, "parts": parts, "arguments": config.arguments()}))
        return 0
    size = " x ".join(map(str, (config.in_channels, *config.image_size)))
    print(f"{name}: an image of {size}\n")
    print(f"{'part':22} {'output':>16} {'parameters':>14} {'multiply-adds':>16}")
    for part in cost.parts:
        shape = " x ".join(map(str, part.shape))
        print(f"{part.name:22} {shape:>16} {part.parameters:14,} {part.multiply_adds:16,}")
    print(f"{'together':22} {'':16} {cost.parameters:14,} {cost.multiply_adds:16,}\n")
    print(f"memory in float32: {_mb(cost.inference_bytes)} of weights to use it; to train it with AdamW {_mb(cost.training_bytes(0))} "
          f"and {_mb(cost.training_bytes_an_image)} an image, so {_mb(cost.training_bytes(batch))} at batch {batch}")  # fmt: skip
    for what, value in about.items():
        if value:
            print(f"{what.replace('top1', 'ImageNet-1k top-1, as reported')}: {value}")
    return 0


def _mb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@dataclass
class Convert:
    """Convert weights between our format, timm's and Hugging Face's; Google's .npz and the papers' releases can be read too.

    The result is read back and must give the same representation of a test image, or the command fails.

    Example: vitral convert ViT-B_16.npz vit_b16.safetensors --labels imagenet.txt

    Example: vitral convert runs/photos photos-for-transformers --to hf
    """

    source: str = argument()
    """File, folder, run, or hf:org/name."""
    out: Path = argument()
    """What to write: for our format a .safetensors file, for others a folder."""
    to: Literal["vitral", "timm", "hf"] = "vitral"
    """Format to write: ours, timm's, or Hugging Face's for Transformers."""
    model: str | None = None
    """Name as in vitral models, where the source does not name its model; default: as the source says."""
    image_size: tuple[int, int] | None = None
    """New height and width, or one number for a square. Positions and bias tables are resized; default: the source's."""
    resize: Literal["timm", "hf", "torchvision", "jax", "dinov2"] = "timm"
    """Rule for resizing positions: that of timm, Hugging Face, torchvision, the ViT paper's code or DINOv2."""
    compare_resizes: bool = False
    """Also print how much the representation changes under each rule."""
    labels: Path | None = None
    """File of class names, one a line, where the source has none."""
    allow_pickle: bool = False
    """Read .pt, .pth and .bin files, which can run code when opened."""


def convert(given: Convert, words: list[str]) -> int:
    from vitral.checkpoints.exchange import compare_resizes, exchange

    changes = {} if given.image_size is None else {"image_size": given.image_size}
    labels = None if given.labels is None else _labels(given.labels)
    done = exchange(
        given.source,
        given.out,
        given.to,
        given.model,
        labels,
        resize=given.resize,
        allow_pickle=given.allow_pickle,
        **changes,
    )
    print(f"{given.source}: {done.report}\n{done.says}", file=sys.stderr)
    if given.compare_resizes:
        for rule, change in compare_resizes(
            given.source, given.model, given.resize, given.allow_pickle, **changes
        ).items():
            print(
                f"  positions by {rule:12} representation differs by {change:.1%} from {given.resize}'s",
                file=sys.stderr,
            )
    print(f"wrote {given.out}", file=sys.stderr)
    return 0


def _labels(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise VitralError(f"{path}: cannot be read as text ({error}); give one class name a line") from error

"""What a run is made of: typed dataclasses, TOML recipes merged over them, and nothing that needs torch.

`None` means "decide from the data": `training.defaults` fills it in and says why. A recipe file sets any field under its section's name; a
command-line flag of the field's name overrides both.
"""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vitral.data.options import AugmentOptions, DataOptions
from vitral.errors import VitralError

T = typing.TypeVar("T")


@dataclass(frozen=True)
class ModelOptions:
    """The model, and whatever differs from its row in the zoo."""

    name: Annotated[str, tyro.conf.arg(name="model")] = "vit_tiny_patch16_224"
    """Name in the zoo, see vitral models."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels; default by the images' size."""
    patch_size: int | None = None
    dim: int | None = None
    """Width of the tokens."""
    depth: int | None = None
    """Number of encoder blocks."""
    num_heads: int | None = None
    mlp_ratio: float | None = None
    position: str | None = None
    """learned, learned2d, sincos2d or none."""
    pooling: str | None = None
    """cls or mean."""
    class_token: bool | None = None
    num_registers: int | None = None
    representation_dim: int | None = None
    """Width of the tanh layer before the head; 0 for none."""
    dropout: float | None = None
    drop_path: float | None = None
    """Stochastic depth of the last block."""
    pre_norm: bool | None = None
    activation: str | None = None
    """gelu or relu."""


@dataclass(frozen=True)
class ViewOptions:
    """How an image becomes the model's input in use."""

    resize: str = "crop"
    """crop (keep the aspect ratio, cut the centre out) or squash."""
    crop_fraction: float | None = None
    """Share of the image's side that the centre crop keeps; default 0.875 for photographs, 1 for small images."""
    interpolation: str = "bicubic"
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 0..1, that is subtracted; default: the training images' own."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel that is divided by; default: the training images' own."""


@dataclass(frozen=True)
class OptimOptions:
    """AdamW (https://arxiv.org/abs/1711.05101) or Muon on a warm-up and cosine schedule."""

    optimizer: str | None = None
    """adamw, or muon for the encoder's matrices (orthogonalised momentum) with AdamW for the rest; default muon."""
    lr: float | None = None
    """Peak learning rate."""
    weight_decay: float = 0.05
    """On weight matrices only; norms, biases, tokens and positions have none."""
    beta1: float = 0.9
    beta2: float = 0.999
    min_lr: float = 0.0
    """Where the cosine ends."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; default: `warmup_fraction` of the budget."""
    warmup_fraction: float = 0.05
    clip: float = 1.0
    """Largest global gradient norm; 0 for no clipping."""
    smoothing: float = 0.1
    """Label smoothing."""
    ema: float = 0.0
    """Decay of the weights' moving average, which then is what is validated and saved; 0 for none."""


@dataclass(frozen=True)
class TrainOptions:
    """How long, how much at once, and where."""

    epochs: float | None = None
    steps: int | None = None
    """Budget in optimiser steps."""
    time: str | None = None
    """Budget by the clock, such as 90s, 10m or 2h; the schedule then follows the clock."""
    batch_size: int | None = None
    """Images in one forward pass."""
    accumulation: int = 1
    """Forward passes to one optimiser step."""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    workers: int | None = None
    """Loader processes; default by the data's kind."""
    seed: int = 0
    validate_every: int | None = None
    """Steps between validations; default: an epoch."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; default: at every validation."""
    keep: str = "best"
    """Which weights model.safetensors gets: best (on the validation split) or last."""
    score_split: str = "test"
    """Split that the finished model is scored on, once: test or val."""


@dataclass(frozen=True)
class Recipe:
    model: ModelOptions = field(default_factory=ModelOptions)
    view: ViewOptions = field(default_factory=ViewOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self) -> None:
        checks = {
            "optim.lr": self.optim.lr is None or self.optim.lr > 0,
            "train.batch_size": self.train.batch_size is None or self.train.batch_size > 0,
            "train.accumulation": self.train.accumulation > 0,
            "train.epochs": self.train.epochs is None or self.train.epochs > 0,
            "train.steps": self.train.steps is None or self.train.steps > 0,
            "train.validate_every": self.train.validate_every is None or self.train.validate_every > 0,
            "train.checkpoint_every": self.train.checkpoint_every is None or self.train.checkpoint_every > 0,
        }
        for name, fine in checks.items():
            if not fine:
                raise VitralError(f"{name}: must be above 0")
        if self.train.workers is not None and self.train.workers < 0:
            raise VitralError("train.workers: must be 0 (none) or more")
        if self.train.time is not None:
            seconds(self.train.time)
        for name, value, allowed in (
            ("optim.optimizer", self.optim.optimizer, (None, "adamw", "muon")),
            ("train.precision", self.train.precision, ("auto", "fp32", "bf16", "fp16")),
            ("train.keep", self.train.keep, ("best", "last")),
            ("train.score_split", self.train.score_split, ("test", "val")),
        ):
            if value not in allowed:
                raise VitralError(f"{name} {value!r}: choose one of {', '.join(filter(None, allowed))}")


# What others call a field of ours.
ALIASES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "label_smoothing": "smoothing",
    "batch": "batch_size",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "num_workers": "workers",
    "architecture": "name",
    "model": "name",
    "width": "dim",
    "layers": "depth",
    "heads": "num_heads",
    "img_size": "image_size",
    "grad_clip": "clip",
    "warmup": "warmup_fraction",
}


def seconds(text: str) -> float:
    """90s, 10m or 1.5h as seconds."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        value = float(text[:-1]) * unit
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise VitralError(f"time {text!r}: write it as 90s, 10m or 2h")
    return value


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a TOML file: its values over the defaults; an unknown key is an error with the nearest name."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise VitralError(f"{path}: no such recipe" + (f"; there are {', '.join(near)}" if near else "")) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitralError(f"{path}: cannot be read as TOML ({error}); mend it there") from error
    return merge(Recipe(), table, str(path))


def merge(base: T, table: dict[str, object], where: str) -> T:
    """`base` with the fields that `table` names replaced, nested tables likewise, every value checked against its type."""
    known = {f.name: f for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(base))
    changes: dict[str, object] = {}
    for key, value in table.items():
        if key not in known:
            raise VitralError(f"{where}: unknown key {key!r}; {_meant(key, list(known), isinstance(base, Recipe))}")
        current = getattr(base, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise VitralError(f"{where}: {key} is a section; write its fields under [{key}]")
            changes[key] = merge(current, value, f"{where} [{key}]")
        else:
            changes[key] = _checked(value, hints[key], f"{where}: {key} = {value!r}")
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def _checked(value: object, hint: object, what: str) -> object:
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple:
            parts = typing.get_args(option)
            if parts[-1] is Ellipsis and isinstance(value, list | tuple):
                parts = (parts[0],) * len(value)
            if isinstance(value, list | tuple) and len(value) == len(parts):
                return tuple(_checked(v, p, what) for v, p in zip(value, parts, strict=True))
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    raise VitralError(f"{what} should be {' or '.join(_in_words(o) for o in options if o is not type(None))}")


def _in_words(hint: object) -> str:
    """A type, for a person."""
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[-1] is Ellipsis:
            return f"a list of {_in_words(parts[0]).removeprefix('a ')}s, such as [0.5, 0.5, 0.5]"
        return {int: "[height, width], such as [32, 32]"}.get(parts[0], "[smallest, largest], such as [0.5, 1.0]")
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
    return words[hint]  # type: ignore[index]


def _meant(key: str, known: list[str], top: bool) -> str:
    """What a person may have meant by an unknown key of a section, or of the whole recipe (`top`)."""
    homes = {f.name: section.name for section in dataclasses.fields(Recipe) for f in dataclasses.fields(section.type)}  # type: ignore[arg-type]
    name = ALIASES.get(key, key)
    if name in known:
        return f"the nearest is {name!r}"
    if name in homes:
        return f"{name} belongs in [{homes[name]}]"
    near = difflib.get_close_matches(key, [*known, *(a for a in ALIASES if ALIASES[a] in known)], n=1)
    nearest = f"the nearest is {ALIASES.get(near[0], near[0])!r}; " if near else ""
    return f"{nearest}the {'sections' if top else 'keys'} are {', '.join(known)}"


def stored_data_options(stored: dict[str, object]) -> DataOptions:
    """How the data of a finished run were read and divided, from the recipe in its model file."""
    section = stored.get("data", {})
    assert isinstance(section, dict)
    return merge(DataOptions(), section, "the model file's recipe [data]")


def to_table(recipe: Recipe) -> dict[str, dict[str, object]]:
    """Section -> field -> value, without the fields that are None."""
    sections = dataclasses.asdict(recipe)
    return {name: {k: v for k, v in section.items() if v is not None} for name, section in sections.items()}


def to_toml(recipe: Recipe) -> str:
    """The recipe as a file that `read_recipe` reads back to an equal one."""
    lines = []
    for name, section in to_table(recipe).items():
        lines += [f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in section.items()), ""]
    return "\n".join(lines)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # TOML's basic strings are JSON's, but for DEL
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return repr(value)

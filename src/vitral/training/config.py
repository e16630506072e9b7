"""What a run is made of: the sections of a recipe, checked against each other. A recipe file sets any field under its section's name; a
command-line flag of the field's name overrides both.
"""

from dataclasses import dataclass, field

from vitral.data.options import AugmentOptions, DataOptions
from vitral.errors import VitralError
from vitral.training.options import (
    ModelOptions,
    ObjectiveOptions,
    OptimOptions,
    TrainOptions,
    TransferOptions,
    ViewOptions,
)


@dataclass(frozen=True)
class Recipe:
    model: ModelOptions = field(default_factory=ModelOptions)
    view: ViewOptions = field(default_factory=ViewOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    transfer: TransferOptions = field(default_factory=TransferOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self) -> None:
        checks = {
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

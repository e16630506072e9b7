"""What a run is made of: the sections of a recipe, checked against each other. A recipe file sets any field under its section's name; a
command-line flag of the field's name goes over it (`toml.merge` puts one over the other).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

from vitral.data.options import AugmentOptions, DataOptions
from vitral.errors import VitralError
from vitral.models.heads.options import HeadOptions, NoHead
from vitral.objectives.options import ClassifyOptions, ObjectiveOptions, PretextOptions
from vitral.training.options import (
    ModelOptions,
    OptimOptions,
    TrainOptions,
    TransferOptions,
    ViewOptions,
)

BUDGETS = ("epochs", "steps", "time")


@dataclass(frozen=True)
class Recipe:
    model: ModelOptions = field(default_factory=ModelOptions)
    view: ViewOptions = field(default_factory=ViewOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    transfer: TransferOptions = field(default_factory=TransferOptions)
    objective: ObjectiveOptions = field(default_factory=ClassifyOptions)
    head: HeadOptions = field(default_factory=NoHead)
    optim: OptimOptions = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    said: frozenset[str] = field(default=frozenset(), compare=False, repr=False, metadata={"flag": ""})
    """section.field of all that a recipe file or a flag set; other values are defaults or were decided."""

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

    @property
    def pretext(self) -> PretextOptions | None:
        """The objective, if it learns without labels."""
        return self.objective if isinstance(self.objective, PretextOptions) else None

    def under(self, names: Iterable[str]) -> "Recipe":
        """This recipe, ready for values of these fields (section.field): they count as said, and a budget takes the place of any other."""
        names = frozenset(names)
        train = self.train
        if any(f"train.{budget}" in names for budget in BUDGETS):
            train = replace(train, **dict.fromkeys(BUDGETS))  # type: ignore[arg-type]
        return replace(self, train=train, said=self.said | names)


SECTIONS = tuple(each.name for each in fields(Recipe) if each.name != "said")


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

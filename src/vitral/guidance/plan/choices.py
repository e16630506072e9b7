"""What a plan holds: its choices with their reasons, what a run of it costs, and what the run begins with."""

from dataclasses import dataclass, field, replace
from typing import Any

from vitral.training.config import Recipe
from vitral.training.display import clock
from vitral.training.settle import Settled

REPORT = 10.0  # seconds of making a report: pictures with their attention, and charts
SCORING = 0.4  # of an image's time in training: the forward pass alone


@dataclass(frozen=True)
class Choice:
    what: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.value}: {self.why}"


@dataclass(frozen=True)
class Estimate:
    """What a run costs: measured here, or from the table of devices."""

    pass_seconds: float
    """One pass over the training images, with its validation."""
    peak_bytes: int
    parameters: int
    precision: str
    measured: bool
    glanced: bool = False
    """Whether it was measured by a few steps in this process (`glance.py`) instead of a trial."""


@dataclass
class Plan:
    settled: Settled
    """What a run of the plan starts from."""
    asked: Recipe
    """The recipe with the plan's choices, before the rest was decided from the data."""
    choices: list[Choice]
    estimate: Estimate | None
    """None in a brief plan that needed no estimate."""
    passes: float
    """Passes over the training images; NaN if a brief plan did not need them."""
    longer: str
    """What twice the time would change."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Top-1 on the validation images without training, by name."""

    @property
    def recipe(self) -> Recipe:
        """Without open fields."""
        return self.settled.recipe

    def change(self, **settings: Any) -> None:
        """Give the recipe these settings of its section `train`."""
        recipe = replace(self.recipe, train=replace(self.recipe.train, **settings))
        self.settled = replace(self.settled, recipe=recipe)

    @property
    def training_seconds(self) -> float | None:
        return None if self.estimate is None else self.passes * self.estimate.pass_seconds

    @property
    def whole_seconds(self) -> float | None:
        """Seconds of training, scoring and report; None if they were not measured here."""
        if self.estimate is None or not self.estimate.measured or self.training_seconds is None:
            return None
        splits = self.settled.data.splits
        scored = len(splits["test" if "test" in splits else "val"]) if len(splits) > 1 else 0
        return self.training_seconds + REPORT + SCORING * self.estimate.pass_seconds * scored / len(splits["train"])

    @property
    def foreseen(self) -> dict[str, float]:
        """`epochs` and `seconds` of training, if measured here; else empty."""
        if self.estimate is None or not self.estimate.measured or self.training_seconds is None:
            return {}
        return {"epochs": round(self.passes, 2), "seconds": round(self.training_seconds, 1)}

    def brief(self) -> list[str]:
        """The choices and what to beat, a line each."""
        cost, seconds = self.estimate, self.training_seconds
        lines = [str(choice) for choice in self.choices]
        if cost is not None and seconds is not None:
            how = "a few steps" if cost.glanced else "a short trial"
            whole = (
                ""
                if self.whole_seconds is None
                else f", about {clock(self.whole_seconds)} in all with the scores and the report"
            )
            lines.append(
                f"about {clock(seconds)} of training and {cost.peak_bytes / 1e9:.1f} GB of memory, by {how}{whole}"
            )
        if self.baselines:
            lines.append(
                "to beat on the validation images: "
                + ", ".join(f"{v:.1%} {what}" for what, v in self.baselines.items())
            )
        return lines

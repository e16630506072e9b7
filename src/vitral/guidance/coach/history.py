"""A run so far: its recipe, run.json and the lines of metrics.jsonl, and the scores of chance."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitral.objectives.options import ClassifyOptions
from vitral.training.config import Recipe
from vitral.training.defaults import settle_optim
from vitral.training.shape import width

Line = dict[str, Any]
POOLED = 8  # validations whose few scored training images are taken together


@dataclass
class History:
    """Grows line by line; everything else is computed from the lines."""

    recipe: Recipe
    described: Line
    """run.json"""
    data: Line = field(default_factory=dict)
    """The first line of the metrics, which describes the data."""
    train: list[Line] = field(default_factory=list)
    val: list[Line] = field(default_factory=list)
    """Scores are those of the model alone, like those of training images; `in_use`: top-1 with what stands beside it."""

    def add(self, line: Line) -> None:
        match line.get("event"):
            case "data":
                self.data = line
            case "train":
                self.train.append(line)
            case "val":
                own = {key.removeprefix("own_"): value for key, value in line.items() if key.startswith("own_")}
                self.val.append({**line, **own, "in_use": line.get("top1")})

    @property
    def classes(self) -> int:
        return len(self.described["labels"])

    @property
    def one_class_an_image(self) -> bool:
        """Whether the run learns one class an image, so that it has a top-1 and a chance level."""
        return self.recipe.objective.labelled and any("top1" in line for line in self.train[-1:])

    @property
    def learned(self) -> ClassifyOptions:
        """The options of the objective, for a run that learns labels."""
        assert isinstance(self.recipe.objective, ClassifyOptions)
        return self.recipe.objective

    def split(self, name: str) -> Line:
        """The first line's facts about a split; empty in runs of earlier versions."""
        return self.data.get("splits", {}).get(name, {})

    def shares(self) -> list[float]:
        """Each class's share of the training images, as sampled."""
        objective = self.learned
        known = self.split("train").get("shares")
        if known is None or objective.sampling == "balanced" or objective.class_weights == "balanced":
            return [1 / self.classes] * self.classes
        return known

    def chance(self, split: str) -> float:
        """Top-1 of always predicting the commonest class."""
        return max(1 / self.classes, float(self.split(split).get("majority", 0.0)))

    def chance_loss(self) -> float | None:
        """The training loss of predicting the classes' shares for every image: their entropy, ln K if all are equal.

        Smoothing (https://arxiv.org/abs/1512.00567, section 7) moves the targets towards 1 / K; Mixup keeps their mean. None if the loss is not of
        the labels alone.
        """
        objective = self.learned
        if objective.teacher is not None or objective.binarise:
            return None
        smooth = [(1 - objective.smoothing) * share + objective.smoothing / self.classes for share in self.shares()]
        if objective.loss == "bce":
            return sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in smooth if 0 < p < 1)
        return sum(-p * math.log(p) for p in smooth if p > 0)

    def usual_lr(self) -> float:
        """The learning rate that vitral would have chosen."""
        recipe, train = self.recipe, self.recipe.train
        assert train.batch_size is not None
        optim = replace(recipe.optim, lr=None, lr_per=None)
        lr = settle_optim(optim, recipe.transfer, width(recipe.model), train.batch_size * train.accumulation, []).lr
        assert lr is not None
        return lr

    def past_warmup(self) -> list[Line]:
        """The training lines since the learning rate peaked."""
        peak = max((line["lr"] for line in self.train), default=0.0)
        start = next((i for i, line in enumerate(self.train) if line["lr"] >= 0.95 * peak), 0)
        warm = self.train[start:]
        # A rate that still rises has not peaked.
        return [] if self.train and self.train[-1]["lr"] >= 0.999 * peak and self._rising() else warm

    def _rising(self) -> bool:
        return len(self.train) > 1 and self.train[-1]["lr"] > 1.001 * self.train[-2]["lr"]

    def images_a_step(self) -> int:
        train = self.recipe.train
        return (train.batch_size or 1) * train.accumulation

    def seen_score(self) -> tuple[float, float, int]:
        """Top-1 of the training images scored at the last validations, of validation at the same times, and the number of training images.

        Validation images count once, however often they are scored. 0 images if there are none.
        """
        lines = [line for line in self.val[-POOLED:] if "train_top1" in line]
        images = sum(line["train_images"] for line in lines)
        if not images:
            return math.nan, math.nan, 0
        train = sum(line["train_top1"] * line["train_images"] for line in lines) / images
        val = sum(line["top1"] * line["train_images"] for line in lines) / images
        return train, val, min(images, self.size("train"))

    def noise(self, share: float, images: int) -> float:
        """Standard error of a share measured on so many images; not 0 for a share of 0 or 1 either (Agresti and Coull 1998)."""
        images = max(1, images)
        middle = (share * images + 2) / (images + 4)
        return math.sqrt(middle * (1 - middle) / (images + 4))

    def size(self, split: str) -> int:
        """Images of a split."""
        return int(self.split(split).get("images", self.described["images"].get(split, 0)))

    def again(self, **changes: object) -> str:
        """The run's command with these flags changed (None: left out) and a new run folder."""
        words = shlex.split(self.described["command"]) or ["vitral", "train", self.described["data"]]
        drop = {"--out", *(f"--{name.replace('_', '-')}" for name in changes)}
        kept, going, values = [], False, 0  # going: whether the next words belong to a dropped flag
        for word in words:
            if (
                going and not word.startswith("--") and (values == 0 or _is_number(word))
            ):  # flags of several values take numbers
                values += 1
                continue
            flag, with_value, _ = word.partition("=")
            gone = flag.replace("_", "-") in drop
            going, values = gone and not with_value, 0
            if not gone:
                kept.append(word)
        flags = [
            item
            for name, value in changes.items()
            if value is not None
            for item in (f"--{name.replace('_', '-')}", f"{value}")
        ]
        return shlex.join([*kept, *flags]) + " --out " + shlex.quote(f"{self.described['folder']}-2")

    def source(self) -> str:
        return shlex.quote(self.described["data"])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def mean(lines: Sequence[Line], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)

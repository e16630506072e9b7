"""A run from data to a scored model file, in a folder of its own.

RUN/recipe.toml      the recipe as resolved        RUN/metrics.jsonl   a line per event
RUN/run.json         data, command, machine        RUN/checkpoints/    latest and best
RUN/model.safetensors  the self-describing result  RUN/scores.json     its scores; RUN/predictions.npz behind them
RUN/training-images.bin  which images it has seen  RUN/held-out.npz    which were set aside for it
RUN/skipped.csv      images left out, if any
"""

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.bundle import ModelCard, save_model
from vitral.checkpoints.claim import Claim
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet, Split
from vitral.errors import VitralError
from vitral.evaluation.evaluate import Scores, evaluate
from vitral.evaluation.metrics import Evaluation
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.zoo import family_of, model_config
from vitral.predict import Predictor, load
from vitral.training.config import Recipe
from vitral.training.display import Display, clock
from vitral.training.facts import answer_facts, data_facts, scored_training_images
from vitral.training.keep import by_what, consider, in_words
from vitral.training.loop import Loop
from vitral.training.pretrain import neighbours, pictures
from vitral.training.state import Checkpoints, Progress, collect
from vitral.training.toml import to_table


@dataclass
class Run:
    """One run and its folder; listens to the loop and writes down what it says."""

    folder: Path
    source: str
    """The data as they were named."""
    data: DataSet
    recipe: Recipe
    loop: Loop
    config: ModelConfig
    preprocess: Preprocess
    display: Display
    watch: Callable[[dict[str, object]], Iterable[tuple[str, str]]] | None = None
    """Is shown every line of metrics.jsonl as it is written; what it remarks on, as (kind, text), is said and written down too."""

    claim: Claim | None = None
    """That no other process writes to the folder; it is released when training ends."""

    def __post_init__(self) -> None:
        self.folder = self.folder if self.claim is None else self.claim.folder
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.metrics = self.folder / "metrics.jsonl"

    def record(self, line: dict[str, object]) -> None:
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise VitralError(
                f"{self.metrics}: could not be written ({error.strerror}); free some space, then --resume {self.folder}"
            ) from error
        for kind, text in () if self.watch is None or line["event"] == "remark" else self.watch(line):
            self.display.say(text)
            self.record({"event": "remark", "step": line["step"], "kind": kind, "text": text})

    def trained(self, record: dict[str, float | int | str]) -> None:
        self.record(dict(record))
        self.display.train(record)

    def message(self, text: str) -> None:
        self.record({"event": "message", "step": self.loop.progress.step, "text": text})
        self.display.say(text)

    def checkpoint(self, progress: Progress, *, validate: bool) -> None:
        """Validate if asked, write the checkpoint, and the model file if these weights are the ones to keep."""
        model = self.averaged_model()
        keep, found = self.keeps_last, dict[str, object]()
        if validate and "val" in self.data.splits:
            if self.classifies:
                better, found = self.validate(model)
                keep = keep or better
            elif not self.data.multi_label and len(self.data.labels) > 1:
                self.validate_features(model)
        # The model file first: a kill between the two repeats the step from the checkpoint before, and writes the same file again.
        if keep:
            save_model(self.folder / "model.safetensors", model, self.card(model, {**found, "step": progress.step}))
        self.checkpoints.save(collect(self.loop.model, self.loop.optimizers, self.loop.average), progress, best=keep)

    @property
    def keeps_last(self) -> bool:
        """Whether the last weights are the ones to keep, whatever validation says."""
        return self.recipe.train.keep == "last" or "val" not in self.data.splits or not self.classifies

    def validate(self, model: ImageModel) -> tuple[bool, dict[str, object]]:
        """Score the validation split: whether these are the weights to keep, and what the model file says of their score."""
        progress = self.loop.progress
        predictor = Predictor(model, self.card(model, {}))
        scores, logits = self.score(predictor, self.data.splits["val"])
        value, epoch = scores.headline, progress.step / self.loop.batches.steps_per_epoch
        # No label occurs in the split: the last weights are as good as any.
        better = value is None or consider(progress, value, scores.loss, scores.images)
        self.record({"event": "val", "step": progress.step, "epoch": epoch,
                     "loss": scores.loss, scores.HEADLINE: value, "seconds": progress.elapsed,
                     **self.answers(predictor, scores, logits)})  # fmt: skip
        self.display.validated(
            epoch, progress.step, scores.line(), value, progress.best, progress.best_step, last=self.done
        )
        return better, {"val": {scores.HEADLINE: value, "loss": scores.loss, "images": scores.images}}

    def validate_features(self, model: ImageModel) -> None:
        """Nearest neighbours among labelled images, for a run that learns without labels; nothing is chosen by it."""
        progress, step = self.loop.progress, self.loop.progress.step
        top1 = neighbours(Predictor(model, self.card(model, {})), self.data, self.loop.precision)
        epoch = step / self.loop.batches.steps_per_epoch
        self.record({"event": "val", "step": step, "epoch": epoch, "knn": top1, "seconds": progress.elapsed})
        if progress.best is None or top1 >= progress.best:
            progress.best, progress.best_step = top1, step
        said = f"top-1 by nearest neighbours {top1:.2%}"
        self.display.validated(epoch, step, said, top1, progress.best, progress.best_step, last=self.done)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.loop.budget.share(self.loop.progress) >= 1

    @property
    def classifies(self) -> bool:
        """Whether the run learns the data's classes, and not from the images alone."""
        return self.recipe.objective.name == "classify"

    def averaged_model(self) -> ImageModel:
        """The image model that the run is for, with the moving average of its weights where there is one."""
        learner = self.loop.model
        if self.loop.average is not None:
            learner = copy.deepcopy(learner)
            learner.load_state_dict({**learner.state_dict(), **self.loop.average})
        return self.loop.objective.result(learner)

    def answers(self, predictor: Predictor, scores: Scores, logits: np.ndarray) -> dict[str, object]:
        """How the answers on the validation split are spread, and the scores on some training images in the same view."""
        if not isinstance(scores, Evaluation):
            return {}
        batches = self.loop.batches
        turn = self.loop.progress.step // batches.steps_per_epoch
        seen = scored_training_images(batches.split, turn, last=self.done)
        own, _ = self.score(predictor, seen)
        assert isinstance(own, Evaluation)
        return {
            **answer_facts(scores, logits, self.data.splits["val"].targets),
            **{"train_loss": own.loss, "train_top1": own.top1, "train_images": own.images},
        }

    def score(self, predictor: Predictor, split: Split) -> tuple[Scores, np.ndarray]:
        predictor.model.to(self.loop.device)
        return evaluate(
            predictor, split, self.data.labels, precision=self.loop.precision,
            workers=self.loop.workers, failed=lambda why: self.loop.without_workers(why, self),
            batch_size=max(1, min(256, 64 * 224 * 224 // (self.preprocess.height * self.preprocess.width))),
        )  # fmt: skip

    @property
    def scored_split(self) -> str | None:
        """The split that the finished model is scored on."""
        return next((name for name in (self.recipe.train.score_split, "val") if name in self.data.splits), None)

    def card(self, model: ImageModel, scores: dict[str, object]) -> ModelCard:
        name = self.recipe.model.name
        assert name is not None
        same = type(model.config) is type(model_config(name))  # not so of a tokenizer or a masked autoencoder's encoder
        return ModelCard(
            architecture=name if same else family_of(model.config),
            arguments=model.config.arguments(),
            labels=self.data.labels if self.classifies else [],
            multi_label=self.classifies and self.data.multi_label,
            preprocess=self.preprocess,
            recipe=dict(to_table(self.recipe)),
            scores=scores,
            data={"name": self.data.name, "fingerprint": self.data.fingerprint},
        )

    def train(self) -> bool:
        """Train to the end (True) or until a signal (False); then score once and write everything down."""
        try:
            return self._train()
        finally:
            if self.claim is not None:
                self.claim.release()

    def _train(self) -> bool:
        if not (
            self.metrics.exists() and '"event": "data"' in self.metrics.read_text()
        ):  # a resumed run has it already
            self.record(data_facts(self.data, self.preprocess, classes=self.classifies))
        if not self.loop.run(self):
            return False
        if (slower := self.beside_plan()) is not None:
            self.message(slower)
        if not self.classifies:
            write_atomically(self.folder / "pictures.npz", pictures(self.loop))
            return True
        split = self.scored_split
        if split is None:
            self.message("no test or validation split: the model is not scored and has no report")
            return True
        predictor = load(self.folder)
        scores, logits = self.score(predictor, self.data.splits[split])
        predictor.model.to("cpu")
        kept = self.kept(predictor.card)
        result = {
            "split": split,
            "training_seconds": round(self.loop.progress.elapsed, 1),
            "step": predictor.card.scores["step"],
            "kept": kept,
            **scores.to_json(),
        }
        save_model(
            self.folder / "model.safetensors",
            predictor.model,
            dataclasses.replace(
                predictor.card,
                scores={**predictor.card.scores, "kept": kept, split: _brief(predictor.card, split) | scores.brief()},
            ),
        )
        write_atomically(self.folder / "scores.json", json.dumps(result, indent=1).encode())
        arrays = io.BytesIO()
        np.savez(arrays, logits=logits, targets=self.data.splits[split].targets)
        write_atomically(self.folder / "predictions.npz", arrays.getvalue())
        self.display.say(
            f"\n{split} split: {scores.summary()}\nkept and scored: {kept}\n{clock(self.loop.progress.elapsed)} of training"
        )
        return True

    def beside_plan(self) -> str | None:
        """That the machine was far slower than the plan's trial foresaw, if it was."""
        described = self.folder / "run.json"
        foreseen = json.loads(described.read_text()).get("foreseen") if described.exists() else None
        loop = self.loop
        return slower_than(
            foreseen or {},
            loop.progress.step / loop.batches.steps_per_epoch,
            loop.progress.elapsed,
            by_clock=loop.budget.steps is None,
        )

    def kept(self, card: ModelCard) -> str:
        """Which step's weights the model file holds, and why these."""
        step, last = card.scores["step"], self.loop.progress.step
        assert isinstance(step, int)
        if not self.keeps_last:
            validated, images = _brief(card, "val"), len(self.data.splits["val"])
            named = [
                f"{name} {validated[key]:.2%}" for key, name in HEADLINES.items() if validated.get(key) is not None
            ]
            loss = [f"loss {validated['loss']:.4f}"] if "loss" in validated else []  # which older runs do not have
            chosen = by_what(", ".join([*named, *loss]), images)
        elif self.recipe.train.keep == "last":
            chosen = "the last, as --keep last asks"
        else:
            chosen = "the last: there is no validation split to choose by"
        return in_words(step, self.loop.batches.steps_per_epoch, last, chosen)


FAR = 2.0  # times: trials of a few seconds are within half of it
LEAST_SECONDS = 60.0  # of training: what is shorter is foreseen by a few steps


def slower_than(foreseen: Mapping[str, float], epochs: float, elapsed: float, *, by_clock: bool) -> str | None:
    """In words that a run made far fewer epochs, or needed far more seconds for them, than a plan foresaw; None if it did not.

    foreseen: `epochs` and `seconds`, empty without a plan. epochs, elapsed: what was made, in so many seconds. by_clock: the budget was a time.
    """
    if not foreseen or elapsed < LEAST_SECONDS or foreseen["seconds"] * epochs * FAR > foreseen["epochs"] * elapsed:
        return None
    why = "the machine was slower than in the plan's trial: other work ran beside it, or it was throttled"
    if by_clock:
        return (
            f"only {epochs:.1f} epochs were made in {clock(elapsed)}, where the plan foresaw {foreseen['epochs']:.1f}; {why}. "
            "Train again when it is free, or for longer"
        )
    return f"training took {clock(elapsed)}, where the plan foresaw {clock(foreseen['seconds'])}; {why}"


HEADLINES = {"top1": "top-1", "map": "mAP"}


def _brief(card: ModelCard, split: str) -> dict[str, Any]:
    """What the model file says of its score on a split."""
    known = card.scores.get(split, {})
    assert isinstance(known, dict)
    return known

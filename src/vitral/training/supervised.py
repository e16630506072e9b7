"""A run that learns from labels: validation chooses the weights to keep, which are scored at the end."""

import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.data.dataset import Split
from vitral.evaluation.beside import beside
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.evaluator import Evaluator, Scores
from vitral.models.common import ImageModel, alone
from vitral.predict import Predictor, load
from vitral.training.display import clock
from vitral.training.facts import scored_training_images
from vitral.training.keep import by_what, consider, in_words
from vitral.training.state import Progress

if TYPE_CHECKING:
    from vitral.training.run import Run


class Supervised:
    """What a run with labels does at a validation and at the end."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.labels, self.task = run.data.labels, run.data.task
        self.keeps_last = run.recipe.train.keep == "last" or "val" not in run.data.splits
        """Whether the last weights are kept, whatever their validation score."""

    @property
    def scored_split(self) -> str | None:
        """The split that the finished model is scored on."""
        run = self.run
        return next((name for name in (run.recipe.train.score_split, "val") if name in run.data.splits), None)

    def validate(self, model: ImageModel, progress: Progress) -> tuple[bool, dict[str, object]]:
        """Score the validation split. Returns whether to keep these weights, and the scores for the model file."""
        run = self.run
        predictor = Predictor(model, run.card(model, {}))
        scores, found = self._score(predictor, run.data.splits["val"], report=False)
        value, epoch = scores.headline, progress.step / run.loop.batches.steps_per_epoch
        # No score if no label occurs in the split: then keep the last weights.
        better = value is None or consider(progress, value, scores.loss, scores.images)
        run.record({"event": "val", "step": progress.step, "epoch": epoch,
                    "loss": scores.loss, scores.HEADLINE: value, "seconds": progress.elapsed,
                    **self._answers(predictor, found, progress)})  # fmt: skip
        run.display.validated(
            epoch, progress.step, scores.line(), value, progress.best, progress.best_step, last=run.done
        )
        return better, _in_card(scores)

    def found(self, model: ImageModel) -> dict[str, object]:
        """What `validate` found of these weights, for the model file."""
        if "val" not in (run := self.run).data.splits:
            return {}
        return _in_card(self._score(Predictor(model, run.card(model, {})), run.data.splits["val"], report=False)[0])

    def _answers(self, predictor: Predictor, found: Evaluator, progress: Progress) -> dict[str, object]:
        """The spread of the outputs on the validation split, and the scores of some training images in the evaluation view.

        Where a classifier stands beside the model, these are of the model alone, and its own validation scores are there to compare them with.
        """
        batches = self.run.loop.batches
        turn = progress.step // batches.steps_per_epoch
        scored = {"train": scored_training_images(batches.split, turn, last=self.run.done)}
        if predictor.model.beside is not None:
            scored["own"] = self.run.data.splits["val"]
        facts = found.spread()
        with alone(predictor.model):
            for name, split in scored.items():
                own, _ = self._score(predictor, split, report=False)
                facts |= {
                    f"{name}_loss": own.loss,
                    f"{name}_{own.HEADLINE}": own.headline,
                    f"{name}_images": own.images,
                }
        return facts

    def _score(self, predictor: Predictor, split: Split, *, report: bool = True) -> tuple[Scores, Evaluator]:
        run, loop = self.run, self.run.loop
        predictor.model.to(loop.device)
        return loop.world.evaluated(
            predictor, split, run.data.labels, report=report, precision=loop.precision,
            workers=loop.workers, failed=lambda why: loop.without_workers(why, run),
            batch_size=max(1, min(256, 64 * 224 * 224 // (run.preprocess.height * run.preprocess.width))),
        )  # fmt: skip

    def finish(self) -> None:
        """Score the kept weights once and write the scores into the run."""
        run, split = self.run, self.scored_split
        if split is None:
            run.message("no test or validation split: the model is not scored and has no report")
            return
        predictor = load(run.folder)
        scores, found = self._score(predictor, run.data.splits[split])
        if not run.loop.world.main:
            return
        predictor.model.to("cpu")
        card, kept = predictor.card, self._kept(predictor.card)
        known = {**card.scores, "kept": kept, split: _brief(card, split) | scores.brief()}
        save_model(run.folder / "model.safetensors", predictor.model, dataclasses.replace(card, scores=known))
        result = {
            "split": split,
            "training_seconds": round(run.loop.progress.elapsed, 1),
            "step": card.scores["step"],
            "kept": kept,
            "beside": [vars(each) for each in beside(run.data, split, run.preprocess, found)],
            **scores.to_json(),
        }
        write_atomically(run.folder / "scores.json", json.dumps(result, indent=1).encode())
        arrays = io.BytesIO()
        np.savez(arrays, **found.kept())  # type: ignore[arg-type]
        write_atomically(run.folder / "predictions.npz", arrays.getvalue())
        run.display.say(
            f"\n{split} split: {scores.summary()}\nkept and scored: {kept}\n{clock(run.loop.progress.elapsed)} of training"
        )

    def _kept(self, card: ModelCard) -> str:
        """Which step's weights the model file holds, and why."""
        run = self.run
        step, last = card.scores["step"], run.loop.progress.step
        assert isinstance(step, int)
        if not self.keeps_last:
            scores, validated = EVALUATORS[self.task].scores, _brief(card, "val")
            value, loss = validated.get(scores.HEADLINE), validated.get("loss")  # older runs have none
            said = [] if value is None else [f"{scores.TITLE} {value:.2%}"]
            said += [] if loss is None else [f"loss {loss:.4f}"]
            chosen = by_what(", ".join(said), len(run.data.splits["val"]))
        elif run.recipe.train.keep == "last":
            chosen = "the last, as --keep last asks"
        else:
            chosen = "the last: there is no validation split to choose by"
        return in_words(step, run.loop.batches.steps_per_epoch, last, chosen)


def _in_card(scores: Scores) -> dict[str, object]:
    """The scores of the validation split as the model file holds them."""
    known = {scores.HEADLINE: scores.headline, **scores.chosen(), "loss": scores.loss, "images": scores.images}
    return {"val": known}


def _brief(card: ModelCard, split: str) -> dict[str, Any]:
    """The scores on a split that the model file holds."""
    known = card.scores.get(split, {})
    assert isinstance(known, dict)
    return known

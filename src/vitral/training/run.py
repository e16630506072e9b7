"""A run from data to a scored model file, in a folder of its own.

RUN/recipe.toml      the recipe as resolved        RUN/metrics.jsonl   a line per event
RUN/run.json         data, command, machine        RUN/checkpoints/    latest and best
RUN/model.safetensors  the self-describing result  RUN/scores.json     its scores; RUN/predictions.npz behind them
RUN/training-images.bin  which images it has seen  RUN/held-out.npz    which were set aside for it
RUN/skipped.csv      images left out, if any
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitral.checkpoints.bundle import ModelCard, save_model
from vitral.checkpoints.claim import Claim
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.errors import VitralError
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.zoo import family_of, model_config
from vitral.training.config import Recipe
from vitral.training.display import Display, clock
from vitral.training.facts import data_facts
from vitral.training.loop import Loop
from vitral.training.pretrain import Pretraining
from vitral.training.state import Checkpoints, Progress, collect
from vitral.training.supervised import Supervised
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
        self.purpose = Supervised(self) if self.recipe.objective.labelled else Pretraining(self)
        """What it does at a validation, and in the end."""
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
        model, found = self.averaged_model(), dict[str, object]()
        keep = self.purpose.keeps_last
        if validate and "val" in self.data.splits:
            better, found = self.purpose.validate(model, progress)
            keep = keep or better
        # The model file first: a kill between the two repeats the step from the checkpoint before, and writes the same file again.
        if keep:
            save_model(self.folder / "model.safetensors", model, self.card(model, {**found, "step": progress.step}))
        self.checkpoints.save(collect(self.loop.model, self.loop.optimizers, self.loop.average), progress, best=keep)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.loop.budget.share(self.loop.progress) >= 1

    def averaged_model(self) -> ImageModel:
        """The image model that the run is for, with the moving average of its weights where there is one."""
        learner = self.loop.model
        if self.loop.average is not None:
            learner = copy.deepcopy(learner)
            learner.load_state_dict({**learner.state_dict(), **self.loop.average})
        return self.loop.objective.result(learner)

    def card(self, model: ImageModel, scores: dict[str, object]) -> ModelCard:
        name = self.recipe.model.name
        assert name is not None
        same = type(model.config) is type(model_config(name))  # not so of a tokenizer or a masked autoencoder's encoder
        return ModelCard(
            architecture=name if same else family_of(model.config),
            arguments=model.config.arguments(),
            labels=self.purpose.labels,
            task=self.purpose.task,
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
            self.record(data_facts(self.data, self.preprocess, labelled=self.recipe.objective.labelled))
        if not self.loop.run(self):
            return False
        if (slower := self.beside_plan()) is not None:
            self.message(slower)
        self.purpose.finish()
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

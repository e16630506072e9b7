"""A run from data to a scored model file, in a folder of its own:

recipe.toml       the resolved recipe           metrics.jsonl      a line per event
run.json          data, command, machine        checkpoints/       latest and best
model.safetensors    the self-describing result    scores.json, predictions.npz    its scores, and its outputs
training-images.bin  hashes of its training images    held-out.npz    the splits that were made    skipped.csv    images left out, if any
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.claim import Claim
from vitral.data.dataset import DataSet
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.zoo import family_of, model_config
from vitral.training.config import Recipe
from vitral.training.display import Display, clock
from vitral.training.facts import data_facts
from vitral.training.loop import Loop
from vitral.training.pretrain import Pretraining
from vitral.training.state import Checkpoints, Progress, collect, opened, restore
from vitral.training.supervised import Supervised
from vitral.training.toml import to_table
from vitral.training.whole import gathered


@dataclass
class Run:
    """One run and its folder: the loop's listener, which writes its events down."""

    folder: Path
    source: str
    """The data as the user named them."""
    data: DataSet
    recipe: Recipe
    loop: Loop
    config: ModelConfig
    preprocess: Preprocess
    display: Display
    watch: Callable[[dict[str, object]], Iterable[tuple[str, str]]] | None = None
    """Called with every line of metrics.jsonl; the (kind, text) remarks it returns are shown and written too."""

    claim: Claim | None = None
    """Keeps other processes from writing to the folder; released when training ends."""

    def __post_init__(self) -> None:
        self.folder = self.folder if self.claim is None else self.claim.folder
        self.purpose = Supervised(self) if self.recipe.objective.labelled else Pretraining(self)
        """What the run does at a validation and at the end."""
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.validation_seconds = float("inf")  # of the last one, before the first not known
        self.metrics = self.folder / "metrics.jsonl"

    def record(self, line: dict[str, object]) -> None:
        if not self.loop.world.main:
            return
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
        """Validate if asked, write the model file if these weights are to be kept, then the checkpoint.

        Before a validation that takes long there is a checkpoint, too: a job that is asked to end has half a minute, and less to lose.
        """
        model, found = self.averaged_model(), dict[str, object]()
        keep = self.purpose.keeps_last
        if validate and "val" in self.data.splits:
            if self.validation_seconds > LONG and not progress.owed:
                progress.owed = True
                self.save(progress, best=False)
                self.checkpoints.wait()
            progress.owed, began = False, time.monotonic()
            better, found = self.purpose.validate(model, progress)
            self.validation_seconds = self.loop.world.now(time.monotonic() - began)
            keep = keep or better
        # The model file first: after a kill between the two the run resumes from the checkpoint before and writes the same file again.
        if keep and self.loop.world.main:
            save_model(self.folder / "model.safetensors", model, self.card(model, {**found, "step": progress.step}))
        self.save(progress, best=keep)

    def save(self, progress: Progress, *, best: bool) -> None:
        loop = self.loop
        tensors = gathered(collect(loop.model, loop.optimizers, loop.average), loop.world.main)
        if loop.world.main:
            self.checkpoints.save(tensors, progress, best=best)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.loop.budget.share(self.loop.progress) >= 1

    def averaged_model(self) -> ImageModel:
        """The image model being trained, with its averaged weights if there is an average."""
        return self.loop.objective.result(self.loop.whole(self.loop.average))

    def card(self, model: ImageModel, scores: dict[str, object]) -> ModelCard:
        name = self.recipe.model.name
        assert name is not None
        same = type(model.config) is type(model_config(name))  # False for a tokenizer or a masked autoencoder's encoder
        return ModelCard(
            architecture=name if same else family_of(model.config),
            arguments=model.config.arguments(),
            labels=self.purpose.labels,
            task=self.purpose.task,
            preprocess=self.preprocess,
            head=self.recipe.head.to_json() if self.recipe.head.name else None,
            recipe=dict(to_table(self.recipe)),
            scores=scores,
            data={
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "size": [self.data.height, self.data.width],
            },
            ids=self.data.splits["train"].targets.ids(len(self.purpose.labels)),
        )

    def train(self) -> bool:
        """Train to the end, score and write the results (True), or stop at a signal (False)."""
        try:
            return self._train()
        finally:
            if self.claim is not None:
                self.claim.release()

    def _train(self) -> bool:
        # a resumed run has the line already
        told = self.metrics.exists() and '"event": "data"' in self.metrics.read_text()
        if self.loop.world.main and not told:
            self.record(data_facts(self.data, self.preprocess, labelled=self.recipe.objective.labelled))
        loop = self.loop
        loop.world.unite(loop.model, loop.average)
        loop.divide()
        try:
            ended = loop.run(self)
        finally:
            self.checkpoints.wait()
        if not ended:
            return False
        if not loop.world.first((self.folder / "model.safetensors").exists()):
            self._write_model_again()
        loop.world.wait()  # for the model file
        if (slower := self.beside_plan()) is not None:
            self.message(slower)
        self.purpose.finish()
        return True

    def _write_model_again(self) -> None:
        """The model file, which somebody removed, from the checkpoint that has its weights."""
        loop, file = self.loop, self.folder / "model.safetensors"
        path = self.checkpoints.pointed("best") or self.checkpoints.path(loop.progress.best_step)
        if not path.exists():
            raise VitralError(
                f"{file}: is gone, and so is the checkpoint with its weights ({path.name}); copy it back, or train again with another --out"
            )
        tensors, progress = opened(path)
        changed = {name: t for name, t in tensors.items() if not name.startswith("optimizer/")}
        restore(changed, loop.model, [], loop.average)
        model = self.averaged_model()
        found = self.purpose.found(model)
        if loop.world.main:
            save_model(file, model, self.card(model, {**found, "step": progress.step}))
        self.message(f"{file.name} was gone: it is written again from the checkpoint of step {progress.step:,}")

    def beside_plan(self) -> str | None:
        """A message if the machine was far slower than the plan's trial foresaw."""
        described = self.folder / "run.json"
        foreseen = json.loads(described.read_text()).get("foreseen") if described.exists() else None
        loop = self.loop
        return slower_than(
            foreseen or {},
            loop.progress.step / loop.batches.steps_per_epoch,
            loop.progress.elapsed,
            by_clock=loop.budget.steps is None,
        )


LONG = 5.0  # seconds of a validation, before which a checkpoint is written
FAR = 2.0  # times the foreseen duration; trials of a few seconds err by up to 1.5 times
LEAST_SECONDS = 60.0  # of training; a shorter run's trial has only a few steps


def slower_than(foreseen: Mapping[str, float], epochs: float, elapsed: float, *, by_clock: bool) -> str | None:
    """A message if a run made far fewer epochs, or took far longer for them, than its plan foresaw; else None.

    foreseen: `epochs` and `seconds`, empty without a plan. epochs, elapsed: those trained, in seconds. by_clock: the budget was a time.
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

"""Checkpoints: all that resuming with identical bits needs, written so that a kill at any byte leaves the previous one loadable.

A checkpoint is one safetensors file `checkpoints/step-00001234.safetensors` with weights, their average and the optimiser's moments; its metadata
hold the counters. There is no generator state: randomness is a function of the step. `latest` and `best` are one-line files that name a checkpoint;
they change only once that checkpoint is complete, and the one before is deleted only then. Training waits while the tensors are copied, and goes on
while they are written.

A model in parts (`vitral.training.parts`) is gathered for the same file, tensor by tensor, so that any number of processes can go on with it.
torch.distributed.checkpoint would write the parts: no smaller and not much faster here (benchmarks/LOG.md), but its `.metadata` are a pickle, which
runs code.
"""

import contextlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vitral.checkpoints.atomic import as_safetensors, read_safetensors, write_atomically
from vitral.errors import VitralError
from vitral.training.whole import cut

STEPS = "step-*.safetensors"


@dataclass
class Progress:
    """The counters of a run."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds of training so far over all sessions, validation included."""
    batch_size: int = 0
    accumulation: int = 1
    best: float | None = None
    """The headline score of the best checkpoint so far on the validation split, 0..1."""
    best_step: int = 0
    best_loss: float | None = None
    best_mean: float | None = None
    """The averaged score by which the best was chosen; see `vitral.training.keep`."""
    recent: list[float] = field(default_factory=list)
    """Scores of the last validations, to be averaged."""
    loss_scale: float = 2.0**16
    owed: bool = False
    """Whether the step's validation is still to be done."""


class Checkpoints:
    """The checkpoint folder of one run; keeps the latest one and the best one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def save(self, tensors: dict[str, Tensor], progress: Progress, *, best: bool) -> None:
        """Copy the tensors, then write them while the caller goes on; raises what `wait` does of the checkpoint before."""
        self.wait()
        content = as_safetensors(tensors, {"progress": json.dumps(asdict(progress))})
        self._written = self._writer.submit(self._write, self.path(progress.step), content, best)

    def wait(self) -> None:
        """Until the last checkpoint is written; VitralError if it could not be."""
        if (written := self._written) is not None:
            self._written = None
            written.result()

    def _write(self, path: Path, content: bytes, best: bool) -> None:
        """Write the checkpoint, then move the pointers, then delete checkpoints without a pointer."""
        write_atomically(path, content)
        write_atomically(self.folder / "latest", path.name.encode())
        if best:
            write_atomically(self.folder / "best", path.name.encode())
        kept = {self.pointed(name) for name in ("latest", "best")}
        for old in self.folder.glob("step-*"):
            if old not in kept:
                old.unlink(missing_ok=True)

    def pointed(self, pointer: str) -> Path | None:
        """The checkpoint that `latest` or `best` names, or None where there is none yet."""
        try:
            return self.folder / (self.folder / pointer).read_text().strip()
        except FileNotFoundError:
            return None

    def last(self) -> Path | None:
        """The checkpoint that `latest` names; the newest that is there where it names none of them; or None where there is none yet."""
        pointed = self.pointed("latest")
        if pointed is not None and pointed.is_file():
            return pointed
        return max(self.folder.glob(STEPS), default=pointed)

    def load(self) -> tuple[dict[str, Tensor], Progress]:
        """The last checkpoint. Where it is damaged, a VitralError names a whole one from before, if there is one."""
        self.wait()
        path = self.last()
        if path is None:
            raise VitralError(f"{self.folder}: holds no checkpoint yet; start the run again without --resume")
        try:
            return opened(path)
        except VitralError as error:
            raise VitralError(f"{error}; {self._beside(path)}") from error

    def _beside(self, damaged: Path) -> str:
        """What can be done without this checkpoint."""
        for older in sorted(self.folder.glob(STEPS), reverse=True):
            with contextlib.suppress(VitralError):
                if older < damaged:
                    step = opened(older)[1].step
                    return f"or delete it, and the run goes on from step {step:,}, whose checkpoint is whole ({older.name})"
        return "or train again with another --out, for no older checkpoint is whole"


def opened(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """What a checkpoint holds."""
    tensors, metadata = read_safetensors(path)
    return tensors, Progress(**json.loads(metadata["progress"]))


def collect(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], average: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Everything that training changes, under flat names."""
    tensors = {f"model/{name}": t for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value
    for name, t in (average or {}).items():
        tensors[f"average/{name}"] = t
    return tensors


def restore(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    average: dict[str, Tensor] | None,
) -> None:
    """The inverse of `collect`, into objects of the same recipe."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "average": {}}
    for name, t in tensors.items():
        kind, _, rest = name.partition("/")
        groups[kind][rest] = t
    parameters, now = dict(model.named_parameters()), model.state_dict()
    model.load_state_dict({name: cut(t, now[name]) if name in now else t for name, t in groups["model"].items()})
    owner = {id(p): (o, group.get("fused")) for o in optimizers for group in o.param_groups for p in group["params"]}
    for name, t in groups["optimizer"].items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        optimizer, fused = owner[id(parameter)]
        # A fused optimiser counts its steps on the device, others on the CPU.
        here = t if key == "step" and not fused else t.to(parameter.device)
        optimizer.state[parameter][key] = cut(here, parameter) if here.shape == parameter.shape else here
    for name, t in groups["average"].items():
        assert average is not None
        average[name].copy_(cut(t, average[name]))

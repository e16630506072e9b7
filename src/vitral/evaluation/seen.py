"""Which images a model was trained on, so that a score on them is never taken for one on new images.

RUN/training-images.bin holds the first eight bytes of each training image's content hash, sorted. Two different images
share them by chance with a probability of one in 10^19.
"""

import json
from pathlib import Path

import numpy as np

from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.bundle import ModelCard
from vitral.data.sources import Split
from vitral.errors import VitralError

NAME = "training-images.bin"
KIND = np.dtype(">u8")


def write_seen(run: Path, train: Split) -> None:
    """Remember beside the run what its model is trained on."""
    write_atomically(run / NAME, np.sort(train.contents).astype(KIND).tobytes())


def count_seen(model: Path, card: ModelCard, split: Split) -> int | None:
    """How many images of the split were in the training of a model (a run folder, or a file in one).

    None where that is not known: the model has no such list beside it, or the list is another run's.
    """
    run = model if model.is_dir() else model.parent
    try:
        stored, described = (run / NAME).read_bytes(), json.loads((run / "run.json").read_text())
        if described["fingerprint"] != card.data.get("fingerprint"):
            return None
        seen = np.frombuffer(stored, KIND)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise VitralError(f"{run / NAME}: cannot be read ({error}); restore it, or remove it to go without") from error
    return int(np.isin(split.contents, seen.astype(np.uint64)).sum())

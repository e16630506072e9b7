"""Which images a model was trained on, so that scores on them can be told from scores on new images; and how its run's data were split.

RUN/training-images.bin holds the first eight bytes of each training image's content hash, in the run's order (sorted in runs of earlier
versions). Two different images share them by chance with a probability of one in 10^19. RUN/held-out.npz holds those of the validation and test
images that this run set aside, so that they stay the same even if another version or machine would split the data differently.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.card import ModelCard
from vitral.data.dataset import DataSet, Split
from vitral.data.divide import Held
from vitral.errors import VitralError

NAME = "training-images.bin"
HELD = "held-out.npz"
KIND = np.dtype(">u8")


def write_seen(run: Path, train: Split) -> None:
    """Write beside the run which images its model is trained on."""
    write_atomically(run / NAME, train.contents.astype(KIND).tobytes())


def write_held(run: Path, data: DataSet) -> None:
    """Write beside the run how its data were split."""
    made = {name: split.contents for name, split in data.splits.items() if name != "train" and name not in data.given}
    arrays = io.BytesIO()
    np.savez(arrays, **made)  # type: ignore[arg-type]
    write_atomically(run / HELD, arrays.getvalue())


def held_of(model: Path) -> Held | None:
    """How the data of a model's run (a run folder, or a file in one) were split; None where that is not known, as in runs of earlier versions."""
    run = model if model.is_dir() else model.parent
    try:
        fingerprint = json.loads((run / "run.json").read_text())["fingerprint"]
        with np.load(run / HELD, allow_pickle=False) as stored:
            return Held(fingerprint, {name: stored[name] for name in stored.files})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VitralError(f"{run / HELD}: cannot be read ({error}); restore or remove it") from error


def count_seen(model: Path, card: ModelCard, split: Split) -> int | None:
    """How many images of the split were in the training of a model (a run folder, or a file in one).

    None where that is not known: the model has no such list beside it, or the list is another run's.
    """
    run = model if model.is_dir() else model.parent
    try:
        if json.loads((run / "run.json").read_text())["fingerprint"] != card.data.get("fingerprint"):
            return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise VitralError(f"{run / 'run.json'}: cannot be read ({error}); restore it") from error
    return None if contents_seen(run) is None else count_known(run, split)


def count_known(run: Path, split: Split) -> int:
    """How many images of the split a run was trained on, whatever else of its data changed."""
    return int(np.isin(split.contents, _stored(run)).sum())


def as_trained(run: Path, train: Split) -> Split:
    """The run's own training images in the run's order: file names, and with them the order of the listing, may have changed since."""
    stored = _stored(run)
    older = bool((stored[:-1] <= stored[1:]).all())  # sorted by an earlier version: the order is not known
    if older or len(stored) != len(train) or np.array_equal(stored, train.contents):
        return train
    order = np.empty(len(train), np.int64)
    order[np.argsort(stored, kind="stable")] = np.argsort(train.contents, kind="stable")
    return train.take(order)


def contents_seen(run: Path) -> NDArray[np.uint64] | None:
    """`Split.contents` of the images that a run's model was trained on, [n]; None where the run has no such list."""
    try:
        return np.frombuffer((run / NAME).read_bytes(), KIND).astype(np.uint64)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise VitralError(f"{run / NAME}: cannot be read ({error}); restore it, or remove it to go without") from error


def _stored(run: Path) -> NDArray[np.uint64]:
    """`contents_seen`; none where the run has no list."""
    found = contents_seen(run)
    return np.zeros(0, np.uint64) if found is None else found

"""What needs no training, on the validation images: the score that a plan's run has to beat before it is worth anything."""

from vitral.checkpoints.bundle import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.evaluation.probes import features, k_nn, linear, pixels
from vitral.predict import Predictor
from vitral.training.pretrain import thinned
from vitral.training.transfer import Initial

SEEN = 4000  # training images that a baseline learns from, at most
SCORED = 2000  # validation images it is scored on, at most


def baselines(data: DataSet, steps: Preprocess, initial: Initial | None = None) -> dict[str, float]:
    """Top-1 on validation images, by name: the commonest class, nearest neighbours and a linear classifier, each on pixels of up to 16x16.

    initial: the weights that training would start from; its frozen features are then read instead of pixels, if it brings its preprocessing for
    images of these channels. Empty where there is no validation split, or an image has not one class.
    """
    if "val" not in data.splits or data.task != "classify":
        return {}
    train, val = thinned(data.splits["train"], SEEN), thinned(data.splits["val"], SCORED)
    commonest = data.splits["train"].targets.counts(len(data.labels)).argmax()
    known = frozen(initial, data.channels)
    what = "pixels" if known is None else "frozen features"
    read = {split.name: pixels(split, steps) if known is None else features(known, split) for split in (train, val)}
    by_neighbours = k_nn(read["train"], train.targets.values, read["val"])
    by_line, _ = linear(read["train"], train.targets.values, read["val"], None)
    return {
        "commonest class": float((val.targets.values == commonest).mean()),
        f"nearest neighbours on {what}": float((by_neighbours == val.targets.values).mean()),
        f"linear on {what}": float((by_line == val.targets.values).mean()),
    }


def frozen(initial: Initial | None, channels: int) -> Predictor | None:
    """The weights as they came, if they bring their own preprocessing for such images."""
    if initial is None or initial.preprocess is None or initial.preprocess.channels != channels:
        return None
    labels = initial.labels or [str(k) for k in range(initial.model.num_classes)]
    return Predictor(initial.model, ModelCard(initial.source, {}, labels, initial.preprocess))

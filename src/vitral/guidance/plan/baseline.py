"""Scores on the validation images without training, which a run has to beat."""

from vitral.checkpoints.bundle import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.evaluation.probes import edges_and_colours, features, k_nn, linear, pixels
from vitral.predict import Predictor
from vitral.training.transfer import Initial

SEEN = 4000  # training images that a baseline learns from, at most
FEW = 2000  # training images up to which edges and colours are described: with more a network learns better ones
SCORED = 2000  # images it is scored on, at most


def baselines(
    data: DataSet, steps: Preprocess, initial: Initial | None = None, scored: str = "val"
) -> dict[str, float]:
    """Top-1 on the images of a split, by name: the commonest class, nearest neighbours and a linear classifier, each on pixels of up to 16x16;
    of few images also a linear classifier on their edges and colours.

    initial: the weights that training would start from; its frozen features are then read instead of pixels, if it brings its preprocessing for
    images of these channels. Empty where there is no such split, or an image has not one class.
    """
    if scored not in data.splits or data.task != "classify":
        return {}
    train, val = data.splits["train"].thinned(SEEN), data.splits[scored].thinned(SCORED)
    commonest = data.splits["train"].targets.counts(len(data.labels)).argmax()
    known = frozen(initial, data.channels)
    what = "pixels" if known is None else "frozen features"
    read = {split.name: pixels(split, steps) if known is None else features(known, split) for split in (train, val)}
    learned = train.targets.values
    answers = {
        "commonest class": commonest,
        f"nearest neighbours on {what}": k_nn(read["train"], learned, read[scored]),
        f"linear on {what}": linear(read["train"], learned, read[scored], None)[0],
    }
    if known is None and len(data.splits["train"]) <= FEW:
        described = [edges_and_colours(split, steps) for split in (train, val)]
        answers["linear on edges and colours"] = linear(described[0], learned, described[1], "left out")[0]
    return {name: float((answer == val.targets.values).mean()) for name, answer in answers.items()}


def frozen(initial: Initial | None, channels: int) -> Predictor | None:
    """The weights as they came, if they bring their own preprocessing for such images."""
    if initial is None or initial.preprocess is None or initial.preprocess.channels != channels:
        return None
    labels = initial.labels or [str(k) for k in range(initial.model.num_classes)]
    return Predictor(initial.model, ModelCard(initial.source, {}, labels, initial.preprocess))

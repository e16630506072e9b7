"""Facts about a run's data and outputs in metrics.jsonl, which show why it goes well or not."""

import numpy as np

from vitral.data.copies import near_copies
from vitral.data.dataset import DataSet, Split
from vitral.data.images import HINT
from vitral.data.preprocess import Preprocess
from vitral.data.small import small_picture
from vitral.data.values import white
from vitral.randomness import Permutation

LOOKED_AT = 128  # training images that are checked for contrast
LEAST, MOST = 32, 512  # training images that are scored at a validation
SHARE = 32  # one of so many training images is scored: too few to cost much
COMPARED, PIXELS = 2000, 2**25  # images, and pixels in all, up to which near copies are sought: a few seconds
Fact = dict[str, object]


def data_facts(data: DataSet, preprocess: Preprocess, *, labelled: bool) -> Fact:
    """The line that opens metrics.jsonl.

    flat: share of training images of a single colour. splits: for each, `images`; for one class an image the share of the commonest class
    (`majority`) and of every class (`shares`); and outside training `shared`, the number of exact copies of training images, and `near`, if sought,
    the share of images with a near copy of the same framing in training, and `near_inside`, the same share of the training images.
    """
    train = data.splits["train"]
    splits: dict[str, Fact] = {}
    for name, split in data.splits.items():
        facts: Fact = {"images": len(split)}
        if labelled:
            facts |= split.targets.facts(len(data.labels))
        if name != "train":
            facts["shared"] = int(np.isin(split.contents, train.contents).sum())
        splits[name] = facts
    images = sum(len(split) for split in data.splits.values())
    if images <= COMPARED and images * data.height * data.width <= PIXELS:
        _near_copies(data, splits)
    rows = range(0, len(train), -(-len(train) // LOOKED_AT))
    looked_at = [train.read(i, preprocess.channels, preprocess.hint) for i in rows]
    flat = sum(bool(image.amax() == image.amin()) for image in looked_at) / max(1, len(looked_at))
    return {"event": "data", "step": 0, "flat": round(flat, 4), "looked_at": len(looked_at), "splits": splits}


def _near_copies(data: DataSet, splits: dict[str, Fact]) -> None:
    """Add `near` and `near_inside` to the splits that are not training."""
    small, sides = [], []
    for split in data.splits.values():
        for i in range(len(split)):
            pixels = split.read(i, None, HINT)
            small.append(small_picture(pixels, white(pixels.numpy())))
            sides.append(min(pixels.shape[1:]))
    digests = [content.tobytes() for split in data.splits.values() for content in split.contents]
    of = [name for name, split in data.splits.items() for _ in range(len(split))]
    near = set()
    for pair in near_copies(np.array(small), digests, np.array(sides), cropped=False):
        for image, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if of[other] == "train":
                near.add(image)
    shares = {name: round(sum(of[image] == name for image in near) / len(data.splits[name]), 4) for name in splits}
    for name in splits.keys() - {"train"}:
        splits[name] |= {"near": shares[name], "near_inside": shares["train"]}


def scored_training_images(train: Split, turn: int, *, last: bool) -> Split:
    """Some training images to score like validation images, without augmentation: other ones at each validation, and more at the last."""
    count = min(len(train), max(LEAST, MOST if last else min(MOST, len(train) // SHARE)))
    order = Permutation(len(train), 0, 0)
    rows = order(np.arange(turn * count, (turn + 1) * count) % len(train))
    return train.take(rows)

"""What a run notes about its data and its answers, so that a reader of metrics.jsonl can tell why it goes well or not."""

import numpy as np

from vitral.data.copies import near_copies, small_picture
from vitral.data.images import HINT
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet, Split
from vitral.data.values import white
from vitral.randomness import Permutation

LOOKED_AT = 128  # training images that are looked at for contrast
LEAST, MOST = 32, 512  # training images that are scored at a validation
SHARE = 32  # one in so many of them: what that costs is not seen
COMPARED, PIXELS = 2000, 2**25  # images, and pixels of them all, up to which near copies are sought: a few seconds
Fact = dict[str, object]


def data_facts(data: DataSet, preprocess: Preprocess, *, labelled: bool) -> Fact:
    """The line that opens metrics.jsonl.

    flat: share of training images of a single colour. splits: of each, `images`, with one class an image the share of the commonest class
    (`majority`) and every class's share (`shares`), and for what is not training `shared`, the images that are in training too, byte for byte,
    and `near`, the share of images of which training has a near copy of the same framing, where these were sought.
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
    """Add `near` to the splits that are not training."""
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
    for name in splits.keys() - {"train"}:
        splits[name]["near"] = round(sum(of[image] == name for image in near) / len(data.splits[name]), 4)


def scored_training_images(train: Split, turn: int, *, last: bool) -> Split:
    """Some training images to be scored like validation images, without augmentation: others at each turn, and more at the last."""
    count = min(len(train), max(LEAST, MOST if last else min(MOST, len(train) // SHARE)))
    order = Permutation(len(train), 0, 0)
    rows = order(np.arange(turn * count, (turn + 1) * count) % len(train))
    return train.take(rows)

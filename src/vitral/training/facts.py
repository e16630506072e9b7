"""What a run notes about its data and its answers, so that a reader of metrics.jsonl can tell why it goes well or not."""

import numpy as np

from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet, Split
from vitral.randomness import Permutation

LOOKED_AT = 128  # training images that are looked at for contrast
LEAST, MOST = 32, 512  # training images that are scored at a validation
SHARE = 32  # one in so many of them: what that costs is not seen
THUMBNAIL = 16  # pixels a side in which copies are sought
COPY = 0.9995  # correlation of thumbnails from which two images are called copies
PIXELS = 2**25  # of all images that are read to look for copies: a second or so
SOUGHT = 512  # images of a split that copies are sought of
FLAT = 2.0  # deviation of a thumbnail's pixels, of 255: two images without contrast are no copies
Fact = dict[str, object]


def data_facts(data: DataSet, preprocess: Preprocess, *, labelled: bool) -> Fact:
    """The line that opens metrics.jsonl.

    flat: share of training images of a single colour. splits: of each, `images`, with one class an image the share of the commonest class
    (`majority`) and every class's share (`shares`), and for what is not training `shared`, the images that are in training too, byte for byte,
    and `near`, the share of images that training has almost the same, where it was looked for, beside `near_inside`, that of training images
    of which training has another one.
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
    if sum(len(split) for split in data.splits.values()) * data.height * data.width <= PIXELS:
        _near_copies(data, preprocess.channels, splits)
    rows = range(0, len(train), -(-len(train) // LOOKED_AT))
    images = [train.read(i, preprocess.channels, preprocess.hint) for i in rows]
    flat = sum(bool(image.amax() == image.amin()) for image in images) / max(1, len(images))
    return {"event": "data", "step": 0, "flat": round(flat, 4), "looked_at": len(images), "splits": splits}


def _near_copies(data: DataSet, channels: int, splits: dict[str, Fact]) -> None:
    """Add `near` and `near_inside` to the splits that are not training."""
    train = _thumbnails(data.splits["train"], channels, len(data.splits["train"]))
    if len(train) < 2:
        return
    some = slice(None, None, -(-len(train) // SOUGHT))
    likeness = train[some] @ train.T
    likeness[np.arange(len(likeness)), np.arange(len(train))[some]] = 0  # an image is no copy of itself
    inside = float((likeness.max(1) > COPY).mean())
    for name, split in data.splits.items():
        if name != "train" and len(split):
            near = float(((_thumbnails(split, channels, SOUGHT) @ train.T).max(1) > COPY).mean())
            splits[name] |= {"near": round(near, 4), "near_inside": round(inside, 4)}


def _thumbnails(split: Split, channels: int, most: int) -> np.ndarray:
    """float32 [n, 256 C], of length 1 around a mean of 0, so that a product of two is their correlation; 0 where an image has no contrast."""
    steps = Preprocess(
        THUMBNAIL, THUMBNAIL, channels, (0.0,) * channels, (1.0,) * channels, resize="squash", interpolation="bilinear"
    )
    rows = range(0, len(split), -(-len(split) // most))
    small = np.stack([steps.view(split.read(i, channels, 2 * THUMBNAIL)).float().flatten().numpy() for i in rows])
    small -= small.mean(1, keepdims=True)
    contrast = small.std(1, keepdims=True)
    return np.where(contrast > FLAT, small / (np.maximum(contrast, FLAT) * np.sqrt(small.shape[1])), 0).astype(
        np.float32
    )


def scored_training_images(train: Split, turn: int, *, last: bool) -> Split:
    """Some training images to be scored like validation images, without augmentation: others at each turn, and more at the last."""
    count = min(len(train), max(LEAST, MOST if last else min(MOST, len(train) // SHARE)))
    order = Permutation(len(train), 0, 0)
    rows = order(np.arange(turn * count, (turn + 1) * count) % len(train))
    return train.take(rows)

"""Options for the data. Free of torch, so that the command line's help stays fast."""

import functools
import typing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

from vitral.errors import VitralError


def check_choices(options: object, section: str = "") -> None:
    """Raise VitralError for a value that its field's Literal type does not list. section: precedes the field's name in the error."""
    kind: Any = type(options)
    for name, allowed in _choices(kind).items():
        if getattr(options, name) not in allowed:
            listed = ", ".join(str(each) for each in allowed if each is not None)
            raise VitralError(f"{section}{name} {getattr(options, name)!r}: choose one of {listed}")


@functools.cache
def _choices(kind: Any) -> dict[str, tuple[object, ...]]:
    """Field -> its possible values, for fields of the type Literal[...], perhaps or None."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        parts = (hint,) if typing.get_origin(hint) is Literal else typing.get_args(hint)
        if any(typing.get_origin(part) is Literal for part in parts):
            found[name] = tuple(value for part in parts for value in (typing.get_args(part) or (None,)))
    return found


@dataclass(frozen=True)
class DataOptions:
    """How the data are found, read and divided."""

    data_dir: str | None = None
    """Folder that holds a built-in data set's files (fashion-mnist, elpv)."""
    image_column: str | None = None
    """Table column with the image's path (Parquet: or the encoded image itself); default: the one with a usual name (image, file_name, id ...)."""
    label_column: str | None = None
    """Table column with the class name; default: the one with a usual name (label, class, category, target ...)."""
    label_columns: tuple[str, ...] = ()
    """Table columns of zeros and ones, one for each class; default: all that hold nothing else, if no column has the labels."""
    label_separator: str | None = None
    """The character between the labels in a cell of the label column, for images with several labels; an empty cell means none (a Parquet
    column of lists needs no separator); default: an image has one label.
    """
    header: bool = True
    """Whether the first line of a CSV or TSV table names its columns; with --no-header they are called 1, 2, 3 and so on."""
    images_folder: str | None = None
    """Folder that a table's image paths are relative to, also written --images; default: the table's own. Paths may lack the suffix."""
    split_column: str | None = None
    """Table column with train, val or test, or with folds; default: split or fold, if there is one; none to have splits made."""
    val_fold: str | None = None
    """The value of the split column for validation rows; rows named by neither this nor test_fold are trained on."""
    test_fold: str | None = None
    """The value of the split column for test rows."""
    val_fraction: float = 0.1
    """Share set aside for validation if the data give no such split; 0 for none."""
    test_fraction: float = 0.2
    """Share set aside for testing if the data give no such split; 0 for none."""
    fold: tuple[int, int] | None = field(default=None, metadata={"flag": ""})
    """(k, n) of a cross-validation: the images are dealt into n folds, of which the k-th, from 1, is the test split."""
    near_copies: Literal["together", "apart"] = "together"
    """Near copies of one image (resized, encoded again, cropped, mirrored) in the splits that vitral makes: together in one split, or apart, each on
    its own.
    """
    train_fraction: float = 1.0
    """Share of each class's training images to use, the same ones each time: to see the effect of fewer images."""
    task: str | None = None
    """What is learned of an image: classify (one class), multilabel (several labels, or none), semantic (a class for each pixel), detect (boxes),
    instance (boxes and masks) or panoptic; default: as the labels or annotations are."""
    class_depth: int | None = None
    """How many folders deep in DATA, or in its split folders, the class folders lie: 1 for DATA/cat, 2 for DATA/colour/cat."""
    skip_unreadable: bool = False
    """Leave out and list images that cannot be read, instead of stopping."""
    channels: int | None = None
    """Channels of the model's input: 1 (grey), 3 (RGB), or the number of bands of all files; default: 1 if every image is grey, 3 if some are in
    colour, else the number of bands.
    """
    value_range: tuple[float, float] | None = None
    """The values of black and white in files of more than 8 bits, such as 0 1 or -1000 400; values beyond are clipped. Floating point, signed and
    32-bit files need it; default for 16 unsigned bits: 0 65535.
    """
    page: str | None = None
    """The page or frame to read of files with several (TIFF, GIF, WebP, ...), from 0, or all, each page as an image; default: refuse them."""
    keep_gigabytes: float = 20.0
    """Of shards behind URLs: so much of what was read is kept in the cache folder; 0 to keep nothing."""
    show_bands: tuple[int, int, int] | None = None
    """Bands, counted from 1, to display as red, green and blue; default: the first three."""

    @property
    def room(self) -> int:
        """Bytes of shards behind URLs that are kept here."""
        return int(self.keep_gigabytes * 10**9)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.label_separator is not None and len(self.label_separator) != 1:
            raise VitralError(f"label_separator {self.label_separator!r}: give one character, such as ';'")
        if self.channels is not None and self.channels < 1:
            raise VitralError(
                f"channels {self.channels}: give 1 (grey), 3 (RGB) or the number of bands that the files have"
            )
        if self.value_range is not None and not -inf < self.value_range[0] < self.value_range[1] < inf:
            low, high = self.value_range
            raise VitralError(
                f"value_range {low:g} {high:g}: give the value that is black and a larger one that is white"
            )
        if self.page is not None and self.page != "all" and not (self.page.isascii() and self.page.isdigit()):
            raise VitralError(f"page {self.page}: give the page's number, from 0, or all")
        if self.show_bands is not None and min(self.show_bands) < 1:
            raise VitralError(f"show_bands {' '.join(map(str, self.show_bands))}: bands are counted from 1")
        for name, value in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 <= value < 1:
                raise VitralError(f"{name} {value}: is not a share; give a number from 0 up to, not including, 1")
        if self.keep_gigabytes < 0:
            raise VitralError(f"keep_gigabytes {self.keep_gigabytes}: give 0 or more")
        if self.fold is not None and not 1 <= self.fold[0] <= self.fold[1]:
            raise VitralError(f"fold {self.fold[0]} {self.fold[1]}: give which one, from 1, and how many there are")
        if self.class_depth is not None and self.class_depth < 1:
            raise VitralError(f"class_depth {self.class_depth}: give 1 (the folders in DATA are the classes) or more")
        if not 0 < self.train_fraction <= 1:
            raise VitralError(f"train_fraction {self.train_fraction}: a share lies above 0, up to 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise VitralError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction}: leave nothing "
                "to train on; lower them so that they sum to less than 1"
            )


AUGREG = {  # level: RandAugment's operations and magnitude, Mixup's alpha
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}


@dataclass(frozen=True)
class AugmentOptions:
    """What training does to an image before the model sees it."""

    crop: Literal["resized", "framed", "padded", "reflected", "jittered", "none"] | None = None
    """How an image is cropped: resized (a random box, resized), framed (the same of the image as it is squashed or padded in use), padded (a
    random shift over a border of zeros), reflected (resized whole, then a random shift over 4 mirrored pixels: DeiT III's simple crop), jittered
    (in its proportions larger or smaller by --zoom, then cut or padded: for maps and boxes) or none; default: by the images' size and --resize, and
    by the task.
    """
    zoom: tuple[float, float] = (0.75, 1.5)
    """Smallest and largest factor of a jittered crop, over the size at which the whole image just fits."""
    scale: tuple[float, float] | None = None
    """Smallest and largest share of the image's area that a resized crop takes; default: by the number of images."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest aspect ratio of a resized crop."""
    padding: float = 0.04
    """Border of a padded crop, as a share of the image's side; at least one pixel unless 0."""
    hflip: float | None = None
    """Probability of a left-right flip; default: by the data set."""
    vflip: float = 0.0
    """Probability of an upside-down flip."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, for images with no up."""
    brightness: float = 0.0
    """Brightness and contrast are each multiplied by a factor in [1 - X, 1 + X]; 0 for none."""
    jitter: float = 0.0
    """Colour jitter: brightness, contrast and saturation by factors in [1 - X, 1 + X], in random order (timm's single number, which timm leaves
    out where there is RandAugment).
    """
    policy: Literal["none", "randaugment", "3augment"] = "none"
    """Random operations on each image. randaugment: https://arxiv.org/abs/1909.13719; 3augment (grey, solarize or blur):
    https://arxiv.org/abs/2204.07118."""
    augreg: Literal["none", "light1", "light2", "medium1", "medium2", "strong1", "strong2"] | None = None
    """RandAugment and Mixup at a level of AugReg (https://arxiv.org/abs/2106.10270): none, light1, light2, medium1, medium2, strong1 or strong2;
    default: as --policy and --mixup say."""
    operations: int = 2
    """RandAugment: operations on an image."""
    operation_probability: float = 0.5
    """RandAugment: probability of each of them; 0.5 in timm and DeiT, 1 in the paper and AugReg."""
    magnitude: float = 9.0
    """RandAugment: strength, 0 to 10 (in AugReg up to 20)."""
    magnitude_std: float = 0.5
    """RandAugment: deviation of the strength."""
    increasing: bool = True
    """RandAugment: a larger magnitude is a stronger change for every operation (timm's inc1)."""
    erase: float = 0.0
    """Probability of random erasing: a box of 2 to 33 % of the area is filled."""
    erase_with: Literal["mean", "noise"] = "mean"
    """What fills an erased box: mean (the mean colour) or noise (random values)."""
    mixup: float = 0.0
    """Mix pairs of images and labels; 0 for none. Mixup (https://arxiv.org/abs/1710.09412): the weight is drawn from Beta(X, X)."""
    cutmix: float = 0.0
    """Paste boxes of other images, and mix labels; 0 for none. CutMix (https://arxiv.org/abs/1905.04899): the share of the box is drawn from
    Beta(X, X)."""
    switch: float = 0.5
    """Probability of CutMix where there are both."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed."""
    mosaic: float = 0.0
    """Probability that four images, each at half its size, stand in one (https://arxiv.org/abs/2004.10934), for boxes and masks; 0 for none."""
    mosaic_until: float = 0.8
    """Share of the budget, from its beginning, in which there are mosaics."""
    paste: float = 0.0
    """Probability that objects of another image are laid over an image (copy-paste, https://arxiv.org/abs/2012.07177), for masks; 0 for none."""
    repeats: int = 1
    """Repeated augmentation (https://arxiv.org/abs/1902.05509): each image this often in a batch, each time augmented differently."""

    def __post_init__(self) -> None:
        check_choices(self)
        chances = (
            "hflip",
            "vflip",
            "erase",
            "operation_probability",
            "switch",
            "mix_probability",
            "mosaic",
            "mosaic_until",
            "paste",
        )
        for name in chances:
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise VitralError(f"{name} {getattr(self, name)}: a probability lies in 0 to 1")
        for name, (low, high) in (("scale", self.scale or (1.0, 1.0)), ("ratio", self.ratio), ("zoom", self.zoom)):
            if not 0 < low <= high:
                raise VitralError(f"{name} {low} {high}: give a smaller and a larger positive number")
        if self.augreg is not None and (self.policy != "none" or self.mixup):
            raise VitralError(
                f"augreg {self.augreg}: sets policy and mixup itself; leave out --policy and --mixup, or --augreg"
            )
        if self.scale and self.scale[1] > 1:
            raise VitralError(f"scale {self.scale[0]} {self.scale[1]}: ends at 1, the whole image, at most")
        for name in ("padding", "brightness"):
            if not 0 <= getattr(self, name) < 1:
                raise VitralError(f"{name} {getattr(self, name)}: lies from 0 up to, not including, 1")
        if not 0 <= self.jitter <= 1:
            raise VitralError(f"jitter {self.jitter}: lies in 0 to 1")
        if not 0 <= self.magnitude <= 30:
            raise VitralError(f"magnitude {self.magnitude}: RandAugment's strength lies in 0 to 10, in AugReg up to 20")
        for name in ("magnitude_std", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise VitralError(f"{name} {getattr(self, name)}: give 0 (none) or a positive number")
        for name in ("operations", "repeats"):
            if getattr(self, name) < 1:
                raise VitralError(f"{name} {getattr(self, name)}: give 1 or more")


def augreg(level: str) -> dict[str, object]:
    """The fields of AugmentOptions for a level of "How to train your ViT?" (https://arxiv.org/abs/2106.10270, section 3.2).

    Numbers of google-research/big_vision, configs/vit_i1k.py, whose RandAugment applies every operation it picks (and knows a sixteenth, Cutout,
    which is left out here). Light1 is not nothing: at magnitude 0 colours nearly go.
    """
    operations, magnitude, mixup = AUGREG[level]
    if not operations:
        return {"policy": "none", "mixup": mixup}
    return {
        "policy": "randaugment",
        "operations": operations,
        "operation_probability": 1.0,
        "magnitude": float(magnitude),
        "magnitude_std": 0.0,
        "increasing": False,
        "mixup": mixup,
    }


@dataclass(frozen=True)
class SceneOptions:
    """What scenes are made of."""

    images: int = 2000
    """Scenes to train on."""
    test: int = 300
    """Scenes to test on."""
    val: int = 0
    """Scenes for validation, of cut-outs and photographs of their own; without them a run takes some of those to train on."""
    size: int = 192
    """Height and width in pixels."""
    classes: int = 8
    """Classes: drawn shapes, or the first class folders of --cutouts."""
    seed: int = 0
    """Another number makes other scenes."""
    cutouts: Path | None = None
    """Folder of class folders with PNGs that have transparency, to lay into the scenes."""
    backgrounds: Path | None = None
    """Folder of photographs (JPEG or PNG) to lay them on."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("images", 1, 10**7),
            ("test", 0, 10**7),
            ("val", 0, 10**7),
            ("size", 32, 4096),
            ("classes", 1, 1000),
        ):
            if not least <= getattr(self, name) <= most:
                raise VitralError(f"--{name} {getattr(self, name)}: give {least} to {most:,}")

"""What a person may say about the data. Free of torch, so that the command line's help stays fast."""

from dataclasses import dataclass

from vitral.errors import VitralError


@dataclass(frozen=True)
class DataOptions:
    """How the data are found, read and divided."""

    data_dir: str | None = None
    """Folder that holds a built-in data set's files (fashion-mnist, elpv)."""
    image_column: str = "image"
    """Table column with the image's path, relative to the table (Parquet: or the encoded image itself)."""
    label_column: str = "label"
    """Table column with the class name."""
    split_column: str = "split"
    """Table column with train, val or test; optional."""
    val_fraction: float = 0.1
    """Share of the images set aside for validation when the data give no validation split; 0 for none."""
    test_fraction: float = 0.2
    """Share of the images set aside for testing when the data give no test split; 0 for none."""
    skip_unreadable: bool = False
    """Leave unreadable images out (and list them) instead of stopping before the start."""
    channels: int | None = None
    """Channels that the model sees, 1 (grey) or 3 (RGB); default: 1 if every image is grey, else 3."""

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise VitralError(f"channels {self.channels}: an image has 1 (grey) or 3 (RGB); choose one of them")
        for name, value in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 <= value < 1:
                raise VitralError(f"{name} {value}: is not a share; give a number from 0 up to, not including, 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise VitralError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction}: leave nothing "
                "to train on; lower them so that they sum to less than 1"
            )


@dataclass(frozen=True)
class AugmentOptions:
    """What training does to an image before the model sees it."""

    crop: str | None = None
    """resized (a random box, resized), padded (a random shift over a border of zeros), reflected (resized whole, then a random shift
    over 4 mirrored pixels: DeiT III's simple crop) or none; default by image size.
    """
    scale: tuple[float, float] | None = None
    """Smallest and largest share of the image's area that a resized crop takes; default by the number of images."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest aspect ratio of a resized crop."""
    padding: float = 0.04
    """Border of a padded crop, as a share of the image's side; at least one pixel unless 0."""
    hflip: float | None = None
    """Probability of a left-right flip; default by data set."""
    vflip: float = 0.0
    """Probability of an upside-down flip."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, for images with no up."""
    brightness: float = 0.0
    """Brightness and contrast are each multiplied by a factor in [1 - x, 1 + x]."""
    jitter: float = 0.0
    """Colour jitter: brightness, contrast and saturation by factors in [1 - x, 1 + x], in random order (timm's single number)."""
    policy: str = "none"
    """randaugment (https://arxiv.org/abs/1909.13719), 3augment (grey, solarize or blur: https://arxiv.org/abs/2204.07118) or none."""
    operations: int = 2
    """RandAugment: operations on an image."""
    magnitude: float = 9.0
    """RandAugment: strength, 0 to 10 (in AugReg up to 20)."""
    magnitude_std: float = 0.5
    """RandAugment: deviation of the strength."""
    increasing: bool = True
    """RandAugment: a larger magnitude is a stronger change for every operation (timm's inc1)."""
    erase: float = 0.0
    """Probability of random erasing: a box of 2 to 33 % of the area is filled."""
    erase_with: str = "mean"
    """mean (the mean colour) or noise (a value of its own for each pixel)."""
    mixup: float = 0.0
    """Mixup (https://arxiv.org/abs/1710.09412): the weight is drawn from Beta(x, x); 0 for none."""
    cutmix: float = 0.0
    """CutMix (https://arxiv.org/abs/1905.04899): the share of the box is drawn from Beta(x, x); 0 for none."""
    switch: float = 0.5
    """Probability of CutMix where there are both."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed at all."""
    repeats: int = 1
    """Repeated augmentation (https://arxiv.org/abs/1902.05509): each image this often in a batch, each time changed otherwise."""

    def __post_init__(self) -> None:
        if self.crop not in (None, "resized", "padded", "reflected", "none"):
            raise VitralError(f"crop {self.crop!r}: choose resized, padded, reflected or none")
        for name in ("hflip", "vflip", "erase"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise VitralError(f"{name} {getattr(self, name)}: a probability lies in 0 to 1")
        for name, (low, high) in (("scale", self.scale or (1.0, 1.0)), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise VitralError(f"{name} {low} {high}: give a smaller and a larger positive number")
        if (self.scale and self.scale[1] > 1) or not 0 <= self.padding < 1 or not 0 <= self.brightness < 1:
            raise VitralError("scale ends at 1 at most; padding and brightness lie in 0 to 1")

"""Augmented images per second on one core, against Pillow's operations as torchvision and timm call them.

    OMP_NUM_THREADS=1 python benchmarks/augment.py [--rounds 15]

First each policy alone, on decoded 224 x 224 photographs; then the whole way from JPEG files of 500 x 375 to a batch: decode, random resized crop
(bicubic), flip, policy, tensor. Both do the same with the same random numbers, and RandAugment resamples bilinearly in both. They take turns in one
process, and the ratio is the median over the rounds of theirs / ours in seconds. The photographs are pieces of the two that scikit-learn brings.
"""

import argparse
import io
import itertools
import math
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from torch import Tensor

from vitral.data.augment import WHOLE_RANGE, Augmentation, crop_box
from vitral.data.decode import decode
from vitral.data.options import AugmentOptions
from vitral.data.policies import OPERATION_DRAWS, OPERATIONS
from vitral.data.preprocess import Preprocess
from vitral.training.machine import keep_freed_memory

IMAGES = 64
PREPROCESS = Preprocess(224, 224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MEAN = tuple(round(255 * m) for m in PREPROCESS.mean)
POLICIES = {
    "RandAugment m9": AugmentOptions(policy="randaugment", crop="none"),
    "3-Augment": AugmentOptions(policy="3augment", crop="none"),
    "3-Augment, jitter 0.3": AugmentOptions(policy="3augment", jitter=0.3, crop="none"),
    "jitter 0.4": AugmentOptions(jitter=0.4, crop="none"),
}


def pillow_operation(image: Image.Image, name: str, magnitude: float, sign: int) -> Image.Image:
    m, (w, h) = magnitude / 10, image.size
    moves = {
        "ShearX": (1, sign * 0.3 * m, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, sign * 0.3 * m, 1, 0),
        "TranslateX": (1, 0, sign * 0.45 * m * w, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, sign * 0.45 * m * h),
    }
    if name in moves:
        return image.transform(
            image.size, Image.Transform.AFFINE, moves[name], resample=Image.Resampling.BILINEAR, fillcolor=MEAN
        )
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Posterize":
            return ImageOps.posterize(image, max(1, 4 - int(4 * m)))  # Pillow refuses 0
        case "Solarize":
            return ImageOps.solarize(image, 256 - int(256 * m))
        case "SolarizeAdd":
            return image.point([min(255, i + int(110 * m)) if i < 128 else i for i in range(256)] * 3)
        case "Rotate":
            return image.rotate(sign * 30 * m, resample=Image.Resampling.BILINEAR, fillcolor=MEAN)
    return getattr(ImageEnhance, name)(image).enhance(max(0.1, 1 + sign * 0.9 * m))


def pillow_randaugment(image: Image.Image, u: np.ndarray) -> Image.Image:
    for which, whether, way, a, b in u.reshape(-1, OPERATION_DRAWS).tolist():
        if whether < 0.5:
            magnitude = min(max(0, 9 + 0.5 * math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b)), 10)
            image = pillow_operation(image, OPERATIONS[int(which * len(OPERATIONS))], magnitude, 1 if way < 0.5 else -1)
    return image


def pillow_three(image: Image.Image, u: np.ndarray) -> Image.Image:
    choice = int(u[0] * 3)
    if choice == 0:
        return image.convert("L").convert("RGB")
    return ImageOps.solarize(image) if choice == 1 else image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(u[1])))


def pillow_jitter(image: Image.Image, amount: float, u: np.ndarray) -> Image.Image:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for k in list(itertools.permutations(range(3)))[int(u[-1] * 6)]:
        image = enhancers[k](image).enhance(float(1 + amount * (2 * u[k] - 1)))
    return image


def pillow_all(image: Image.Image, options: AugmentOptions, names: list[str], draws: list[np.ndarray]) -> Tensor:
    """The transforms of our pipeline, by their names, with the same numbers."""
    for name, u in zip(names, draws, strict=True):
        if name == "resized_crop":
            top, left, h, w = crop_box(image.height, image.width, WHOLE_RANGE, options.ratio, u)
            image = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        elif name == "flip2" and u[0] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        elif name == "randaugment":
            image = pillow_randaugment(image, u)
        elif name == "3augment":
            image = pillow_three(image, u)
        elif name == "jitter":
            image = pillow_jitter(image, options.jitter, u)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def photographs(height: int, width: int) -> list[Image.Image]:
    """Pieces of two photographs, at random places and scales."""
    rng = np.random.default_rng(0)
    whole = [Image.fromarray(a) for a in load_sample_images().images]
    boxes = [crop_box(*reversed(image.size), (0.3, 1.0), (1.2, 1.4), rng.random(22)) for image in whole * (IMAGES // 2)]
    return [
        image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        for image, (top, left, h, w) in zip(whole * (IMAGES // 2), boxes, strict=True)
    ]


def compare(
    ours: Callable[[int, list[np.ndarray]], Tensor],
    theirs: Callable[[int, list[np.ndarray]], Tensor],
    augmentation: Augmentation,
    rounds: int,
) -> tuple[float, float, float]:
    """Images per second of both, and the paired ratio."""
    times = []
    for turn in range(rounds + 2):
        draws = augmentation.draw(0, turn, np.arange(IMAGES))
        of_each = [[d[row] for d in draws] for row in range(IMAGES)]
        pair = []
        for function in (ours, theirs):
            began = time.perf_counter()
            torch.stack([function(i, u) for i, u in enumerate(of_each)])
            pair.append(time.perf_counter() - began)
        if turn >= 2:  # the first two warm caches
            times.append(pair)
    mine, other = (median(column) for column in zip(*times, strict=True))
    return IMAGES / mine, IMAGES / other, median(b / a for a, b in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training
    print(f"{'images/s on one core':38} {'vitral':>8} {'Pillow':>8} {'ratio':>6}")

    def report(name: str, figures: tuple[float, float, float]) -> None:
        print("{:38} {:8.0f} {:8.0f} {:6.2f}".format(name, *figures), flush=True)

    small = photographs(224, 224)
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous() for image in small]
    for label, options in POLICIES.items():
        augmentation = Augmentation(options, PREPROCESS)
        names = [t.name for t in augmentation.transforms]
        report(
            label,
            compare(
                lambda i, u, a=augmentation: a(pixels[i], u),
                lambda i, u, o=options, n=names: pillow_all(small[i], o, n, u),
                augmentation,
                given.rounds,
            ),
        )
    files = []
    for image in photographs(375, 500):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    inputs = {
        "JPEG, crop, flip": AugmentOptions(crop="resized", hflip=0.5),
        "JPEG, crop, flip, RandAugment m9": AugmentOptions(crop="resized", hflip=0.5, policy="randaugment"),
        "JPEG, crop, flip, 3-Augment, jitter": AugmentOptions(crop="resized", hflip=0.5, policy="3augment", jitter=0.3),
    }
    for label, options in inputs.items():
        augmentation = Augmentation(options, PREPROCESS)
        names = [t.name for t in augmentation.transforms]
        report(
            label,
            compare(
                lambda i, u, a=augmentation: a(decode(files[i], 3, hint=a.hint), u),
                lambda i, u, o=options, n=names: pillow_all(Image.open(io.BytesIO(files[i])).convert("RGB"), o, n, u),
                augmentation,
                given.rounds,
            ),
        )


if __name__ == "__main__":
    main()

"""RandAugment, 3-Augment, jitter, mirrored crops, erasing and AugReg's levels: each as its definition says, and the same for the same numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vitral.data.augment import CROP_TRIES, Augmentation, mirrored, resize
from vitral.data.options import AUGREG, AugmentOptions, augreg
from vitral.data.policies import JITTER_DRAWS, OPERATION_DRAWS, OPERATIONS, ORDERS, RandAugment, jitter, operate
from vitral.data.policies import three_augment as three
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.randomness import uniforms

FILL = np.float32([[[124]], [[116]], [[104]]])
MEAN = (0.485, 0.456, 0.406)


def smooth(c=3, h=40, w=48):
    y, x = np.mgrid[:h, :w]
    waves = np.random.default_rng(c).uniform(0.05, 0.2, (c, 2))
    return np.stack([127 + 90 * np.sin(a * y + b * x) for a, b in waves]).astype(np.uint8)


def pillow(image):
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def apart(ours, theirs):
    return np.abs(ours.astype(int) - np.asarray(theirs).transpose(2, 0, 1).astype(int))


def moved(image, matrix):
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(124, 116, 104)
    )


def wanted(image, name, m, sign):
    """timm's `rand-m…-inc1` in Pillow's own functions; m from 0 to 1."""
    factor = max(0.1, 1 + sign * 0.9 * m)
    w, h = image.size
    return {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
        "Rotate": lambda: image.rotate(sign * 30 * m, Image.Resampling.BILINEAR, fillcolor=(124, 116, 104)),
        "Posterize": lambda: ImageOps.posterize(image, 4 - int(4 * m)),
        "Solarize": lambda: ImageOps.solarize(image, 256 - int(256 * m)),
        "SolarizeAdd": lambda: image.point([min(255, v + int(110 * m)) if v < 128 else v for v in range(256)] * 3),
        "Color": lambda: ImageEnhance.Color(image).enhance(factor),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "ShearX": lambda: moved(image, (1, sign * 0.3 * m, 0, 0, 1, 0)),
        "ShearY": lambda: moved(image, (1, 0, 0, sign * 0.3 * m, 1, 0)),
        "TranslateX": lambda: moved(image, (1, 0, sign * 0.45 * m * w, 0, 1, 0)),
        "TranslateY": lambda: moved(image, (1, 0, 0, 0, 1, sign * 0.45 * m * h)),
    }[name]()


@pytest.mark.parametrize("magnitude", [0.0, 2.0, 5.5, 9.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_of_randaugment_is_timms(name, magnitude):
    image = smooth()
    for sign in (1, -1):
        off = apart(
            operate(name, image, magnitude, sign, True, FILL), wanted(pillow(image), name, magnitude / 10, sign)
        )
        rim = 0.12 if name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY") else 0
        assert (off.max(0) > 2).mean() <= rim  # the edge of what was moved is soft here, and hard in Pillow


def test_decreasing_operations_are_the_original_ones():
    image = smooth()
    for magnitude in (0.0, 4.0, 9.0, 15.0, 20.0):
        m = magnitude / 10
        bits, threshold = int(4 * m), int(256 * m)
        kept = pillow(image) if bits >= 8 else ImageOps.posterize(pillow(image), bits) if bits else pillow(image * 0)
        assert apart(operate("Posterize", image, magnitude, 1, False, FILL), kept).max() == 0
        turned = ImageOps.solarize(pillow(image), threshold)
        assert apart(operate("Solarize", image, magnitude, 1, False, FILL), turned).max() == 0
        coloured = ImageEnhance.Color(pillow(image)).enhance(0.1 + 1.8 * m)
        for sign in (1, -1):
            assert apart(operate("Color", image, magnitude, sign, False, FILL), coloured).max() <= 3


def test_strengths_are_normal_and_cut():
    policy = RandAugment(2, 0.5, 9.0, 0.5, True, FILL)
    values = np.array([policy.strength(a, b) for a, b in uniforms(0, "strength", 0, np.arange(20_000), 2).tolist()])
    cut = np.mean(values == 10)  # P(N(9, 0.5^2) > 10) = P(Z > 2)
    assert cut == pytest.approx(0.5 * math.erfc(math.sqrt(2)), abs=0.004)
    assert values.max() == 10
    assert np.quantile(values, [0.1587, 0.5, 0.8413]) == pytest.approx([8.5, 9.0, 9.5], abs=0.02)
    assert RandAugment(2, 1.0, 15.0, 0.0, False, FILL).strength(0.7, 0.2) == 15
    low = RandAugment(2, 0.5, 0.0, 0.5, True, FILL)
    assert min(low.strength(a, b) for a, b in uniforms(0, "low", 0, np.arange(100), 2).tolist()) == 0


def test_randaugment_chains_what_the_numbers_say():
    policy, image = RandAugment(3, 0.5, 9.0, 0.0, True, FILL), smooth()
    which = [(OPERATIONS.index(name) + 0.5) / len(OPERATIONS) for name in ("ShearX", "Invert", "Color")]
    u = np.array([[which[0], 0.1, 0.9, 0.5, 0.5], [which[1], 0.6, 0, 0, 0], [which[2], 0.499, 0.2, 0.1, 0.1]]).ravel()
    sheared = operate("ShearX", image, 9.0, -1, True, FILL)
    assert policy.draws == len(u) == 3 * OPERATION_DRAWS
    assert (policy(image, u) == operate("Color", sheared, 9.0, 1, True, FILL)).all()


def test_randaugment_leaves_a_quarter_of_the_images_alone():
    """Two operations, each with probability one half; of one half of a half each does nothing visible now and then."""
    policy, image = RandAugment(2, 0.5, 9.0, 0.5, True, FILL), smooth()
    draws = uniforms(4, "policy", 0, np.arange(1500), policy.draws)
    same = np.mean([(policy(image, u) == image).all() for u in draws])
    assert same == pytest.approx(0.25, abs=0.04)
    always = RandAugment(1, 1.0, 9.0, 0.5, True, FILL)
    assert not any((always(image, u) == image).all() for u in uniforms(4, "policy", 0, np.arange(200), always.draws))


def test_three_augment_does_one_of_three():
    image = smooth()
    blurred = pillow(image).filter(ImageFilter.GaussianBlur(0.1 + 1.9 * 0.5))
    assert apart(three(image, np.array([0.1, 0.5])), pillow(image).convert("L").convert("RGB")).max() <= 1
    assert apart(three(image, np.array([0.4, 0.5])), ImageOps.solarize(pillow(image))).max() == 0
    assert apart(three(image, np.array([0.9, 0.5])), blurred).max() <= 4
    grey = smooth(1)
    assert (three(grey, np.array([0.1, 0.5])) == grey).all()
    kinds = [int(u[0] * 3) for u in uniforms(0, "augment/3augment", 0, np.arange(3000), 2)]
    assert np.bincount(kinds) / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_jitter_is_pillows_in_each_order():
    image = smooth()
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    assert sorted(ORDERS) == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for place, order in enumerate(ORDERS):
        u = np.array([0.95, 0.2, 0.7, (place + 0.5) / len(ORDERS)])
        theirs = pillow(image)
        for k in order:
            theirs = enhancers[k](theirs).enhance(1 + 0.4 * (2 * float(u[k]) - 1))
        off = apart(jitter(image, 0.4, u), theirs)
        assert off.max() <= 4  # three roundings downwards in Pillow, one here
        assert off.mean() < 2
    assert len(u) == JITTER_DRAWS
    assert (jitter(image, 0.4, np.array([0.5, 0.5, 0.5, 0.3])) == image).all()


def test_jitter_of_grey_images_has_no_saturation():
    image = smooth(1)
    few, more = (jitter(image, 0.4, np.array([0.8, 0.3, s, 0.1])) for s in (0.0, 0.99))
    assert (few == more).all()
    assert (few != image).any()


def make(channels=3, side=40, **options):
    mean = MEAN if channels == 3 else (0.4,)
    return Augmentation(AugmentOptions(**options), Preprocess(side, side, channels, mean, (0.25,) * channels))


def apply(augmentation, image, index=0, epoch=0):
    return augmentation(torch.as_tensor(image), [d[0] for d in augmentation.draw(7, epoch, np.array([index]))])


@pytest.mark.parametrize(("start", "count", "side"), [(-4, 20, 12), (-4, 5, 1), (-3, 9, 2), (0, 7, 7), (5, 12, 9)])
def test_mirrored_is_numpys_reflection(start, count, side):
    before, after = max(0, -start), max(0, start + count - side)
    padded = np.pad(np.arange(side), (before, after), mode="reflect")
    assert mirrored(start, count, side).tolist() == padded[start + before : start + before + count].tolist()


@pytest.mark.parametrize(("h", "w"), [(60, 90), (90, 60), (40, 40), (20, 31)])
def test_reflected_crops_are_windows_of_the_mirrored_whole_image(h, w):
    """Each of the possible windows, and all equally often."""
    image = torch.from_numpy(smooth(1, h, w))
    factor = max(40 / h, 40 / w)
    whole = resize(image, max(40, round(h * factor)), max(40, round(w * factor)), "bicubic")
    padded = np.pad(whole[0].numpy(), 4, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (40, 40))
    augmentation = make(1, crop="reflected")
    rows = []
    for i in range(60):
        at = np.argwhere((windows == apply(augmentation, image, i)[0].numpy()).all((2, 3)))
        assert len(at) == 1
        rows.append(at[0])
    places = np.array(rows) / (np.array(windows.shape[:2]) - 1)
    assert places.mean(0) == pytest.approx([0.5, 0.5], abs=0.17)
    assert places.min() < 0.1
    assert places.max() > 0.9


def box_of(mask):
    """Top, left, height and width of the one box that a mask [h, w] holds."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = rows[0], columns[0], len(rows), len(columns)
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return box


def test_erasing_fills_one_box_with_the_mean():
    image, augmentation = np.full((3, 40, 40), 255, np.uint8), make(crop="none", erase=1.0)
    boxes = []
    for i in range(400):
        erased = apply(augmentation, image, i).numpy()
        mask = (erased != 255).any(0)
        top, left, h, w = box_of(mask)
        assert (erased[:, mask] == np.round(np.array(MEAN) * 255)[:, None]).all()
        boxes.append((top, left, h, w))
    areas = np.array([h * w for _, _, h, w in boxes]) / 1600
    assert areas.min() > 0.01
    assert areas.max() < 0.36
    assert areas.mean() == pytest.approx(0.17, abs=0.02)  # uniform from 2 to 33 %, less what does not fit
    assert np.mean([math.log(w / h) for _, _, h, w in boxes]) == pytest.approx(0, abs=0.12)
    some = make(crop="none", erase=0.25)
    assert np.mean([(apply(some, image, i) != 255).any() for i in range(600)]) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_erasing_with_noise_has_the_datas_mean_and_deviation(dtype):
    image = np.zeros((3, 40, 40), dtype)
    augmentation = make(crop="none", erase=1.0, erase_with="noise")
    pixels = []
    for i in range(60):
        erased = apply(augmentation, image, i).numpy()
        assert erased.dtype == dtype
        assert (erased == apply(augmentation, image, i).numpy()).all()  # from the draws alone
        rows, columns = (np.flatnonzero(erased.any((0, axis))) for axis in (2, 1))
        box = erased[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        pixels.append(box.reshape(3, -1).T)
    values = np.concatenate(pixels)
    assert np.median(values, 0) == pytest.approx(np.array(MEAN) * 255, abs=3)
    middle = np.quantile(values, [0.25, 0.75], axis=0)
    assert middle[1] - middle[0] == pytest.approx(np.full(3, 2 * 0.6745 * 0.25 * 255), rel=0.08)
    correlation = np.corrcoef(values.T)
    assert np.abs(correlation - np.eye(3)).max() < 0.1
    assert not np.array_equal(pixels[0][:50], pixels[1][:50])


EVERYTHING = {
    "crop": "reflected",
    "hflip": 0.5,
    "brightness": 0.2,
    "policy": "randaugment",
    "jitter": 0.3,
    "erase": 0.5,
    "erase_with": "noise",
}


@pytest.mark.parametrize("policy", ["randaugment", "3augment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_pipeline_keeps_kind_and_size_and_repeats_itself(policy, channels):
    augmentation = make(channels, **(EVERYTHING | {"policy": policy}))
    eight = torch.from_numpy(smooth(channels, 50, 70))
    last = eight.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as decoders lay it out
    for index in range(25):
        out = apply(augmentation, eight, index, epoch=3)
        assert out.dtype == torch.uint8
        assert out.shape == (channels, 40, 40)
        assert torch.equal(out, apply(augmentation, eight.clone(), index, epoch=3))
        assert torch.equal(out, apply(augmentation, last, index, epoch=3))
        deep = apply(augmentation, eight.float(), index, epoch=3)
        assert deep.dtype == torch.float32
        assert deep.isfinite().all()
        assert deep.min() >= 0
        assert deep.max() <= 255
    epochs = [apply(augmentation, eight, 4, epoch).flatten().tolist() for epoch in range(4)]
    assert len({tuple(pixels) for pixels in epochs}) == 4


def test_views_of_one_image_differ_by_their_names():
    preprocess = Preprocess(40, 40, 3, MEAN, (0.25,) * 3)
    first, second = (Augmentation(AugmentOptions(crop="resized", hflip=0.5), preprocess, view) for view in ("a", "b"))
    assert (first.draw(0, 0, np.arange(5))[0] != second.draw(0, 0, np.arange(5))[0]).any()
    assert first.draw(0, 0, np.arange(5))[0].shape == (5, 2 * CROP_TRIES + 2)


def test_augreg_levels_are_options():
    for level in AUGREG:
        options = AugmentOptions(**augreg(level))
        assert options.mixup == AUGREG[level][2]
        assert (options.policy == "none") == (level == "none")
    strong = AugmentOptions(**augreg("strong2"))
    assert (strong.operations, strong.magnitude, strong.magnitude_std, strong.increasing) == (2, 20.0, 0.0, False)
    with pytest.raises(VitralError, match=r"augreg 'heavy'.*medium1"):
        AugmentOptions(augreg="heavy")
    with pytest.raises(VitralError, match=r"augreg light1: sets policy and mixup itself"):
        AugmentOptions(augreg="light1", mixup=0.5)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("crop", "middle", "choose one of resized, framed"),
        ("policy", "autoaugment", "choose one of none, randaugment"),
        ("erase_with", "black", "choose one of mean, noise"),
        ("hflip", 1.5, "a probability"),
        ("operation_probability", -0.1, "a probability"),
        ("switch", 2.0, "a probability"),
        ("mix_probability", 1.01, "a probability"),
        ("scale", (0.5, 0.2), "smaller and a larger"),
        ("scale", (0.5, 1.2), "ends at 1"),
        ("ratio", (0.0, 1.0), "smaller and a larger"),
        ("padding", 1.0, "lies from 0"),
        ("brightness", -0.2, "lies from 0"),
        ("jitter", 1.5, "lies in 0 to 1"),
        ("magnitude", 31.0, "RandAugment's strength"),
        ("magnitude_std", -0.5, "0 .none. or a positive"),
        ("mixup", -1.0, "0 .none. or a positive"),
        ("cutmix", math.inf, "0 .none. or a positive"),
        ("operations", 0, "1 or more"),
        ("repeats", 0, "1 or more"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(field, value, says):
    with pytest.raises(VitralError, match=rf"^{field} .*{says}"):
        AugmentOptions(**{field: value})

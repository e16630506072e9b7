"""Evaluation view, augmentation and batches: equal to Pillow's, derived from the seed, the same for any number of workers."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.data.augment import Augmentation, crop_box, resize
from vitral.data.loader import EvaluationBatches, TrainingBatches, stack
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.policies import OPERATIONS, RandAugment
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.data.view import View
from vitral.errors import VitralError


def steps(height=20, width=20, channels=1, mean=0.5, **options):
    return Preprocess(height, width, channels, (mean,) * channels, (0.5,) * channels, **options)


def smooth(h, w, c=3, seed=0):
    """A picture without hard edges, where every resampling should agree: uint8 [c, h, w]."""
    y, x = np.mgrid[:h, :w]
    waves = np.random.default_rng(seed).uniform(0.02, 0.12, (c, 2))
    return torch.from_numpy(np.stack([127 + 120 * np.sin(a * y + b * x) for a, b in waves]).round().astype(np.uint8))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 90),
    st.integers(8, 90),
    st.integers(4, 70),
    st.integers(4, 70),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_resize_is_pillows(h, w, new_h, new_w, how):
    image = smooth(h, w)
    wanted = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((new_w, new_h), Image.Resampling[how.upper()])
    ours = resize(image, new_h, new_w, how).permute(1, 2, 0).numpy()
    difference = np.abs(ours.astype(int) - np.asarray(wanted).astype(int))
    assert difference.max() <= 2  # Pillow rounds between its two passes
    assert difference.mean() < 0.35  # a few pixels of a tiny result may all differ by one


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 200), st.integers(8, 200), st.integers(8, 40), st.integers(8, 40), st.sampled_from([1.0, 0.875, 0.5])
)
def test_the_view_is_the_centre_in_the_images_own_proportions(h, w, height, width, fraction):
    view = steps(height, width, 3, crop_fraction=fraction)
    assert view.view(smooth(h, w)).shape == (3, height, width)
    top, left, box_h, box_w = view.box(h, w)
    assert 0 <= top <= top + box_h <= h
    assert 0 <= left <= left + box_w <= w
    assert abs((top + box_h / 2) - h / 2) <= 1 + max(h / height, w / width)
    assert abs((left + box_w / 2) - w / 2) <= 1 + max(h / height, w / width)


def test_the_view_crops_after_resizing():
    image = smooth(60, 100)
    resized = resize(image, 40, round(100 * 40 / 60), "bicubic")
    left = (resized.shape[2] - 40) // 2
    assert torch.equal(steps(40, 40, 3).view(image), resized[:, :, left : left + 40])
    assert steps(40, 40, 3, resize="squash").view(image).shape == (3, 40, 40)


def test_sixteen_bits_survive_to_the_model():
    deep = torch.tensor([[[1000.0, 1001.0], [65535.0, 0.0]]]) / 257
    x = steps(2, 2)(deep)
    assert x.dtype == torch.float32
    assert x.unique().numel() == 4
    assert x[0, 1, 0] == pytest.approx(1)
    assert stack([deep, torch.zeros(1, 2, 2, dtype=torch.uint8)]).dtype == torch.float32


def test_an_image_smaller_than_a_patch_is_refused_by_name():
    with pytest.raises(VitralError, match=r"tiny.png: 3x9 pixels.*16x16 patch"):
        steps(min_size=16).check(3, 9, "tiny.png")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_crop_boxes_lie_inside(h, w, seed):
    top, left, box_h, box_w = crop_box(h, w, (0.08, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed).random(22))
    assert 0 <= top < top + box_h <= h
    assert 0 <= left < left + box_w <= w


def test_crop_boxes_have_the_reference_distribution():
    """Area uniform in the scale range and log aspect ratio uniform, wherever the first proposal fits."""
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(400, 400, (0.1, 0.5), (3 / 4, 4 / 3), rng.random(22)) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 160_000
    aspect = np.log(boxes[:, 3] / boxes[:, 2])
    assert np.quantile(area, [0.1, 0.5, 0.9]) == pytest.approx([0.14, 0.3, 0.46], abs=0.01)
    assert np.quantile(aspect, [0.1, 0.5, 0.9]) == pytest.approx([-0.23, 0, 0.23], abs=0.015)
    centre = boxes[:, 0] + boxes[:, 2] / 2
    assert centre.mean() == pytest.approx(200, abs=3)


def make(options, **kwargs):
    return Augmentation(AugmentOptions(**options), steps(**kwargs))


def apply(augmentation, image, seed=0, epoch=0, index=0):
    return augmentation(image, [d[0] for d in augmentation.draw(seed, epoch, np.array([index]))])


def test_each_transform_does_what_it_says():
    image = torch.arange(400, dtype=torch.uint8).reshape(1, 20, 20)
    assert torch.equal(apply(make({"crop": "none"}), image), image)
    assert torch.equal(apply(make({"crop": "none", "hflip": 1.0}), image), image.flip(2))
    assert torch.equal(apply(make({"crop": "none", "vflip": 1.0}), image), image.flip(1))
    turned = {
        tuple(apply(make({"crop": "none", "quarter_turns": True}), image, index=i).flatten().tolist())
        for i in range(40)
    }
    assert turned == {tuple(torch.rot90(image, k, (1, 2)).flatten().tolist()) for k in range(4)}
    shifted = apply(make({"crop": "padded", "padding": 0.2}), image, index=5)
    windows = torch.nn.functional.pad(image, (4, 4, 4, 4)).unfold(1, 20, 1).unfold(2, 20, 1)[0]
    assert (windows == shifted[0]).all((2, 3)).any()
    erased = apply(make({"crop": "none", "erase": 1.0}), image + 1)
    assert 0.01 < (erased != image + 1).float().mean() < 0.4


def test_brightness_is_one_linear_map():
    image = smooth(20, 20, 1)
    changed = apply(make({"crop": "none", "brightness": 0.4}), image, index=2).float()
    inside = (changed > 0) & (changed < 255)
    a, b = np.polyfit(image[inside].float().numpy(), changed[inside].numpy(), 1)
    assert (image.float() * a + b - changed)[inside].abs().max() <= 1
    assert changed.ne(image.float()).any()


def test_flips_happen_as_often_as_they_should():
    image = torch.arange(400, dtype=torch.uint8).reshape(1, 20, 20)
    augmentation = make({"crop": "none", "hflip": 0.3})
    flipped = sum(not torch.equal(apply(augmentation, image, index=i), image) for i in range(2000))
    assert 540 < flipped < 660


def test_adding_a_transform_leaves_the_others_draws_alone():
    few, more = make({"crop": "resized"}), make({"crop": "resized", "hflip": 0.5, "erase": 0.5})
    assert (few.draw(3, 1, np.arange(9))[0] == more.draw(3, 1, np.arange(9))[0]).all()


@pytest.fixture(scope="module")
def shapes(shapes_folder):
    return open_data(shapes_folder, DataOptions(val_fraction=0.2, test_fraction=0))


def batches(shapes, size=7, seed=5):
    options = AugmentOptions(crop="resized", hflip=0.5, erase=0.3, brightness=0.2)
    return TrainingBatches(shapes.splits["train"], steps(), [Augmentation(options, steps())], size, seed)


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_the_stream_is_the_same_for_any_workers_and_any_start(shapes, workers):
    source = batches(shapes)
    torch.manual_seed(workers)
    before = torch.get_rng_state()
    for offset, batch in enumerate(source.stream(4, 16, workers)):
        wanted = source[4 + offset]
        assert torch.equal(batch.images, wanted.images)
        assert torch.equal(batch.targets, wanted.targets)
        assert torch.equal(batch.keys, wanted.keys)
    assert offset == 11
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn from the global generator


def test_an_epoch_visits_every_image_once_and_the_next_in_another_order(shapes):
    source = batches(shapes)
    n, per_epoch = len(shapes.splits["train"]), source.steps_per_epoch
    epochs = [
        np.concatenate([source.indices(step)[1] for step in range(e * per_epoch, (e + 1) * per_epoch)]) for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(n))
    assert (epochs[0] != epochs[1]).any()
    assert len(source.indices(per_epoch - 1)[1]) == n - 7 * (per_epoch - 1)


def test_evaluation_reads_the_split_in_order(shapes):
    split = shapes.splits["val"]
    parts = list(EvaluationBatches(split, steps(), 5).stream(0))
    assert torch.cat([t for _, t in parts]).tolist() == split.targets.values.tolist()
    assert torch.equal(torch.cat([x for x, _ in parts])[3], steps().view(split.read(3, 1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_in_training_is_named(shapes_folder, tmp_path, workers):
    shutil.copytree(shapes_folder, tmp_path / "data")
    data = open_data(tmp_path / "data", DataOptions(val_fraction=0, test_fraction=0))
    (tmp_path / "data" / "disc" / "07.png").unlink()
    with pytest.raises(VitralError, match=r"07\.png") as error:
        list(batches(data).stream(0, 13, workers))
    assert "Traceback" not in str(error.value)


def test_small_crops_keep_the_full_resolution():
    """Decoders may shrink what is resized anyway, but not below what the smallest crop needs."""
    assert make({"crop": "none"}).hint == 20
    assert make({"crop": "resized", "scale": (0.25, 1.0)}).hint == 40


def test_preprocessing_that_cannot_be_is_refused():
    for options, what in (
        ({"mean": (0.5, 0.5)}, "as many means"),
        ({"std": (0.0,)}, "above 0"),
        ({"resize": "fit"}, "crop, squash"),
    ):
        with pytest.raises(VitralError, match=what):
            Preprocess(**({"height": 4, "width": 4, "channels": 1, "mean": (0.5,), "std": (0.5,)} | options))


@pytest.mark.parametrize("shape", [(16, 100), (100, 16), (50, 40)])
def test_framed_crops_are_shares_of_the_view(shape):
    """Squashed, a crop is such a share of the image and as wide as high in the view; padded, such a share of the padded square."""
    scale, sizes = (0.2, 0.4), {}
    for how in ("squash", "pad"):
        augmentation = make({"crop": "framed", "scale": scale, "ratio": (1.0, 1.0), "hflip": 0.0}, resize=how)
        draws = augmentation.draw(0, 0, np.arange(60))
        boxes = [augmentation.where(*shape, [d[row] for d in draws]).box() for row in range(60)]
        sizes[how] = np.array([box[2:] for box in boxes])
        for top, left, height, width in boxes:  # some of the image is in every one
            assert top + height > 0
            assert left + width > 0
            assert top < shape[0]
            assert left < shape[1]
    areas = sizes["squash"].prod(1) / np.prod(shape)
    assert areas.min() > 0.15
    assert areas.max() < 0.45
    assert np.allclose(sizes["squash"][:, 1] / sizes["squash"][:, 0], shape[1] / shape[0], rtol=0.2)
    areas = sizes["pad"].prod(1) / max(shape) ** 2
    assert areas.min() > 0.15
    assert areas.max() < 0.45
    assert np.allclose(sizes["pad"][:, 1] / sizes["pad"][:, 0], 1, rtol=0.1)


def spot(image):
    """Where the light of an image lies, (y, x)."""
    mass = image.float().sum(0)
    y, x = (torch.arange(n) + 0.5 for n in mass.shape)
    return float((mass.sum(1) * y).sum() / mass.sum()), float((mass.sum(0) * x).sum() / mass.sum())


@pytest.mark.parametrize(
    ("crop", "how"),
    [(crop, "crop") for crop in ("resized", "padded", "reflected", "none")]
    + [(crop, how) for crop in ("framed", "padded", "none") for how in ("squash", "pad")],
)
def test_augmentation_says_where_its_pixels_lie(crop, how):
    """A bright spot in the middle of the image lies where the view says, in every view that shows it whole."""
    options = AugmentOptions(crop=crop, scale=(0.3, 1.0), hflip=0.5, vflip=0.5, quarter_turns=True, padding=0.1)
    augmentation = Augmentation(options, steps(40, 40, mean=0.0, resize=how))
    image = torch.zeros(1, 60, 90)
    image[:, 28:31, 50:53] = 255
    draws, checked = augmentation.draw(0, 0, np.arange(40)), 0
    for row in range(40):
        own = [d[row] for d in draws]
        where = augmentation.where(60, 90, own)
        changed = augmentation(image, own)
        assert (where.height, where.width) == tuple(changed.shape[1:])
        y, x = where.seen(np.array([29.5, 51.5]))
        if 5 < y < 35 and 5 < x < 35:
            assert np.allclose(spot(changed), (y, x), atol=0.1)
            checked += 1
    assert checked >= 15


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Invert"])
@pytest.mark.parametrize("way", [0.2, 0.8])
def test_randaugment_says_where_its_pixels_lie(name, way):
    policy = RandAugment(1, 1.0, 5.0, 0.0, True, np.zeros((1, 1, 1), np.float32))
    image = torch.zeros(1, 40, 60)
    image[:, 19:22, 35:38] = 255
    u = np.array([(OPERATIONS.index(name) + 0.5) / len(OPERATIONS), 0.0, way, 0.5, 0.5])
    where = policy.follow(View(40, 60), u)
    assert (where == View(40, 60)) == (name == "Invert")
    if name != "Invert":
        changed = torch.from_numpy(policy(image.numpy(), u))
        assert np.allclose(spot(changed), where.seen(np.array([20.5, 36.5])), atol=0.1)

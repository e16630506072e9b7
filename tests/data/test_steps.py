"""Steps and views: where pixels come from, and memory that what the model sees bounds."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.augment import Augmentation
from vitral.data.augment import resize as resized
from vitral.data.options import AugmentOptions
from vitral.data.preprocess import Preprocess
from vitral.data.resample import _part, resize
from vitral.data.steps import CenterCrop, Resize, from_json, to_json
from vitral.data.view import View
from vitral.drawing.colours import place, shown
from vitral.errors import VitralError


def smooth(h, w, c=3):
    coarse = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, c, 5, 7), dtype=np.uint8)).float()
    return torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")[0].round().to(torch.uint8)


@pytest.mark.parametrize("how", ["bicubic", "bilinear", "lanczos", "box", "hamming"])
@pytest.mark.parametrize(("h", "w", "height", "width"), [(40, 300, 56, 420), (300, 40, 150, 20), (97, 64, 31, 80)])
def test_a_part_is_that_part_of_the_whole(how, h, w, height, width):
    image = smooth(h, w).numpy()
    region = (height // 4, width // 3, height // 2, width // 4)
    whole = resize(image, height, width, how, arithmetic="pillow").astype(int)
    part = _part(image, height, width, how, region, rounded=True)
    top, left, rows, columns = region
    assert np.abs(part - whole[:, top : top + rows, left : left + columns]).max() <= 1
    deep = image.astype(np.float32) + 0.25
    exact = _part(deep, height, width, how, (0, 0, height, width), rounded=True)[
        :, top : top + rows, left : left + columns
    ]
    assert np.allclose(_part(deep, height, width, how, region, rounded=True), exact, atol=1e-3)


sides = st.integers(1, 90)


@given(st.data(), sides, sides, sides, sides, st.sampled_from(["bicubic", "bilinear"]))
def test_without_torch_the_same_pixels_come_out(data, h, w, height, width, how):
    seed = data.draw(st.integers(0, 2**32 - 1))
    image = np.random.default_rng(seed).integers(0, 256, (3, h, w), dtype=np.uint8)
    by_torch = resize(image, height, width, how)
    loaded = sys.modules.pop("torch")
    try:
        alone = resize(image, height, width, how)
    finally:
        sys.modules["torch"] = loaded
    assert np.array_equal(alone, by_torch)


def test_a_step_makes_of_a_thin_image_what_it_makes_of_the_middle_alone():
    """The crop shows the middle 16 x 16 of it; what is far away does not matter."""
    thin = smooth(16, 100_000)
    middle = thin[:, :, 49_900:50_100]
    steps = Preprocess(64, 64, 3, (0.5,) * 3, (0.5,) * 3, crop_fraction=0.875)
    assert (steps.view(thin).int() - steps.view(middle).int()).abs().max() <= 1


LITTLE = """
import resource
import numpy as np
import torch
from vitral.data.augment import Augmentation
from vitral.data.options import AugmentOptions
from vitral.data.preprocess import Preprocess

torch.set_num_threads(1)
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = used()
for shape in ((3, 16, 100_000), (3, 100_000, 16)):
    for options in ({}, {"resize": "squash"}, {"resize": "pad"}, {"interpolation": "lanczos"}):
        # Padded, a thinner image would have no pixel left of its short side.
        sides = [64, 16_000][:: 1 if shape[1] < shape[2] else -1] if options.get("resize") == "pad" else shape[1:]
        image = torch.zeros((3, *sides), dtype=torch.uint8)
        steps = Preprocess(128, 128, 3, (0.5,) * 3, (0.5,) * 3, **options)
        for crop in ("none", "resized", "reflected") if not options else ("none", "framed"):
            augmentation = Augmentation(AugmentOptions(crop=crop), steps)
            assert augmentation(image, [d[0] for d in augmentation.draw(0, 0, np.array([1]))]).shape == (3, 128, 128)
print(used() - before)
"""


def test_memory_is_bounded_by_what_the_model_sees():
    """Whole, 128 x 800,000 pixels would take 300 MB."""
    done = subprocess.run([sys.executable, "-c", LITTLE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200, done.stdout  # MiB


def test_a_shape_that_cannot_be_is_refused_by_name():
    fit = Preprocess.of_steps((32, 32), (0.5,), (0.5,), (Resize("fit", 32, 32, "bicubic"), CenterCrop(32, 32)))
    with pytest.raises(VitralError, match=r"thin.png: 1x9999 pixels are too long and thin"):
        fit.check(1, 9999, "thin.png")
    with pytest.raises(VitralError, match="too long and thin"):
        fit.view(torch.zeros(1, 1, 9999, dtype=torch.uint8))


def test_views_follow_resizes_crops_flips_and_turns():
    view = View(60, 100).resized(30, 50).cropped(5, 10, 20, 20)
    assert view.box() == (10, 20, 40, 40)
    corners = np.array([(0.0, 0.0), (20.0, 20.0), (3.0, 4.0)])
    assert np.allclose(view.original(corners), [(10, 20), (50, 60), (16, 28)])
    assert np.allclose(view.seen(view.original(corners)), corners)
    assert View(10, 10).cropped(-2, -3, 14, 16).box() == (-2, -3, 14, 16)
    marked = torch.zeros(60, 100)
    marked[7, 31] = 1
    for changed, where in (
        (marked.flip(0), View(60, 100).flipped(0)),
        (marked.flip(1), View(60, 100).flipped(1)),
        *((torch.rot90(marked, k), View(60, 100).turned(k)) for k in range(5)),
    ):
        assert tuple(changed.shape) == (where.height, where.width)
        y, x = np.argwhere(changed.numpy())[0]
        assert np.allclose(where.seen(np.array([7.5, 31.5])), (y + 0.5, x + 0.5))


def test_where_follows_the_pixels():
    """A bright spot lies in the view where the view says."""
    image = torch.zeros(1, 80, 120, dtype=torch.uint8)
    image[:, 38:42, 58:62] = 255
    for steps in (
        Preprocess(40, 40, 1, (0.5,), (0.5,), crop_fraction=0.8),
        Preprocess(40, 40, 1, (0.5,), (0.5,), "squash"),
        Preprocess(40, 40, 1, (0.0,), (0.5,), "pad"),
        Preprocess.of_steps(
            (64, 64), (0.5,), (0.5,), (Resize("fit", 60, 60, "bilinear"), CenterCrop(64, 64, "even", (9.0,)))
        ),
    ):
        seen = (steps.view(image)[0].float() - 10).clamp(min=0)
        mass = seen / seen.sum()
        y = (mass.sum(1) * (torch.arange(len(mass)) + 0.5)).sum()
        x = (mass.sum(0) * (torch.arange(mass.shape[1]) + 0.5)).sum()
        assert np.allclose(steps.where(80, 120).seen(np.array([40.0, 60.0])), (float(y), float(x)), atol=0.2)


def test_a_padded_view_shows_the_whole_image_amid_the_mean_colour():
    steps = Preprocess(40, 40, 1, (0.2,), (0.5,), "pad")
    seen = steps.view(torch.full((1, 20, 50), 255, dtype=torch.uint8))
    assert (seen[0, 12:28] == 255).all()
    assert (seen[0, :12] == 51).all()
    assert (seen[0, 28:] == 51).all()
    assert steps(torch.zeros(1, 20, 50, dtype=torch.uint8))[0, 0, 0] == 0
    assert steps.box(20, 50) == (-15, 0, 50, 50)
    assert Preprocess.from_json(steps.to_json()) == steps


def test_maps_of_padded_views_are_put_back():
    box = Preprocess.of_steps((32, 32), (0.5,), (0.5,), (Resize("fit", 32, 32, "bilinear"), CenterCrop(32, 32))).box(
        20, 40
    )
    assert box == (-10, 0, 40, 40)
    values = np.zeros((4, 4))
    values[1:3] = 1  # over the picture, not over its padding
    assert place(values, box, (20, 40)).min() > 0.4
    picture = np.full((20, 40, 3), 7, np.uint8)
    seen = shown(picture, box)
    assert seen.shape == (40, 40, 3)
    assert (seen[10:30] == 7).all()
    assert not seen[:10].any()


def test_steps_come_back_from_json():
    for step in (Resize("shortest", 9, 9, "lanczos", longest=20), CenterCrop(3, 4, "even", (1.0, 2.0, 3.0))):
        stored = to_json(step)
        assert from_json({k: list(v) if isinstance(v, tuple) else v for k, v in stored.items()}) == step
    with pytest.raises(VitralError, match="step 'swirl'"):
        from_json({"step": "swirl"})


def test_mirrored_crops_are_cut_from_the_resized_whole():
    steps = Preprocess(24, 24, 3, (0.5,) * 3, (0.5,) * 3)
    augmentation = Augmentation(AugmentOptions(crop="reflected", hflip=0.0), steps)
    image = smooth(40, 70)
    for index in range(20):
        draws = augmentation.draw(0, 0, np.array([index]))
        padded = torch.nn.functional.pad(resized(image, 24, 42, "bicubic").float()[None], (4,) * 4, mode="reflect")[0]
        u = draws[0][0]
        top, left = int(u[0] * 9), int(u[1] * 27)
        assert torch.equal(
            augmentation(image, [d[0] for d in draws]).float(), padded[:, top : top + 24, left : left + 24]
        )

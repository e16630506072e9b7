"""Pixels equal to those of Transformers' image processors and timm's transforms, from the file on; their formats in both directions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitral
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.exchange import exchange
from vitral.checkpoints.processors import PROCESSORS, read_processor, write_processor
from vitral.checkpoints.timm_pixels import read_timm, write_timm
from vitral.checkpoints.write import write_folder
from vitral.data.decode import decode
from vitral.data.preprocess import Preprocess
from vitral.data.steps import CenterCrop, Pad, Resize
from vitral.errors import VitralError

PIXELS = Path(__file__).parent.parent / "pixels"
"""Pictures, configurations, and what Transformers 5.24 (torchvision's backend) and timm 1.0.31 make of them."""
CASES = sorted(path.name for path in PIXELS.iterdir() if path.is_dir())


def of_hf(**settings):
    return read_processor(settings, "vit", 3, (48, 48), 8)


def stored(case):
    folder = PIXELS / case
    if case.startswith("timm"):
        return read_timm(json.loads((folder / "config.json").read_text())["pretrained_cfg"], 8)
    return of_hf(**json.loads((folder / "preprocessor_config.json").read_text()))


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_the_other_librarys(case):
    steps = stored(case)
    for name, wanted in np.load(PIXELS / case / "pixels.npz").items():
        made = steps(decode(PIXELS / name, 3)).numpy()
        assert made.shape == wanted.shape
        levels = np.abs(made - wanted) * np.array(steps.std)[:, None, None] * 255
        assert levels.mean() <= 1 if name.endswith("jpg") else levels.max() <= 1.01, (name, levels.max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("to", ["own", "itself"])
def test_what_is_written_makes_the_same_pixels(case, to):
    steps = stored(case)
    if to == "own":
        again = Preprocess.from_json(json.loads(json.dumps(steps.to_json())))
        assert again == steps
    elif case.startswith("timm"):
        settings, unlike = write_timm(steps)
        assert not unlike
        again = read_timm(settings, 8)
    else:
        settings, unlike = write_processor(steps)
        assert not unlike
        again = read_processor(json.loads(json.dumps(settings)), "vit", 3, (48, 48), 8)
    for name in ("97x33.png", "51x200.png", "224x224.png"):
        image = decode(PIXELS / name, 3)
        assert torch.equal(again(image), steps(image))


def pillows(image, size, how):
    """[C, h, w] through Pillow."""
    made = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling[how.upper()])
    return torch.from_numpy(np.array(made)).permute(2, 0, 1)


def noise(h, w, c=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (c, h, w), dtype=np.uint8))


@pytest.mark.parametrize(
    ("settings", "size", "box"),
    [
        ({"size": 224}, (224, 224), None),
        ({"size": [40, 64]}, (40, 64), None),
        ({"size": 32, "default_to_square": False}, (32, 42), None),
        ({"size": {"shortest_edge": 30, "longest_edge": 35}}, (26, 35), None),
        ({"size": {"max_height": 60, "max_width": 50}}, (37, 50), None),
        ({"do_resize": False}, (75, 100), None),
        ({"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": 56}, (64, 85), (4, 14, 56, 56)),
        (
            {"size": {"height": 20, "width": 21}, "do_center_crop": True, "crop_size": {"height": 29, "width": 16}},
            (20, 21),
            (-4, 2, 29, 16),
        ),
        ({"image_processor_type": "BitImageProcessor", "size": 231}, (231, 308), (3, 42, 224, 224)),
        ({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 56}}, (64, 85), (-80, -69, 224, 224)),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 50}},
            (57, 76),
            (3, 13, 50, 50),
        ),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 400}}, (400, 400), None),
        (
            {"image_processor_type": "PoolFormerImageProcessor", "size": {"shortest_edge": 90}, "crop_size": 90},
            (100, 133),
            (5, 21, 90, 90),
        ),
    ],
)  # fmt: skip
def test_sizes_and_offsets_of_transformers(settings, size, box):
    """Worked out by hand from get_resize_output_image_size, get_size_with_aspect_ratio and center_crop, for an image of 75 x 100."""
    plan = of_hf(**({"image_processor_type": "ViTImageProcessor"} | settings)).plan
    resizes = [step for step in plan if isinstance(step, Resize)]
    assert (resizes[0].size(75, 100) if resizes else (75, 100)) == size
    crops = [step for step in plan if isinstance(step, CenterCrop)]
    assert (crops[0].box(*size) if crops else None) == box


def test_rescaling_and_normalising_in_every_combination():
    image = noise(48, 48)
    plain = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    mean, std = (torch.tensor(plain[name])[:, None, None] for name in ("image_mean", "image_std"))
    x, efficient = image.float(), {"image_processor_type": "EfficientNetImageProcessor"}
    cases = [
        ({}, (x / 255 - mean) / std),
        ({"rescale_factor": 1 / 127.5}, (x / 127.5 - mean) / std),
        ({"do_rescale": False}, (x - mean) / std),
        ({"do_normalize": False}, x / 255),
        ({"do_rescale": False, "do_normalize": False}, x),
        ({**efficient, "rescale_factor": 1 / 127.5, "rescale_offset": True}, (x / 127.5 - 1 - mean) / std / std),
        ({**efficient, "include_top": False}, (x / 255 - mean) / std),
        ({"image_processor_type": "MobileViTImageProcessor", "do_center_crop": False}, x.flip(0) / 255),
        ({"image_mean": 0.5, "image_std": 0.25}, (x / 255 - 0.5) / 0.25),
        ({"do_pad": True, "pad_size": {"height": 50, "width": 49}}, torch.nn.functional.pad((x / 255 - mean) / std, (0, 1, 0, 2))),
    ]  # fmt: skip
    for settings, wanted in cases:
        assert torch.allclose(of_hf(**(plain | settings))(image), wanted, atol=2e-4, rtol=1e-5), settings


@pytest.mark.parametrize("code", range(6))
def test_every_filter_is_pillows(code):
    how = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")[code]
    image = (
        torch.nn.functional.interpolate(noise(6, 9)[None].float(), (60, 90), mode="bicubic")[0]
        .clamp(0, 255)
        .to(torch.uint8)
    )
    steps = of_hf(image_processor_type="ViTImageProcessor", resample=code, size={"height": 33, "width": 41})
    if how == "nearest":
        wanted = torch.nn.functional.interpolate(image[None], (33, 41), mode="nearest-exact")[0]
        assert torch.equal(steps.view(image), wanted)
    else:
        assert (steps.view(image).int() - pillows(image, (33, 41), how).int()).abs().max() <= 1
    assert torch.equal(read_timm({"input_size": (3, 33, 41), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": how}, 1).view(image),
                       pillows(image, (33, 41), how))  # fmt: skip


def test_dinov3_rounds_nothing_before_it_normalises():
    steps = of_hf(image_processor_type="DINOv3ViTImageProcessorFast", size=20)
    wanted = torch.nn.functional.interpolate(noise(75, 100)[None].float(), (20, 20), mode="bilinear", antialias=True)[0]
    assert torch.allclose(steps.view(noise(75, 100)), wanted)
    assert (steps.view(noise(75, 100)) % 1).any()


@pytest.mark.parametrize(
    ("settings", "size", "box"),
    [
        ({"crop_pct": 0.9}, (62, 82), (3, 13, 56, 56)),  # floor(56 / 0.9), int(62 * 100 / 75); half to even
        ({"crop_pct": 0.9, "crop_mode": "squash"}, (62, 62), (3, 3, 56, 56)),
        ({"crop_pct": 0.9, "crop_mode": "border"}, (46, 62), (-5, 3, 56, 56)),
        ({"crop_pct": 1.0, "crop_mode": "border"}, (42, 56), (-7, 0, 56, 56)),
        ({"crop_pct": 0.8, "input_size": (3, 40, 64)}, (60, 80), (10, 8, 40, 64)),  # covers 50 x 80, by bilinear
        ({"input_size": (3, 49, 49), "crop_pct": 0.94}, (52, 69), (2, 10, 49, 49)),
    ],
)
def test_sizes_and_offsets_of_timm(settings, size, box):
    """Worked out by hand from transforms_imagenet_eval, for an image of 75 x 100."""
    steps = read_timm({"input_size": (3, 56, 56), "interpolation": "bicubic"} | settings, 1)
    resize, crop = steps.plan
    assert resize.size(75, 100) == size
    assert crop.box(*size) == box
    assert resize.interpolation == ("bilinear" if resize.rule == "cover" else "bicubic")
    if settings.get("crop_mode") == "border":
        assert crop.fill == (124.0, 116.0, 104.0)  # ImageNet's mean
        assert steps.view(noise(75, 100))[:, 0, 0].tolist() == [124, 116, 104]


def test_what_is_not_known_is_refused_by_name(tmp_path):
    for settings, what in (
        ({"do_sharpen": True}, "do_sharpen=True"),
        ({"image_processor_type": "SomeImageProcessor"}, "SomeImageProcessor"),
        ({"size": {"longest_edge": 40}}, "longest_edge"),
        ({"resample": 9}, "resample=9"),
        ({"image_mean": [0.5]}, "3 channels"),
        ({"crop_pct": 0.9}, "crop_pct=0.9"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 5, "width": 5}}, "shortest_edge"),
    ):
        with pytest.raises(VitralError, match=what):
            of_hf(**({"image_processor_type": "ViTImageProcessor"} | settings))
    for settings, what in (
        ({"crop_mode": "spiral"}, "spiral"),
        ({"crop_border_pixels": 4}, "crop_border_pixels"),
        ({"interpolation": "random"}, "random"),
    ):
        with pytest.raises(VitralError, match=what):
            read_timm({"input_size": (3, 32, 32), **settings}, 1)
    folder = made(tmp_path / "odd", of_hf(image_processor_type="ViTImageProcessor", size=32))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sharpen": True}))
    with pytest.raises(VitralError, match="do_sharpen"):
        vitral.load(folder)
    with pytest.raises(VitralError, match="do_sharpen"):
        exchange(str(folder), tmp_path / "ours.safetensors")
    assert vitral.create_model(folder).num_classes == 2  # the weights alone are fine


def made(folder, steps, layout="hf"):
    model = vitral.create_model(
        "vit_tiny_patch16_224", image_size=(32, 32), num_classes=2, depth=1 if layout == "hf" else 12
    ).eval()
    write_folder(folder, model, layout, ["a", "b"], steps)
    return folder


HF = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 37}, "crop_size": 32, "do_rescale": False}


def test_converting_compares_pixels_and_says_so(tmp_path):
    folder = made(tmp_path / "theirs", of_hf(**HF))
    says = exchange(str(folder), tmp_path / "again", "hf").says
    assert "pixels of 5 test pictures differ by at most 0 levels" in says
    says = exchange(str(folder), tmp_path / "ours.safetensors").says
    assert "at most 0 levels" in says
    image = noise(97, 45)
    for path in ("again", "ours.safetensors"):
        assert torch.equal(vitral.load(tmp_path / path).preprocess(image), vitral.load(folder).preprocess(image))
    whole = vitral.create_model("vit_tiny_patch16_224", image_size=(32, 32), num_classes=2)
    write_folder(tmp_path / "deep", whole, "hf", ["a", "b"], of_hf(**HF))
    says = exchange(str(tmp_path / "deep"), tmp_path / "timm", "timm").says
    assert "one pixel apart" in says
    assert "levels of 255" in says
    border = read_timm({"input_size": (3, 32, 32), "crop_mode": "border", "crop_pct": 0.9}, 16)
    write_folder(tmp_path / "border", whole, "timm", ["a", "b"], border)
    with pytest.raises(VitralError, match="resize fit to 35x35"):
        exchange(str(tmp_path / "border"), tmp_path / "no", "hf")
    assert not (tmp_path / "no").exists()


def test_what_neither_format_can_say_is_refused():
    wide = Preprocess(40, 64, 3, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(VitralError, match="resize share to 40x64"):
        write_processor(wide)
    padded = of_hf(image_processor_type="ViTImageProcessor", size=32, do_pad=True, pad_size=40)
    assert isinstance(padded.plan[-1], Pad)
    with pytest.raises(VitralError, match="Pad"):
        write_timm(padded)
    with pytest.raises(VitralError, match="at most 40"):
        write_timm(
            of_hf(
                image_processor_type="ViTImageProcessor",
                size={"shortest_edge": 32, "longest_edge": 40},
                do_center_crop=True,
                crop_size=32,
            )
        )


def test_files_written_before_there_were_steps_load_as_they_were(tmp_path):
    old = {
        "height": 20, "width": 24, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "crop", "crop_fraction": 0.875,
        "interpolation": "bicubic", "bit_depth": 8, "min_size": 4,
    }  # fmt: skip
    steps, image = Preprocess.from_json(old), noise(61, 97)
    factor = max(20 / 61, 24 / 97) / 0.875
    size = round(61 * factor), round(97 * factor)
    whole = torch.nn.functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
    top, left = (size[0] - 20) // 2, (size[1] - 24) // 2
    assert torch.equal(steps.view(image), whole[:, top : top + 20, left : left + 24])
    model = vitral.create_model("vit_tiny_patch16_224", image_size=(20, 24), patch_size=4, depth=1, num_classes=2)
    card = ModelCard("vit_tiny_patch16_224", model.config.arguments(), ["a", "b"], steps)
    written = json.loads(card.to_json())
    written["preprocess"], written["format"] = old, "1"
    assert ModelCard.from_json(json.dumps(written), tmp_path).preprocess == steps
    save_model(tmp_path / "m.safetensors", model, card)
    assert vitral.load(tmp_path / "m.safetensors").card.preprocess == steps


def test_every_processor_reads_its_own_defaults():
    for name in PROCESSORS:
        steps = of_hf(image_processor_type=f"{name}ImageProcessor")
        size = {"Yolos": (848, 800), "Eomt": (640, 597)}.get(name, (steps.height, steps.width))  # by the image's own
        assert steps(noise(300, 280)).shape == (3, *size), name

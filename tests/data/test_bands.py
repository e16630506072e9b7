"""Data sets of bands, values with a range, and pages, from the folder to the answer."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import vitral
from vitral.cli import main as command
from vitral.data import operations as op
from vitral.data.augment import Augmentation
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.policies import OPERATIONS, operate
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.data.values import white
from vitral.errors import VitralError
from vitral.guidance.doctor.diagnose import diagnose
from vitral.predict import PageOf

TINY = "--model vit_tiny_patch16_224 --image-size 24 24 --patch-size 8 --dim 32 --depth 2 --num-heads 2 --batch-size 16 --workers 0 --device cpu"


def main(words: list[str]) -> int:
    """A command's exit code."""
    with pytest.raises(SystemExit) as ended:
        command(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def made(root: Path, bands: int = 4, dtype: str = "u1", per_class: int = 12, pages: int = 1) -> Path:
    """Two classes that only the last band tells apart."""
    rng = np.random.default_rng(0)
    for label, last in (("dry", 40), ("wet", 220)):
        (root / label).mkdir(parents=True)
        for i in range(per_class):
            values = rng.integers(80, 120, (pages, 24, 24, bands)).astype("f4")
            values[..., -1] = rng.normal(last, 10, (pages, 24, 24))
            values = (values / 255 if dtype == "f4" else values).clip(0, 255).astype(dtype)
            extra = {"extrasamples": [0] * (bands - 3), "photometric": "rgb"} if bands > 3 else {}
            tifffile.imwrite(root / label / f"{i}.tif", values if pages > 1 else values[0], **extra)
    return root


def test_a_model_of_four_float_bands_from_folder_to_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made(tmp_path / "fields", dtype="f4")
    with pytest.raises(VitralError, match=r"dry/0\.tif: holds floating point from .* --value-range LOW HIGH"):
        open_data(data)
    run, words = (
        str(tmp_path / "run"),
        "--value-range 0 1 --show-bands 4 2 1 --policy randaugment --jitter 0.2 --epochs 6",
    )
    assert main(["train", str(data), *TINY.split(), *words.split(), "--out", run]) == 0
    said = capsys.readouterr().err
    assert "24x24 4 bands" in said
    assert "augmentation without changes of saturation, which mean nothing in 4 bands" in said
    vit = vitral.load(run)
    steps = vit.card.preprocess
    assert (steps.channels, steps.value_range, steps.show_bands) == (4, (0.0, 1.0), (4, 2, 1))
    file = data / "wet" / "3.tif"
    assert vit.predict(file).label == "wet"
    values = tifffile.imread(file)
    assert vit.predict(values).probability == pytest.approx(vit.predict(file).probability)
    shown = np.asarray(vit.explain(file, method="rollout").image)
    assert np.abs(shown - values[:, :, [3, 1, 0]] * 255).max() < 1
    assert main(["evaluate", run, str(data), "--split", "test", "--json"]) == 0
    assert main(["explain", run, str(file), "-o", str(tmp_path / "out.png")]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    Image.new("RGB", (24, 24)).save(tmp_path / "rgb.png")
    with pytest.raises(VitralError, match=r"rgb\.png: has 3 channels \(colour\), and 4 \(4 bands\) are wanted"):
        vit.predict(tmp_path / "rgb.png")


def test_files_that_differ_in_their_bands_are_named(tmp_path: Path) -> None:
    data = made(tmp_path / "mixed")
    Image.new("RGB", (24, 24)).save(data / "dry" / "plain.png")
    with pytest.raises(
        VitralError, match=r"the images differ in their bands: colour \(1\): dry/plain\.png; 4 bands \(24\): dry/0\.tif"
    ):
        open_data(data)
    found = {f.kind: f for f in diagnose(data, DataOptions()).findings}
    assert [item.names for item in found["other_bands"].items] == [("dry/plain.png",)]
    (data / "dry" / "plain.png").unlink()
    assert open_data(data).channels == open_data(data, DataOptions(channels=4)).channels == 4
    with pytest.raises(VitralError, match=r"the images have 4 channels .* and --channels asks for 3"):
        open_data(data, DataOptions(channels=3))


def test_every_page_is_an_image_and_a_files_pages_share_a_split(tmp_path: Path) -> None:
    data = made(tmp_path / "stacks", bands=1, pages=5)
    with pytest.raises(VitralError, match=r"holds 5 frames or pages.*--page 0"):
        open_data(data)
    one = open_data(data, DataOptions(page="2"))
    assert sum(len(split) for split in one.splits.values()) == 24
    every = open_data(data, DataOptions(page="all"))
    assert sum(len(split) for split in every.splits.values()) == 120
    files = {name: {each.partition(" page ")[0] for each in split.names} for name, split in every.splits.items()}
    assert not files["train"] & files["test"]
    assert not files["train"] & files["val"]
    split = every.splits["train"]
    stack = tifffile.imread(split.path(7))
    assert np.array_equal(split.read(7)[0].numpy(), stack.reshape(5, 24, 24)[int(split.names[7].rpartition(" ")[2])])
    looks = diagnose(data, DataOptions(page="all")).looks
    assert len(looks) == 120


def test_a_model_of_pages_predicts_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made(tmp_path / "stacks", bands=1, pages=3, per_class=8)
    run = str(tmp_path / "run")
    assert main(["train", str(data), *TINY.split(), "--page", "all", "--epochs", "1", "--out", run]) == 0
    capsys.readouterr()
    file = data / "dry" / "0.tif"
    assert main(["predict", run, str(file), "--format", "csv"]) == 0
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        f"{file} page {k}" for k in range(3)
    ]
    assert main(["predict", run, str(file), "--page", "1", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    vit = vitral.load(run)
    assert vit.predict(PageOf(file, 2)).name == f"{file} page 2"


def test_values_beyond_a_range_are_said(tmp_path: Path) -> None:
    data = made(tmp_path / "fields", dtype="f4", per_class=6)
    notes = open_data(data, DataOptions(value_range=(0.0, 0.5))).notes
    assert any("values outside of --value-range 0 0.5" in note and "clipped" in note for note in notes)
    assert not any("--value-range" in note for note in open_data(data, DataOptions(value_range=(-1.0, 2.0))).notes)


@pytest.mark.parametrize(("values", "says"), [
    ({"value_range": (1.0, 1.0)}, "value_range 1 1: give the value that is black"),
    ({"page": "-1"}, "page -1: give the page's number"),
    ({"show_bands": (0, 1, 2)}, "bands are counted from 1"),
])  # fmt: skip
def test_options_are_checked(values: dict, says: str) -> None:
    with pytest.raises(VitralError, match=says):
        DataOptions(**values)


def dark(bits: int) -> np.ndarray:
    """A picture of so many bits in a file of 16, as it is decoded: float32 [1, 48, 48]."""
    small = np.random.default_rng(1).integers(0, 256, (6, 6), "u1")
    smooth = np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC), np.float32)
    return (smooth / smooth.max() * (2**bits - 1) / 257)[None].astype(np.float32)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_mean_the_scale_that_a_picture_uses(name: str, bits: int) -> None:
    image, whole = dark(bits), dark(16)
    factor = (2**bits - 1) / 65535
    assert white(image) == pytest.approx(255 * factor)
    fill = np.zeros((1, 1, 1), np.float32)
    small, large = (operate(name, x, 7.0, 1, True, fill) for x in (image, whole))
    assert small.std() > 0
    if name not in ("Contrast", "Brightness", "Color", "Sharpness"):  # which do not saturate in the dark
        assert (np.abs(small / factor - large) > 4).mean() < 0.01  # a few fall on the other side of a threshold


def test_augmented_12_bit_pictures_stay_on_their_scale() -> None:
    image = torch.from_numpy(dark(12))
    steps = Preprocess(48, 48, 1, (0.03,), (0.015,), bit_depth=16)
    augment = Augmentation(
        AugmentOptions(crop="none", policy="randaugment", operation_probability=1.0, magnitude_std=0.0), steps
    )
    shallow = torch.from_numpy(dark(16).round().astype(np.uint8))

    def views(picture: torch.Tensor) -> list[torch.Tensor]:
        return [augment(picture, [d[0] for d in augment.draw(0, epoch, np.array([0]))]) for epoch in range(60)]

    assert max(float(view.max()) for view in views(image)) < 40
    plain = [sum(float(view.float().std()) == 0 for view in views(each)) for each in (image, shallow)]
    assert max(plain) < 4  # posterized after they were darkened


def test_colour_operations_leave_bands_alone_and_the_others_work_on_any_number() -> None:
    image = np.random.default_rng(2).integers(0, 256, (7, 24, 24), "u1")
    assert np.array_equal(op.grey(image), image)
    for name in OPERATIONS:
        found = operate(name, image, 8.0, 1, True, np.zeros((7, 1, 1), np.float32))
        assert found.shape == image.shape
        assert np.array_equal(found, image) == (name == "Color")


@pytest.mark.parametrize("top", [255, 1023, 4095])
def test_the_doctor_judges_dark_16_bit_pictures_by_the_values_that_training_keeps(tmp_path: Path, top: int) -> None:
    rng = np.random.default_rng(3)
    for label in ("a", "b"):
        (tmp_path / "x" / label).mkdir(parents=True)
        for i in range(6):
            small = Image.fromarray(rng.integers(0, 256, (6, 6), "u1")).resize((64, 64), Image.Resampling.BICUBIC)
            values = (np.asarray(small) / 255 * top).astype("u2")
            Image.fromarray(values).save(tmp_path / "x" / label / f"{i}.png")
    assert "blank" not in {f.kind for f in diagnose(tmp_path / "x", DataOptions()).findings}
    for i, plain in enumerate((np.full((64, 64), 300), 1000 + rng.integers(0, 3, (64, 64)))):
        Image.fromarray(plain.astype("u2")).save(tmp_path / "x" / "a" / f"plain{i}.png")
    found = {f.kind: f for f in diagnose(tmp_path / "x", DataOptions()).findings}
    assert {item.names[0] for item in found["blank"].items} == {f"a/plain{i}.png" for i in range(2)}


def test_starting_from_weights_dark_pictures_are_normalised_by_their_own_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(4)
    for name, dtype, top in (("bright", "u1", 255), ("dark", "u2", 1023)):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(8):
                values = (rng.random((24, 24)) * top).astype(dtype)
                Image.fromarray(values).save(tmp_path / name / label / f"{i}.png")
    first = str(tmp_path / "first")
    assert main(["train", str(tmp_path / "bright"), *TINY.split(), "--epochs", "1", "--out", first]) == 0
    capsys.readouterr()
    words = ["--init", first, "--image-size", "24", "24", "--epochs", "1", "--device", "cpu", "--workers", "0"]
    assert main(["train", str(tmp_path / "dark"), *words, "--out", str(tmp_path / "second")]) == 0
    assert "they use a small part of the scale" in (said := capsys.readouterr().err)
    assert "--value-range LOW HIGH states" in said
    assert vitral.load(tmp_path / "second").card.preprocess.mean[0] < 0.02

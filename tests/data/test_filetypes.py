"""What people's files are: every format by its bytes, values with a stated range, pages, and any number of bands."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pictures import SMOOTH, encode
from vitral.data.bands import to_rgb
from vitral.data.decode import EXTENSIONS, PageOf, count_pages, decode, probe
from vitral.data.files import ImageError
from vitral.data.values import Reading
from vitral.errors import VitralError

RNG = np.random.default_rng(0)


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def pixels(data: bytes, **options: object) -> np.ndarray:
    return decode(data, **options).permute(1, 2, 0).numpy()  # [C,h,w] -> [h,w,C]


@pytest.mark.parametrize("format", ["PPM", "TGA", "PCX", "SGI", "QOI", "JPEG2000", "AVIF", "ICO"])
def test_formats_are_read_by_their_bytes_whatever_their_names(tmp_path: Path, format: str) -> None:
    image = Image.fromarray(SMOOTH) if format != "ICO" else Image.fromarray(SMOOTH).resize((128, 128))
    options = {"ICO": {"sizes": [(128, 128), (32, 32)]}}.get(format, {})
    path = tmp_path / "served.jpg"
    path.write_bytes(encode(image, format, **options))
    found = decode(path).permute(1, 2, 0).numpy()
    assert found.shape == np.array(image).shape
    tolerance = 60 if format == "AVIF" else 0
    assert np.abs(found.astype(int) - np.array(image)).max() <= tolerance
    assert probe(path.read_bytes()).channels == 3


def test_heic_is_read_and_without_its_library_the_error_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(SMOOTH)).save(file, quality=95)
    assert np.abs(pixels(file.getvalue()).astype(int) - SMOOTH).mean() < 12
    empty = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(99)
    with pytest.raises(VitralError, match=r"a\.heic: is a HEIC image that pillow-heif cannot open.*heif-convert"):
        decode(empty, name="a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        VitralError, match=r"a\.heic: is a HEIC image, which needs pillow-heif; run pip install 'vitral\[heif\]'"
    ):
        decode(file.getvalue(), name="a.heic")


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (b"8BPS\0\1" + bytes(60), "a.psd", "Photoshop.*export it"),
        (bytes(128) + b"DICM" + bytes(60), "a", "DICOM.*convert it"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="s"></svg>', "a.png", "SVG.*rsvg-convert"),
        (b"<!DOCTYPE html><html>not found</html>", "a.jpg", "HTML.*download the picture again"),
        (b"%PDF-1.7" + bytes(60), "a.jpg", "PDF.*pdftoppm"),
        (b"\0\0\0\x20ftypisom" + bytes(60), "a.jpg", "video.*ffmpeg"),
        (b"II*\0\x08\0\0\0" + bytes(60), "a.NEF", "camera RAW.*develop it"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a.jpg", "camera RAW.*develop it"),
        (b"FUJIFILMCCD-RAW " + bytes(60), "a", "camera RAW.*develop it"),
        (b"PK\3\4" + bytes(26) + b"arr_0.npy" + bytes(60), "a.npz", r"\.npz.*numpy\.save"),
        (b"\xff\x0a" + bytes(60), "a.jxl", "JPEG XL.*djxl"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.jpg", "git lfs pull"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_how_to_convert_it(data: bytes, name: str, says: str) -> None:
    with pytest.raises(ImageError, match=f"{name}: is .*{says}") as caught:
        decode(data, name=name)
    assert caught.value.kind in ("other_format", "not_an_image")
    assert "cut short" not in str(caught.value)
    assert "remove" not in str(caught.value)


def test_every_picture_has_an_ending_that_listings_know() -> None:
    assert {".avif", ".heic", ".jp2", ".ico", ".ppm", ".pgm", ".tga", ".npy", ".psd", ".dcm", ".nef"} <= EXTENSIONS
    assert not {".pdf", ".html", ".mp4", ".zip", ".txt"} & EXTENSIONS


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_sound_png_with_large_texts_is_read(kind: bytes, behind: bool) -> None:
    whole = encode(Image.fromarray(SMOOTH), "PNG")
    packed = zlib.compress(b"x" * 3_000_000)
    body = {b"zTXt": b"parameters\0\0", b"iTXt": b"parameters\0\1\0\0\0", b"iCCP": b"profile\0\0"}[kind] + packed
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    at = len(whole) - 12 if behind else 33
    assert np.array_equal(pixels(whole[:at] + chunk + whole[at:]), SMOOTH)


def test_deep_netpbm_keeps_its_values_by_its_own_white() -> None:
    values = np.array([[0, 1023, 512]], ">u2")
    assert pixels(b"P5\n# a camera\n3 1\n1023\n" + values.tobytes())[0, :, 0] == pytest.approx(
        [0, 255, 512 / 1023 * 255]
    )
    assert pixels(b"P3 1 1 1023 0 1023 512 ")[0, 0] == pytest.approx([0, 255, 512 / 1023 * 255])
    with pytest.raises(VitralError, match="cut short"):
        decode(b"P6 3 1 1023\n" + values.tobytes())


VALUES = np.linspace(-3, 7, 24 * 20).reshape(24, 20)
FILES = {
    "npy float64": lambda v: npy(v),
    "npy float16": lambda v: npy(v.astype("f2")),
    "npy int16": lambda v: npy((v * 100).astype("i2")),
    "npy int32": lambda v: npy((v * 100).astype(">i4")),
    "tiff float32": lambda v: tiff(v.astype("f4")),
    "tiff float64": lambda v: tiff(v),
    "tiff float32 lzw": lambda v: encode(Image.fromarray(v.astype("f4")), "TIFF", compression="tiff_lzw"),
    "tiff int16": lambda v: tiff((v * 100).astype("i2")),
    "tiff int32": lambda v: tiff((v * 100).astype("i4")),
    "tiff uint32": lambda v: tiff(((v + 3) * 100 + 2**31).astype("u4")),
    "tiff big": lambda v: tiff(v.astype("f4"), bigtiff=True),
}


@pytest.mark.parametrize("kind", FILES)
def test_values_without_a_scale_need_a_range_and_then_keep_it(kind: str) -> None:
    data = FILES[kind](VALUES)
    low, high = (-3, 7) if "float" in kind or "big" in kind else (-300, 700)
    if "uint32" in kind:
        low, high = 2**31, 2**31 + 1000
    with pytest.raises(ImageError, match=f"f: holds .* from {low} to .*--value-range LOW HIGH") as caught:
        decode(data, name="f")
    assert caught.value.kind == "no_range"
    found = decode(data, reading=Reading((low, high)))
    assert found.dtype == torch.float32
    assert found[0].numpy() == pytest.approx((VALUES + 3) * 25.5, abs=0.3)
    assert (probe(data, "f", Reading((low, high))).height, probe(data).width) == (24, 20)


def test_values_beyond_the_range_are_clipped_but_a_wrong_range_or_nan_is_an_error() -> None:
    half = decode(npy(VALUES), reading=Reading((0.0, 2.0)))[0].numpy()
    assert half == pytest.approx(np.clip(VALUES, 0, 2) * 127.5, abs=1e-3)
    with pytest.raises(VitralError, match="f: holds values from -3 to 7, 100% of them outside of --value-range 8 9"):
        decode(npy(VALUES), name="f", reading=Reading((8.0, 9.0)))
    holes = VALUES.copy()
    holes[3, 4] = np.nan
    with pytest.raises(VitralError, match="f: 1 of its 480 values are no numbers"):
        decode(npy(holes), name="f", reading=Reading((0.0, 2.0)))
    deep = np.array([[0, 500, 1000]], np.uint16)
    assert decode(encode(Image.fromarray(deep), "PNG"), reading=Reading((0.0, 1000.0)))[0, 0].tolist() == [
        0,
        127.5,
        255,
    ]
    assert np.array_equal(pixels(encode(Image.fromarray(SMOOTH), "PNG"), reading=Reading((0.0, 1.0))), SMOOTH)


BANDS = RNG.integers(0, 256, (20, 24, 6), "u1")


@pytest.mark.parametrize("samples", [2, 4, 5, 6])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_bands_of_a_tiff_are_all_kept(samples: int, dtype: str, planar: bool, compression: str | None) -> None:
    values = BANDS[:, :, :samples].astype(dtype)
    stored = np.moveaxis(values, 2, 0) if planar else values
    layout = {
        "planarconfig": "separate" if planar else "contig",
        "photometric": "minisblack",
        "compression": compression,
    }
    data = tiff(stored, **layout, extrasamples=[0] * (samples - 1))
    reading = Reading((0.0, 255.0)) if dtype != "u1" else Reading()
    assert np.allclose(pixels(data, reading=reading), BANDS[:, :, :samples], atol=1e-3)
    assert probe(data).channels == samples


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_extra_samples_are_what_the_file_says(dtype: str) -> None:
    scale = 257 if dtype == "u2" else 1
    values = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype) * np.array(scale, dtype)
    rgb = {"photometric": "rgb", "planarconfig": "contig"}
    assert pixels(tiff(values, **rgb, extrasamples=["unspecified"]))[0, 0].tolist() == [10, 20, 30, 255]
    laid = [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    assert pixels(tiff(values, **rgb, extrasamples=["unassalpha"]))[0] == pytest.approx(np.array(laid), abs=1)
    both = np.concatenate([values, values[:, :, :1] * 0 + np.array(9 * scale, dtype)], axis=2)
    five = pixels(tiff(both, **rgb, extrasamples=["unassalpha", "unspecified"]))
    assert five[0] == pytest.approx(np.array([[10, 20, 30, 9], [255] * 4, [204, 204, 204, 206]]), abs=1)


def test_arrays_say_their_channels_by_their_shape() -> None:
    assert np.array_equal(pixels(npy(BANDS)), BANDS)
    assert np.array_equal(pixels(npy(np.moveaxis(BANDS, 2, 0))), BANDS)
    assert np.array_equal(pixels(npy(np.asfortranarray(BANDS))), BANDS)
    assert decode(npy(np.array([[True, False]]))).tolist() == [[[255, 0]]]
    with pytest.raises(VitralError, match=r"f: holds an array of shape \(8, 8, 8\), in which it is not clear"):
        decode(npy(np.zeros((8, 8, 8), "u1")), name="f")
    with pytest.raises(VitralError, match="not numbers that can be pixels"):
        decode(npy(np.array([[object()]])))
    with pytest.raises(VitralError, match="cut short"):
        decode(npy(BANDS)[:-9])


def test_bands_are_neither_dropped_nor_made_up() -> None:
    with pytest.raises(VitralError, match=r"f: has 6 channels \(6 bands\), and 3 \(colour\) are wanted"):
        decode(npy(BANDS), 3, name="f")
    with pytest.raises(VitralError, match=r"f: has 3 channels \(colour\), and 4 \(4 bands\) are wanted"):
        decode(encode(Image.fromarray(SMOOTH), "JPEG"), 4, name="f")


def test_three_bands_are_shown() -> None:
    bands = torch.from_numpy(BANDS).permute(2, 0, 1)
    assert np.array_equal(to_rgb(bands), BANDS[:, :, :3])
    assert np.array_equal(to_rgb(bands, (5, 4, 1)), BANDS[:, :, [4, 3, 0]])
    assert np.array_equal(to_rgb(bands[:2]), BANDS[:, :, [0, 0, 0]])
    with pytest.raises(VitralError, match="--show-bands 7 1 2: these images have the bands 1 to 6"):
        to_rgb(bands, (7, 1, 2))


FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "npy"])
def test_pages_are_chosen(format: str) -> None:
    data = (
        npy(np.stack([np.array(frame) for frame in FRAMES]))
        if format == "npy"
        else encode(FRAMES[0], format, save_all=True, append_images=FRAMES[1:])
    )
    assert count_pages(data, "f") == 3
    with pytest.raises(VitralError, match=r"f: holds 3 frames or pages.*--page 0 is the first, --page all"):
        decode(data, name="f")
    for page, colour in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        for found in (decode(data, reading=Reading(page=page)), decode(PageOf(data, page))):
            assert np.abs(found[:, 4, 4].int().numpy() - colour).max() < 12
    with pytest.raises(VitralError, match="f: has the pages 0 to 2, and page 3 is asked for"):
        decode(data, name="f", reading=Reading(page=3))
    with pytest.raises(VitralError, match="has one page, and page 1 is asked for"):
        decode(encode(FRAMES[0], "JPEG"), reading=Reading(page=1))


def test_smaller_copies_of_a_page_are_no_pages() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(SMOOTH, photometric="rgb")
        writer.write(SMOOTH[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(pixels(file.getvalue()), SMOOTH)

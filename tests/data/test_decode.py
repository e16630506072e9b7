"""Every kind of image file that a person may bring, made on the spot: pixels, or an error with its name."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pictures import SMOOTH, encode
from vitral.data.decode import decode, probe
from vitral.errors import VitralError

RNG = np.random.default_rng(0)


def pixels(data: bytes, channels: int | None = None) -> np.ndarray:
    return decode(data, channels).permute(1, 2, 0).numpy()  # [C,h,w] -> [h,w,C]


def png(values: np.ndarray, colour_type: int, depth: int = 16, extra: bytes = b"") -> bytes:
    """A PNG from raw values [h,w,C], with filter Sub on every row."""
    height, width, bands = values.shape
    rows = []
    for row in values:
        packed = row.astype(">u2").tobytes() if depth == 16 else row.astype("u1").tobytes()
        if depth < 8:
            bits = "".join(f"{v:0{depth}b}" for v in row.ravel())
            packed = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        step = max(1, bands * depth // 8)
        before = bytes(step) + packed[:-step]
        rows.append(b"\1" + bytes((a - b) % 256 for a, b in zip(packed, before, strict=True)))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def transparent_key(*values: int) -> bytes:
    body = struct.pack(f">{len(values)}H", *values)
    return struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_pixel(format: str, options: dict) -> None:
    data = encode(Image.fromarray(SMOOTH), format, **options)
    assert np.array_equal(pixels(data), SMOOTH)
    assert decode(data).dtype == torch.uint8
    info = probe(data)
    assert (info.height, info.width, info.channels, info.bit_depth) == (32, 48, 3, 8)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_decodes_to_a_difference_of_one(mode: str, progressive: bool) -> None:
    image = Image.fromarray(SMOOTH).convert(mode)
    data = encode(image, "JPEG", quality=90, progressive=progressive)
    reference = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert probe(data).channels == (1 if mode == "L" else 3)
    assert decode(data).shape[0] == probe(data).channels
    assert np.abs(pixels(data, 3).astype(int) - reference).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.fromarray(SMOOTH), format, exif=exif, **options)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert expected.shape[:2] == ((48, 32) if orientation >= 5 else (32, 48))
    assert np.abs(pixels(data).astype(int) - expected).max() <= 1
    assert (probe(data).height, probe(data).width) == expected.shape[:2]
    again = decode(Image.open(io.BytesIO(data))).permute(1, 2, 0).numpy()
    assert np.abs(again.astype(int) - expected).max() <= 1


def test_damaged_exif_does_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    at = data.index(b"Exif\x00\x00") + 6
    broken = data[:at] + b"\xff" * 12 + data[at + 12 :]
    assert decode(broken).shape == (3, 32, 48)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@given(values=st.lists(st.integers(0, 65535), min_size=6, max_size=6))
@settings(max_examples=20, deadline=None)
def test_16_bit_grey_keeps_its_values(order: str, values: list[int]) -> None:
    grid = np.array(values, dtype=np.uint16).reshape(2, 3)
    files = [png(grid[:, :, None], 0), encode(Image.fromarray(grid.astype(order)), "TIFF")]
    for data in files:
        image = decode(data)
        assert image.dtype == torch.float32
        assert torch.equal((image[0] * 257).round().to(torch.int64), torch.from_numpy(grid.astype(np.int64)))
        assert (probe(data).channels, probe(data).bit_depth) == (1, 16)
    assert decode(files[0], 3).shape == (3, 2, 3)


def test_16_bit_grey_with_white_as_zero_is_inverted() -> None:
    grid = np.array([[0, 65535, 257]], dtype=np.uint16)
    data = bytearray(encode(Image.fromarray(grid), "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1))  # PhotometricInterpretation, SHORT, one value
    data[at + 8 : at + 10] = b"\0\0"
    assert decode(bytes(data))[0, 0].tolist() == [255, 0, 254]


@given(values=st.lists(st.integers(0, 65535), min_size=18, max_size=18))
@settings(max_examples=20, deadline=None)
def test_16_bit_colour_keeps_its_values(values: list[int]) -> None:
    grid = np.array(values).reshape(2, 3, 3)
    data = png(grid, 2)
    image = decode(data)
    assert image.dtype == torch.float32
    assert np.array_equal(np.rint(image.permute(1, 2, 0).numpy() * 257), grid)
    assert (probe(data).channels, probe(data).bit_depth) == (3, 16)


def test_16_bit_alpha_is_laid_over_white() -> None:
    grey = png(np.array([[[1000, 65535], [1000, 0], [0, 32768]]]), 4)
    assert probe(grey).channels == 1
    assert decode(grey)[0, 0].numpy() == pytest.approx([1000 / 257, 255, 255 * (1 - 32768 / 65535)])
    colour = png(np.array([[[1000, 2000, 3000, 65535], [1000, 2000, 3000, 0]]]), 6)
    assert decode(colour)[:, 0, 0].numpy() == pytest.approx([1000 / 257, 2000 / 257, 3000 / 257])
    assert decode(colour)[:, 0, 1].tolist() == [255, 255, 255]


def test_16_bit_colour_tiff_keeps_its_values() -> None:
    values = np.array([1, 258, 65535, 40000, 7, 513], dtype="<u2")  # two pixels
    entries = [
        (256, 4, 1, 2),
        (257, 4, 1, 1),
        (258, 3, 3, 200),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 210),
    ]
    entries += [(277, 3, 1, 3), (278, 4, 1, 1), (279, 4, 1, 12)]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    data = (body + bytes(4)).ljust(200, b"\0") + struct.pack("<3H", 16, 16, 16) + bytes(4) + values.tobytes()
    assert probe(data).bit_depth == 16
    assert np.array_equal(np.rint(pixels(data).reshape(-1) * 257), values)


def test_a_pillow_image_of_16_bit_colour_is_refused_before_it_loses_bits() -> None:
    with pytest.raises(VitralError, match="give the file's path"):
        decode(Image.open(io.BytesIO(png(np.full((2, 2, 3), 300), 2))))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_32_bit_are_refused(mode: str) -> None:
    with pytest.raises(VitralError, match="convert it to 8 or 16 unsigned bits"):
        decode(encode(Image.new(mode, (3, 2), 70000), "TIFF"))


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert pixels(encode(image, "PNG"))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    for data in (encode(image, "PNG", transparency=1), encode(image, "GIF", transparency=1)):
        assert pixels(data)[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    graded = encode(image, "PNG", transparency=bytes([255, 0, 51]))
    assert pixels(graded)[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 255]]
    assert probe(graded).channels == 3


def test_alpha_is_laid_over_white() -> None:
    colour = Image.fromarray(np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype=np.uint8))
    assert colour.mode == "RGBA"
    expected = [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    for data in (
        encode(colour, "PNG"),
        encode(colour, "WEBP", lossless=True, exact=True),
        encode(colour, "TIFF"),
    ):
        assert pixels(data)[0].tolist() == expected
    grey = encode(Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8)), "PNG")
    assert decode(grey).tolist() == [[[10, 255]]]


@pytest.mark.parametrize(("depth", "key", "shown"), [(1, 0, 255), (2, 1, 170), (4, 1, 34), (8, 9, 2), (16, 9, 2 / 257)])
def test_the_one_transparent_grey_of_a_png_becomes_white(depth: int, key: int, shown: float) -> None:
    other = 1 if depth == 1 else 2
    data = png(np.array([[[key], [other]]]), 0, depth, extra=transparent_key(key))
    assert decode(data)[0, 0].numpy() == pytest.approx([255, shown])


@pytest.mark.parametrize("depth", [8, 16])
def test_the_one_transparent_colour_of_a_png_becomes_white(depth: int) -> None:
    data = png(np.array([[[1, 2, 3], [1, 2, 4]]]), 2, depth, extra=transparent_key(1, 2, 3))
    assert pixels(data)[0, 0].tolist() == [255, 255, 255]
    assert pixels(data)[0, 1].max() < 5


def test_one_bit_is_black_and_white() -> None:
    assert decode(encode(Image.fromarray(np.array([[True, False]])), "PNG")).tolist() == [[[255, 0]]]


def test_cmyk_jpeg_adobe_and_plain() -> None:
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[:] = (200, 100, 50, 20)
    expected = [(255 - c) * (255 - 20) / 255 for c in (200, 100, 50)]
    adobe = encode(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)  # marked and inverted
    assert pixels(adobe)[8, 8] == pytest.approx(expected, abs=2)
    at = adobe.index(b"\xff\xee")
    plain = encode(Image.fromarray(255 - ink, "CMYK"), "JPEG", quality=100)  # inverted twice
    length = struct.unpack(">H", plain[at + 2 : at + 4])[0]
    assert pixels(plain[:at] + plain[at + 2 + length :])[8, 8] == pytest.approx(expected, abs=2)
    assert probe(adobe).channels == 3
    assert decode(adobe, 1).shape == (1, 16, 16)


def test_colour_to_grey_is_pillows_and_grey_to_colour_repeats() -> None:
    image = Image.fromarray(SMOOTH)
    assert np.array_equal(pixels(encode(image, "PNG"), 1)[:, :, 0], np.array(image.convert("L")))
    deep = decode(png(SMOOTH.astype(int) * 257, 2), 1)[0].numpy()
    assert np.abs(deep - np.array(image.convert("L"))).max() < 0.6
    grey = decode(encode(image.convert("L"), "PNG"), 3)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    jpeg = Image.open(io.BytesIO(encode(image, "JPEG")))
    jpeg.draft("L", jpeg.size)  # a JPEG stores its luma: to go through RGB would clip it
    assert np.abs(pixels(encode(image, "JPEG"), 1)[:, :, 0].astype(int) - np.array(jpeg)).max() <= 1


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(VitralError, match=r"clip: holds 3 frames or pages; extract the one wanted"):
        decode(data, name="clip")


def test_jpeg_is_scaled_only_when_much_larger_than_asked() -> None:
    rough = np.array(Image.fromarray(RNG.integers(0, 256, (100, 150, 3), dtype=np.uint8)).resize((600, 400)))
    data = encode(Image.fromarray(rough), "JPEG", quality=95)
    assert decode(data, hint=160).shape == (3, 400, 600)  # 2.5 times: not more
    for hint in (159, 100, 32, 7):
        scaled = decode(data, hint=hint)
        assert 1.25 * hint <= scaled.shape[1] < 400
        size = (hint * 3 // 2, hint)
        a = np.array(Image.fromarray(scaled.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BILINEAR))
        b = np.array(Image.fromarray(rough).resize(size, Image.Resampling.BILINEAR))
        assert np.abs(a.astype(int) - b).mean() < 4


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_file_that_is_cut_short_is_refused(tmp_path: Path, format: str) -> None:
    whole = encode(Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)), format)
    for keep in (0.02, 0.3, 0.6, 0.9):
        path = tmp_path / f"cut{keep}.img"
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(VitralError, match=rf"cut{keep}\.img: .*(cut short|not a JPEG)"):
            decode(path)


def test_jpeg_padding_before_the_end_is_no_damage() -> None:
    data = encode(Image.fromarray(SMOOTH), "JPEG")
    padded = data[:-2] + b"\x00\x00\x00" + data[-2:]
    assert torch.equal(decode(padded), decode(data))


def test_decompression_bombs_are_refused_by_their_header() -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    tail = png(np.zeros((1, 1, 3)), 2, 8)[33:]
    with pytest.raises(VitralError, match=r"big\.png: over the limit of 178,956,970 pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + tail, name="big.png")
    jpeg = bytearray(encode(Image.fromarray(SMOOTH), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 20_000, 20_000)
    with pytest.raises(VitralError, match="20,000 x 20,000 pixels, over the limit"):
        decode(bytes(jpeg))


def test_large_but_legal_images_raise_no_warning() -> None:
    data = encode(Image.new("1", (10_000, 9_500)), "PNG")  # 95 million pixels: Pillow warns, and warnings are errors
    assert probe(data).width == 10_000


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture at all")
    with pytest.raises(VitralError, match=r"notes\.jpg: is not a JPEG, PNG.*replace it"):
        decode(text)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(VitralError, match=r"empty\.png: is empty \(0 bytes\)"):
        decode(empty)
    with pytest.raises(VitralError, match=r"gone\.png: there is no such file"):
        decode(str(tmp_path / "gone.png"))
    with pytest.raises(VitralError, match="is a folder"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(VitralError, match=r"pipe\.png: is a pipe or a device"):
        decode(tmp_path / "pipe.png")
    with pytest.raises(VitralError, match="is a pipe or a device"):
        decode("/dev/zero")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(VitralError, match=r"huge\.jpg: has 3,221,225,472 bytes, over the limit"):
        decode(tmp_path / "huge.jpg")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encode(Image.fromarray(SMOOTH), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything

        def deny(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)
    with pytest.raises(VitralError, match=r"secret\.png: permission denied; make it readable"):
        decode(path)


@given(
    st.binary(max_size=300),
    st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]),
    st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_noise_is_an_image_or_a_vitral_error(noise: bytes, format: str, at: int) -> None:
    whole = encode(Image.fromarray(SMOOTH[:8, :8]), format)
    with contextlib.suppress(VitralError):
        assert decode(whole[:at] + noise).dim() == 3

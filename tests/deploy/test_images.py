"""Pictures that come in: what is refused in which words, what is kept and for how long, what goes out."""

import base64
import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from viewing import encoded

from vitral.data.preprocess import Preprocess
from vitral.deploy import limits as module
from vitral.deploy.refused import RefusedError
from vitral.deploy.viewer import pack
from vitral.deploy.viewer.images import Images, shown_name
from vitral.deploy.viewer.kept import Kept
from vitral.errors import VitralError


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def bomb(width, height):
    """A PNG of a few hundred bytes whose header promises a large picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_picture_is_named_by_its_content():
    images, data = Images(), encoded()
    stored = images.add(data, "a.png")
    assert stored.id == hashlib.sha256(data).hexdigest()[:16]
    assert (stored.name, stored.width, stored.height) == ("a.png", 56, 40)
    assert images.add(data, "b.png").id == stored.id
    assert images.get(stored.id) == stored
    with pytest.raises(RefusedError, match="drop it again") as refused:
        images.get("0" * 16)
    assert refused.value.status == 404


def test_a_picture_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    images = Images()
    stored = images.add(encoded(kind="JPEG", exif=exif), "turned.jpg")
    assert (stored.width, stored.height) == (40, 56)
    data, _ = images.picture(stored.id, 1000)
    assert opened(data).size == (40, 56)


DEEP = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
CMYK = Image.new("CMYK", (30, 20), (0, 255, 255, 0))  # red
PALETTE = Image.new("RGB", (30, 20), "red").convert("P")
CLEAR = Image.new("RGBA", (30, 20), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (saved(DEEP, "PNG"), (127, 127, 127)),
        (saved(CMYK, "JPEG", quality=100), (255, 0, 0)),
        (saved(PALETTE, "PNG"), (255, 0, 0)),
        (saved(CLEAR, "PNG"), (255, 255, 255)),
        (saved(PALETTE, "GIF"), (255, 0, 0)),
        (saved(CMYK.convert("RGB"), "WEBP", lossless=True), (255, 0, 0)),
        (saved(CMYK.convert("RGB"), "TIFF"), (255, 0, 0)),
    ],
    ids=["16 bits", "CMYK", "palette", "transparent", "GIF", "WebP", "TIFF"],
)
def test_rare_kinds_are_read_and_shown(data, colour):
    images = Images()
    stored = images.add(data, "a")
    shown, kind = images.picture(stored.id, 512)
    assert kind == "image/png"
    assert opened(shown).size == (stored.width, stored.height)
    middle = np.asarray(opened(shown).convert("RGB")).mean(axis=(0, 1))
    np.testing.assert_allclose(middle, colour, atol=3)


FRAMES = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
HOSTILE = {
    "nothing": (b"", "is empty"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is SVG .* which is not read"),
    "html": (b"<!doctype html><script>alert(1)</script>", "is HTML .* which is not read"),
    "text": (b"hello", "is not a JPEG"),
    "cut short": (encoded()[:-40], "damaged or cut short"),
    "cut JPEG": (encoded(kind="JPEG")[:-100], "damaged or cut short"),
    "animated": (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "2 frames"),
    "floats": (saved(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "floating point"),
    "bomb": (bomb(10_000, 10_000), "more pixels than the limit of 50,000,000; shrink it$"),
    "larger bomb": (bomb(20_000, 20_000), "more pixels than the limit of 50,000,000; shrink it$"),
    "largest bomb": (bomb(2**31 - 1, 2**31 - 1), "more pixels than the limit of 50,000,000; shrink it$"),
    "promise": (bomb(5_000, 5_000), "damaged or cut short"),
    "PDF": (b"%PDF-1.4", "is PDF, which is not read"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript, which is not read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_in_a_sentence(name):
    data, says = HOSTILE[name]
    images = Images()
    with pytest.raises(VitralError, match=says) as refused:
        images.add(data, "cat.png")
    assert str(refused.value).startswith("cat.png: ")
    assert "\n" not in str(refused.value)
    assert images.total == 0


def test_a_picture_smaller_than_a_patch_is_refused_by_its_name():
    steps = Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3, min_size=16)
    images = Images(steps=[steps])
    for height, width in ((1, 1), (10, 3000)):
        with pytest.raises(VitralError, match=rf"^thin.png: {height}x{width} pixels are fewer than one 16x16 patch"):
            images.add(encoded(height, width), "thin.png")
    assert images.total == 0
    assert images.add(encoded(16, 16), "enough.png").width == 16


def test_a_file_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(RefusedError, match="over the limit of 1,000") as refused:
        Images().add(bytes(1001), "a.png")
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat.png", "cat.png"),
        ("/home/me/cat.png", "cat.png"),
        ("C:\\pictures\\cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nSet-Cookie: b\n.png", "a Set-Cookie: b .png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),  # text, wherever it is shown
        ("\u202egnp.exe", "gnp.exe"),
        ("", "picture"),
        ("\x00\x01", "picture"),
        ("名前.png", "名前.png"),
    ],
)
def test_a_name_is_shown_as_one_printable_line(name, shown):
    assert shown_name(name) == shown


def test_an_endless_name_is_shortened_and_keeps_its_ending():
    short = shown_name("x" * 1000 + ".png")
    assert len(short) == 100
    assert short.endswith("x.png")
    assert "…" in short


def test_the_oldest_go_first_and_those_that_stay_do():
    data = [encoded(seed=seed, kind="BMP") for seed in range(4)]
    images = Images(room=3 * len(data[0]))
    stays = images.add(data[0], "stays", stays=True)
    first, second = (images.add(data[i], str(i)) for i in (1, 2))
    images.get(first.id)  # looked at again: now the other is the oldest
    third = images.add(data[3], "3")
    with pytest.raises(VitralError):
        images.get(second.id)
    assert [images.get(each.id) for each in (stays, first, third)]
    assert images.total <= images.room


def test_one_picture_larger_than_all_room_is_kept_until_the_next():
    images = Images(room=10)
    one = images.add(encoded(seed=0), "0")
    assert images.get(one.id)
    images.add(encoded(seed=1), "1")
    with pytest.raises(VitralError):
        images.get(one.id)


def test_a_picture_goes_out_no_larger_than_asked_and_no_larger_than_it_is():
    images = Images()
    large = images.add(encoded(300, 700, kind="JPEG"), "large.jpg")
    for side, size in ((350, (350, 150)), (700, (700, 300)), (4096, (700, 300)), (1, (1, 1))):
        data, kind = images.picture(large.id, side)
        assert kind == "image/jpeg"
        assert opened(data).size == size
    assert images.picture(large.id, 350) is not None
    for side in (0, -1, 4097):
        with pytest.raises(VitralError, match=r"1\.\.4096"):
            images.picture(large.id, side)


def test_small_pictures_go_out_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    images = Images()
    stored = images.add(saved(Image.fromarray(pixels), "PNG"), "digit.png")
    data, kind = images.picture(stored.id, 1280)
    assert kind == "image/png"
    np.testing.assert_array_equal(np.asarray(opened(data)), pixels)


def test_what_is_kept_has_a_bound_and_the_least_used_goes():
    kept = Kept(10, len)
    kept.put("a", b"1234")
    kept.put("b", b"1234")
    assert kept.get("a") == b"1234"
    kept.put("c", b"1234")
    assert kept.get("b") is None
    assert kept.get("a") == kept.get("c") == b"1234"
    kept.put("a", b"12")
    assert kept.total == 6
    kept.put("d", bytes(50))
    assert kept.get("d") == bytes(50)
    assert kept.get("a") is None


def test_bytes_are_true_to_half_a_step_and_flat_maps_have_none():
    rng = np.random.default_rng(0)
    for scale in (1e-42, 1e-6, 1, 1e6):
        values = (scale * rng.normal(size=(4, 5))).astype(np.float32)
        found = pack.packed(values, (1.0, 1.5))
        raw = np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(found["grid"]).astype(np.float64)
        span = found["high"] - found["low"]
        assert (abs(found["low"] + raw / 255 * span - values) <= span / 509).all()
        assert found["extent"] == [1.0, 1.5]
    flat = pack.packed(np.full((2, 3), 7.0))
    assert (flat["low"], flat["high"], flat["data"]) == (7, 7, pack.text(bytes(6)))
    assert flat["even"] == "equal everywhere: 7"
    assert pack.packed(np.array([[7.0, 7.5]]))["even"] == ""
    one_row_flat = pack.to_bytes(np.array([[1.0, 2.0], [3.0, 3.0]]), 0.0, np.array([[2.0], [0.0]]))
    np.testing.assert_array_equal(one_row_flat, [[128, 255], [0, 0]])

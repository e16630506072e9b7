"""The page that answers pictures on the device: what it says is the predictor's, and it asks nobody."""

import base64
import functools
import http.server
import io
import json
import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from served import predictor, saved
from viewing import encoded

from asking import predictor_of
from families import small
from vitral.cli import main
from vitral.data import steps as named
from vitral.data.preprocess import Preprocess
from vitral.data.steps import AsIs, CenterCrop, Pad, Resize, ReverseChannels
from vitral.deploy.export.formats import export
from vitral.deploy.web import page as page_module
from vitral.deploy.web import runtime as module
from vitral.deploy.web.page import TASKS
from vitral.deploy.web.runtime import fetch, kept, runtime
from vitral.errors import VitralError

ASK = """
const [text, done] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const plain = (answer) => ({...answer, map: [...(answer.map ?? [])], marks: (answer.marks ?? []).map((m) => m[2] && [...m[2].data])});
answered(new File([bytes], "picture")).then((answer) => done(plain(answer)), (error) => done({error: error.message}));
"""
SEE = """
const [channels, height, width, text, steps, done] = arguments;
const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const [made, where] = seen({channels, height, width, data}, steps);
done([made.height, made.width, [...made.data], where]);
"""

DROP_ALL = """
const carried = new DataTransfer();
for (const [name, text] of Object.entries(arguments[0]))
  carried.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
"""


@pytest.fixture(scope="module")
def fetched():
    """Skips the test where the browsers' runtime was not fetched."""
    if not all((kept() / name).is_file() for name in module.FILES):
        pytest.skip(f"{module.PACKAGE} {module.VERSION}: not fetched; run make web, which needs npm")


@pytest.fixture(scope="module")
def pages(fetched, tmp_path_factory):
    """A page of each task that has one."""
    folder = tmp_path_factory.mktemp("pages")
    for task in TASKS:
        export(finding(task), folder / task, "web")
    return folder


def finding(task):
    """A predictor that answers something of every picture, though it learned nothing."""
    made = predictor(task)
    if made.answers.threshold is not None:
        made.answers.threshold = 0.0
    return made


@pytest.fixture(scope="module")
def origin(pages):
    """An address of the folder with the pages: any server of files will do."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=pages)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def opened(page, address):
    page.open(address)
    page.wait("document.body.dataset.ready === 'yes'")


def pictures():
    """Colour, grey, transparent, turned; PNG, JPEG and WebP; of several shapes."""
    rng = np.random.default_rng(0)
    for i, (height, width, kind, options) in enumerate(
        [
            (200, 300, "PNG", {}),
            (150, 90, "JPEG", {"quality": 90}),
            (40, 56, "PNG", {}),
            (64, 64, "WEBP", {"lossless": True}),
        ]
    ):
        yield f"{kind} {height}x{width}", encoded(height, width, seed=i, kind=kind, **options)
    base = Image.open(io.BytesIO(encoded(90, 120, seed=7)))
    for mode in ("L", "RGBA", "P"):
        buffer = io.BytesIO()
        changed = base.convert(mode)
        if mode == "RGBA":
            changed.putalpha(Image.fromarray(rng.integers(0, 2, (90, 120), dtype=np.uint8) * 255))
        changed.save(buffer, "PNG")
        yield mode, buffer.getvalue()
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    base.save(buffer, "JPEG", quality=95, exif=turned)
    yield "turned", buffer.getvalue()


def asked(page, origin, task):
    """(name, what the page answers, what the predictor does) of each picture."""
    truth = finding(task)
    opened(page, f"{origin}/{task}/")
    for name, data in pictures():
        found = page.driver.execute_async_script(ASK, base64.b64encode(data).decode())
        assert "error" not in found, (name, found)
        yield name, found, truth.predict(data)


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_the_answers_are_the_predictors(page, origin, task):
    truth = predictor(task)
    opened(page, f"{origin}/{task}/")
    for name, data in pictures():
        found = page.driver.execute_async_script(ASK, base64.b64encode(data).decode())
        answer = truth.predict(data)
        assert "error" not in found, (name, found)
        assert [found["height"], found["width"]] == list(truth.read(data).shape[1:]), name
        wanted = dict(answer.top)
        assert all(p == pytest.approx(wanted[label], abs=1e-3) for label, p in found["top"]), name
        if answer.labels is not None:
            assert {label for label, _ in found["labels"]} == {label for label, _ in answer.labels}, name


def test_maps_are_the_predictors(page, origin):
    for name, found, answer in asked(page, origin, "semantic"):
        same = np.array(found["map"]).reshape(answer.map.shape) == answer.map
        assert same.mean() > 0.999, name
        assert dict(map(tuple, found["top"])) == pytest.approx(dict(answer.shares), abs=1e-3), name


@pytest.mark.parametrize("task", ["detect", "instance"])
def test_objects_are_the_predictors(page, origin, task):
    """Boxes to a twentieth of a pixel; masks but for a pixel at their edges."""
    for name, found, answer in asked(page, origin, task):
        assert len(found["top"]) == len(answer.objects) > 3, name
        for (label, score), box, mask, wanted in zip(
            found["top"], found["boxes"], found["marks"], answer.objects, strict=True
        ):
            assert (label, score) == (wanted.label, pytest.approx(wanted.score, abs=1e-3)), name
            assert box == pytest.approx(wanted.box, abs=0.05), name
            assert (mask is None) == (wanted.mask is None), name
            if mask is not None:
                assert (np.array(mask, bool).reshape(wanted.mask.shape) == wanted.mask).mean() > 0.99, name


def test_segments_are_the_predictors(page, origin):
    for name, found, answer in asked(page, origin, "panoptic"):
        assert [label for label, _ in found["top"]] == [each.label for each in answer.segments], name
        assert answer.segments, name
        assert (np.array(found["map"]).reshape(answer.map.shape) == answer.map).mean() > 0.999, name


def test_it_opens_from_the_disk_and_shows_what_was_dropped(page, pages):
    """Without any server: the folder alone. The page fixture sees to it that nobody else was asked."""
    opened(page, (pages / "classify" / "index.html").as_uri())
    data = encoded(120, 160, seed=3)
    page.drop(data, "cat.png")
    page.wait("document.querySelectorAll('.result').length === 1")
    label, probability = predictor().predict(data).top[0]
    assert page.text(".result h2") == "cat.png"
    shown = page.text(".row.first")
    assert shown.startswith(label)
    assert float(re.search(r"([\d.]+) %", shown)[1]) == pytest.approx(100 * probability, abs=0.11)


def test_each_picture_that_fails_says_so_of_its_own(page, origin):
    opened(page, f"{origin}/classify/")
    whole = encoded(120, 160, seed=3, kind="JPEG")
    files = {"bad.jpg": b"no picture", "cat.jpg": whole, "cut.jpg": whole[:300], "empty.jpg": b""}
    page.js(DROP_ALL, {name: base64.b64encode(data).decode() for name, data in files.items()})
    page.wait("document.querySelectorAll('article').length === 4 && !document.getElementById('status').textContent")
    assert page.words(".result h2") == ["cat.jpg"]
    failed = dict(page.words(".refused", "h2", "p"))
    assert list(failed) == ["empty.jpg", "cut.jpg", "bad.jpg"]
    assert all("could not be decoded" in why for why in failed.values())


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_what_moves_is_refused(page, origin, kind):
    """As vitral predict does; a file with one frame is read, whatever its format allows."""
    frames = [Image.open(io.BytesIO(encoded(60, 80, seed=i))) for i in range(3)]
    opened(page, f"{origin}/classify/")
    for count in (1, 3):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:count], duration=100)
        found = page.driver.execute_async_script(ASK, base64.b64encode(buffer.getvalue()).decode())
        if count == 1:
            assert (found["height"], found["width"]) == (60, 80)
            continue
        assert found["error"].startswith("the picture holds several frames")
        with pytest.raises(VitralError, match="frames"):
            predictor().predict(buffer.getvalue())


def test_that_browsers_read_8_bits_is_said(page, origin):
    opened(page, f"{origin}/classify/")
    levels = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    for made, name in ((levels, "deep.png"), ((levels // 257).astype(np.uint8), "usual.png")):
        buffer = io.BytesIO()
        Image.fromarray(made).save(buffer, "PNG")
        page.drop(buffer.getvalue(), name)
        page.wait("document.querySelector('.result h2')?.textContent === arguments[0]", name)
        assert ("16-bit PNGs as 8 bits" in page.text(".result .took")) == (name == "deep.png")


def test_the_policy_of_the_page_lets_nothing_out(page, pages):
    """Were a script to ask another server, the browser itself would refuse."""
    opened(page, (pages / "classify" / "index.html").as_uri())
    asked = "const done = arguments[0]; fetch('https://example.org/').then(() => done('asked'), () => done('refused'))"
    assert page.driver.execute_async_script(asked) == "refused"
    assert any("Content Security Policy" in line for line in page.errors())
    assert page.foreign("file:///") == []


def plans():
    for how in ("crop", "squash", "pad"):
        for filter in ("bilinear", "bicubic"):
            yield Preprocess(40, 56, 3, (0.4, 0.5, 0.6), (0.5,) * 3, how, interpolation=filter).plan
    yield Preprocess(40, 56, 3, (0.5,) * 3, (0.5,) * 3, crop_fraction=0.8, interpolation="bilinear").plan
    for rule in ("shortest", "cover", "fit", "within"):
        yield Resize(rule, 36, 44, "lanczos", arithmetic="pillow"), CenterCrop(40, 56, "even", (1.0, 2.0, 3.0))
    yield Resize("exact", 39, 51, "hamming", arithmetic="pillow"), Pad(40, 56, (7.0,)), ReverseChannels(), AsIs()
    yield (Resize("exact", 40, 56, "nearest", arithmetic="torch"),)
    yield Resize("shortest", 50, 50, "box", longest=60, multiple=4), CenterCrop(40, 56)


def test_pixels_are_vitrals(page, origin):
    """Whatever the steps: the same size, and where they lie; the same levels by PyTorch's arithmetic, by Pillow's, which takes rows or columns first
    as it likes, no more than one off."""
    opened(page, f"{origin}/classify/")
    rng = np.random.default_rng(1)
    for plan in plans():
        for height, width in ((40, 56), (97, 61), (30, 200), (180, 121)):
            pixels = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
            steps = Preprocess.of_steps((40, 56), (0.5,) * 3, (0.5,) * 3, tuple(plan))
            given = base64.b64encode(pixels.tobytes()).decode(), [named.to_json(step) for step in plan]
            h, w, data, where = page.driver.execute_async_script(SEE, 3, height, width, *given)
            wanted = steps.view(pixels).astype(float)
            off = np.abs(np.array(data).reshape(3, h, w) - wanted)
            assert off.max() <= 1, (plan, height, width)
            if all(step.arithmetic == "torch" for step in plan if isinstance(step, Resize)):
                assert off.max() == 0, (plan, height, width)
            (a, _, b), (_, c, d) = steps.where(height, width).rows
            assert where == pytest.approx([a, b, c, d]), (plan, height, width)


def test_what_has_no_page_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "kept", lambda: tmp_path / "nothing")
    with pytest.raises(VitralError, match="run make web"):
        export(predictor(), tmp_path / "page", "web")
    monkeypatch.setattr(page_module, "TASKS", ("classify",))
    with pytest.raises(VitralError, match="has no answers of the task detect"):
        export(predictor("detect"), tmp_path / "page", "web")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index.html").write_text("somebody's page")
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(VitralError, match="name another folder"):
        export(predictor(), tmp_path / "full", "web")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def command(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def test_the_command_writes_the_page_anew(fetched, tmp_path, capsys):
    saved(tmp_path / "m.safetensors")
    for _ in range(2):
        assert command("export", tmp_path / "m.safetensors", "--to", "web", "-o", tmp_path / "page") == 0
    said = capsys.readouterr().err
    assert "comparing answers on 8 images\nwriting the page\n" in said
    assert "no answer differs by more than" in said
    assert f"open {tmp_path / 'page' / 'index.html'}" in said
    assert "- no folder for transformers.js: resize share to 40x56: not in Transformers" in said
    page = (tmp_path / "page" / "index.html").read_text()
    assert "{{" not in page
    about = json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])
    assert about["labels"] == predictor().labels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "page"]
    assert command("export", tmp_path / "m.safetensors", "--to", "web", "--raw", "-o", tmp_path / "other") == 2
    assert "--raw: a page takes pictures" in capsys.readouterr().err


def test_the_folder_for_transformers_js(fetched, tmp_path):
    """The names and fields that it reads, and a model from pixel_values to logits."""
    made = predictor_of(small("vit", image_size=32))
    made.card.preprocess = replace(made.card.preprocess, resize="squash")
    assert export(made, tmp_path / "page", "web").said == ""
    folder = tmp_path / "page" / "transformers"
    config, steps = (json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json"))
    assert config["model_type"] == "vit"
    assert config["id2label"] == {str(k): label for k, label in enumerate(made.labels)}
    assert (steps["image_processor_type"], steps["size"]) == ("ViTImageProcessor", {"height": 32, "width": 32})
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    pixels = made.preprocess(encoded(50, 70))[None]
    (logits,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(logits, made.logits(pixels).numpy(), atol=1e-4)


def test_labels_cannot_end_the_script(fetched, tmp_path):
    made = predictor()
    made.card.labels[0] = "</script><b>"
    export(made, tmp_path / "page", "web")
    assert "</script><b>" not in (tmp_path / "page" / "index.html").read_text()


def test_the_package_is_fetched_once_and_checked(tmp_path, monkeypatch):
    """npm that brings another package, or none, is told; nothing is kept of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(VitralError, match=r"npm: is not installed"):
        fetch()
    monkeypatch.setattr(module.shutil, "which", lambda _: "npm")
    packed = f"{module.PACKAGE}-{module.VERSION}.tgz"

    def npm(words, cwd, **_):
        Path(cwd, packed).write_bytes(b"another")
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", npm)
    with pytest.raises(VitralError, match="SHA-512 differs"):
        fetch()
    monkeypatch.setattr(
        module.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 1, "", "no network")
    )
    with pytest.raises(VitralError, match="no network"):
        fetch()
    assert not kept().exists()
    with pytest.raises(VitralError, match="run make web"):
        runtime()

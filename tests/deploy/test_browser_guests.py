"""The viewer's page for other models and other guests: pyramids, models without labels, files that are no pictures, tokens, a lost server."""

import hashlib
import io
import json

import numpy as np
import pytest
from browser import needed, serving
from onscreen import KEY, answered, bars, percent, reading, same_maps
from PIL import Image
from viewing import encoded

from asking import predictor_of
from families import small
from processes import eventually
from vitral.checkpoints.bundle import save_model

ERROR = "document.querySelector('#error:not([hidden]) p')?.textContent"
READY = "document.querySelector('#main').dataset.ready !== undefined"


@pytest.fixture(scope="module")
def predictors():
    """A Swin of 40 x 56 pixels and four classes, and a masked autoencoder, which answers nothing."""
    return predictor_of(small("swin", image_size=(64, 96))), predictor_of(small("mae", image_size=48))


@pytest.fixture(scope="module")
def server(predictors, tmp_path_factory):
    needed()
    folder = tmp_path_factory.mktemp("server")
    paths = [folder / "swin.safetensors", folder / "mae.safetensors"]
    for path, predictor in zip(paths, predictors, strict=True):
        save_model(path, predictor.model, predictor.card)
    with serving([paths[0], "--against", paths[1]], folder) as running:
        yield running


def dropped(page, data, name="noise.png"):
    """The id of a picture that was let go over the page, once it is looked at."""
    key = hashlib.sha256(data).hexdigest()[:16]
    page.wait(f"!document.querySelector('#empty').hidden || {READY}")  # until then the page does not listen
    page.drop(data, name)
    page.wait(f"location.hash.includes(arguments[0]) && {READY}", key)
    return key


def look_at(server, image, model=0):
    return server.get(f"/api/models/{model}/images/{image}/look")


def test_the_empty_page_invites_and_a_picture_that_is_dropped_is_looked_at(page, server, predictors):
    page.open(server.url)
    page.wait("!document.querySelector('#empty').hidden")
    if not page.words(".example"):  # they are looked for from the start on; the page does not wait for long
        eventually(lambda: server.get("/api/about")["examples"])  # which itself waits for a moment
        page.open(server.url)
    assert page.text("#empty h2") == "Show it a picture"
    assert page.js("return [...document.querySelectorAll('.example span')].map((e) => e.textContent)") == [
        "temple",
        "flower",
        "digit 0",
    ]
    page.wait("[...document.querySelectorAll('.example img')].every((i) => i.complete && i.naturalWidth)")
    data = encoded(80, 120)
    dropped(page, data, "a <b>bold<i> name.png")
    assert page.js("return document.title") == "a <b>bold<i> name.png · vitral"
    assert not page.one("#main").find_elements("css selector", "#strip b, #strip i")
    assert bars(page) == answered(predictors[0], data, 4)
    page.back()
    page.wait("!document.querySelector('#empty').hidden && document.querySelector('#main').hidden")
    page.click(".example:nth-child(2)")
    page.wait("document.title === 'flower · vitral'")
    assert page.js("return [...document.querySelectorAll('#strip button')].map((b) => b.title)") == [
        "temple",
        "flower",
        "digit 0",
    ]


def test_a_pyramid_reads_within_its_windows(page, server, predictors):
    page.open(f"{server.url}#style=heat")
    data = encoded(64, 96)
    image = dropped(page, data)
    look = look_at(server, image)
    assert [layer["kind"] for layer in look["layers"]] == ["windows"] * 4
    page.click('.matrix [data-layer="0"][data-head="mean"]')
    page.click_patch((5, 6), look)
    page.wait(f"{KEY} === 'stage 0, block 0, mean of its heads: the patch in row 5, column 6 reads'")
    maps = reading(predictors[0], data, (5, 6), layers=1)[0]
    inside = np.zeros(look["grid"], bool)
    inside[4:8, 4:8] = True
    assert not maps[:, ~inside].any()
    same_maps(page, [maps])
    assert page.text("#picture .key .scale") == f"0\n{percent(maps[-1].max())}"


def test_a_model_without_labels_shows_attention_and_says_what_it_lacks(page, server, predictors):
    page.open(f"{server.url}#style=heat")
    data = encoded(48, 48)
    dropped(page, data)
    page.click("#models [data-value='1']")
    page.wait("document.querySelectorAll('#answer .bar').length === 0")
    assert "without labels" in page.text("#answer .note") or "no labels" in page.text("#answer .note")
    page.wait(f"{KEY}.includes('block 1')")
    same_maps(page, reading(predictors[1], data))
    page.click("[data-mode=explanation]")
    methods = server.get("/api/about")["models"][1]["methods"]
    page.wait("document.querySelectorAll('.method').length === arguments[0]", len(methods))
    shut = page.js(
        "return [...document.querySelectorAll('.method[aria-disabled]')].map((m) => [m.dataset.method, m.children[1].textContent])"
    )
    assert shut == [[method["name"], method["why"]] for method in methods if method["why"]]
    assert shut
    page.settle()
    page.click("[data-mode=mask]")
    page.wait("document.querySelector('.mode.mask .note')?.checkVisibility()")
    assert "label" in page.text(".mode.mask .note")
    for mode in ("compare", "inspect", "neighbours", "attention"):
        page.click(f"[data-mode={mode}]")
        page.wait("document.querySelector(arguments[0])?.checkVisibility()", f".mode.{mode}")
        page.settle()
    assert page.js(f"return {ERROR} ?? null") is None


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (
            "drawing.svg",
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title = "taken"</script></svg>',
            "drawing.svg",
        ),
        ("page.png", b"<!doctype html><script>alert(1)</script>", "page.png"),
        ("cut.png", encoded()[:200], "cut.png"),
        ("empty.png", b"", "empty"),
    ],
)
def test_what_is_no_picture_gets_a_sentence(name, data, words, page, server):
    page.open(server.url)
    kept = dropped(page, encoded())
    page.drop(data, name, "image/svg+xml" if name.endswith("svg") else "image/png")
    said = page.wait(ERROR)
    assert words in said
    assert len(said) < 300
    page.wait(READY)
    assert kept in page.fragment()["image"]  # what was shown is shown again
    assert page.js("return document.title") == "noise.png · vitral"
    assert all("400" in error or "413" in error for error in page.errors())
    page.click("#error button")
    assert page.js(f"return {ERROR} ?? null") is None


def test_a_file_that_is_too_large_is_not_even_sent(page, server):
    page.open(server.url)
    page.one("#empty")
    page.requests()
    page.js("""const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(60e6)], "large.png", {type: "image/png"}));
    document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));""")
    said = page.wait(ERROR)
    assert "large.png has 60 MB" in said
    assert "50 MB" in said
    assert page.requests() == []


def test_a_token_admits_and_a_lost_server_is_said(page, predictors, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(path, predictors[1].model, predictors[1].card)
    picture = tmp_path / "one.png"
    picture.write_bytes(encoded(48, 48))
    with serving([path, picture, "--host", "127.0.0.2"], tmp_path / "server") as server:
        assert "?token=" in server.url
        page.open(server.origin)
        assert "token" in page.js("return document.body.innerText")
        assert "401" in " ".join(page.errors())
        page.open(server.url)
        page.wait(f"{READY} && {KEY}.includes('block 1')")
        assert "token" not in page.js("return location.href")
        page.reload()
        page.wait(f"{READY} && {KEY}.includes('block 1')")
        assert server.stop() == 0
        page.click("[data-mode=inspect]")  # its code is no longer there to be fetched
        assert "does not answer" in page.wait(ERROR)
        page.click("#error button")
        page.click("[data-mode=attention]")
        page.press("\ue014")
        page.wait(f"{ERROR}.includes('does not answer')")
    assert all("ERR_CONNECTION_REFUSED" in error or "Failed to fetch" in error for error in page.errors())


def test_a_photograph_with_its_orientation_lies_as_it_was_taken(page, server, predictors):
    """EXIF orientation 6: stored lying, shown upright, and patches are counted upright."""
    image = Image.open(io.BytesIO(encoded(96, 64)))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    page.open(f"{server.url}#style=heat")
    key = dropped(page, buffer.getvalue(), "lying.jpg")
    look = look_at(server, key)
    assert (look["picture"]["width"], look["picture"]["height"]) == (96, 64)
    page.click('.matrix [data-layer="0"][data-head="mean"]')
    page.click_patch((15, 2), look)
    page.wait(f"{KEY}.includes('row 15, column 2')")
    same_maps(page, reading(predictors[0], buffer.getvalue(), (15, 2), layers=1))
    size = page.js("const c = document.querySelector('#picture canvas'); return [c.clientWidth, c.clientHeight]")
    assert size[0] / size[1] == pytest.approx(1.5, abs=0.02)
    assert json.dumps(look["box"]) == "[0, 0, 64, 96]"

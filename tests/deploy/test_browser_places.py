"""The viewer's page for a model that finds objects, in a real browser: they are listed, one is lit or explained; and for a map's classes."""

import base64

import numpy as np
import pytest
import torch
from browser import needed, serving
from onscreen import KEY, bars, percent
from viewing import encoded

import vitral
from families import small
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.session import Session
from vitral.models.heads.dense import Dense
from vitral.models.heads.options import LinearOptions, QueryOptions

LABELS = ["cat", "dog", "bird", "fish"]
DRAWN = """const canvas = document.querySelector('#picture canvas:first-of-type'), copy = document.createElement('canvas');
[copy.width, copy.height] = [canvas.width, canvas.height];
const context = copy.getContext('2d', {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
return [...context.getImageData(0, 0, copy.width, copy.height).data].filter((_, i) => i % 4000 === 0)"""


def saved(folder, head, task):
    torch.manual_seed(3)
    model = Dense(small("vit", image_size=(40, 56)).config, head)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        if task != "semantic":
            for each in (model.head.dense, model.head.decoder.answer):
                each.label.bias.fill_(-1.0)
                each.label.weight.mul_(4)
    steps = Preprocess(40, 56, 3, (0.5,) * 3, (0.5,) * 3, "pad")
    card = ModelCard("vit", model.config.arguments(), LABELS, steps, task=task, head=head.to_json())
    path = folder / f"{task}.safetensors"
    save_model(path, model.eval(), card)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    (root / "a.png").write_bytes(encoded(60, 84))
    return root


@pytest.fixture(scope="module")
def detector(folder):
    head = QueryOptions(decoder_layers=1, query_dim=24, query_heads=2, queries=12, pixel_dim=8)
    return saved(folder, head, "instance")


@pytest.fixture(scope="module")
def segmenter(folder):
    return saved(folder, LinearOptions(), "semantic")


@pytest.fixture(scope="module")
def server(folder, detector):
    needed()
    with serving([detector, folder / "a.png"], folder / "server") as running:
        yield running


def opened(page, server, fragment=""):
    page.open(server.url + fragment)
    page.wait("document.querySelector('#main').dataset.ready !== undefined")
    page.wait(f"{KEY} !== ''")
    page.settle()


def test_objects_are_listed_and_one_is_explained(page, server, folder, detector):
    objects = vitral.load(detector).predict(folder / "a.png").objects
    assert len(objects) > 2, "the made model finds some"
    opened(page, server, "#mode=explanation&method=attention&style=heat")
    assert bars(page) == [(f"{k} {each.label}", percent(each.score)) for k, each in enumerate(objects)][:40]
    assert page.js(f"return {KEY}") == "Attention of object 0, decoder layer 0, mean of heads"
    page.click("#answer li:nth-child(3) .bar")
    page.wait(f"{KEY} === 'Attention of object 2, decoder layer 0, mean of heads'")
    page.wait("location.hash.includes('target=2')")
    page.reload()
    page.wait(f"{KEY} === 'Attention of object 2, decoder layer 0, mean of heads'")
    expected = vitral.load(detector).explain(folder / "a.png", object=2).grid
    image = server.get("/api/about")["given"][0]["id"]
    told = server.get(f"/api/models/0/images/{image}/explain?method=attention&target=2")
    assert told["map"]["high"] == pytest.approx(expected.max(), rel=1e-4)
    assert told["target"]["label"] == objects[2].label


def test_an_object_that_is_pointed_at_is_lit_alone(page, server):
    opened(page, server, "#mode=explanation&method=attention")
    before = page.js(DRAWN)
    page.moves().move_to_element(page.one("#answer li:nth-child(2) .bar")).perform()
    page.wait(f"(() => {{{DRAWN}}})().join() !== arguments[0]", ",".join(map(str, before)))
    page.moves().move_to_element(page.one("h1")).perform()
    page.wait(f"(() => {{{DRAWN}}})().join() === arguments[0]", ",".join(map(str, before)))


@pytest.mark.parametrize("click", [False, True])
def test_an_object_in_the_picture_is_explained(page, server, click):
    """While the pointer rests on it, and until another is chosen if it is clicked."""
    opened(page, server, "#mode=explanation&method=attention")
    chosen_before = page.js(f"return {KEY}")
    image = server.get("/api/about")["given"][0]["id"]
    places = server.get(f"/api/models/0/images/{image}/look")["answer"]["top"]
    canvas = page.one("#picture canvas")
    width, height = page.js("return [arguments[0].clientWidth, arguments[0].clientHeight]", canvas)

    def area(k):
        x0, y0, x1, y1 = places[k]["box"]
        return (x1 - x0) * (y1 - y0)

    def holds(k, y, x):
        grid = places[k]["place"]["grid"]
        values = np.frombuffer(base64.b64decode(places[k]["place"]["data"]), np.uint8).reshape(grid)
        return values[int(y / 60 * grid[0]), int(x / 84 * grid[1])] > 127

    spots = [
        (y, x) for y in range(6, 60, 6) for x in range(7, 84, 7) if any(holds(k, y, x) for k in range(1, len(places)))
    ]
    y, x = next(spot for spot in spots if not holds(0, *spot))
    moves = page.moves().move_to_element_with_offset(
        canvas, round(width * (x / 84 - 0.5)), round(height * (y / 60 - 0.5))
    )
    (moves.click() if click else moves).perform()
    chosen = min((k for k in range(len(places)) if holds(k, y, x)), key=area)
    assert chosen > 0
    page.wait(f"{KEY}.startsWith('Attention of object {chosen},')")
    page.moves().move_to_element(page.one("h1")).perform()
    after = f"Attention of object {chosen}," if click else chosen_before
    page.wait(f"{KEY}.startsWith('{after}')")
    assert ("target=" in page.js("return location.hash")) == click


def test_modes_for_one_answer_a_picture_say_why_not(page, server):
    opened(page, server, "#mode=mask")
    assert page.fragment().get("mode", "attention") == "attention"
    page.click("#modes [data-mode=compare]")
    page.wait("document.querySelector('#error p').textContent.includes('answers places')")
    assert page.js("return document.querySelector('#modes [data-mode=mask]').getAttribute('aria-disabled')") == "true"


def test_classes_of_a_map(page, folder, segmenter):
    needed()
    shares = vitral.load(segmenter).predict(folder / "a.png").shares
    with serving([segmenter, folder / "a.png"], folder / "server-maps") as running:
        opened(page, running, "#mode=explanation&method=relevance")
        assert bars(page) == [(label, percent(share)) for label, share in shares]
        page.wait(f"{KEY}.startsWith('Relevance to {shares[0][0]}')")
        page.click("#answer li:last-child .bar")
        page.wait(f"{KEY}.startsWith('Relevance to {shares[-1][0]}')")


def test_an_exported_page_of_objects(page, folder, detector, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["view", str(detector), str(folder / "a.png"), "--export", str(folder / "a.html")])
    assert stop.value.code == 0, capsys.readouterr().err
    page.open((folder / "a.html").as_uri() + "#mode=explanation&method=attention")
    page.wait(f"{KEY} === 'Attention of object 0, decoder layer 0, mean of heads'")
    page.click("#answer li:nth-child(2) .bar")
    page.wait(f"{KEY} === 'Attention of object 1, decoder layer 0, mean of heads'")


def test_a_session_of_a_detector_refuses_what_needs_one_answer(detector):
    images = Images()
    image = images.add(encoded(60, 84), "a.png", stays=True).id
    session = Session([vitral.load(detector)], ["detector"], images, given=[image])
    try:
        told = session.about()["models"][0]
        assert set(told["modes"]) == {"mask", "compare", "inspect", "neighbours"}
        assert {m["name"] for m in told["methods"] if m["why"]} == {"legrad", "logit_lens"}
        look = session.look(0, image).describe()
        assert all(0 <= row["p"] <= 1 for row in look["answer"]["top"])
        grids = {tuple(row["place"]["grid"]) for row in look["answer"]["top"]}
        assert grids == {(69, 96)}
    finally:
        session.close()

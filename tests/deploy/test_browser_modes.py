"""The viewer's modes in a real browser: explanations and their scores, masks, comparisons, what is inside, neighbours; against the library."""

import json
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import torch
from browser import needed, serving
from onscreen import KEY, in_order, panes, percent, thumbnails
from PIL import Image

import vitral
from asking import predictor_of, reads_evenly
from families import small
from processes import PATIENCE
from vitral.checkpoints.bundle import save_model
from vitral.errors import VitralError
from vitral.explain.counterfactual import counterfactual
from vitral.explain.faithfulness import scored
from vitral.explain.inspection.inspect import inspect_image
from vitral.explain.removal import Removable
from vitral.explain.versus import agreement, truer

COPY = """
const marks = document.querySelector(arguments[0]);
const copy = document.createElement("canvas");
[copy.width, copy.height] = [marks.width, marks.height];
const context = copy.getContext("2d", {willReadFrequently: true});
context.drawImage(marks, 0, 0);
"""
MARKED = COPY + "return context.getImageData(0, 0, copy.width, copy.height).data.some((x) => x > 0)"
DARK = (
    COPY
    + """
const at = (i) => [((i % 5) + 0.3) * copy.width / 5, (Math.floor(i / 5) + 0.3) * copy.height / 5];
return Array.from({length: 25}, (_, i) => context.getImageData(...at(i), 1, 1).data[3] > 200);
"""
)
ARROWS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}


@pytest.fixture(scope="module")
def predictors(shapes_run):
    """The trained one, and one of another size with registers, that has its classes in another order."""
    other = small("vit", image_size=48, in_channels=1, num_classes=3, num_registers=2)
    return vitral.load(shapes_run), predictor_of(other, labels=["square", "cross", "disc"])


@pytest.fixture(scope="module")
def server(shapes_run, predictors, pictures, tmp_path_factory):
    needed()
    folder = tmp_path_factory.mktemp("server")
    save_model(folder / "other.safetensors", predictors[1].model, predictors[1].card)
    with serving([shapes_run, *pictures, "--against", folder / "other.safetensors"], folder) as running:
        yield running


EVEN = "document.querySelector('#picture .key .scale').hidden"


def test_a_map_without_contrast_has_none_in_the_picture_the_matrix_and_the_exported_page(page, tmp_path):
    """An even head is nowhere bright, and the key says so in place of a scale."""
    model = reads_evenly(small("vit", image_size=48, in_channels=1, num_classes=3))
    save_model(tmp_path / "even.safetensors", model, predictor_of(model).card)
    grey = tmp_path / "grey.png"
    Image.new("L", (480, 480), 90).save(grey)
    asked = [tmp_path / "even.safetensors", grey]
    with serving(asked, tmp_path / "server") as running:
        (image,) = (each["id"] for each in running.get("/api/about")["given"])
        look = told(running, image)
        running.get(f"/api/models/0/images/{image}/explain?method=attention")
        recorded = tmp_path / "even.html"
        with urllib.request.urlopen(f"{running.origin}/api/models/0/images/{image}/page", timeout=PATIENCE) as made:
            recorded.write_bytes(made.read())
        for url in (running.url, recorded.as_uri()):
            for style in ("light", "heat"):
                for mode in ("attention", "explanation&method=attention"):
                    page.open(f"{url}#mode={mode}&style={style}")
                    page.wait(f"{KEY}.includes('equal everywhere')")
                    page.settle()
                    assert page.js(f"return {EVEN}")
                    shown = panes(page, look)
                    assert np.ptp(shown.reshape(-1, 3), axis=0).max() <= 2, "no patch is lit more than another"
                    assert np.ptp(shown, axis=-1).max() < 12, "and none is golden"
                    if mode == "attention":
                        for cells in thumbnails(page, [np.zeros((3, *look["grid"]))]):
                            assert np.ptp(cells.reshape(-1, 3), axis=0).max() == 0
                            assert np.ptp(cells, axis=-1).max() < 12


@pytest.fixture(scope="module")
def ids(server):
    return [image["id"] for image in server.get("/api/about")["given"]]


def told(server, image, model=0):
    return server.get(f"/api/models/{model}/images/{image}/look")


def opened(page, server, mode, fragment=""):
    """The page in a mode, once that is shown."""
    page.open(f"{server.url}#mode={mode}{fragment}")
    page.wait("document.querySelector(arguments[0])?.checkVisibility()", f".mode.{mode}")


def sentence(text):
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def table(found):
    """A score's table as it is written."""
    f = "{:.3f}".format
    spread = [
        f"{f(mean)} ± {f(sd)}"
        for mean, sd in zip((found.random_deletion, found.random_insertion), found.spread, strict=True)
    ]
    return [
        ["the map", f(found.deletion), f(found.insertion)],
        ["random orders", *spread],
        ["centre first", f(found.centre_deletion), f(found.centre_insertion)],
    ]


def tables(page, root):
    """The score's table under an element, once it is there."""
    page.wait("document.querySelector(arguments[0])", f"{root} .areas tbody tr")
    return page.js(
        "return [...document.querySelectorAll(arguments[0])].map((r) => [...r.children].map((c) => c.textContent))",
        f"{root} .areas tbody tr",
    )


def test_every_method_that_is_defined_shows_its_map_and_its_score(page, server, ids, pictures, predictors):
    opened(page, server, "explanation", f"&style=heat&image={ids[1]}")
    look, methods = told(server, ids[1]), server.get("/api/about")["models"][0]["methods"]
    able = [method["name"] for method in methods if method["why"] is None]
    assert {"attention", "rollout", "relevance", "grad_cam", "occlusion", "pca"} <= set(able)
    lit = []  # whose map was compared with the picture
    for name in able:
        found = predictors[0].explain(pictures[1], name)
        page.click(f".method[data-method={name}]")
        page.wait(f"{KEY}.split('; ')[0] === arguments[0]", found.method[0].upper() + found.method[1:])
        if found.floor is None and found.colours is None:
            flat = np.ptp(found.grid) < 0.02 * abs(found.grid).max()
            assert page.js(f"return {KEY}.includes('equal everywhere')") == flat, name
        assert page.js("return document.querySelector('[aria-checked=true].method').dataset.method") == name
        shown = panes(page, look, found.grid.shape)
        if found.colours is not None:
            channels = [np.corrcoef(np.ravel(shown[..., c]), np.ravel(found.colours[..., c]))[0, 1] for c in range(3)]
            assert min(channels) > 0.98
            assert "no order" in page.text(".score")
            continue
        zero = found.grid.min() if found.floor is None else found.floor
        weighs = (found.grid - zero) / abs(found.grid - zero).max()  # below 0 what speaks against
        if found.even:
            lit.append(name)
            assert np.ptp(shown.reshape(-1, 3), axis=0).max() <= 2, (
                "no patch of a black picture is lit more than another"
            )
        elif max(weighs.max(), 0) - max(weighs.min(), 0) > 0.3:  # a map that is flat proves nothing
            lit.append(name)
            in_order(shown[weighs >= 0], weighs[weighs >= 0], 0.9)
        if weighs.min() < -0.3:  # cool: more blue than red
            against = shown[weighs == weighs.min()][0]
            assert against[2] > against[0] + 20
        truth = scored(predictors[0], pictures[1], found)
        assert tables(page, ".score") == table(truth), name
        assert page.text(".score .verdict") == sentence(truth.verdict())
    assert {"attention", "rollout", "relevance", "occlusion"} <= set(lit)


DRAWN = """
const [low, high, even, floor, done] = arguments;
const data = btoa(String.fromCharCode(0, 255));
const answer = {words: "a map", colours: null, floor, map: {grid: [1, 2], extent: [1, 1], low, high, even, data}};
import("viewer/explanation.js").then(({drawn}) => drawn(answer, "heat"))
  .then(({painted, key}) => done([painted.values && [...painted.values], Boolean(painted.even), key.low, key.high]));
"""


@pytest.mark.parametrize(
    ("low", "high", "even", "floor", "values", "ends"),
    [
        (0.01563, 0.01568, "nearly equal everywhere", None, None, ["", ""]),
        (0.01563, 0.01568, "", None, [0, 1], ["0.01563", "0.01568"]),  # the server decides, the page does not
        (0.2, 0.201, "nearly equal everywhere", 0, None, ["", ""]),
        (-0.1, 0.2, "", 0, [-0.5, 1], ["−0.1", "0.2"]),
    ],
)
def test_the_page_draws_a_map_as_the_server_tells_it(low, high, even, floor, values, ends, page, server):
    opened(page, server, "explanation")
    found, told_even, *shown = page.driver.execute_async_script(DRAWN, low, high, even, floor)
    assert found == (values and pytest.approx(values, abs=1e-3))
    assert told_even is bool(even)
    assert shown == ends


def test_a_class_and_a_reader_can_be_asked_for(page, server, ids, pictures, predictors):
    opened(page, server, "explanation", f"&image={ids[0]}")
    page.wait(f"{KEY}.includes('cross')")
    page.click(".options input[type=text]")
    page.press("disc", "\ue007")
    page.wait(f"{KEY}.includes('disc')")
    index = predictors[0].labels.index("disc")
    page.wait(f"location.hash.includes('target={index}')")
    found = predictors[0].explain(pictures[0], "relevance", target="disc")
    assert tables(page, ".score") == table(scored(predictors[0], pictures[0], found))
    pressed = (
        "return [...document.querySelectorAll('#answer .bar[aria-pressed=true] .label')].map((e) => e.textContent)"
    )
    assert page.js(pressed) == ["disc"]
    page.click(".options input[type=text]")
    page.press("zebra", "\ue007")
    page.wait("document.querySelector('#error p').textContent.includes('zebra')")
    page.click("#answer li:nth-child(1) .bar")
    page.wait("!location.hash.includes('target')")
    page.click(".method[data-method=attention]")
    page.wait(f"{KEY}.toLowerCase().includes('attention')")
    page.click_patch((3, 1), told(server, ids[0]))
    page.wait("location.hash.includes('query=3,1')")
    truth = predictors[0].explain(pictures[0], "attention", query=(3, 1))
    page.wait(f"{KEY} === arguments[0]", truth.method[0].upper() + truth.method[1:])
    assert tables(page, ".score") == table(scored(predictors[0], pictures[0], truth))


def test_two_methods_are_compared_as_the_library_compares_them(page, server, ids, pictures, predictors):
    opened(page, server, "compare", f"&image={ids[0]}&left=0:relevance&right=0:rollout&style=heat")
    for right in ("rollout", "occlusion"):
        if right == "occlusion":
            page.js("""const s = document.querySelector('[aria-label=Right] [aria-label=Method]');
            s.value = 'occlusion'; s.dispatchEvent(new Event('change'));""")
        maps = [predictors[0].explain(pictures[0], name) for name in ("relevance", right)]
        scores = [scored(predictors[0], pictures[0], found) for found in maps]
        verdict = sentence(truer(*scores, ("relevance", right)))
        page.wait("document.querySelector('.compare .verdict').textContent === arguments[0]", verdict)
        assert [tables(page, f"[aria-label={side}]") for side in ("Left", "Right")] == [table(s) for s in scores]
        assert f"agree to {agreement(*maps):.2f}".replace("-", "−") in page.text(".together .note").replace("-", "−")
    page.wait("location.hash.includes('right=0:occlusion')")
    page.wait("document.querySelector('#live').textContent.includes('occlusion')")
    said = page.js("return document.querySelector('#live').textContent")
    assert sentence(said) == verdict
    page.over((1, 1), told(server, ids[0]), picture="[aria-label=Left]").perform()
    assert page.js(MARKED, "[aria-label=Left] .marks")
    assert page.js(MARKED, "[aria-label=Right] .marks")
    page.click("[data-mode=inspect]")
    page.wait("document.querySelector('#live').textContent !== arguments[0]", said)  # it is no longer so


def test_two_models_are_compared_each_with_its_own_classes(page, server, ids, pictures, predictors):
    opened(
        page,
        server,
        "compare",
        f"&image={ids[0]}&left=0:rollout&right=1:rollout&target={predictors[0].labels.index('square')}",
    )
    names = page.js(
        "return [...document.querySelectorAll('[aria-label=Left] [aria-label=Model] option')].map((o) => o.textContent)"
    )
    assert names == ["shapes", "other.safetensors"]
    maps = [predictor.explain(pictures[0], "rollout") for predictor in predictors]
    scores = [scored(*pair) for pair in zip(predictors, pictures[:1] * 2, maps, strict=True)]
    verdict = sentence(truer(*scores, tuple(f"rollout of {name}" for name in names)))
    page.wait("document.querySelector('.compare .verdict').textContent.startsWith(arguments[0])", verdict)
    assert f"agree to {agreement(*maps):.2f}" in page.text(".together .note").replace("−", "-")
    for side, predictor, name in zip(("Left", "Right"), predictors, names, strict=True):
        ((label, p), *_) = predictor.predict(pictures[0]).top
        assert page.text(f"[aria-label={side}] .said") == f"{name} says {label}, {percent(p)}"
    assert page.text("#answer h2") == f"Answer of {names[0]}"


def moved(page):
    """The bars of the mask mode."""
    return dict(page.words(".moved li", ".label", ".number"))


def without(predictor, picture, patches):
    """What the bars have to say: patches painted by hand in the colour that is zero to the model."""
    asked = Removable(predictor, picture)
    pixels = predictor.preprocess(picture)
    for patch in patches:
        row, column = (asked.side * i for i in divmod(patch, asked.grid[1]))
        pixels[:, row : row + asked.side, column : column + asked.side] = 0
    with torch.inference_mode():
        p = predictor.probabilities(predictor.model(pixels[None]))[0].tolist()
    return {label: percent(q) for label, q in zip(predictor.labels, p, strict=True)}


def test_painting_patches_away_moves_the_probabilities(page, server, ids, pictures, predictors):
    opened(page, server, "mask", f"&image={ids[0]}")
    look = told(server, ids[0])

    def now(text, patches):
        page.wait("location.hash.includes(arguments[0])", text)
        wanted = without(predictors[0], pictures[0], patches)
        page.wait(
            "JSON.stringify(Object.fromEntries([...document.querySelectorAll('.moved li')].map((r) => "
            "[r.querySelector('.label').textContent, r.querySelector('.number').textContent]).sort())) === JSON.stringify(arguments[0])",
            dict(sorted(wanted.items())),
        )

    page.wait("document.querySelectorAll('.moved li').length === 3")
    assert moved(page) == without(predictors[0], pictures[0], [])
    page.click_patch((1, 2), look, "removal")
    now("masked=7", [7])
    moves = page.over((3, 0), look, "removal").click_and_hold()
    moves.perform()
    page.over((3, 4), look, "removal").release().perform()  # a stroke that the mouse makes in one leap leaves no gaps
    now("masked=7,15-19", [7, *range(15, 20)])
    assert page.text(".count") == "6 of 25 patches removed (24 %)"
    page.click_patch((1, 2), look, "removal")  # one that is gone comes back
    now("masked=15-19", range(15, 20))
    page.press(ARROWS["up"], " ")
    now("masked=2,15-19", [2, *range(15, 20)])
    hatched = np.array(page.js(DARK, "#picture .marks"))
    assert set(np.flatnonzero(hatched)) == {2, *range(15, 20)}
    page.back()
    now("masked=15-19", range(15, 20))
    page.click(".acts button:nth-child(2)")
    now("masked=0-14,20-24", [*range(15), *range(20, 25)])
    page.click(".acts button:nth-child(1)")
    page.wait("!location.hash.includes('masked')")
    page.wait("document.querySelector('.count').textContent === 'All 25 patches are there'")
    page.click(".masking [data-value=blur]")
    page.click_patch((2, 2), look, "removal")
    kept = np.ones((1, 25), bool)
    kept[0, 12] = False
    p = Removable(predictors[0], pictures[0], "blur").probabilities(kept)[0]
    page.wait("document.querySelector('.moved li .number').textContent === arguments[0]", percent(p.max()))


def flipped(predictor, pictures):
    """The pictures, by number, whose answer changes without some patches, and what that takes; not those of what an empty picture is taken for."""
    for i, picture in enumerate(pictures):
        with suppress(VitralError):
            yield i, counterfactual(predictor, picture)


def test_the_fewest_patches_that_flip_the_answer_are_found_and_shown(page, server, ids, pictures, predictors):
    page.media(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    shown, found = next(flipped(predictors[0], pictures))
    opened(page, server, "mask", f"&image={ids[shown]}")
    page.click(".acts .strong")
    page.wait("document.querySelector('.found').textContent === arguments[0]", sentence(str(found).splitlines()[0]))
    gone = sorted(row * 5 + column for row, column in found.patches)
    assert page.text(".count").startswith(f"{len(gone)} of 25 patches removed")
    leading = "document.querySelector('.moved .leading .label').textContent"
    page.wait(f"{leading} === arguments[0]", found.instead)
    assert moved(page) == without(predictors[0], pictures[shown], gone)
    assert page.js("return document.querySelector('.masking').classList.contains('flipped')")


def test_inside_are_the_librarys_positions_norms_and_distances(page, server, ids, pictures, predictors):
    opened(page, server, "inspect", f"&image={ids[0]}&query=4,0")
    truth = inspect_image(predictors[0], pictures[0])
    page.wait("document.querySelectorAll('.finding').length >= 5")
    positions = truth.positions[0]
    page.wait(f"{KEY}.includes('row 4, column 0')")
    low, high = positions.similarity.min(), positions.similarity.max()
    assert page.text("#picture .key .scale").replace("−", "-").split("\n") == [f"{low:.2f}", f"{high:.2f}"]
    page.over((1, 1), told(server, ids[0])).perform()
    page.wait(f"{KEY}.includes('row 1, column 1')")
    titles = page.js("return [...document.querySelectorAll('.layers button')].map((b) => b.title)")
    assert len(titles) == len(truth.layers) == 3
    for title, layer in zip(titles, truth.layers, strict=True):
        said = [float(word) for word in title.split(": from ")[1].split(",")[0].split(" to ")]
        np.testing.assert_allclose(said, [layer.norm.min(), layer.norm.max()], rtol=0.01)
    page.click(".layers button:nth-child(3)")
    page.wait("location.hash.includes('inspected=n2')")
    dots = page.js("return [...document.querySelectorAll('.finding.distance .dot title')].map((t) => t.textContent)")
    heads = [y for layer in truth.attention for y in layer.distance]
    assert [float(text.split(": ")[1].split(" px")[0]) for text in dots] == [float(f"{y:.3g}") for y in heads]
    page.js(
        "document.querySelector('.finding.distance circle.dot').dispatchEvent(new MouseEvent('click', {bubbles: true, "
        "clientX: document.querySelector('.finding.distance circle.dot').getBoundingClientRect().x + 2, clientY: 0}))"
    )
    page.wait("document.body.dataset.mode === 'attention'")
    assert page.fragment()["layer"] == "0"
    page.settle()


def test_neighbours_are_the_most_alike_of_the_runs_own_images(page, server, ids, shapes_folder, predictors):
    opened(page, server, "neighbours", f"&image={ids[0]}")
    page.wait("document.querySelectorAll('ol.neighbours li').length === 12")
    shown = page.js(
        "return [...document.querySelectorAll('ol.neighbours li')].map((n) => [n.title, ...[...n.children].slice(1).map((e) => e.textContent)])"
    )
    model, preprocess = predictors[0].model, predictors[0].preprocess
    own = shapes_folder / "cross" / "00.png"
    with torch.inference_mode():
        files = sorted(shapes_folder.rglob("*.png"))
        rows = torch.nn.functional.normalize(
            model.represent(torch.stack([preprocess(file) for file in [own, *files]])), dim=1
        )
    alike = {
        str(file.relative_to(shapes_folder)): float(cosine)
        for file, cosine in zip(files, rows[1:] @ rows[0], strict=True)
    }
    for name, label, said in shown:
        path = next(key for key in alike if name.endswith(key))
        assert label == path.split("/")[0]
        if said == "the picture itself":
            assert path == "cross/00.png"
        else:
            assert float(said) == pytest.approx(alike[path], abs=2e-3)
    said = [float(n[2]) for n in shown if n[2] != "the picture itself"]
    assert said == sorted(said, reverse=True)
    votes = page.js(
        "return [...document.querySelectorAll('.votes li')].map((v) => [...v.children].slice(0, 2).map((e) => e.textContent))"
    )
    voters = [n[1] for n in shown if n[2] != "the picture itself"]
    assert dict(votes) == {label: percent(voters.count(label) / len(voters)) for label in set(voters)}
    page.reload()
    page.wait("document.querySelectorAll('ol.neighbours li').length === 12")


def test_what_is_shown_can_be_taken_along(page, server, ids, pictures, predictors):
    page.open(f"{server.url}#image={ids[0]}&query=2,3&layer=0&head=1")
    page.wait(f"{KEY}.includes('row 2, column 3')")

    def take(item):
        page.press("s")
        page.wait("document.querySelector('.menu')?.checkVisibility()")
        page.js(
            "[...document.querySelectorAll('[role=menuitem]')].find((i) => i.textContent.startsWith(arguments[0])).click()",
            item,
        )

    take("Numbers")
    found = json.loads(page.downloaded("cross-attention-2-3-layer0-head1.json").read_text())
    wanted = vitral.explain.explain.attention_maps(predictors[0], pictures[0])
    maps = wanted.geometry[0].read(wanted.layers[0], (2, 3))[1]
    np.testing.assert_allclose(found["values"], maps, atol=maps.max() / 255)
    assert found["prefix"]["class token"] == pytest.approx(wanted.layers[0][1, 1 + 2 * 5 + 3, 0], abs=1e-6)
    take("Picture")
    with Image.open(page.downloaded("cross-attention-2-3-layer0-head1.png")) as saved:
        assert min(saved.size) >= 500
        assert np.asarray(saved.convert("L")).std() > 5
    page.open(f"{server.url}#image={ids[0]}&mode=explanation&method=relevance&query=1,1")
    page.wait(f"{KEY}.includes('row 1 and column 1')")
    take("Numbers")
    found = json.loads(page.downloaded("cross-explanation-relevance.json").read_text())
    wanted = predictors[0].explain(pictures[0], "relevance", query=(1, 1)).grid
    np.testing.assert_allclose(found["values"], wanted, atol=np.ptp(wanted) / 250)

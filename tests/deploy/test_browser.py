"""The viewer's page in a real browser: what it shows of attention is what the library says, and its state is in the link."""

import io

import numpy as np
import pytest
from browser import needed, serving
from onscreen import DRAWN, KEY, answered, bars, brightness, panes, percent, reading, same_maps
from PIL import Image

import vitral
from vitral.drawing.colours import colourise
from vitral.explain.explain import attention_maps

READY = "document.querySelector('#main').dataset.ready !== undefined && document.querySelector('.matrix canvas')"
HEAT = "#style=heat"


@pytest.fixture(scope="module")
def server(shapes_run, pictures, tmp_path_factory):
    needed()
    with serving([shapes_run, *pictures], tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def predictor(shapes_run):
    return vitral.load(shapes_run)


def told(server, number=0):
    """A given picture's look."""
    image = server.get("/api/about")["given"][number]["id"]
    return server.get(f"/api/models/0/images/{image}/look")


def opened(page, server, fragment=""):
    """The page, once its first map is drawn."""
    page.open(server.url + fragment)
    page.wait(f"{READY} && {KEY}.includes('reads') && {DRAWN}")


def says(page, words):
    """Until the key names what is drawn."""
    page.wait(f"{KEY} === arguments[0] && {DRAWN}", words)


def test_the_page_opens_with_the_first_picture_and_its_answer(page, server, pictures, predictor):
    opened(page, server, HEAT)
    assert bars(page) == answered(predictor, pictures[0], 3)
    assert page.js("return document.title") == "cross.png · vitral"
    assert page.fragment()["image"] == told(server)["picture"]["id"]
    same_maps(page, reading(predictor, pictures[0]))
    names = page.js("return [...document.querySelectorAll('#beads .bead span')].map((e) => e.textContent)")
    assert names == ["class token", "average patch"]
    assert page.text("#beads .bead:first-child small") == percent(
        attention_maps(predictor, pictures[0]).layers[-1][:, 0, 0].mean()
    )
    lens = page.js("return [...document.querySelectorAll('.matrix span.lens b')].map((e) => e.textContent)")
    assert lens == [layer["top"][0]["label"] for layer in told(server)["lens"]["layers"]]
    assert lens[-1] == bars(page)[0][0]


def test_a_link_with_names_that_every_object_has_opens(page, server, pictures, predictor):
    """As fuzzing found it."""
    opened(page, server, "#toString=1&__proto__=2&constructor=3&query=%E0%A4%A&layer=0")
    assert page.fragment()["layer"] == "0"
    assert bars(page) == answered(predictor, pictures[0], 3)


def test_a_click_on_a_patch_shows_what_it_reads(page, server, pictures, predictor):
    opened(page, server, HEAT)
    page.click_patch((1, 3), told(server))
    says(page, "block 1, mean of its heads: the patch in row 1, column 3 reads")
    maps = reading(predictor, pictures[0], (1, 3))
    same_maps(page, maps)
    assert page.text("#picture .key .scale") == f"0\n{percent(maps[-1][-1].max())}"
    page.wait("location.hash.includes('query=1,3')")
    page.click_patch((1, 3), told(server))  # again: it no longer asks, though it is shown while the pointer is there
    page.wait("!location.hash.includes('query')")
    page.moves().move_to_element(page.one("h1")).perform()
    says(page, "block 1, mean of its heads: the class token reads")
    same_maps(page, reading(predictor, pictures[0]))


def test_the_large_picture_is_lit_as_the_maps_weigh(page, server, pictures, predictor):
    """Of two maps that weigh a patch differently, the one that weighs it more shows it brighter."""
    maps = reading(predictor, pictures[0])
    shown, weighs = [], []
    for layer, head in ((0, 0), (1, 1)):
        opened(page, server, f"#layer={layer}&head={head}")
        says(page, f"block {layer}, head {head}: the class token reads")
        shown.append(brightness(panes(page, told(server))))
        weighs.append(maps[layer][head] / maps[layer][head].max())
    apart = weighs[0] - weighs[1]
    clear = abs(apart) > 0.1
    assert clear.sum() >= 8, "maps that are alike prove nothing"
    assert ((shown[0] - shown[1])[clear] * apart[clear] > 0).all()


def test_layers_and_heads_are_chosen_by_pointer(page, server, pictures, predictor):
    opened(page, server)
    page.click('.matrix [data-layer="0"][data-head="1"]')
    says(page, "block 0, head 1: the class token reads")
    top = reading(predictor, pictures[0])[0][1].max()
    assert page.text("#picture .key .scale") == f"0\n{percent(top)}"
    page.wait("location.hash.includes('layer=0') && location.hash.includes('head=1')")
    page.moves().move_to_element(page.one('.matrix [data-layer="1"][data-head="0"]')).perform()
    says(page, "block 1, head 0: the class token reads")  # pointing shows
    page.moves().move_to_element(page.one("h1")).perform()
    says(page, "block 0, head 1: the class token reads")  # clicking stays


def test_everything_moves_by_keyboard(page, server, pictures, predictor):
    opened(page, server, HEAT)
    page.press("[")
    says(page, "block 0, mean of its heads: the class token reads")
    page.press(",")
    says(page, "block 0, head 1: the class token reads")
    page.press("\ue014")  # right: the middle patch begins
    says(page, "block 0, head 1: the patch in row 2, column 2 reads")
    page.press("\ue013", "\ue012", "\ue012")  # up, left, left
    says(page, "block 0, head 1: the patch in row 1, column 0 reads")
    page.press("\ue012", "]", ".")  # there is no further left
    says(page, "block 1, mean of its heads: the patch in row 1, column 0 reads")
    same_maps(page, reading(predictor, pictures[0], (1, 0)))
    page.press("l")
    page.wait("!location.hash.includes('style=heat')")
    page.press("\ue00c")
    says(page, "block 1, mean of its heads: the class token reads")
    page.press("?")
    assert page.one("#help").is_displayed()
    keys = page.js("return [...document.querySelectorAll('#help kbd')].map((e) => e.textContent)")
    assert set("[],.plecmos?") <= set(keys)
    page.press("]", "\ue00c")  # while it is open keys do nothing but close it
    page.wait("!document.querySelector('#help').open")
    says(page, "block 1, mean of its heads: the class token reads")
    for key, mode in (("e", "explanation"), ("m", "mask"), ("c", "compare"), ("c", "attention")):
        page.press(key)
        page.wait(f"document.body.dataset.mode === '{mode}'")
    page.settle()


def test_play_walks_through_the_depth_and_ends(page, server):
    opened(page, server)
    page.js(f"""window.seen = [];
    new MutationObserver(() => seen.push({KEY})).observe(document.querySelector('#picture .key .words'), {{childList: true}});""")
    page.press("p")
    assert page.text(".play") == "Pause"
    page.wait("document.querySelector('.play').textContent === 'Play'")
    assert list(dict.fromkeys(page.js("return seen"))) == [
        f"block {i}, mean of its heads: the class token reads" for i in (0, 1)
    ]


FLOOD = """
const [count, done] = arguments;
import("viewer/state.js").then(({state}) => {
  let steps = 0;
  const push = history.pushState.bind(history);
  history.pushState = (...step) => (steps++, push(...step));
  for (let i = 0; i < count; i++) state.set({query: `${i % 5},${Math.floor(i / 5) % 5}`});
  setTimeout(() => done([steps, state.get().query, location.hash]), 600);
});
"""


def test_every_choice_is_a_step_of_the_history_and_a_flood_is_no_error(page, server):
    opened(page, server)
    steps, *_ = page.driver.execute_async_script(FLOOD, 3)
    assert steps == 3, "none is merged into the next, however quick"
    for row in (1, 0):
        page.back()
        says(page, f"block 1, mean of its heads: the patch in row {row}, column 0 reads")
    opened(page, server)
    steps, query, address = page.driver.execute_async_script(FLOOD, 43)
    assert 15 <= steps <= 25, "browsers refuse more"
    assert (query, "query=2,3" in address) == ("2,3", True)


def test_a_link_shows_the_same_again_and_back_goes_back(page, server, pictures, predictor):
    opened(page, server, HEAT)
    page.click_patch((0, 4), told(server))
    says(page, "block 1, mean of its heads: the patch in row 0, column 4 reads")
    page.click('.matrix [data-layer="0"][data-head="0"]')
    words = "block 0, head 0: the patch in row 0, column 4 reads"
    says(page, words)
    page.wait("location.hash.includes('layer=0')")
    link = page.js("return location.href")
    page.reload()
    page.wait(READY)
    says(page, words)
    same_maps(page, reading(predictor, pictures[0], (0, 4)))
    assert page.js("return location.href") == link
    page.back()
    says(page, "block 1, mean of its heads: the patch in row 0, column 4 reads")
    page.back()
    says(page, "block 1, mean of its heads: the class token reads")
    page.driver.forward()
    page.driver.forward()
    says(page, words)
    assert page.js("return location.href") == link


def test_a_link_that_is_wrong_opens_all_the_same(page, server):
    shown = f"#image={told(server)['picture']['id']}"
    opened(page, server, "#query=77,1&layer=9&head=44&mode=nothing&style=%ZZ&masked=a&what=is&layer")
    says(page, "block 1, mean of its heads: the class token reads")
    page.wait("location.hash === arguments[0]", shown)  # the address says what is shown
    opened(
        page, server, "#head=-5&method=bogus&target=99999&left=0:bogus&right=7:rollout&model=3&masked=23-9999&layer=0"
    )
    says(page, "block 0, mean of its heads: the class token reads")
    page.wait("location.hash === arguments[0]", f"{shown}&layer=0&masked=23-24")


@pytest.mark.parametrize("image", ["0123456789abcdef", "zzzz"])
def test_a_link_to_a_picture_that_is_gone_says_so_and_shows_no_other(image, page, server):
    page.open(f"{server.url}#image={image}&layer=0")
    page.wait("document.querySelector('#empty').checkVisibility()")
    assert "drop it again" in page.text("#error")
    assert page.js("return document.title") == "vitral"
    page.settle()
    assert page.fragment() == {"image": image, "layer": "0"}
    assert not page.one("#empty").find_elements("xpath", "//main[not(@hidden)]")
    page.click(".example:nth-child(2)")
    page.wait("document.title === 'black.png · vitral'")
    assert page.js("return document.querySelector('#error').hidden")
    assert [said for said in page.errors() if "404" not in said] == []


def test_a_picture_that_the_model_refuses_leaves_the_page_in_use(page, server):
    opened(page, server)
    small = io.BytesIO()
    Image.new("L", (120, 2), 90).save(small, "PNG")
    page.drop(small.getvalue(), "flat.png")
    error = "document.querySelector('#error:not([hidden]) p')?.textContent"
    refused = page.wait(error)
    assert "patch" in refused
    page.settle()
    assert page.js("return getComputedStyle(document.querySelector('#pane'), '::before').content") == "none"
    image = page.fragment()["image"]
    page.drop(b"no picture", "other.png")
    page.wait(f"{error}.includes('other.png')")
    page.settle()
    assert "other.png" in page.js(f"return {error}")  # not what was said of the one before
    assert page.fragment()["image"] == image
    page.click('#strip [aria-label="cross.png"]')
    says(page, "block 1, mean of its heads: the class token reads")
    assert page.js("return document.querySelector('#error').hidden")
    assert all("400" in said for said in page.errors())


def test_a_saved_picture_is_large_and_says_what_it_shows(page, server, pictures, predictor):
    opened(page, server, f"{HEAT}&layer=0&head=1")
    says(page, "block 0, head 1: the class token reads")
    page.js("""window.said = [];
    const write = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...at) { said.push(text); write.call(this, text, ...at); };""")
    page.press("s")
    page.click("[role=menuitem]")
    with (
        Image.open(page.downloaded("cross-attention-own-layer0-head1.png")) as saving,
        Image.open(pictures[0]) as given,
    ):
        saved = np.asarray(saving.convert("RGB"), int)
        width, height = given.size
    times = -(-1200 // max(height, width))
    assert times > 1
    assert saved.shape[1] == times * width
    foot = saved[times * height :]
    assert 60 < len(foot) < 300
    for value in np.linspace(0, 1, 5):  # the whole scale stands there
        colour = colourise(np.array([[value]]), "inferno")[0, 0].astype(int)
        assert abs(foot - colour).max(-1).min() <= 8, value
    words = " ".join(page.js("return said"))
    (label, p), *_ = answered(predictor, pictures[0], 3)
    top = percent(reading(predictor, pictures[0])[0][1].max())
    assert words.startswith(f"0 {top} block 0, head 1: the class token reads cross.png · ")
    assert words.endswith(f" · block 0 · head 1 · {label} {p} · vitral")


def test_pictures_are_changed_below_the_large_one(page, server, pictures, predictor):
    opened(page, server)
    page.click('#strip [aria-label="black.png"]')
    page.wait("document.title === 'black.png · vitral'")
    assert bars(page) == answered(predictor, pictures[1], 3)
    page.back()
    page.wait("document.title === 'cross.png · vitral'")
    page.wait(
        "document.querySelector('#answer .bar .number').textContent === arguments[0]",
        answered(predictor, pictures[0], 3)[0][1],
    )


def test_moving_is_measured_and_drawn_at_once(page, server):
    """Not how long it takes, which depends on the machine: that what is drawn is measured."""
    opened(page, server)
    before = len(page.measures("viewer:move"))
    for key in "[]" * 3:
        page.press(key)
    page.wait("performance.getEntriesByName('viewer:move').length >= arguments[0]", before + 6)
    assert np.median(page.measures("viewer:move")[before:]) < 1000

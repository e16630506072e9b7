"""The viewer's page for everyone: names, tab order, contrast, themes, telephones; and the exported page, from a file and without a server."""

import numpy as np
import pytest
from browser import needed, serving
from onscreen import DRAWN, KEY, answered, bars, reading, same_maps, thumbnails

import vitral
from vitral.explain.faithfulness import scored

READY = f"document.querySelector('#main').dataset.ready !== undefined && {DRAWN}"
MODES = ("attention", "explanation", "mask", "compare", "inspect", "neighbours")
NAMED = {
    "button", "link", "tab", "radio", "textbox", "combobox", "slider", "gridcell", "menuitem", "image", "grid", "radiogroup", "tablist", "dialog",
    "checkbox", "progressbar", "tabpanel",
}  # fmt: skip
STOP = """
const e = document.activeElement;
const box = e.getBoundingClientRect();
const style = getComputedStyle(e);
window.order ??= [];
const follows = !order.length || Boolean(order.at(-1).compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING);
order.push(e);
return {tag: e.tagName, said: `${e.tagName} ${e.id} ${e.textContent.trim().slice(0, 30)}`, follows,
  seen: box.width > 0 && box.height > 0 && box.right > 0,
  ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
"""
CONTRAST = """
const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (colour) => {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = ([r, g, b, a], under) => [r, g, b].map((x, i) => a * x + (1 - a) * under[i]);
const linear = (x) => ((x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
const luminance = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]); // WCAG 2.2
const ground = (e) => {
  const layers = [];
  for (let at = e; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
  if (e.closest("[aria-disabled=true], :disabled, [aria-hidden=true], title, desc, option, script, style, .unseen, .skip")) continue;
  const style = getComputedStyle(e);
  const under = ground(e);
  const ink = over(rgba(e instanceof SVGElement ? style.fill : style.color), under);
  const [a, b] = [luminance(ink), luminance(under)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  found.push({text: walker.currentNode.textContent.trim().slice(0, 40), ratio: (a + 0.05) / (b + 0.05), least: large ? 3 : 4.5});
}
return found;
"""


@pytest.fixture(scope="module")
def server(shapes_run, shapes_folder, tmp_path_factory):
    needed()
    pictures = [shapes_folder / "cross" / "00.png", shapes_folder / "disc" / "01.png"]
    with serving([shapes_run, *pictures], tmp_path_factory.mktemp("server")) as running:
        yield running


def opened(page, server, mode, fragment=""):
    page.open(f"{server.url}#mode={mode}{fragment}")
    page.wait("document.querySelector(arguments[0])?.checkVisibility()", f".mode.{mode}")
    page.settle()


def nameless(page):
    """Of the accessibility tree: what has one of the roles that need a name, and none."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert sum(role in NAMED for role, _ in told) > 15
    return [role for role, name in told if role in NAMED and not name.strip()]


@pytest.mark.parametrize("mode", MODES)
def test_every_control_has_a_name_and_every_text_stands_out(mode, page, server):
    opened(page, server, mode)
    assert nameless(page) == []
    for theme in ("dark", "light"):
        page.media(prefers_color_scheme=theme)
        page.wait("document.documentElement.dataset.theme === arguments[0]", theme)
        page.settle()
        found = page.js(CONTRAST)
        assert len(found) > 10
        assert [f"{t['text']}: {t['ratio']:.2f}" for t in found if t["ratio"] < t["least"]] == [], theme


@pytest.mark.parametrize("mode", ["attention", "explanation", "mask", "inspect"])
def test_the_tab_key_goes_through_the_page_in_its_order(mode, page, server):
    opened(page, server, mode)
    stops = []
    for _ in range(60):
        page.press("\ue004")
        stop = page.js(STOP)
        if stop["tag"] == "BODY" or (len(stops) > 3 and not stop["follows"]):
            break
        stops.append(stop)
    assert stops[0]["said"].startswith("A skip")
    assert len(stops) >= 9
    assert [stop["said"] for stop in stops if not (stop["follows"] and stop["seen"] and stop["ring"])] == []
    said = [stop["said"] for stop in stops]
    assert sum(words.split()[-1] == mode.title() for words in said) == 1  # a group is one stop: the one that is chosen
    assert not {name.title() for name in MODES if name != mode} & {words.split()[-1] for words in said}
    assert any(words.startswith("CANVAS") for words in said)


def test_the_skip_link_goes_to_the_picture(page, server):
    opened(page, server, "attention")
    page.press("\ue004", "\ue007")
    assert page.js("return document.activeElement === document.querySelector('#picture canvas')")
    page.press("\ue015")
    page.wait(f"{KEY}.includes('the patch in row 2, column 2')")
    page.wait("document.querySelector('#live').textContent.includes('the patch in row 2, column 2 reads')")
    assert "row 2, column 2 reads" in page.js(
        "return document.querySelector('#picture canvas').getAttribute('aria-label')"
    )


def test_groups_are_walked_by_arrows(page, server):
    opened(page, server, "attention")
    page.js("document.querySelector('#modes [aria-selected=true]').focus()")
    page.press("\ue014")
    page.wait("document.body.dataset.mode === 'explanation'")
    page.settle()
    page.press("\ue011")
    page.wait("document.body.dataset.mode === 'attention'")
    page.wait(READY)
    page.js("document.querySelector('.matrix [aria-selected=true]').focus()")
    page.press("\ue013")
    page.wait(f"{KEY}.startsWith('block 0, mean')")
    page.press("\ue012")
    page.wait(f"{KEY}.startsWith('block 0, head 1')")
    assert page.js("return document.activeElement.dataset.head") == "1"


def test_the_theme_follows_the_system_until_it_is_chosen(page, server):
    page.media(prefers_color_scheme="light")
    opened(page, server, "attention")
    light = page.js("return getComputedStyle(document.body).backgroundColor")
    page.media(prefers_color_scheme="dark")
    page.wait("document.documentElement.dataset.theme === 'dark'")
    assert page.js("return getComputedStyle(document.body).backgroundColor") != light
    page.click(".theme")
    assert page.js("return getComputedStyle(document.body).backgroundColor") == light
    page.reload()
    page.wait(READY)
    assert page.js("return getComputedStyle(document.body).backgroundColor") == light
    page.js("localStorage.clear()")


@pytest.mark.parametrize("mode", MODES)
def test_a_telephone_shows_all_of_it_without_scrolling_sideways(mode, page, server):
    page.size(360, 740, 2, touch=True)
    opened(page, server, mode)
    assert page.js("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    small = """return [...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility())
      .map((e) => [e, e.getBoundingClientRect()])
      .filter(([e, r]) => r.width < 24 || r.height < 24).map(([e, r]) => `${e.textContent || e.ariaLabel} ${r.width} ${r.height}`)"""
    assert page.js(small) == []
    left, right = page.js(
        "const r = document.querySelector('#modes [aria-selected=true]').getBoundingClientRect(); return [r.left, r.right]"
    )
    assert 0 <= left < right <= 360
    if mode == "attention":
        where = page.js(
            "const r = document.querySelector('#picture canvas').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
        )
        at = {"x": where[0] + 0.9 * where[2], "y": where[1] + 0.1 * where[3]}
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait("location.hash.includes('query=0,4')")


def test_a_narrow_window_shows_picture_and_answer_together(page, server):
    page.size(1100, 800)
    for mode in ("attention", "explanation"):
        opened(page, server, mode)
        ends = page.js("""return ['#picture canvas', '#answer li:last-child', '#answer h2']
          .map((s) => document.querySelector(s).getBoundingClientRect()).map((r) => [r.top >= 0, r.bottom <= innerHeight, r.height > 0])""")
        assert ends == [[True] * 3] * 3, mode


def test_the_exported_page_shows_the_same_from_a_file_and_asks_nobody(page, server, shapes_run, shapes_folder):
    data, predictor = shapes_folder / "cross" / "00.png", vitral.load(shapes_run)
    page.open(f"{server.url}#style=heat&query=1,3")
    page.wait(f"{READY} && {KEY}.includes('row 1, column 3')")
    maps = reading(predictor, data, (1, 3))
    live = thumbnails(page, maps)
    page.press("s")
    page.wait("document.querySelector('.menu')?.checkVisibility()")
    page.js("[...document.querySelectorAll('[role=menuitem]')].find((i) => i.textContent.startsWith('Page')).click()")
    file = page.downloaded("00-shapes.html")
    assert page.js(f"return {KEY}.includes('row 1, column 3')")
    page.requests()

    page.open(f"{file.as_uri()}#style=heat&query=1,3")
    page.wait(f"{READY} && {KEY}.includes('row 1, column 3')")
    page.wait("document.querySelectorAll('#answer .bar').length === 3")
    page.settle()
    assert bars(page) == answered(predictor, data, 3)
    for here, there in zip(thumbnails(page, maps), live, strict=True):
        np.testing.assert_array_equal(here, there)
    note = page.text("#note")
    assert "masks" in note
    assert "every patch" not in note  # nothing was left out
    page.press("\ue014")
    page.wait(f"{KEY}.includes('row 1, column 4')")
    same_maps(page, reading(predictor, data, (1, 4)))
    tabs = page.js("return [...document.querySelectorAll('[role=tab]')].map((t) => t.dataset.mode)")
    assert tabs == [mode for mode in MODES if mode != "mask"]
    page.click("[data-mode=explanation]")
    page.wait("document.querySelectorAll('.areas tbody tr').length === 3")
    truth = scored(predictor, data, predictor.explain(data, "relevance"))
    assert (
        page.js("return document.querySelector('.areas .map').textContent")
        == f"the map{truth.deletion:.3f}{truth.insertion:.3f}"
    )
    page.click(".method[data-method=occlusion]")
    page.wait(f"{KEY}.startsWith('Occlusion')")
    page.settle()
    assert page.js("return document.querySelector('#error:not([hidden]) p')?.textContent ?? ''") == ""
    for mode, there in (
        ("compare", ".compare .verdict"),
        ("inspect", ".finding.distance .dot"),
        ("neighbours", "ol.neighbours li"),
    ):
        page.click(f"[data-mode={mode}]")
        page.wait("document.querySelector(arguments[0])", there)
        page.settle()
        assert page.js("return document.querySelector('#error:not([hidden]) p')?.textContent ?? ''") == "", mode
    assert page.js("return document.querySelectorAll('ol.neighbours li img').length") == 12
    page.open(f"{file.as_uri()}#mode=mask&masked=0-3&image=0123456789abcdef")
    page.wait(READY)
    page.wait("!location.hash.includes('mask&') && !location.hash.includes('0123')")
    assert page.js("return document.body.dataset.mode") == "attention"
    assert "vitral view" in page.text("#error")
    page.open(f"{file.as_uri()}#mode=mask")
    page.wait(READY)
    assert "Masks need vitral view" in page.text("#error")
    assert {url.split("#")[0] for url in page.requests() if not url.startswith(("data:", "blob:", "about:"))} == {
        file.as_uri()
    }

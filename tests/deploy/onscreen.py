"""What the viewer's page shows, read from its pixels and its words, and the same from the library.

Axes: h w grid, H heads.
"""

import numpy as np
from browser import Browser

from vitral.drawing.colours import colourise
from vitral.explain.explain import attention_maps

KEY = "document.querySelector('#picture .key .words').textContent"
SCALE = "document.querySelector('#picture .key .scale span').textContent"
DRAWN = f"({SCALE} === '0' || {KEY}.includes('equal everywhere'))"  # the key names a reader before its map has come: then there is no scale
CELLS = """
const canvas = document.querySelector(".matrix canvas");
const copy = document.createElement("canvas");
[copy.width, copy.height] = [canvas.width, canvas.height];
const context = copy.getContext("2d", {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
const whole = canvas.getBoundingClientRect();
const unit = canvas.width / whole.width;
return arguments[0].map(([layer, head, h, w]) => {
  const cell = document.querySelector(`.matrix [data-layer="${layer}"][data-head="${head}"]`).getBoundingClientRect();
  const at = (r, c) => [cell.left - whole.left + ((c + 0.5) / w) * cell.width, cell.top - whole.top + ((r + 0.5) / h) * cell.height];
  const pixel = (i) => context.getImageData(...at(Math.floor(i / w), i % w).map((x) => x * unit), 1, 1).data;
  return Array.from({length: h * w}, (_, i) => [...pixel(i).slice(0, 3)]);
});
"""
PANES = """
const [selector, box, [height, width], [h, w], [reachH, reachW]] = arguments;
const canvas = document.querySelector(selector);
const copy = document.createElement("canvas");
[copy.width, copy.height] = [canvas.width, canvas.height];
const context = copy.getContext("2d", {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
const x = (c) => ((box[1] + ((c + 0.5) / w) * reachW * box[3]) / width) * canvas.width;
const y = (r) => ((box[0] + ((r + 0.5) / h) * reachH * box[2]) / height) * canvas.height;
return Array.from({length: h * w}, (_, i) => [...context.getImageData(x(i % w), y(Math.floor(i / w)), 1, 1).data.slice(0, 3)]);
"""


def percent(share: float) -> str:
    """A share as the page writes it."""
    hundred = 100 * share
    if 0 < hundred < 0.1:
        return "<0.1 %"
    if 99.9 < hundred < 100:
        return ">99.9 %"
    return f"{hundred:.1f} %" if 0 < hundred < 9.95 else f"{hundred:.0f} %"


def reading(predictor, data, query=None, layers=None):
    """The library's attention of a query: for each layer, or the first few, [H + 1, h, w], the heads and then their mean."""
    found = attention_maps(predictor, data)
    read = [g.read(a, query) for g, a in list(zip(found.geometry, found.layers, strict=True))[:layers]]
    return [np.concatenate([maps, maps.mean(0, keepdims=True)]) for maps in read]


def thumbnails(browser: Browser, maps) -> list[np.ndarray]:
    """The colours of the matrix, once it is drawn: of each layer [H + 1, h, w, 3], as many as `maps` has."""
    browser.wait(DRAWN)
    asked = [
        [layer, "mean" if head == len(of) - 1 else head, *of.shape[1:]]
        for layer, of in enumerate(maps)
        for head in range(len(of))
    ]
    found = iter(browser.js(CELLS, asked))
    return [np.array([next(found) for _ in of]).reshape(*of.shape, 3) for of in maps]


def same_maps(browser: Browser, maps) -> None:
    """Every thumbnail shows its map, in the colours of a heat map."""
    for shown, wanted in zip(thumbnails(browser, maps), maps, strict=True):
        tops = wanted.max((1, 2), keepdims=True)
        assert np.ptp(wanted / tops) > 0.05, "a map that is flat proves nothing"
        expected = colourise(np.rint(255 * wanted / tops) / 255, "inferno").astype(int)
        assert abs(shown - expected).max() <= 6, f"off by {abs(shown - expected).max()}"  # one step of the 255


def panes(browser: Browser, told, grid=None, extent=(1, 1), picture="#picture canvas") -> np.ndarray:
    """The colours in the middles of the large picture's patches, [h, w, 3]. told: the look, as the server describes it."""
    grid = grid or told["grid"]
    whole = (told["picture"]["height"], told["picture"]["width"])
    return np.array(browser.js(PANES, picture, told["box"], whole, grid, extent)).reshape(*grid, 3)


def brightness(colours: np.ndarray) -> np.ndarray:
    """Of colours [..., 3] (ITU-R BT.601)."""
    return colours @ np.array([0.299, 0.587, 0.114])


def in_order(colours: np.ndarray, values: np.ndarray, least: float = 0.97) -> None:
    """The brighter a patch, the more it weighs: rank correlation. For pictures of one colour only."""
    shown, wanted = np.ravel(brightness(colours)), np.ravel(values)
    assert np.ptp(shown) > 20, "nothing is lit"
    together = np.corrcoef(shown.argsort().argsort(), wanted.argsort().argsort())[0, 1]
    assert together > least, f"rank correlation {together:.3f}"


def bars(browser: Browser) -> list[tuple[str, str]]:
    """The answer: (class, probability) as they are written, best first."""
    return [tuple(pair) for pair in browser.words("#answer .bar", ".label", ".number")]


def answered(predictor, data, count=5) -> list[tuple[str, str]]:
    """The same of the library."""
    return [(label, percent(p)) for label, p in predictor.predict(data, count).top]

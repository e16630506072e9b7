"""How long the viewer makes people wait: python benchmarks/viewer.py [--rounds 20] [--threads 2] [--model vit_small_patch16_224]

With random weights, in the browser that the tests use (Debian's chromium and chromium-driver). First: from letting a picture go over the page
to the first map on it, which holds the upload, the decoding, one pass with all attention recorded, and the drawing; every round drops another
picture. Then, from the key to the drawing: moving among layers and heads, to a patch that was fetched ahead,
and to one that was not, which the server has to read first.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import create_model
from vitral.data.preprocess import Preprocess
from vitral.models.zoo import family_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "deploy"))
from browser import Browser, Server, browsing, serving

KEY = "document.querySelector('#picture .key .words').textContent"
DRAWN_AT = "performance.getEntriesByName('viewer:move').map((e) => e.startTime + e.duration).at(-1)"
DRAWN = "document.querySelector('#picture .key .scale span').textContent === '0'"


def model_file(name: str, path: Path) -> None:
    """A model of random weights with 1,000 classes."""
    torch.manual_seed(0)
    model = create_model(name)
    config = model.config
    half = (0.5,) * config.in_channels
    labels = [f"class {i}" for i in range(config.num_classes)]
    save_model(
        path,
        model,
        ModelCard(family_of(config), config.arguments(), labels, Preprocess(*config.image_size, 3, half, half)),
    )


def photographs(count: int) -> list[bytes]:
    """As many JPEGs of 640 x 427, each another part of a photograph."""
    found = []
    for i in range(count):
        image = Image.fromarray(np.roll(load_sample_images().images[i % 2], 7 * i, axis=1))
        image.save(buffer := io.BytesIO(), "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def first_maps(browser: Browser, server: Server, rounds: int) -> list[float]:
    """Milliseconds from each drop to the map, as the page's clock counts them."""
    browser.open(server.url)
    browser.wait("!document.querySelector('#empty').hidden")
    taken = []
    for i, data in enumerate(photographs(rounds)):
        before = len(browser.measures("viewer:move"))
        began = (
            "document.addEventListener('drop', () => (window.dropped = performance.now()), {capture: true, once: true})"
        )
        browser.js(began)
        browser.drop(data, f"{i}.jpg", "image/jpeg")
        # a move is measured when its map is drawn; the first of a picture may be of the wait for its reading
        browser.wait(f"document.title === '{i}.jpg · vitral' && {DRAWN} && {KEY}.includes('reads')")
        assert len(browser.measures("viewer:move")) > before, "nothing was drawn"
        taken.append(browser.js(f"return {DRAWN_AT} - dropped"))
    return taken


def moves(browser: Browser, keys: list[str], pause: float) -> list[float]:
    """Milliseconds from each key to the last that it makes the page draw; pause: seconds after it, in which the page may fetch ahead."""
    browser.js("addEventListener('keydown', () => (window.pressed = performance.now()), {capture: true})")
    taken = []
    for key in keys:
        before = len(browser.measures("viewer:move"))
        browser.press(key)
        time.sleep(pause)
        assert len(browser.measures("viewer:move")) > before, "nothing was drawn"
        taken.append(browser.js(f"return {DRAWN_AT} - pressed"))
    return taken


def to_far_patches(browser: Browser, rounds: int, grid: tuple[int, int]) -> list[float]:
    """Milliseconds to the reading of patches that nobody has asked for, far from each other; with the way to the server and back."""
    taken = []
    for i in range(rounds):
        row, column = (3 * i) % grid[0], (5 * i + 2) % grid[1]
        link = f"location.hash = location.hash.replace(/&?query=[^&]*/, '') + '&query={row},{column}'"
        began = browser.js(f"const began = performance.now(); {link}; return began")
        browser.wait(f"{KEY}.includes('row {row}, column {column}') && {DRAWN}")
        taken.append(browser.js(f"return {DRAWN_AT}") - began)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="vit_small_patch16_224")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        model_file(given.model, path)
        threads = {"OMP_NUM_THREADS": str(given.threads)}
        with serving([path], Path(folder, "server"), threads) as server, browsing(Path(folder, "browser")) as browser:
            first = first_maps(browser, server, given.rounds)
            image = browser.fragment()["image"]
            grid = server.get(f"/api/models/0/images/{image}/look")["grid"]
            rows = {
                "from the drop to the first map": first,
                "a layer up or down": moves(browser, ["[", "]"] * (given.rounds // 2), 0.1),
                "a head left or right": moves(browser, [",", "."] * (given.rounds // 2), 0.1),
                "to a patch beside (fetched ahead)": moves(
                    browser, ["\ue014", *["\ue013", "\ue015"] * (given.rounds // 2)], 0.6
                )[1:],
                "to a patch far off (not fetched)": to_far_patches(browser, given.rounds, grid),
            }
    print(f"{given.model}, {given.threads} threads; milliseconds\n\n| | median | slowest | of |\n|---|---|---|---|")
    for name, taken in rows.items():
        print(f"| {name} | {median(taken):.0f} | {max(taken):.0f} | {len(taken)} |")


if __name__ == "__main__":
    main()

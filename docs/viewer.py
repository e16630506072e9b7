"""Make the pictures of README.md and docs/viewer.md from a finished run and pictures it has not seen: python docs/viewer.py RUN IMAGE...

They are screenshots of the viewer itself, in the browser and with the server that its tests use (Debian's chromium and chromium-driver).
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "deploy"))
from browser import Browser, Server, browsing, serving  # noqa: E402

OUT = HERE / "pictures"
LARGEST = 400_000
"""Bytes of a picture: a page with five of them still opens at once."""
READING = "document.querySelector('#picture .key .words').textContent.includes('reads')"


def save(browser: Browser, name: str) -> None:
    """The screen as WebP, which keeps soft light at a third of what PNG takes."""
    strip = "[...document.querySelectorAll('#strip img')].filter((e) => e.checkVisibility())"
    browser.wait(f"{strip}.every((e) => e.complete && e.naturalWidth)")
    browser.settle(120)
    path = OUT / f"viewer-{name}.webp"
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as shot:
        shot.convert("RGB").save(path, quality=90, method=6)
        size = path.stat().st_size
        print(f"{path}: {shot.width} x {shot.height}, {size / 1000:.0f} kB")
    if size > LARGEST:
        sys.exit(f"{path}: is over {LARGEST / 1000:.0f} kB; choose a calmer image")


def opened(browser: Browser, server: Server, fragment: str, there: str) -> None:
    """The page in a state, once what is to be seen is there."""
    browser.open(f"{server.origin}/#{fragment}")
    browser.wait(there, seconds=120)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("python docs/viewer.py RUN IMAGE...")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(sys.argv[1:], Path(folder, "server")) as server:
        image = server.get("/api/about")["given"][0]["id"]
        look = server.get(f"/api/models/0/images/{image}/look")
        early = len(look["layers"]) // 4  # there heads still read different things
        middle = ",".join(str(side // 2) for side in look["grid"])
        with browsing(Path(folder, "browser")) as browser:
            browser.media(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
            browser.size(1440, 820)
            opened(browser, server, f"image={image}&layer={early}", READING)
            save(browser, "attention")
            opened(browser, server, f"image={image}&mode=explanation", "document.querySelector('.areas')")
            save(browser, "explanation")
            opened(browser, server, f"image={image}&mode=mask", "document.querySelector('.moved li')")
            browser.click(".acts .strong")
            browser.wait("document.querySelector('.found')?.textContent.endsWith('.')", seconds=120)
            save(browser, "mask")
            opened(
                browser, server, f"image={image}&mode=inspect&query={middle}", "document.querySelector('.finding .dot')"
            )
            save(browser, "inspect")
            browser.size(1440, 1210)
            done = "document.querySelectorAll('.areas').length === 2 && document.querySelector('.together .note').textContent"
            opened(browser, server, f"image={image}&mode=compare&left=0:relevance&right=0:grad_cam", done)
            save(browser, "compare")
            browser.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
            browser.size(390, 844, 2, touch=True)
            opened(browser, server, f"image={image}&layer={early}", READING)
            save(browser, "phone")
            if said := browser.errors():
                sys.exit(f"the console complains: {said}")


if __name__ == "__main__":
    main()

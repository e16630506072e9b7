"""Make the picture of README.md from a page of `vitral export --to web` and pictures for it: python docs/web.py PAGE IMAGE..."""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "deploy")]
from browser import browsing  # noqa: E402

OUT = HERE / "pictures" / "web.webp"


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("python docs/web.py PAGE IMAGE...")
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder)) as browser:
        browser.media(prefers_color_scheme="light")
        browser.size(1100, 820)
        browser.open(Path(sys.argv[1], "index.html").absolute().as_uri())
        browser.wait("document.body.dataset.ready === 'yes'", seconds=120)
        for number, image in enumerate(sys.argv[2:], 1):
            browser.drop(Path(image).read_bytes(), Path(image).name)
            browser.wait(f"document.querySelectorAll('.result').length === {number}", seconds=120)
        with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as shot:
            shot.convert("RGB").save(OUT, quality=90, method=6)
            print(f"{OUT}: {shot.width} x {shot.height}, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

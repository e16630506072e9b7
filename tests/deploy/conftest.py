"""The browser and the pictures that the tests share."""

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(shapes_folder, tmp_path_factory):
    """A cross that the model of the shapes was trained on, and a black picture in which only the map makes a difference."""
    folder = tmp_path_factory.mktemp("pictures")
    cross, black = folder / "cross.png", folder / "black.png"
    cross.write_bytes((shapes_folder / "cross" / "00.png").read_bytes())
    Image.new("L", (120, 120), 0).save(black)
    return [cross, black]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser of 1440 x 900; skipped where none is installed."""
    from browser import browsing

    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(chromium):
    """The browser as at first. In the end the console has to be silent, and nobody outside may have been asked."""
    chromium.size(1440, 900)
    chromium.media(prefers_color_scheme="dark")
    chromium.open("about:blank")
    chromium.errors()
    chromium.requests()
    for path in chromium.downloads.iterdir():
        path.unlink()
    yield chromium
    assert chromium.errors() == []
    assert chromium.foreign("http://127.0.0.", "file:///") == []

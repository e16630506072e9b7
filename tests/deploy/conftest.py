"""The browser that the tests of a module share."""

import pytest


@pytest.fixture(scope="module")
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
    yield chromium
    assert chromium.errors() == []
    assert chromium.foreign("http://127.0.0.", "file:///") == []

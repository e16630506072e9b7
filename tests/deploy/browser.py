"""The viewer as people meet it: `vitral view` as a process of its own, and Debian's Chromium on it, driven over WebDriver.

Nothing here knows what the page should show; that is for the tests and for the makers of pictures that use it.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement

from processes import PATIENCE, eventually

CHROMIUM, CHROMEDRIVER = (Path(shutil.which(name) or f"/usr/bin/{name}") for name in ("chromium", "chromedriver"))
QUIET = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--mute-audio",
        "--hide-scrollbars",
    ),
    *(
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ),
    *("--disable-extensions", "--disable-default-apps", "about:blank"),
)
DROP = """
const [text, name, type] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], name, {type}));
const there = {dataTransfer: carried, bubbles: true, cancelable: true};
for (const kind of ["dragenter", "dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, there));
"""


def needed() -> None:
    """Skips the test where there is no browser; fails it where there has to be one."""
    missing = [str(path) for path in (CHROMIUM, CHROMEDRIVER) if not path.exists()]
    if missing and os.environ.get("VITRAL_BROWSER") == "needed":
        pytest.fail(
            f"{' and '.join(missing)}: missing, and VITRAL_BROWSER says that a browser is needed (make browser)"
        )
    if missing:
        pytest.skip(f"{' and '.join(missing)}: missing; install Debian's chromium and chromium-driver (make browser)")


class Server:
    """A running `vitral view`."""

    def __init__(self, arguments: Sequence[object], folder: Path, environment: dict[str, str] | None = None) -> None:
        """folder: for what it says, and for its cache. Waits until it listens."""
        self.said = folder / "said.txt"
        env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | (environment or {})
        command = [sys.executable, "-m", "vitral", "view", *map(str, arguments), "--no-browser"]
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env)
        self.url = self._address()
        self.origin = re.match(r"http://[^/]+", self.url)[0]  # type: ignore[index]

    def _address(self) -> str:
        try:
            return eventually(lambda: re.search(r"vitral view: (\S+)", self.text()), self.process)[1]
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"vitral view did not begin: {self.text()}") from None

    def text(self) -> str:
        """All that it said."""
        return self.said.read_text()

    def get(self, path: str) -> Any:
        """What it answers to a path, from JSON."""
        with urllib.request.urlopen(self.origin + path, timeout=PATIENCE) as response:
            return json.load(response)

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


@contextmanager
def serving(arguments: Sequence[object], folder: Path, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """A server, that ends as it should."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(arguments, folder, environment)
    try:
        yield server
    finally:
        ended = server.stop()
    assert ended == 0, f"vitral view ended with {ended}: {server.text()}"


class Browser:
    """A headless Chromium with a profile of its own in `folder`."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1440, 900)) -> None:
        needed()
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        options = Options()
        options.binary_location = str(CHROMIUM)
        for argument in (*QUIET, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(
            options=options, service=Service(str(CHROMEDRIVER), log_output=subprocess.DEVNULL)
        )
        self.driver.set_script_timeout(PATIENCE)
        self.driver.get("about:blank")
        self.requests()  # of the page that a new window shows
        if late := os.environ.get(
            "VITRAL_LATENCY"
        ):  # ms that every answer takes longer: shows a test that does not wait
            slow = {"offline": False, "latency": float(late), "downloadThroughput": -1, "uploadThroughput": -1}
            self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        self.size(*size)

    def quit(self) -> None:
        self.driver.quit()

    def size(self, width: int, height: int, scale: float = 1, *, touch: bool = False) -> None:
        """The page's size in CSS pixels, and how many of the screen each of them has; touch: as on a telephone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch, "maxTouchPoints": 5})

    def media(self, **features: str) -> None:
        """What the system prefers, as in prefers_color_scheme="light"; without any, its own again."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

    def open(self, url: str) -> None:
        """Load a page anew, also where only the fragment differs."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def js(self, script: str, *arguments: object) -> Any:
        """What a function's body returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression: str, *arguments: object, seconds: float = PATIENCE) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while True:
            if found := self.js(f"return ({expression})", *arguments):
                return found
            if time.monotonic() > end:
                said = self.js("return document.body.innerText")
                raise AssertionError(f"{expression} {arguments}: not so after {seconds:g} s; the page says:\n{said}")
            time.sleep(0.03)

    def settle(self, seconds: float = PATIENCE) -> None:
        """Until the page waits for nothing."""
        waiting = "[...document.querySelectorAll('.waiting')].some((e) => e.checkVisibility())"
        loading = "[...document.images].some((e) => e.checkVisibility() && e.loading !== 'lazy' && !e.complete)"
        for _ in range(3):  # a page takes a while before it calls itself busy
            self.wait(
                f"document.documentElement.getAttribute('aria-busy') !== 'true' && !{waiting} && !{loading}",
                seconds=seconds,
            )
            time.sleep(0.1)

    def one(self, selector: str) -> WebElement:
        """The element, which has to be there and to be seen."""
        self.wait("[...document.querySelectorAll(arguments[0])].some((e) => e.checkVisibility())", selector)
        return self.js("return [...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility())", selector)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.js("return arguments[0].innerText", self.one(selector))

    def words(self, selector: str, *parts: str) -> list[Any]:
        """The text of each such element; with `parts` a list of the texts of these inside it."""
        of = """return [...document.querySelectorAll(arguments[0])].map((e) => arguments[1].length
            ? arguments[1].map((part) => e.querySelector(part).textContent) : e.textContent)"""
        return self.js(of, selector, parts)

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'nearest', inline: 'nearest'})", element)
        self.moves().move_to_element(element).click().perform()

    def moves(self) -> ActionChains:
        """Pointer and keys, without the pauses that people make."""
        return ActionChains(self.driver, duration=0)

    def press(self, *keys: str) -> None:
        """Keys one after the other, for whatever has the focus."""
        moves = self.moves()
        for key in keys:
            moves = moves.send_keys(key)
        moves.perform()

    def drop(self, data: bytes, name: str, kind: str = "image/png") -> None:
        """Let a file go over the page."""
        self.js(DROP, base64.b64encode(data).decode(), name, kind)

    def over(
        self, patch: tuple[int, int], look: dict[str, Any], grid: str = "grid", picture: str = "#picture"
    ) -> ActionChains:
        """The pointer over a patch of the picture. look: as the server describes it; grid: its "grid", or "removal"."""
        canvas = self.one(f"{picture} canvas")
        self.js("arguments[0].scrollIntoView({block: 'nearest'})", canvas)
        told = look if grid == "grid" else look[grid]
        box, whole = look["box"], (look["picture"]["height"], look["picture"]["width"])
        size = self.js("return [arguments[0].clientHeight, arguments[0].clientWidth]", canvas)
        y, x = (
            size[axis]
            * (
                (box[axis] + (patch[axis] + 0.5) / told["grid"][axis] * told["extent"][axis] * box[axis + 2])
                / whole[axis]
                - 0.5
            )
            for axis in (0, 1)
        )
        return self.moves().move_to_element_with_offset(canvas, round(x), round(y))

    def click_patch(self, patch: tuple[int, int], look: dict[str, Any], grid: str = "grid") -> None:
        self.over(patch, look, grid).click().perform()

    def back(self) -> None:
        """The browser's back, once the last step is one of the history."""
        self.fragment()
        self.driver.back()

    def reload(self) -> None:
        """The same address again, once it says what is shown."""
        self.fragment()
        self.driver.refresh()

    def fragment(self) -> dict[str, str]:
        """The state in the address, where the page writes it when it comes to rest."""
        written = """const done = arguments[0];
            import("viewer/state.js").then(({state, toFragment}) => done(toFragment(state.get()) === location.hash))"""
        eventually(lambda: self.driver.execute_async_script(written))
        return dict(
            part.split("=", 1)
            for part in self.js("return decodeURIComponent(location.hash.slice(1))").split("&")
            if part
        )

    def measures(self, name: str) -> list[float]:
        """Milliseconds of what the page measured under this name."""
        return self.js("return performance.getEntriesByName(arguments[0]).map((e) => e.duration)", name)

    def errors(self) -> list[str]:
        """What the console said since it was last asked, but for what is no complaint."""
        said = self.driver.get_log("browser")
        return [entry["message"] for entry in said if entry["level"] not in ("INFO", "DEBUG")]

    def requests(self) -> list[str]:
        """Addresses that pages asked for since this was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def foreign(self, *own: str) -> list[str]:
        """Of `requests` those that begin with none of `own`, and that leave the page."""
        inside = (*own, "data:", "blob:", "about:")
        return [url for url in self.requests() if not url.startswith(inside)]

    def downloaded(self, pattern: str) -> Path:
        """The file that a click handed out, once it is whole."""
        return eventually(lambda: [path for path in self.downloads.glob(pattern) if path.stat().st_size])[0]

    def picture(self, path: Path) -> None:
        """A screenshot as PNG."""
        self.driver.save_screenshot(str(path))


@contextmanager
def browsing(folder: Path, size: tuple[int, int] = (1440, 900)) -> Iterator[Browser]:
    """A browser, that is closed in the end."""
    browser = Browser(folder, size)
    try:
        yield browser
    finally:
        browser.quit()

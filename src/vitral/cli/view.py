"""The command that opens the viewer in a browser, or writes its page: view."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument
from vitral.cli.reading import ReadingOptions
from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.deploy.viewer.session import Session

NEEDED = ("fastapi", "uvicorn", "python_multipart")


@dataclass
class View:
    """Look into a model in a browser: what every layer and head reads of a picture, how the answer forms, what speaks for it, and how it
    changes without some patches.

    Example: vitral view runs/photos cat.jpg

    Example: vitral view runs/photos new/ --against runs/photos-small

    Example: vitral view runs/photos cat.jpg --export cat.html
    """

    model: str = argument()
    """Run folder, model file, or a folder or hf:org/name of Hugging Face."""
    images: tuple[str, ...] = argument(())
    """Pictures, or folders of pictures, to begin with; others can be dropped on the page."""
    against: str | None = None
    """Another model to compare with."""
    neighbours: str | None = None
    """Data to search for the most similar images: a folder, table or built-in name; default: the run's own."""
    host: str = "127.0.0.1"
    """Address to listen at. Any but this computer's own requires a token, which is printed."""
    port: int | None = None
    """Port to listen at; default: 8765, or if that is taken any that is free."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    browser: bool = True
    """Open the page in the browser."""
    export: Path | None = None
    """Write the page of the first picture as one file, and end."""


def view(given: View, words: list[str]) -> int:
    if given.export is not None and not given.images:
        raise VitralError("--export writes the page of a picture; name one after the model")
    if given.export is not None and given.export.suffix != ".html":
        raise VitralError(f"{given.export}: the page is written as .html; choose that ending")
    if given.export is not None and given.against is not None:
        raise VitralError(
            f"--against {given.against}: --export holds one model; leave it out, and export the page of {given.against} by itself"
        )
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise VitralError(f"the viewer needs {', '.join(missing)}; run pip install 'vitral[view]'")
    from vitral.deploy.viewer.examples import Examples
    from vitral.deploy.viewer.images import Images
    from vitral.deploy.viewer.neighbours import Neighbours, check_data
    from vitral.deploy.viewer.serve import load_images, serve
    from vitral.deploy.viewer.session import Session
    from vitral.predict import load

    paths = [given.model, *([given.against] if given.against else [])]
    models = [given.reading.read_by(load(path)) for path in paths]
    whole = all(model.answers.of_whole for model in models)
    if not whole and given.against is not None:
        raise VitralError(
            f"--against {given.against}: two models are compared by their one answer for a picture; leave it out"
        )
    if given.neighbours is not None:
        for model in models:
            model.check_whole()
        check_data(given.neighbours, models)
    images = Images(steps=[model.card.preprocess for model in models])
    loaded = load_images(given.images, images)
    loaded.say()
    session = Session(models, names(paths), images, given=loaded.ids, examples=Examples(given.model, images))
    if whole:
        session.neighbours = Neighbours(models, paths, given.neighbours, session.worker.run)
    if given.export is not None:
        export(session, given.export)
    else:
        serve(session, given.host, given.port, browser=given.browser)
    return 0


def export(session: "Session", path: Path) -> None:
    """Write the page of the first model and picture."""
    from vitral.checkpoints.atomic import write_atomically
    from vitral.deploy.viewer.page import exported
    from vitral.training.display import Display

    with Display() as display:
        page = exported(session, 0, session.given[0], progress=partial(display.count, "recording answers"))
    write_atomically(path, page.html.encode())
    said = [f"wrote {path} ({len(page.html) / 1e6:.1f} MB)", *(f"- left out: {what}" for what in page.left_out)]
    print("\n".join(said), file=sys.stderr)


def names(paths: Sequence[str]) -> list[str]:
    """A name for each model: that of its run or file, or the whole path where those are alike."""
    short = [path.parent.name if path.name == "model.safetensors" else path.name for path in map(Path, paths)]
    return short if all(short) and len(set(short)) == len(short) else list(paths)

"""The viewer's page of one picture as one file: the same code, with the server's answers recorded in it.

It needs no network: the style sheet is inside, the modules are data URLs of its import map, and its Content-Security-Policy forbids the rest.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vitral.deploy.viewer.explaining import Asked, compare, explanation, score
from vitral.deploy.viewer.images import SIDE
from vitral.deploy.viewer.inspecting import inspection
from vitral.deploy.viewer.neighbours import NEAREST
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError
from vitral.explain.compare import UNORDERED

STATIC = Path(__file__).parent / "static"
LIMIT = 8_000_000
"""Bytes of a page, so that it can be sent by mail."""
CLASSES, LIKELY = 3, 0.05
"""Classes of the answer that are explained at most, and the least probability of all but the first."""
OF_ITS_OWN = 1000  # bytes for the sentence on what is left out, and the like
UNTOUCHED = "-_.!~*'(),"  # by JavaScript's encodeURIComponent, and the comma by `api.js`
PATIENCE = 60.0
"""Seconds to wait for the index of neighbours."""
MISSING = "This recorded page does not hold that; run vitral view with the model to see it."
ONLY_MEAN = "this recorded page holds the scores with the mean colour"
PATCHES = "patches' attention"
HERE = "<!-- recorded -->"
Answer = dict[str, Any]


@dataclass(frozen=True)
class Exported:
    """A page, and what did not fit into it, such as 3 of 8 comparisons."""

    html: str
    left_out: list[str]


@dataclass(frozen=True)
class Question:
    """A request that the page may send: its kind, its path as `api.js` writes it, and the function that answers it."""

    about: str
    path: str
    ask: Callable[[], Any] | None
    """None for the neighbours, which may have to be waited for."""


@dataclass
class Recording:
    """Recorded answers by path, together at most `room` bytes of JSON, and the number of those left out."""

    room: int
    answers: dict[str, str] = field(default_factory=dict)
    """As JSON."""
    asked: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def leave_out(self, about: str) -> None:
        """Count an answer that is not recorded."""
        self.asked[about] += 1
        self.left[about] += 1

    def add(self, question: Question, answer: Any) -> None:
        text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
        size = len(text.encode()) + len(question.path) + 4  # with its quotes, colon and comma
        if size > self.room:
            return self.leave_out(question.about)
        self.asked[question.about] += 1
        self.room -= size
        self.answers[question.path] = text

    def left_out(self) -> list[str]:
        return [f"{n} of {self.asked[about]} {about}" for about, n in self.left.items() if n]

    def json(self, more: dict[str, object]) -> str:
        """All answers and `more`, as JSON that can stand in a script element."""
        texts = {name: json.dumps(value) for name, value in more.items()} | self.answers
        whole = ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())
        return f"{{{whole}}}".replace("<", "\\u003c")


def exported(
    session: Session,
    model: int,
    image: str,
    limit: int = LIMIT,
    *,
    progress: Callable[[int, int], None] | None = None,
    ended: threading.Event | None = None,
) -> Exported:
    """The page of a picture and one model, at most about `limit` bytes; the most wanted answers are recorded first.

    Computes in turn with other requests; call it from another thread than the worker's. progress: called with (answers made, answers in all).
    ended: set by another thread to give up.

    Raises:
        VitralError: there is no such model or picture, the model cannot read it, or `ended` was set.
    """
    run = session.worker.run
    look = run(lambda: session.look(model, image).describe())
    shell = shell_of((STATIC / "index.html").read_text(encoding="utf-8"))
    about = about_page(session, model, image)
    recording = Recording(limit - len(shell.encode()) - len(json.dumps(about).encode()) - OF_ITS_OWN)
    questions = [*beginning(session, model, image, look, about["models"][0]), *patches(session, model, image, look)]
    for done, question in enumerate(questions):
        if ended is not None and ended.is_set():
            raise VitralError("the page was given up")
        if question.about == PATCHES and recording.left[PATCHES]:
            recording.leave_out(PATCHES)  # as large as the one before, which did not fit
        elif question.ask is None:
            recording.add(question, neighbours(session, model, image))
        else:
            recording.add(question, run(question.ask))
        if progress:
            progress(done + 1, len(questions))
    left_out = recording.left_out()
    words = f"Left out, to keep it small: {', '.join(left_out)}." if left_out else None
    return Exported(
        shell.replace(HERE, recording.json({"/api/about": {**about, "left_out": words}, "missing": MISSING})), left_out
    )


def about_page(session: Session, model: int, image: str) -> Answer:
    """The session as the page shows it: with one model, number 0, and one picture."""
    whole: Answer = session.about()
    one = whole["models"][model]
    removals = {name: why or (None if name == "mean" else ONLY_MEAN) for name, why in one["removals"].items()}
    return {
        **whole,
        "models": [{**one, "id": 0, "removals": removals}],
        "given": [session.images.get(image).describe()],
        "examples": [],
        "exported": True,
    }


def beginning(session: Session, model: int, image: str, look: Answer, described: Answer) -> Iterator[Question]:
    """All requests but those for single patches, the most wanted first."""
    stored = session.images.get(image)
    yield Question("pictures", f"/api/images/{image}/picture", lambda: picture(session, image))
    yield Question("pictures", f"/api/images/{image}", stored.describe)
    yield Question("looks", path(image, "look"), lambda: look)
    readers = ["own", "mean", *(token["key"] for token in look["prefix"])] if look["layers"] else []
    yield from (reading(session, model, image, reader, "tokens' attention") for reader in readers)
    yield from explanations(session, model, image, look, described)
    if "inspect" not in described["modes"]:
        yield Question("inspections", path(image, "inspect"), lambda: inspection(session, model, image))
    if "neighbours" not in described["modes"]:
        yield Question("neighbours", path(image, "neighbours"), None)


def reading(session: Session, model: int, image: str, query: str, about: str) -> Question:
    """The attention of a query in every layer and head."""
    where = path(image, "attention", {"query": query})
    return Question(about, where, lambda: session.look(model, image).attention(query))


def explanations(session: Session, model: int, image: str, look: Answer, described: Answer) -> Iterator[Question]:
    """Every method's map, also for the likely classes of the answer; then their scores, and every pair compared."""
    methods = [method for method in described["methods"] if method["why"] is None]
    likely = [k for k in look["answer"]["top"][1:CLASSES] if k["p"] >= LIKELY]
    for target in (None, *(k["index"] for k in likely)):
        of_class = [m for m in methods if target is None or "target" in m["takes"] or look["answer"].get("places")]
        asked = [Asked(model, image, method["name"], target) for method in of_class]
        chosen = {} if target is None else {"target": target}
        for one in asked:
            where = path(image, "explain", {"method": one.method, **chosen})
            yield Question("explanations", where, partial(explanation, session, one))
        if described["removals"]["mean"] is not None:
            continue
        ordered = [one for one in asked if one.method not in UNORDERED]
        for one in ordered:
            where = path(image, "score", {"method": one.method, **chosen, "removal": "mean"})
            yield Question("scores of explanations", where, partial(score, session, one, "mean"))
        for left, right in permutations(ordered, 2) if target is None else ():
            where = f"/api/images/{image}/compare?left=0:{left.method}&right=0:{right.method}&removal=mean"
            yield Question("comparisons", where, partial(compare, session, left, right, "mean"))


def patches(session: Session, model: int, image: str, look: Answer) -> Iterator[Question]:
    """The attention of each patch, from the picture's centre outwards."""
    h, w = look["grid"] if look["layers"] else (0, 0)
    places = sorted(product(range(h), range(w)), key=lambda at: (at[0] - (h - 1) / 2) ** 2 + (at[1] - (w - 1) / 2) ** 2)
    return (reading(session, model, image, f"{row},{column}", PATCHES) for row, column in places)


def neighbours(session: Session, model: int, image: str) -> Answer:
    """The nearest training images; waits for their index."""
    until = time.monotonic() + PATIENCE
    while True:
        found = session.worker.run(lambda: session.neighbours_of(model, image, NEAREST))
        if found["state"] != "indexing":
            return found
        if time.monotonic() > until:
            return {"state": "none", "why": "their index was not ready when this page was made"}
        time.sleep(0.1)


def picture(session: Session, image: str) -> str:
    """As a data URL."""
    data, kind = session.images.picture(image, SIDE)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def path(image: str, what: str, parameters: dict[str, object] | None = None) -> str:
    """As `path` of `api.js` writes it, for the page's one model."""
    given = "&".join(f"{name}={quote(str(value), safe=UNTOUCHED)}" for name, value in (parameters or {}).items())
    return f"/api/models/0/images/{image}/{what}" + (given and f"?{given}")


def shell_of(page: str) -> str:
    """The page with its style sheet and modules inside; HERE is the place of the recorded answers."""
    style = (STATIC / "viewer.css").read_text(encoding="utf-8")
    found = re.search(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    assert found, "index.html has an import map"
    imports = {
        name: _script(STATIC / url.removeprefix("./static/")) for name, url in json.loads(found[1])["imports"].items()
    }
    mapped, start = json.dumps({"imports": imports}), 'import "viewer/main.js";'
    policy = (
        f"default-src 'none'; script-src data: {_hash(mapped)} {_hash(start)}; style-src {_hash(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    inside = {
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="./static/viewer.css">': f"<style>{style}</style>",
        found[1]: mapped,
        '<script type="module" src="./static/main.js"></script>': (
            f'<script type="application/json" id="recorded">{HERE}</script>\n<script type="module">{start}</script>'
        ),
    }
    for old, new in inside.items():
        assert page.count(old) == 1, f"index.html has {old[:60]!r} once"
        page = page.replace(old, new)
    return page


def _script(file: Path) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _hash(text: str) -> str:
    """The name of an inline script or style in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""The page as one file: what it holds is what the server would answer, it is no larger than was asked, and it needs nobody."""

import base64
import hashlib
import html.parser
import json
import re
import threading

import pytest
from starlette.testclient import TestClient
from viewing import encoded, session_of

from asking import predictor_of
from families import small
from vitral.deploy.viewer.app import viewer
from vitral.deploy.viewer.explaining import Asked, explanation, score
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.inspecting import inspection
from vitral.deploy.viewer.page import LIMIT, STATIC, exported, shell_of
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError

LOUD = "</script><script>document.title = 'taken over'</script><!--"


class Parts(html.parser.HTMLParser):
    """What a page is made of: its elements, and the text inside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside = [], []
        self.open = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.open = (tag, dict(attributes), [])
            self.inside.append(self.open)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.open = None

    def handle_data(self, data):
        if self.open:
            self.open[2].append(data)

    def text(self, tag, **attributes):
        (found,) = ["".join(text) for t, given, text in self.inside if t == tag and attributes.items() <= given.items()]
        return found

    def recorded(self):
        return json.loads(self.text("script", id="recorded"))


@pytest.fixture(scope="module")
def session():
    model = small("vit", image_size=(24, 32))  # 3 x 4 patches
    images = Images()
    ids = [images.add(encoded(seed=5), "<b>&amp;.png", stays=True).id]
    labels = ["a", LOUD, "c\\d", "é"]
    session = Session(
        [predictor_of(small("swin")), predictor_of(model, labels=labels)], ["other", "ours"], images, given=ids
    )
    yield session
    session.close()


@pytest.fixture(scope="module")
def whole(session):
    return exported(session, 1, session.given[0])


@pytest.fixture(scope="module")
def recorded(whole):
    return Parts(whole.html).recorded()


def test_it_holds_what_the_server_would_answer(session, recorded):
    image = session.given[0]
    at = f"/api/models/0/images/{image}/"
    assert recorded[at + "look"] == as_json(session.look(1, image).describe())
    for query in ("own", "mean", "cls", "0,0", "2,3"):
        assert recorded[f"{at}attention?query={query}"] == as_json(session.look(1, image).attention(query))
    assert recorded[at + "inspect"] == as_json(inspection(session, 1, image))
    told = as_json(explanation(session, Asked(1, image, "relevance")))
    assert {**recorded[at + "explain?method=relevance"], "seconds": 0} == {**told, "seconds": 0}
    told = as_json(score(session, Asked(1, image, "rollout"), "mean"))
    assert {**recorded[at + "score?method=rollout&removal=mean"], "seconds": 0} == {**told, "seconds": 0}
    assert recorded[at + "neighbours"]["state"] == "none"
    kind, data = recorded[f"/api/images/{image}/picture"].split(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", session.images.picture(image, 1280)[0])


def as_json(value):
    return json.loads(json.dumps(value))


def test_every_method_is_there_with_its_score_and_each_two_compared(session, recorded):
    image = session.given[0]
    methods = [m["name"] for m in session.about()["models"][1]["methods"] if m["why"] is None]
    assert len(methods) > 5
    scored = [name for name in methods if name != "pca"]
    for name in methods:
        assert f"/api/models/0/images/{image}/explain?method={name}" in recorded
    for name in scored:
        assert f"/api/models/0/images/{image}/score?method={name}&removal=mean" in recorded
        for other in scored:
            asked = f"/api/images/{image}/compare?left=0:{name}&right=0:{other}&removal=mean"
            assert (asked in recorded) == (name != other)
    top = recorded[f"/api/models/0/images/{image}/look"]["answer"]["top"]
    for k in top[1:3]:
        assert (f"/api/models/0/images/{image}/explain?method=relevance&target={k['index']}" in recorded) == (
            k["p"] >= 0.05
        )


def test_it_is_about_one_model_and_one_picture(session, recorded):
    about = recorded["/api/about"]
    assert [one["name"] for one in about["models"]] == ["ours"]
    assert about["models"][0]["id"] == 0
    assert [one["id"] for one in about["given"]] == session.given[:1]
    assert about["exported"] is True
    assert about["left_out"] is None
    assert about["models"][0]["removals"]["mean"] is None
    assert "mean colour" in about["models"][0]["removals"]["blur"]
    assert recorded["missing"].endswith(".")


def test_names_cannot_break_out(whole, recorded):
    assert recorded["/api/about"]["models"][0]["labels"][1] == LOUD
    parts = Parts(whole.html)
    assert sum(tag == "script" for tag, _ in parts.elements) == 3  # the import map, the answers, the start
    assert LOUD not in whole.html


def test_all_of_it_is_inside_and_named_by_its_hash(whole):
    parts = Parts(whole.html)
    (policy,) = [a["content"] for tag, a in parts.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, attributes, text in parts.inside:
        digest = base64.b64encode(hashlib.sha256("".join(text).encode()).digest()).decode()
        assert (f"'sha256-{digest}'" in policy) == (attributes.get("type") != "application/json"), tag
    for tag, attributes in parts.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), tag
    imports = json.loads(parts.text("script", type="importmap"))["imports"]
    for name, url in imports.items():
        kind, data = url.split(",")
        assert kind == "data:text/javascript;base64"
        assert base64.b64decode(data) == (STATIC / name.removeprefix("viewer/")).read_bytes()
    used = {name for path in STATIC.glob("*.js") for name in re.findall(r"[\"'`](viewer/[a-z]+\.js)", path.read_text())}
    assert used <= imports.keys()


def test_what_does_not_fit_is_left_out_from_the_end_and_said(session, whole):
    sizes = [len(whole.html.encode())]
    image = session.given[0]
    shell = len(shell_of((STATIC / "index.html").read_text()).encode())
    for limit in (sizes[0] - 3_000, (sizes[0] + shell) // 2):
        made = exported(session, 1, image, limit)
        assert len(made.html.encode()) <= limit
        recorded = Parts(made.html).recorded()
        assert recorded["/api/about"]["left_out"] == f"Left out, to keep it small: {', '.join(made.left_out)}."
        assert f"/api/models/0/images/{image}/look" in recorded
        patches = [path for path in recorded if re.search(r"query=\d+,\d+$", path)]
        assert f"{12 - len(patches)} of 12 patches' attention" in made.left_out
        if patches:  # the ones in the middle came first
            assert {path[-3:] for path in patches[:2]} == {"1,1", "1,2"}
        sizes.append(len(made.html.encode()))
    assert sizes == sorted(sizes, reverse=True)
    assert len(whole.html.encode()) < LIMIT
    assert whole.left_out == []


def test_a_model_without_attention_or_labels_has_what_there_is():
    for model in (small("resnet"), small("mae")):
        session = session_of(model)
        try:
            made = exported(session, 0, session.given[0])
        finally:
            session.close()
        recorded = Parts(made.html).recorded()
        assert made.left_out == []
        readers = [path for path in recorded if "/attention?" in path]
        scores = [path for path in recorded if "/score?" in path]
        assert (readers == []) == (recorded[f"/api/models/0/images/{session.given[0]}/look"]["layers"] == [])
        assert (scores == []) == (model.num_classes == 0)


def test_the_server_hands_it_out_as_a_file(session, recorded):
    with TestClient(viewer(session), base_url="http://localhost") as client:
        answer = client.get(f"/api/models/1/images/{session.given[0]}/page")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%3Cb%3E%26amp%3B-ours.html"
        assert Parts(answer.text).recorded().keys() == recorded.keys()
        assert client.get("/api/models/1/images/0123456789abcdef/page").status_code == 404
        assert client.get(f"/api/models/7/images/{session.given[0]}/page").status_code == 404


def test_it_can_be_given_up(session):
    ended = threading.Event()
    with pytest.raises(VitralError, match="given up"):
        exported(session, 1, session.given[0], ended=ended, progress=lambda done, total: done == 3 and ended.set())


def test_in_a_browser_it_shows_every_mode_and_asks_nobody(whole, tmp_path, page):
    file = tmp_path / "page.html"
    file.write_text(whole.html, encoding="utf-8")
    for mode, seen in {
        "attention": ".matrix [role=gridcell]", "explanation": ".curves", "compare": ".sides .curves", "inspect": ".finding .chart",
        "neighbours": ".nearest p",
    }.items():  # fmt: skip
        page.open(f"{file.as_uri()}#mode={mode}")
        page.one(seen)
        page.settle()
        assert page.js("return document.getElementById('error').hidden"), mode
        assert "taken over" not in page.driver.title

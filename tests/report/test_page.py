"""The page holds what it promises, is one file, and cannot be broken by what it shows."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitral.drawing.charts import Series, line_chart, running_mean, thinned, ticks
from vitral.errors import VitralError
from vitral.evaluation.metrics import score
from vitral.report.classes import ClassSections
from vitral.report.examples import Example, galleries
from vitral.report.frame import About, short
from vitral.report.page import write_report
from vitral.report.sections import RIGHT, WRONG
from vitral.report.verdict import Verdict

EVIL = "<script>alert('1')</script>"
VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Text and tags of a page; fails on tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def curves(steps=60):
    lines = [{"event": "message", "text": f"patch 4, since images are small {EVIL}"}]
    for step in range(1, steps + 1):
        rest = {"lr": 1e-3, "grad_norm": 1.0, "images_per_s": 900.0, "seconds": step * 1.0}
        lines.append({"event": "train", "step": step, "epoch": step / 10, "loss": 2 / step, "top1": 0.5, **rest})
        if step % 10 == 0:
            lines.append({"event": "val", "step": step, "epoch": step / 10, "loss": 2.1, "top1": 0.4, "seconds": 9.0})
    return lines


def report(folder, classes=10, **changes):
    labels = [EVIL, "b&w", *(f"class {i}" for i in range(2, classes))]
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, 20 * classes)
    logits = rng.normal(size=(len(targets), classes))
    logits[np.arange(len(targets)), targets] += 2
    pixels = np.zeros((6, 9, 3), np.uint8)
    arguments = {
        "title": "digits " + EVIL,
        "command": f"vitral train '{EVIL}' --seed 0",
        "evaluation": score(logits, targets, labels),
        "curves": curves(),
        "examples": [
            Example("sure-mistake.png", Verdict(EVIL, "b&w", 0.99), pixels, pixels),
            Example("mistake.png", Verdict("b&w", EVIL, 0.61), pixels, pixels),
            Example('right".png', Verdict("b&w", "b&w", 0.5), pixels.repeat(40, 0).repeat(40, 1), pixels),
        ],
        "facts": {
            "parameters": "1.2 M",
            "training time": "71 s",
            "fingerprint": "ab12",
            "cost": f"0.04 kWh {EVIL}",
        },
        "recipe": f"# {EVIL}\nlr = 1e-3",
    }
    given = arguments | changes
    about = About(*(given.pop(name) for name in ("title", "command", "curves", "facts", "recipe")))
    path = write_report(folder, about, pictures=galleries(given.pop("examples")), **given)
    return path, path.read_text("utf-8")


def test_the_score_stands_beside_what_it_is_held_against(tmp_path):
    def words(**changes):
        return Page(report(tmp_path, **changes)[1]).text

    answers = np.array([0, 1, 1, 1, 0, 0, 1, 2])
    scores = score(np.eye(3)[answers], np.array([0, 1, 1, 1, 1, 0, 0, 2]), ["cat", "dog", "owl"])
    given = {"evaluation": scores}
    assert "50.00% top-1 of answering dog to all" in words(**given)
    assert "without training" not in words(**given)
    known = words(**given, baselines={"the commonest answer to all": 0.4, "a linear classifier on pixels": 0.625})
    assert "62.50% top-1 without training: a linear classifier on pixels" in known


def test_the_page_is_whole_and_escaped_and_fetches_nothing(tmp_path):
    path, text = report(tmp_path)
    page = Page(text)
    assert path == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "<script" not in text
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action")]
    assert len(sources) == 6
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", value) for value in sources)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_page_says_what_a_reader_wants(tmp_path):
    _, text = report(tmp_path)
    page = Page(text)
    for words in [
        "1.2 M",
        "71 s",
        "ab12",
        "0.04 kWh",
        "lr = 1e-3",
        "patch 4, since",
        "top-5",
        "macro F1",
        EVIL,
    ]:
        assert words in page.text, words
    assert f"vitral train '{EVIL}' --seed 0" in page.text
    assert "200 images of the test split, 10 classes" in page.text
    charts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    expected = ["Loss over", "Top-1 over", "Learning rate over", "Training speed over", "Reliability diagram"]
    assert len(charts) == len(expected)
    assert all(chart.startswith(words) for chart, words in zip(charts, expected, strict=True))
    assert "prefers-color-scheme: dark" in text
    assert text.index("sure-mistake.png") < text.index(">mistake.png") < text.index("Right answers")


def test_headline_figures_are_the_evaluations(tmp_path):
    labels = list("abcdefg")
    logits, targets = np.eye(7)[[0, 1, 2, 3, 4, 5, 0]] * 4, np.arange(7)
    _, text = report(tmp_path, evaluation=score(logits, targets, labels))
    words = Page(text).text
    assert "85.71% top-1, 95 % interval 48.69% to 97.43%" in words
    assert "a predicted as a: 1 (100.0%)" in text
    assert "g predicted as a: 1 (100.0%)" in text


def test_classes_are_ordered_from_the_weakest_and_undefined_ones_are_last(tmp_path):
    labels = ["strong", "unseen", "weak"]
    evaluation = score(np.array([[9.0, 0, 1], [9, 0, 1], [9, 0, 1], [0, 0, 9]]), [0, 0, 2, 2], labels)
    _, text = report(tmp_path, evaluation=evaluation)
    table = text[text.index("<h2>Classes") :]
    assert table.index("weak<") < table.index("strong<") < table.index("unseen<")
    assert "nan" not in Page(text).text.lower().split()
    assert "top-5" not in Page(text).text


def test_many_classes_show_the_most_confused_pairs(tmp_path):
    _, few = report(tmp_path, classes=40)
    assert "Confusion matrix" in few
    assert "Most confused pairs" not in few
    _, many = report(tmp_path, classes=41)
    assert "Confusion matrix" not in many
    section = many[many.index("Most confused pairs") : many.index("<h2>Classes")]
    assert section.count("<tr>") == 31
    counts = [int(n) for n in re.findall(r"<td>(\d+)</td>", section)]
    assert counts == sorted(counts, reverse=True)
    labels = [str(k) for k in range(50)]
    _, perfect = report(tmp_path, evaluation=score(np.eye(50) * 50, np.arange(50), labels))
    assert "No image was predicted as another class." in perfect


def test_a_run_without_curves_examples_or_facts_still_has_a_page(tmp_path):
    broken = [
        {"event": "train", "step": 1, "epoch": 0.1, "loss": math.nan, "top1": None, "lr": 0.0},
        {"event": "val", "step": 1, "epoch": 0.1, "loss": math.inf},
    ]
    for lines in ([], broken):
        _, text = report(tmp_path, curves=lines, examples=[], facts={}, recipe="")
        words = Page(text).text
        assert "mistakes" not in words
        assert "recipe" not in words
        assert "Loss over" not in text


def test_a_resumed_run_draws_each_step_once(tmp_path):
    def lines(*losses):
        return [{"event": "val", "step": i, "epoch": i * 1.0, "loss": x} for i, x in enumerate(losses, 1)]

    _, resumed = report(tmp_path, curves=lines(2, 1, 99) + lines(2, 1, 0.5)[1:])
    _, straight = report(tmp_path, curves=lines(2, 1, 0.5))
    assert resumed == straight


def test_a_file_name_that_is_not_text_does_not_stop_the_report(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    _, text = report(tmp_path, examples=[Example("caf\udce9.png", Verdict("a", "a", 0.5), pixels, pixels)])
    assert r"caf\udce9.png" in text


def test_a_report_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VitralError, match=r"report\.html: could not be written"):
        report(tmp_path / "file" / "run")


def test_chosen_examples_are_the_surest_mistakes_and_right_ones_from_all_over():
    logits = np.zeros((100, 3))
    logits[:, 0] = np.linspace(1, 9, 100)
    targets = np.where(np.arange(100) % 2 == 0, 0, 1)
    choose = ClassSections().choose
    assert choose(logits, targets) == [*range(99, 99 - 2 * WRONG, -2), 0, 20, 40, 58, 78, 98]
    assert choose(logits, np.ones(100, int)) == list(range(99, 99 - WRONG, -1))
    assert choose(logits[:4], np.zeros(4, int)) == [0, 1, 2, 3]
    assert len(choose(logits, targets)) == WRONG + RIGHT


@settings(max_examples=80, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_even_and_inside(low, span):
    high = low + span
    assume(span > abs(low) * 1e-7)
    got = ticks(low, high)
    assert 2 <= len(got) <= 7
    assert all(low - span * 1e-6 <= tick <= high + span * 1e-6 for tick in got)
    steps = np.diff(got)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_ticks_read_well():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0, 0.00105) == [0, 0.0005, 0.001]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=80))
def test_any_finite_line_can_be_drawn_inside_the_frame(values):
    svg = line_chart("any", [Series("a", list(enumerate(values)), smoothed=True, marks=True)], "x")
    page = Page(svg)
    places = " ".join(value for _, name, value in page.attributes if name == "points")
    numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", places)]
    assert len(numbers) >= 2 * len(values)
    assert "nan" not in svg
    assert all(0 <= n <= 460 for n in numbers)


def test_no_two_ticks_of_a_chart_have_the_same_words():
    """Also where little changes, as in a short run."""
    values = [(0.0, 1.1), (0.5, 1.4), (1.0, 1.9)]
    forms = ((short, 1e-3), (lambda v, digits: f"{v:.{digits}%}", 0.01), (lambda v, digits: f"{v:,.{digits}f}", 1))
    for form, scale in forms:
        svg = line_chart("x", [Series("y", [(x, y * scale) for x, y in values])], "epoch", form)
        ticks_drawn = re.findall(r'class="tick"[^>]*text-anchor="end">([^<]*)<', svg)
        assert len(ticks_drawn) >= 3
        assert len(set(ticks_drawn)) == len(ticks_drawn), ticks_drawn


def test_smoothing_and_thinning_keep_a_straight_line_straight():
    line = [(float(i), 2.0 * i) for i in range(5000)]
    np.testing.assert_allclose(running_mean(line)[125:-125], line[125:-125], atol=1e-6)
    few = thinned(line, 100)
    assert len(few) == 100
    np.testing.assert_allclose([y for _, y in few], [2 * x for x, _ in few])
    noisy = [(x, (-1.0) ** i) for i, (x, _) in enumerate(line)]
    assert np.std([y for _, y in running_mean(noisy)]) < 0.05

"""A task of its own in this one file, the share of bright pixels: trained, evaluated, predicted and reported by rows in five tables.

The loop, the predictor, the data set and the command line know nothing of it.
"""

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from torch.nn import functional as F

import vitral
from vitral import answers, cli
from vitral.data import targets
from vitral.evaluation import evaluate
from vitral.evaluation.evaluator import Gathering, Scores
from vitral.objectives.classify import Classify
from vitral.objectives.objective import Objective
from vitral.report import page
from vitral.report.sections import WholeSections
from vitral.report.verdict import Verdict
from vitral.training import tasks

TASK = "brightness"


class Shares(targets.Targets):
    """float32 [n, 1]"""

    task, each, nouns, by_label = TASK, "a share", ("number", "numbers"), False

    @classmethod
    def read(cls, labels, name):
        return ["bright pixels"], cls(np.array([[float(label)] for label in labels], np.float32))

    def key(self, i, labels):
        return f"{self.values[i, 0]:.6f}"

    def describe(self, i, labels):
        return self.key(i, labels)


class Squares(Objective):
    def __call__(self, model, batch):
        return {"loss": F.mse_loss(model(batch.images).float(), batch.targets)}

    def result(self, model):
        return Classify().result(model)


@dataclass(frozen=True)
class Share(answers.Answer):
    value: float

    def line(self, top_k):
        return f"{self.value:.1%} bright"

    def cells(self, top_k, separator):
        return [f"{self.value:.4f}"]

    def to_json(self):
        return {"bright": self.value}


class ShareAnswers(answers.Answers):
    independent = True

    def __call__(self, outputs, names, top_k, placed):
        return [Share(name, value) for name, value in zip(names, outputs[:, 0].tolist(), strict=True)]

    def probabilities(self, outputs):
        return outputs.clamp(0, 1)

    def columns(self, top_k, separator):
        return ["bright"]


@dataclass(frozen=True)
class Fit(Scores):
    HEADLINE: ClassVar[str] = "r2"
    TITLE: ClassVar[str] = "explained variance"

    images: int
    r2: float
    loss: float

    def line(self):
        return f"explained {self.r2:.2%}"

    def brief(self):
        return asdict(self)

    def to_json(self):
        return asdict(self)

    def table(self):
        return f"mean squared error {self.loss:.4f}"

    def summary(self):
        return f"explained variance {self.r2:.2%}"


class FitEvaluator(Gathering):
    scores = Fit

    def score(self, outputs, wanted):
        error = float(((outputs - wanted) ** 2).mean())
        return Fit(len(wanted), 1 - error / float(wanted.var()), error)


class FitSections(WholeSections):
    def counted(self, scores):
        return "one number"

    def tiles(self, scores, baselines):
        return [(f"{scores.r2:.2%}", "explained variance")]

    def body(self, scores):
        return "<section><h2>Fit</h2></section>"

    def choose(self, outputs, wanted):
        return np.argsort(-np.abs(outputs - wanted)[:, 0])[:3].tolist()

    def verdict(self, output, target, labels):
        return Verdict(f"{target[0]:.2f}", f"{output[0]:.2f}", None)


@pytest.fixture
def brightness(monkeypatch):
    for table, row in (
        (targets.TARGETS, Shares),
        (answers.ANSWERS, ShareAnswers),
        (evaluate.EVALUATORS, FitEvaluator),
        (page.SECTIONS, FitSections()),
        (tasks.LEARNING, tasks.Learning(lambda options, data: Squares(), lambda options: ["squared error"])),
    ):
        monkeypatch.setitem(table, TASK, row)


@pytest.fixture
def table(tmp_path):
    rng, lines = np.random.default_rng(0), ["image,label"]
    for i in range(120):
        pixels = np.where(rng.random((8, 8)) < rng.random(), 255, 0).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:03}.png")
        lines.append(f"{i:03}.png,{(pixels > 127).mean():.6f}")
    (tmp_path / "bright.csv").write_text("\n".join(lines))
    return tmp_path / "bright.csv"


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    return said


def test_a_task_is_a_row_in_each_table(brightness, table, tmp_path, capsys):
    out, picture = tmp_path / "run", tmp_path / "000.png"
    said = run(
        capsys, "train", table, "--task", TASK, "--steps", "60", "--dim", "16", "--depth", "1", "--num-heads", "2", "--patch-size", "4",
        "--optimizer", "adamw", "--lr", "1e-2", "--crop", "none", "--hflip", "0", "--workers", "0", "--precision", "fp32", "--out", out,
    )  # fmt: skip
    assert "explained variance" in said.err
    assert "the best of the validations: explained variance" in said.err
    result = json.loads(run(capsys, "evaluate", out, table, "--split", "test", "--json").out)
    assert result["r2"] > 0.8
    assert result["r2"] == pytest.approx(json.loads((out / "scores.json").read_text())["r2"])
    rows = run(capsys, "predict", out, picture, "--format", "csv").out.splitlines()
    assert rows[0] == "image,bright,error"
    answer = vitral.load(out).predict(picture)
    assert rows[1].split(",")[1] == f"{answer.value:.4f}"
    text = (out / "report.html").read_text()
    assert "explained variance" in text
    assert "<h2>Fit</h2>" in text
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("r2" in line for line in lines if line["event"] == "val")
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(out), "digits"])
    assert "an image has one class in the data, and a share in the model" in capsys.readouterr().err

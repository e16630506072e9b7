"""mIoU by one confusion of the split at the images' own sizes, void left out; logits brought back to the original."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torch.nn import functional as F

from vitral.answers.maps import MapAnswers, at_original, segmented
from vitral.data.maps import VOID, MapTruth
from vitral.data.preprocess import Preprocess
from vitral.data.view import Placed, View
from vitral.errors import VitralError
from vitral.evaluation.evaluate import score_kept
from vitral.evaluation.semantic import MapEvaluator, bootstrap, mean_ious
from vitral.models.heads.outputs import Maps

LABELS = ["a", "b", "c", "d"]


def whole(h, w):
    return Placed(h, w, View(h, w))


def answered(classes, K=4):
    """Maps that answer these classes [h, w], at every pixel."""
    return Maps(F.one_hot(torch.from_numpy(classes).long(), K).permute(2, 0, 1)[None].float(), 1)


def scored(truths, answers):
    found = MapEvaluator(LABELS)
    for truth, answer in zip(truths, answers, strict=True):
        placed = whole(*truth.shape)
        found.add(answered(answer), MapTruth((placed,), (torch.from_numpy(truth),)))
    return found


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    truths = [rng.integers(-1, 3, (int(h), int(w))).astype(np.int16) for h, w in rng.integers(5, 30, (6, 2))]
    answers = [np.where(rng.random(t.shape) < 0.6, t.clip(0), rng.integers(0, 3, t.shape)) for t in truths]
    return truths, answers


def test_scores_are_those_of_all_pixels_at_once(pairs):
    truths, answers = (np.concatenate([each.ravel() for each in column]) for column in pairs)
    known = truths != VOID
    scores = scored(*pairs).result()
    assert (scores.confusion[:3, :3] == confusion_matrix(truths[known], answers[known], labels=[0, 1, 2])).all()
    ious = jaccard_score(truths[known], answers[known], labels=[0, 1, 2], average=None)
    assert [row.iou for row in scores.classes[:3]] == pytest.approx(ious.tolist())
    assert scores.classes[3].iou is None  # d is nowhere
    assert scores.miou == pytest.approx(ious.mean())
    assert scores.accuracy == pytest.approx((truths[known] == answers[known]).mean())
    assert scores.images == 6
    low, high = scores.miou_interval
    assert low < scores.miou < high
    assert "d" in scores.summary()


def test_what_is_answered_on_void_changes_nothing(pairs):
    truths, answers = pairs
    other = [np.where(truth == VOID, 3, answer) for truth, answer in zip(truths, answers, strict=True)]
    assert (scored(truths, other).result().confusion == scored(truths, answers).result().confusion).all()


def test_a_class_that_is_only_answered_scores_nothing_and_counts():
    truth = np.zeros((4, 4), np.int16)
    answer = truth.copy()
    answer[0] = 1
    scores = scored([truth], [answer]).result()
    assert [row.iou for row in scores.classes] == [0.75, 0.0, None, None]
    assert scores.miou == 0.375
    assert scores.miou_interval is None  # one image says nothing of others


def test_what_is_kept_gives_the_same_scores(pairs):
    found = scored(*pairs)
    again = score_kept(found.kept(), "semantic", LABELS)
    assert again.to_json() == found.result().to_json()
    first, second = scored(*(column[:2] for column in pairs)), scored(*(column[2:] for column in pairs))
    first.take(second.kept())
    assert first.result().to_json() == found.result().to_json()
    with pytest.raises(VitralError, match="no images"):
        MapEvaluator(LABELS).result()


def test_the_interval_covers_what_other_images_give():
    rng = np.random.default_rng(1)

    def counts(n):
        true = rng.integers(20, 200, (n, 3))
        right = (true * rng.beta(6, 3, (n, 3))).astype(np.int64)
        return np.stack([right, true, true], 1)

    expected = float(mean_ious(counts(20_000).sum(0)))
    inside = 0
    for _ in range(60):
        low, high = bootstrap(counts(40), draws=200)
        inside += low <= expected <= high
    assert 50 <= inside <= 60


def test_nan_is_no_answer():
    maps = Maps(torch.full((1, 4, 2, 2), float("nan")), 1)
    with pytest.raises(VitralError, match="diverged"):
        MapEvaluator(LABELS).add(maps, MapTruth((whole(2, 2),), (torch.zeros(2, 2),)))


@given(st.integers(3, 40), st.integers(3, 40), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["pad", "squash"]))
def test_logits_come_back_as_interpolation_brings_them(h, w, stride, how):
    """Enlarged to the model's pixels, cut to the image in them, and brought to its size, in one go."""
    torch.manual_seed(h * 100 + w)
    H, W = 24, 32
    logits = torch.randn(3, H // stride, W // stride)
    view = Preprocess(H, W, 3, (0.5,) * 3, (1.0,) * 3, how).where(h, w)
    placed = Placed(h, w, view)
    got = np.concatenate(list(at_original(logits, stride, placed)), 1)
    assert got.shape == (3, h, w)
    (a, _, c), (_, e, f) = view.rows
    ys, xs = (np.arange(h) + 0.5) * a + c, (np.arange(w) + 0.5) * e + f
    grid = torch.from_numpy(np.stack(np.meshgrid(xs / W * 2 - 1, ys / H * 2 - 1), -1)).float()
    expected = F.grid_sample(logits[None], grid[None], "bilinear", "border", align_corners=False)[0]
    assert np.allclose(got, expected.numpy(), atol=1e-4)
    assert (segmented(logits, stride, placed) == got.argmax(0)).all()


def test_answers_say_each_class_and_its_share():
    classes = np.array([[0, 0, 0], [2, 2, 1]])
    (answer,) = MapAnswers(LABELS)(answered(classes), ["x.png"], 2, [whole(2, 3)])
    assert (answer.map == classes).all()
    assert answer.shares == [("a", 0.5), ("c", pytest.approx(1 / 3)), ("b", pytest.approx(1 / 6))]
    assert answer.line(2) == "a 50.0%  c 33.3%"
    assert len(answer.cells(2, ";")) == len(MapAnswers(LABELS).columns(2, ";")) == 4
    pictures = dict(answer.pictures(np.zeros((2, 3, 3), np.uint8)))
    assert (np.asarray(pictures[".png"]) == classes).all()

"""The patch that decides is found, what is not needed is put back, and what is called smallest is smallest."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from asking import predictor_of
from families import small
from squares import GRID, LABELS, learned, picture
from vitral.errors import VitralError
from vitral.explain.counterfactual import EXHAUSTIVE, _Search, counterfactual
from vitral.explain.explain import explain
from vitral.explain.removal import Removable


class Rule:
    """Stands for a picture of h x w patches: the answer is 0 until `changes(removed)`, and each patch in `hurts` takes from its lead."""

    def __init__(self, grid, changes, hurts=()):
        self.grid, self.changes, self.hurts = grid, changes, dict(hurts)
        self.count, self.calls = grid[0] * grid[1], 0
        self.predictor = predictor_of(small("vit", num_classes=2))
        self.removal = "mean"

    def probabilities(self, kept):
        self.calls += len(kept)
        rows = []
        for row in kept:
            removed = set(np.flatnonzero(~row).tolist())
            own = 0.2 if self.changes(removed) else 0.9 - sum(self.hurts.get(i, 0) for i in removed)
            rows.append([own, 1 - own])
        return np.array(rows)


def test_one_patch_is_found_and_proven_smallest():
    predictor = learned()
    for i, place in enumerate([(0, 0), (2, 4), (3, 1)]):
        image = picture(i, place, i)
        found = counterfactual(predictor, image)
        assert found.patches == [place]
        assert found.label == LABELS[i]
        assert found.instead == "nothing"
        assert found.proven
        assert found.probabilities[0] == pytest.approx(predictor.predict(image).probability, abs=1e-5)
        assert found.probabilities[-1] < found.probabilities[0]
        assert np.argwhere(found.mask).tolist() == [list(place)]
        assert "without 1 patch of 24" in str(found)
        assert "no smaller set" in str(found)


def test_a_map_guides_the_search():
    predictor, image = learned(), picture(1, (2, 2), 5)
    lost = explain(predictor, image, "occlusion")
    found = counterfactual(predictor, image, lost)
    assert found.patches == found.steps == [(2, 2)]
    turned = counterfactual(predictor, image, dataclasses.replace(lost, grid=-lost.grid))
    assert turned.patches == [(2, 2)], "what the map took before it is put back"
    assert len(turned.steps) > 1
    assert len(turned.probabilities) == len(turned.steps) + 2
    assert turned.probabilities[0] == pytest.approx(found.probabilities[0])


def test_what_was_taken_on_the_way_is_put_back():
    rule = Rule((3, 4), lambda removed: {2, 7} <= removed)
    search = _Search(rule)
    prefix = search.prefix(np.array([5, 2, 9, 7, 1, 0, 3, 4, 6, 8, 10, 11]))
    assert prefix == [5, 2, 9, 7]
    assert sorted(search.prune(prefix)) == [2, 7]


def test_trying_all_finds_what_greed_misses():
    """Greed follows the small hurts to three patches; the pair 0 and 11 does it alone."""
    hurts = {1: 0.1, 2: 0.1, 3: 0.1}
    rule = Rule((3, 4), lambda removed: {1, 2, 3} <= removed or {0, 11} <= removed, hurts)
    search = _Search(rule)
    greedy = search.prune(search.greedy())
    assert sorted(greedy) == [1, 2, 3]
    assert search.exhaust(greedy) == ([0, 11], True)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_proven_is_the_smallest_by_force(seed):
    rng = np.random.default_rng(seed)
    keys = [set(rng.choice(8, size, replace=False).tolist()) for size in rng.integers(2, 6, 3)]
    rule = Rule(
        (2, 4), lambda removed: any(key <= removed for key in keys), {i: rng.uniform(0, 0.05) for i in range(8)}
    )
    search = _Search(rule)
    found, proven = search.exhaust(search.prune(search.greedy()))
    by_force = min(
        size for size in range(1, 9) if any(rule.changes(set(s)) for s in itertools.combinations(range(8), size))
    )
    assert proven
    assert len(found) == by_force
    assert rule.changes(set(found))


def test_where_too_many_would_have_to_be_tried_nothing_is_proven():
    rule = Rule((14, 14), lambda removed: {3, 50, 100, 150} <= removed)
    search = _Search(rule)
    rule.calls = 0
    assert search.exhaust([3, 50, 100, 150]) == ([3, 50, 100, 150], False)
    assert rule.calls <= EXHAUSTIVE


def test_an_answer_that_stays_is_an_error_with_a_remedy():
    model = small("vit", image_size=(32, 48))
    with torch.no_grad():
        model.head.weight.zero_()
    predictor = predictor_of(model)
    with pytest.raises(VitralError, match=r"even without any patch.*choose another removal, for instance blur"):
        counterfactual(predictor, picture(0, (0, 0), 0))
    with pytest.raises(VitralError, match="for instance mean"):
        counterfactual(predictor, picture(0, (0, 0), 0), removal="blur")


def test_where_a_picture_can_have_several_labels_the_label_falls():
    learned_model = learned().model
    predictor = predictor_of(learned_model, labels=LABELS, task="multilabel")
    image = picture(0, (1, 3), 8)
    answers = Removable(predictor, image).probabilities(np.ones((1, GRID[0] * GRID[1]), bool))[0]
    assert answers[0] > 0.5
    found = counterfactual(predictor, image)
    assert found.instead is None
    assert found.probabilities[-1] < 0.5
    assert "no longer 'red'" in str(found)
    with torch.no_grad():
        silent = small("vit", image_size=(32, 48))
        silent.head.weight.zero_()
        silent.head.bias.fill_(-3)
    with pytest.raises(VitralError, match="no answer to change"):
        counterfactual(predictor_of(silent, task="multilabel"), image)

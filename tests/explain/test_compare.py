"""Methods side by side: each row is what the single parts say, and what knows nothing stands beside."""

import numpy as np
import pytest

from asking import predictor_of
from families import small
from squares import GRID, PATCH, learned, mask_of, picture
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.explain.compare import Case, Row, cases, comparable, compare, mapper, markdown, means
from vitral.explain.explain import explain
from vitral.explain.faithfulness import measure
from vitral.explain.localise import localised
from vitral.explain.sanity import max_sensitivity, sanity

PLACES = [(0, 1), (2, 3), (3, 5)]


@pytest.fixture(scope="module")
def images():
    fine = [mask_of(place).repeat(PATCH, 0).repeat(PATCH, 1) > 0 for place in PLACES]
    return [
        Case(f"{i}.png", picture(i, place, i), mask) for i, (place, mask) in enumerate(zip(PLACES, fine, strict=True))
    ]


def test_rows_are_what_the_parts_say(images):
    predictor = learned()
    rows = list(compare(predictor, images, ["rollout", "occlusion"], random=3, sane=1))
    assert [(row.image, row.method) for row in rows] == [
        (case.name, method) for case in images for method in ("rollout", "occlusion", "random", "centre")
    ]
    for i, case in enumerate(images):
        own = {row.method: row.scores for row in rows if row.image == case.name}
        values = explain(predictor, case.pixels, "occlusion", target=i).grid
        alone = measure(predictor, case.pixels, values, i, random=3)
        assert own["occlusion"]["deletion"] == pytest.approx(alone.deletion, abs=1e-6)
        assert own["occlusion"]["insertion"] == pytest.approx(alone.insertion, abs=1e-6)
        assert own["random"]["deletion"] == pytest.approx(alone.random_deletion, abs=1e-6)
        assert own["centre"]["insertion"] == pytest.approx(alone.centre_insertion, abs=1e-6)
        assert own["occlusion"]["pointing"] == localised(values, case.mask).pointing == 1
        assert own["occlusion"]["miou"] > own["random"]["miou"]
        assert ("sanity" in own["occlusion"]) == (i == 0)
        assert own["occlusion"]["seconds"] > 0
        assert "seconds" not in own["random"]
    of_first = mapper("occlusion", 0)
    wanted = sanity(predictor, images[0].pixels, of_first).mean, max_sensitivity(predictor, images[0].pixels, of_first)
    assert (rows[1].scores["sanity"], rows[1].scores["sensitivity"]) == pytest.approx(wanted, abs=1e-6)


def test_without_masks_there_are_no_scores_of_place(images):
    bare = [Case(case.name, case.pixels) for case in images[:1]]
    done = []
    (_, chance, _) = compare(learned(), bare, ["attention"], progress=lambda n, total: done.append((n, total)))
    assert set(chance.scores) == {"deletion", "insertion"}
    assert done == [(1, 1)]


def test_what_cannot_be_compared_is_refused_before_any_work(images):
    predictor = learned()
    assert "pca" not in comparable(predictor)
    assert {"attention", "rollout", "occlusion"} <= set(comparable(predictor))
    resnet = predictor_of(small("resnet", image_size=(PATCH * GRID[0], PATCH * GRID[1])))
    assert "rollout" not in comparable(resnet)
    for model, method, says in (
        (predictor, "magic", "choose one of"),
        (predictor, "pca", "no order"),
        (resnet, "rollout", "no attention"),
    ):
        with pytest.raises(VitralError, match=says):
            next(compare(model, images, ["occlusion", method]))


def test_images_are_drawn_once_each_and_always_the_same():
    split = open_data("digits", DataOptions()).splits["test"]
    predictor = predictor_of(small("vit", in_channels=3))
    drawn = cases(predictor, split, 20)
    names = [case.name for case in drawn]
    assert len(set(names)) == 20
    assert names == [case.name for case in cases(predictor, split, 20)]
    assert names != list(split.names[:20])
    assert names != [case.name for case in cases(predictor, split, 20, seed=1)]
    assert drawn[0].pixels.shape == (3, 8, 8)
    assert len(cases(predictor, split.take(np.arange(5)), 20)) == 5


def test_the_table_has_means_and_standard_errors():
    rows = [Row(str(i), "m", {"deletion": x, "seconds": 2.0}) for i, x in enumerate([0.1, 0.2, 0.6])]
    rows += [Row("0", "random", {"deletion": 0.5})]
    assert means(rows)["m"]["deletion"] == pytest.approx((0.3, np.std([0.1, 0.2, 0.6], ddof=1) / 3**0.5))
    head, rule, first, second = markdown(rows).splitlines()
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["method", "deletion ↓", "s an image"]
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["m", "0.300 ± 0.153", "2.000"]
    assert [cell.strip() for cell in second.split("|")[1:-1]] == ["random", "0.500", ""]

"""A map that is true scores as one, one that is false as one, and the numbers are what they say."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asking import predictor_of
from families import small
from squares import GRID, LABELS, PATCH, learned, mask_of, picture
from vitral.errors import VitralError
from vitral.explain.explain import explain
from vitral.explain.faithfulness import STEADY, Curves, Faithfulness, curves, measure, scored
from vitral.explain.localise import localised
from vitral.explain.removal import Removable, centre_map, cut, order_of, random_maps
from vitral.explain.sanity import cascade, max_sensitivity, sanity, spearman, stages
from vitral.randomness import uniforms

FAMILIES = ["vit", "deit", "cait", "beit", "dino", "hybrid", "swin", "swinv2", "pvt", "pvt_v2", "resnet"]


@pytest.fixture(scope="module")
def squares():
    return learned()


@pytest.mark.parametrize("removal", ["mean", "blur", "drop"])
def test_an_oracle_beats_random_beats_the_oracle_upside_down(squares, removal):
    scores = []
    for i, place in enumerate([(0, 0), (1, 4), (3, 4), (2, 5)]):  # not where the centre finds it, too
        image, mask = picture(i % 3, place, i), mask_of(place)
        answer = squares.predict(image)
        assert answer.label == LABELS[i % 3]
        assert answer.probability > 0.9
        true, false = (measure(squares, image, m, i % 3, removal=removal) for m in (mask, -mask))
        assert (true.random_deletion, true.centre_deletion) == (false.random_deletion, false.centre_deletion)
        scores.append(
            (
                (true.deletion, true.random_deletion, false.deletion),
                (true.insertion, true.random_insertion, false.insertion),
            )
        )
        assert "better than" not in false.verdict()
        if removal == "mean":  # the model saw nothing like the others in training
            assert "worse than random orders" in false.verdict()
            assert "better than random orders" in true.verdict()
    deletion, insertion = np.mean(scores, axis=0)
    assert deletion[0] + 0.15 < deletion[1] < deletion[2] - 0.15
    assert insertion[0] - 0.15 > insertion[1] > insertion[2] + 0.15


def test_the_ends_of_the_curves_are_the_whole_and_the_empty_picture(squares):
    image = picture(1, (2, 3), 5)
    result = measure(squares, image, mask_of((2, 3)), 1, removal="mean")
    x = squares.preprocess(image)
    empty = torch.zeros_like(x)
    whole, nothing = squares.probabilities(squares.logits(torch.stack([x, empty])))[:, 1].tolist()
    for path in (result.map, *result.random, result.centre):
        np.testing.assert_allclose([path.deleted[0], path.inserted[-1]], whole, rtol=1e-5)
        np.testing.assert_allclose([path.deleted[-1], path.inserted[0]], nothing, rtol=1e-5)
        np.testing.assert_allclose(path.shares, np.arange(25) / 24)


@pytest.mark.parametrize("removal", ["mean", "blur"])
def test_curves_by_a_loop_over_painted_pictures(squares, removal):
    image, values = picture(2, (1, 1), 9), np.random.default_rng(0).random(GRID)
    found = measure(squares, image, values, 2, removal=removal).map
    subject = Removable(squares, image, removal)
    pixels = subject.pixels.clone()
    filling = subject.filling.expand_as(pixels)
    for i, patch in enumerate([None, *np.argsort(-values.ravel())]):
        if patch is not None:
            y, x = (PATCH * n for n in divmod(int(patch), GRID[1]))
            pixels[:, y : y + PATCH, x : x + PATCH] = filling[:, y : y + PATCH, x : x + PATCH]
        answer = squares.logits(pixels[None]).softmax(-1)[0, 2].item()
        assert found.deleted[i] == pytest.approx(answer, abs=1e-5)


def test_least_important_first_is_insertion_read_from_its_end(squares):
    image, values = picture(0, (3, 3), 2), np.random.default_rng(1).random(GRID)
    found, turned = (measure(squares, image, v, 0).map for v in (values, -values))
    np.testing.assert_allclose(turned.deleted, found.inserted[::-1], atol=1e-6)
    assert turned.deletion == pytest.approx(found.insertion)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 50), st.floats(-5, 5), st.integers(1, 24))
def test_only_the_order_of_a_map_counts(seed, scale, shift, levels):
    values = np.random.default_rng(seed).integers(0, levels, GRID).astype(float)  # with equal values
    order = order_of(values)
    assert sorted(order) == list(range(24))
    assert (np.diff(values.ravel()[order]) <= 0).all()
    np.testing.assert_array_equal(order, order_of(scale * values**3 + shift))
    np.testing.assert_array_equal(order, order_of(np.exp(values / 4).astype(np.float32)))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 999))
def test_areas_lie_in_0_to_1_and_a_straight_line_has_half(points, seed):
    rng = np.random.default_rng(seed)
    shares = np.r_[0, np.sort(rng.random(points - 2)), 1]
    path = Curves(shares, rng.random(points), shares)
    assert 0 <= path.deletion <= 1
    assert path.insertion == pytest.approx(0.5)


def test_a_model_that_always_answers_the_same_has_flat_curves():
    model = small("vit", image_size=(32, 48))
    with torch.no_grad():
        model.head.weight.zero_()
    predictor = predictor_of(model)
    result = measure(predictor, picture(0, (0, 0), 0), mask_of((0, 0)), 2)
    always = float(model.head.bias.detach().softmax(0)[2])
    for path in (result.map, *result.random, result.centre):
        np.testing.assert_allclose(path.deleted, always, rtol=1e-5)
        np.testing.assert_allclose(path.inserted, always, rtol=1e-5)
        assert path.deletion == pytest.approx(always)
    said = f"{always:.1%}"
    assert result.verdict() == (
        f"the answer hardly changes when patches are removed, so this test says nothing here: 'kind 2' stays at {said}"
    )


def test_equal_values_fall_in_no_systematic_order():
    order = order_of(np.zeros((10, 10)))
    assert abs(spearman(order.astype(float), np.arange(100.0))) < 0.25
    with pytest.raises(VitralError, match="not finite"):
        order_of(np.array([[0.0, np.nan]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_at_a_size_that_its_patches_do_not_tile(family):
    predictor = predictor_of(small(family, image_size=(40, 60)))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8))
    subject = Removable(predictor, image)
    h, w = subject.grid
    assert (h - 1) * subject.side < 40 <= h * subject.side
    assert (w - 1) * subject.side < 60 <= w * subject.side
    result = measure(predictor, image, np.random.default_rng(1).random((3, 5)), 1, random=2)
    assert 0 <= result.deletion <= 1
    assert result.map.deleted[0] == pytest.approx(
        predictor.logits(subject.pixels[None]).softmax(-1)[0, 1].item(), rel=1e-5
    )
    assert result.map.deleted[0] != result.map.deleted[-1]


def test_patches_are_the_tokens_of_a_vit_and_a_few_hundred_at_most_of_a_pyramid():
    assert cut(small("vit"), 32, 48) == (8, (4, 6))
    assert cut(small("vit"), 30, 41) == (8, (4, 6))
    assert cut(small("resnet"), 224, 224) == (16, (14, 14))
    assert cut(small("resnet"), 64, 64) == (4, (16, 16))
    assert cut(small("swin"), 128, 120) == (8, (16, 15))


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_dropped_tokens_are_those_of_the_removed_patches(family):
    model = small(family, image_size=(32, 48))
    predictor, image = predictor_of(model), picture(1, (1, 1), 3)
    subject = Removable(predictor, image, "drop")
    kept = np.random.default_rng(0).random((5, 24)) < 0.5
    kept[3], kept[4] = True, False
    found = subject.probabilities(kept)
    for row, answer in zip(kept, found, strict=True):
        with torch.inference_mode():
            tokens = model.embed(subject.pixels[None])
            prefix = tokens.shape[1] - 24
            short = torch.cat([tokens[:, :prefix], tokens[:, prefix:][:, torch.from_numpy(row)]], dim=1)
            wanted = model.head(model.pool(model.encode(short, (4, 6)))).softmax(-1)[0]
        np.testing.assert_allclose(answer, wanted, atol=1e-6)
    np.testing.assert_allclose(found[3], predictor.logits(subject.pixels[None]).softmax(-1)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "overrides", "why"),
    [
        ("swin", {}, "all its patches in their grid"),
        ("cait", {}, "all its patches in their grid"),
        ("beit", {}, "all its patches in their grid"),
        ("hybrid", {}, "mix neighbours"),
        ("vit", {"pooling": "mean"}, "averages its patches"),
    ],
)
def test_where_tokens_cannot_be_dropped_it_says_why(family, overrides, why):
    predictor = predictor_of(small(family, **overrides))
    with pytest.raises(VitralError, match=f"{why}.*choose removal mean or blur"):
        Removable(predictor, torch.zeros(3, 32, 32), "drop")
    with pytest.raises(VitralError, match="removal 'noise': choose one of mean, blur, drop"):
        Removable(predictor, torch.zeros(3, 32, 32), "noise")


def test_what_is_blurred_keeps_its_brightness_and_loses_its_detail(squares):
    subject = Removable(squares, picture(0, (2, 2), 0), "blur")
    assert subject.filling.shape == subject.pixels.shape
    np.testing.assert_allclose(subject.filling.mean(), subject.pixels.mean(), atol=0.05)
    assert subject.filling[0].std() < 0.2 * subject.pixels[0].std()
    flat = Removable(squares, torch.full((3, 32, 48), 77.0), "blur")
    np.testing.assert_allclose(flat.filling, flat.pixels, rtol=1e-5)


def test_maps_come_to_the_patches_by_their_mean(squares):
    subject, values = Removable(squares, picture(0, (0, 0), 0)), np.random.default_rng(0).random((8, 12))
    np.testing.assert_array_equal(subject.on_grid(values[:4, :6]), values[:4, :6])
    coarse = subject.on_grid(values.repeat(4, 0).repeat(4, 1))
    np.testing.assert_allclose(coarse, values.reshape(4, 2, 6, 2).mean(axis=(1, 3)), atol=1e-6)
    beyond = np.zeros((64, 96))  # twice the view, of which only the corner is seen
    beyond[:32, :48] = values.repeat(4, 0).repeat(4, 1)
    np.testing.assert_allclose(subject.on_grid(beyond, (2, 2)), coarse, atol=1e-6)


def test_a_map_that_reaches_over_the_edge_is_cut_there():
    predictor = predictor_of(small("resnet", image_size=(30, 44)))
    subject = Removable(predictor, torch.zeros(3, 30, 44))
    assert (subject.side, subject.grid, subject.extent) == (4, (8, 11), (32 / 30, 1))
    fine = np.zeros((32, 44))
    fine[30:] = 9.0  # outside
    fine[28:30] = 1.0
    np.testing.assert_allclose(subject.on_grid(fine, subject.extent)[-2:], [[0] * 11, [1] * 11], atol=1e-6)


def test_the_centre_map_falls_from_the_middle_and_random_maps_differ():
    centre = centre_map((5, 9))
    assert np.unravel_index(centre.argmax(), centre.shape) == (2, 4)
    assert (np.diff(centre[2, 4:]) < 0).all()
    np.testing.assert_allclose(centre, centre[::-1, ::-1])
    first, second = random_maps((5, 9), 2)
    assert abs(spearman(first, second)) < 0.4
    np.testing.assert_array_equal(random_maps((5, 9), 3)[0], first)


def test_the_text_and_the_json_say_all(squares):
    result = measure(squares, picture(0, (1, 4), 0), mask_of((1, 4)), 0, random=3)
    text = str(result)
    for word in (
        f"{result.deletion:.3f}",
        f"{result.insertion:.3f}",
        "random (3 orders)",
        "centre",
        "'red'",
        "mean colour",
    ):
        assert word in text
    stored = result.to_json()
    assert stored["map"]["deletion"] == [result.deletion]
    assert np.mean(stored["random"]["insertion"]) == pytest.approx(result.random_insertion)
    assert len(stored["random"]["deleted"]) == 3
    assert stored["centre"]["deleted"][0] == result.centre.deleted.tolist()


def test_an_explanation_is_scored_for_the_class_that_it_is_about(squares):
    image = picture(0, (1, 4), 0)
    for method, options, target in (("occlusion", {"target": "blue"}, 2), ("attention", {}, 0)):
        explanation = explain(squares, image, method, **options)
        found, wanted = scored(squares, image, explanation, random=2), measure(squares, image, explanation.grid, target)
        assert found.target == LABELS[target]
        assert len(found.random) == 2
        assert (found.deletion, found.insertion) == (wanted.deletion, wanted.insertion)
    with pytest.raises(VitralError, match="no order"):
        scored(squares, image, explain(squares, image, "pca"))


def path(deletion, insertion):
    flat = np.ones(2)
    return Curves(np.array([0.0, 1.0]), deletion * flat, insertion * flat)


def ended(deletion, insertion):
    """Of these areas, between a picture of which the answer is sure and one of which it is not."""
    return Curves(
        np.array([0.0, 0, 1, 1]), np.array([1, deletion, deletion, 0]), np.array([0, insertion, insertion, 1])
    )


def verdict(deletion, insertion, *, centre=(0.4, 0.6), deviation=0.1):
    others = (ended(0.5 + deviation, 0.5 - deviation), ended(0.5 - deviation, 0.5 + deviation))
    return Faithfulness("cat", "mean", ended(deletion, insertion), others, ended(*centre), 0.0).verdict()


def test_a_verdict_needs_the_random_orders_beaten_by_twice_their_deviation_and_the_centre():
    assert "better than random orders" in verdict(0.29, 0.71)
    assert "in deletion only" in verdict(0.29, 0.69)
    assert "in insertion only" in verdict(0.31, 0.71)
    assert "no more" in verdict(0.31, 0.69)
    assert "no more" in verdict(0.29, 0.71, centre=(0.28, 0.72))
    assert "no more" in verdict(0.29, 0.71, centre=(0.295, 0.705)), "the centre, by less than 0.01"


SENTENCES = (
    "the map finds what the answer 'cat' rests on better than random orders and the centre do",
    "the map clearly beats random orders and the centre in",
    "the map says no more about the answer 'cat' than random orders or the centre do",
    "the map is worse than random orders in",
    "the answer hardly changes when patches are removed, so this test says nothing here: 'cat' stays",
)
SHARE = st.floats(0, 1)


@settings(deadline=None)
@given(SHARE, SHARE, st.tuples(*[SHARE] * 8), st.booleans())
def test_a_verdict_claims_what_its_own_figures_show(whole, empty, areas, even):
    """Over the whole range: one sentence, with the warnings that a reader needs, and no range from a figure to itself."""
    pairs = [(areas[i], areas[i + 1]) for i in range(0, 8, 2)]

    def one(deletion, insertion):
        shares = np.array([0.0, 0, 1, 1])
        return Curves(
            shares, np.array([whole, deletion, deletion, empty]), np.array([empty, insertion, insertion, whole])
        )

    own, *others, centre = (one(*pair) for pair in pairs)
    found = Faithfulness(
        "cat", "mean", own, tuple(others), centre, 0.0, "nearly equal everywhere: 1 to 1.01" if even else ""
    )
    said = found.verdict()
    assert sum(said.startswith(start) for start in SENTENCES) == 1, said
    lowest, highest = found.range
    if said.startswith(SENTENCES[-1]):
        assert highest - lowest < STEADY
        assert "between" not in said or f"{lowest:.1%}" != f"{highest:.1%}"
        return
    assert ("its values are nearly equal everywhere" in said) == even
    assert (f"without any patch 'cat' has {empty:.1%}, with all {whole:.1%}" in said) == (empty > whole - STEADY)
    better = (found.deletion < found.random_deletion) + (found.insertion > found.random_insertion)
    if said.startswith(SENTENCES[0]):
        assert better == 2
        assert found.deletion < found.centre_deletion
        assert found.insertion > found.centre_insertion
    elif said.startswith(SENTENCES[3]):
        assert better < 2


def test_random_orders_that_all_agree_are_not_beaten_by_a_hair():
    assert "no more" in verdict(0.495, 0.505, centre=(0.7, 0.3), deviation=0.0)
    assert "better than random orders" in verdict(0.485, 0.515, centre=(0.7, 0.3), deviation=0.0)


def test_where_one_patch_counts_it_is_enough_to_come_close_to_the_best():
    assert "better than random orders" in verdict(0.04, 0.96, deviation=0.3)  # two deviations would lie outside
    assert "no more" in verdict(0.06, 0.94, deviation=0.3)
    assert "worse than random orders in deletion and insertion: " in verdict(0.96, 0.04, deviation=0.3)


def test_a_map_that_is_worse_than_chance_is_called_so():
    assert "worse than random orders in deletion and insertion: " in verdict(0.71, 0.29)
    assert "worse than random orders in insertion: " in verdict(0.5, 0.29)
    assert "worse than random orders in deletion, though better in insertion: " in verdict(0.71, 0.71)
    assert "no more" in verdict(0.69, 0.31)


def test_an_answer_that_stays_tests_no_map():
    near = (path(0.95, 0.95), path(0.93, 0.93))
    found = Faithfulness("cat", "mean", path(0.91, 0.955), near, path(0.95, 0.95), 0.0)
    assert not found.tells
    assert found.range == (0.91, 0.955)
    assert found.verdict().endswith("says nothing here: 'cat' stays between 91.0% and 95.5%")
    assert Faithfulness("cat", "mean", path(0.90, 0.955), near, path(0.95, 0.95), 0.0).tells


def test_a_model_without_labels_is_told_what_else_to_do():
    predictor = predictor_of(small("vit", image_size=(32, 48), num_classes=0))
    image = picture(0, (0, 0), 0)
    with pytest.raises(VitralError, match="trained without labels and has no head"):
        scored(predictor, image, explain(predictor, image, "similarity"))


def test_all_maps_of_a_picture_can_be_scored_together(squares):
    image = picture(2, (0, 5), 1)
    maps = [mask_of((0, 5)), *random_maps(GRID, 2)]
    together = curves(Removable(squares, image), maps, 2)
    for values, found in zip(maps, together, strict=True):
        alone = measure(squares, image, values, 2).map
        np.testing.assert_allclose(found.deleted, alone.deleted, atol=1e-6)
        np.testing.assert_allclose(found.inserted, alone.inserted, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999))
def test_a_mask_on_itself_is_perfect_and_upside_down_is_wrong(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((16, 24)) < rng.uniform(0.05, 0.95)
    mask[0, 0], mask[-1, -1] = True, False
    same, turned = localised(mask.astype(float), mask), localised(1.0 - mask, mask)
    assert (same.pointing, same.miou, same.pixel_accuracy, same.average_precision) == (1, 1, 1, 1)
    assert (turned.pointing, turned.miou, turned.pixel_accuracy) == (0, 0, 0)
    flat = localised(np.ones((2, 3)), mask)
    assert flat.pointing == pytest.approx(mask.mean())
    assert flat.average_precision == pytest.approx(mask.mean())


def test_localisation_by_hand():
    mask = np.array([[1, 1, 0, 0]], bool)
    found = localised(np.array([[0.9, 0.1, 0.8, 0.2]]), mask)  # above the mean 0.5: the first and the third
    assert (found.pointing, found.pixel_accuracy) == (1, 0.5)
    assert found.miou == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found.average_precision == pytest.approx((1 + 2 / 4) / 2)
    assert localised(np.array([[0.1, 0.9]]), np.array([[1, 1, 0, 0]] * 2, bool)).pointing == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(2, 8))
def test_spearman_is_scipys(seed, levels):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, levels, (2, 5, 7)).astype(float)
    a[0, :2] = b[0, 1:3] = [-1, 9]  # not flat
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    assert spearman(a, np.ones_like(a)) == 0


def brightness(predictor, image):
    """A map that does not ask the model."""
    return predictor.preprocess(image).mean(0).unflatten(0, (4, 8)).unflatten(2, (6, 8)).mean((1, 3)).numpy()


def occlusion(predictor, image):
    """What the answer 0 loses without each patch."""
    subject = Removable(predictor, image)
    return -subject.probabilities(~np.eye(24, dtype=bool))[:, 0].reshape(GRID)


def test_sanity_tells_a_map_of_the_model_from_one_of_the_picture(squares):
    image = picture(0, (2, 1), 4)
    before = copy.deepcopy(squares.model.state_dict())
    blind = sanity(squares, image, brightness)
    assert blind.correlations == pytest.approx([1] * len(blind.stages))
    seeing = sanity(squares, image, occlusion)
    assert seeing.mean < 0.6
    assert seeing.correlations == sanity(squares, image, occlusion).correlations
    assert seeing.correlations != sanity(squares, image, occlusion, seed=1).correlations
    after = squares.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert seeing.stages == ["head", "norm", "blocks.1", "blocks.0", "patch_embed", "tokens and positions"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cascade_reaches_every_parameter_once_and_keeps_its_values(family):
    predictor = predictor_of(small(family))
    own = dict(predictor.model.named_parameters())
    parts = stages(predictor.model)
    assert parts[0][0] == "head"
    assert len({id(p) for _, ps in parts for p in ps}) == sum(len(ps) for _, ps in parts) == len(own)
    changed = []
    for _, randomised in cascade(predictor):
        now = dict(randomised.model.named_parameters())
        changed.append({name for name in own if not torch.equal(own[name], now[name])})
        assert not changed[1:] or changed[-2] < changed[-1]
    for name, parameter in own.items():
        assert name in changed[-1] or parameter.numel() < 5
        torch.testing.assert_close(parameter.flatten().sort().values, now[name].flatten().sort().values, rtol=0, atol=0)


def test_a_map_that_ignores_noise_is_not_sensitive_and_one_that_amplifies_it_is(squares):
    image = picture(0, (2, 1), 4)
    assert max_sensitivity(squares, image, lambda predictor, x: np.ones(GRID)) == 0
    steady, nervous = (max_sensitivity(squares, image, brightness, radius=r) for r in (0.001, 0.05))
    assert 0 < steady < nervous / 10
    noise = uniforms(0, "sensitivity", 0, np.arange(10), image.numel()).reshape(10, 3, 32, 48)
    moved = [
        brightness(squares, (image + torch.from_numpy(2 * n - 1) * 0.05 * 255).clamp(0, 255).float()) for n in noise
    ]
    before = brightness(squares, image)
    wanted = max(np.linalg.norm(m - before) for m in moved) / np.linalg.norm(before)
    assert nervous == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(VitralError, match="0 everywhere"):
        max_sensitivity(squares, image, lambda predictor, x: np.zeros(GRID))

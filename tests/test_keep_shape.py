"""Whole images in their own shapes, several in one sequence: the answers of each alone, whatever stands beside it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asking import predictor_of
from exporting import exported
from families import CLASSIFIERS, small
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.data.steps import ReverseChannels
from vitral.errors import VitralError
from vitral.models.plain import forward_packed
from vitral.predict import load
from vitral.stream import predict_stream

PLAIN = {
    "class token": ("vit", {"num_registers": 2}),
    "mean": ("vit", {"class_token": False, "pooling": "mean", "position": "sincos2d"}),
    "axes": ("vit", {"position": "learned2d", "pre_norm": False, "beside": "edges"}),
    "two heads": ("deit", {"distilled": True}),
    "hybrid": ("hybrid", {}),
}
MODELS = {name: small(family, **options) for name, (family, options) in PLAIN.items()}


@settings(max_examples=30)
@given(
    name=st.sampled_from(list(PLAIN)),
    grids=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=5),
    over=st.integers(0, 7),
)
def test_each_image_is_answered_as_alone(name, grids, over):
    """Of any shapes, also such as patches do not tile."""
    model = MODELS[name]
    generator = torch.Generator().manual_seed(len(grids))
    side = model.patch_size
    images = [torch.randn(3, h * side + over, w * side, generator=generator) for h, w in grids]
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(forward_packed(model, images), alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=60)
@given(h=st.integers(1, 3000), w=st.integers(1, 3000), patch=st.sampled_from([4, 7, 16]))
def test_the_whole_image_is_seen_at_about_as_many_pixels_in_its_proportions(h, w, patch):
    view = Preprocess(224, 224, 1, (0.5,), (0.5,)).keeping_shape(patch).where(h, w)
    assert view.height % patch == view.width % patch == 0
    top, left, height, width = view.box()
    assert (top, left, height, width) == (0, 0, h, w)  # nothing cropped, nothing padded
    scale = (224 * 224 / (h * w)) ** 0.5
    for side, wanted in ((view.height, h * scale), (view.width, w * scale)):
        assert abs(side - max(wanted, patch)) <= patch / 2 + 1e-9
    assert view.height > 0
    assert view.width > 0


def shapes(count=7):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*rng.integers(12, 90, 2), 3), np.uint8) for _ in range(count)]


def test_a_predictor_packs_what_comes_in_many_shapes(tmp_path):
    predictor = predictor_of(MODELS["class token"]).keeping_shape()
    paths = []
    for i, pixels in enumerate(shapes()):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    rows = list(predict_stream(predictor, [(str(path), str(path)) for path in paths], batch_size=4))
    seen = {predictor.preprocess(path).shape for path in paths}
    assert len(seen) > 3
    assert predictor.preprocess(paths[0]).shape[1:] != (32, 32)
    for row, path in zip(rows, paths, strict=True):
        alone = predictor.predict(path)
        assert [label for label, _ in row.top] == [label for label, _ in alone.top]
        assert [p for _, p in row.top] == pytest.approx([p for _, p in alone.top], abs=1e-5)
        logits = predictor.model(predictor.preprocess(path)[None])
        assert alone.probability == pytest.approx(logits.softmax(-1).max().item(), abs=1e-5)


def test_other_libraries_steps_keep_what_is_no_shape():
    steps = Preprocess.of_steps((32, 32), (0.5,) * 3, (0.5,) * 3, (ReverseChannels(),))
    assert [type(step).__name__ for step in steps.keeping_shape(8).plan] == ["Resize", "ReverseChannels"]


def test_what_cannot_is_refused(shapes_run):
    for family in CLASSIFIERS:
        if not small(family).plain:
            with pytest.raises(VitralError, match="keeping shapes is for plain ViTs"):
                predictor_of(small(family)).keeping_shape()
    with pytest.raises(VitralError, match="that merge no tokens"):
        load(shapes_run).merging(2).keeping_shape()
    with pytest.raises(VitralError, match="gives answers and takes images of one shape; use the run"):
        load(exported("onnx")[1]).keeping_shape()


def test_commands_keep_shapes_and_score_them(capsys, shapes_run, shapes_folder, tmp_path):
    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert stop.value.code == 0
        return capsys.readouterr().out

    for path in sorted(shapes_folder.glob("*/*.png")):  # upright, lying and square
        with Image.open(path) as image:
            width, height = image.size
            changed = image.resize(((width, height), (2 * width, height), (width, 2 * height))[int(path.stem) % 3])
        target = tmp_path / "shapes" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        changed.save(target)
    words = shapes_run, tmp_path / "shapes", "--keep-shape"
    scores = json.loads(run("evaluate", *words, "--split", "all", "--json", "--batch-size", "16"))
    assert scores["images"] == 90
    rows = [json.loads(line) for line in run("predict", *words, "--format", "jsonl").splitlines()]
    right = sum(row["label"] == row["image"].split("/")[-2] for row in rows)
    assert scores["top1"] == pytest.approx(right / 90)
    as_it_is = json.loads(run("evaluate", *words[:2], "--split", "all", "--json"))
    beside = scores["keeping_shape"]
    assert beside["scores"] == pytest.approx([as_it_is["top1"], scores["top1"]])
    assert beside["lost_points"] == pytest.approx(100 * (as_it_is["top1"] - scores["top1"]))
    assert min(beside["rates"]) > 0

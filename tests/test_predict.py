"""The predictor: one path from any kind of image to a label, the same as in evaluation."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import vitral
from vitral.data.asked import find_images
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.engines.engine import Engine
from vitral.errors import VitralError
from vitral.evaluation.evaluate import evaluate, merged
from vitral.explain.explain import visualize_attention
from vitral.stream import predict_stream


@pytest.fixture(scope="module")
def predictor(shapes_run):
    return vitral.load(shapes_run)


def test_one_image_in_every_form(predictor, shapes_folder):
    path = shapes_folder / "square" / "03.png"
    with Image.open(path) as opened:
        array = np.asarray(opened)
    wanted = predictor.predict(path)
    assert wanted.label in predictor.labels
    assert wanted.probability == wanted.top[0][1]
    assert sum(p for _, p in wanted.top) == pytest.approx(1)
    forms = [
        str(path),
        path.read_bytes(),
        Image.fromarray(array),
        array,
        array[..., None],
        torch.from_numpy(array.copy())[None],
    ]
    forms += [np.repeat(array[..., None], 3, 2), array.astype(np.uint16) * 257]
    for form in forms:
        assert close(predictor.predict(form), wanted)


def close(a, b):
    return [x for x, _ in a.top] == [x for x, _ in b.top] and np.allclose(
        [p for _, p in a.top], [p for _, p in b.top], atol=1e-5
    )


def test_wrong_forms_say_what_is_right(predictor):
    for form in (np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), torch.zeros(3, 9, 9), torch.zeros(9, 9)):
        with pytest.raises(VitralError, match="give"):
            predictor.predict(form)
    with pytest.raises(VitralError, match="patch"):
        predictor.predict(np.zeros((3, 30), np.uint8))


def test_what_is_no_image_no_path_or_no_number_is_refused_in_words(predictor):
    image = np.zeros((20, 20), np.uint8)
    for wrong, says in ((None, "None is no image"), ([image, image], "one at a time"), (3, "3 is no image")):
        with pytest.raises(VitralError, match=says):
            predictor.predict(wrong)
    with pytest.raises(VitralError, match="None is no path"):
        vitral.load(None)
    with pytest.raises(VitralError, match="at least 1"):
        predictor.predict(image, top_k=0)
    assert repr(predictor) == f"<Predictor {predictor.card.model}; 20x20 grey, 3 classes: cross, disc, square>"


def test_options_that_a_method_does_not_have_are_refused(predictor, tiny_vit):
    image = np.zeros((20, 20), np.uint8)
    with pytest.raises(VitralError, match="all layers and heads"):
        predictor.explain(image, "rollout", layer=1)
    with pytest.raises(VitralError, match="all layers and heads"):
        predictor.explain(image, "rollout", head=0)
    bare = tiny_vit(class_token=False, pooling="mean", num_registers=2)  # the first token is a register
    with pytest.raises(VitralError, match="no class token"):
        visualize_attention(bare, np.zeros((16, 16), np.uint8), query="cls")
    assert "attention of the average patch" in visualize_attention(bare, np.zeros((16, 16), np.uint8)).method


def test_prediction_is_evaluation(predictor, shapes_folder):
    data = open_data(shapes_folder, DataOptions())
    split = data.splits["test"]
    scores, found = evaluate(predictor, split, data.labels, batch_size=4)
    logits = found.kept()["logits"]
    labels = [predictor.predict(split.path(i)).label for i in range(len(split))]
    assert labels == [predictor.labels[k] for k in logits.argmax(1)]
    assert scores.top1 == np.mean(
        [label == data.labels[t] for label, t in zip(labels, split.targets.values, strict=True)]
    )
    at_once = evaluate(predictor, split, data.labels, batch_size=100)[1].kept()["logits"]
    assert np.allclose(logits, at_once, atol=1e-4)
    assert len(merged(data)) == 90


def test_shapes_were_learned(predictor, shapes_folder):
    """Forty steps are few, but guessing would give a third."""
    data = open_data(shapes_folder, DataOptions())
    assert evaluate(predictor, merged(data), data.labels)[0].top1 > 0.5


def test_bytes_of_a_colour_photo(predictor):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(buffer, "JPEG")
    assert predictor.preprocess(buffer.getvalue()).shape == (1, 20, 20)
    assert predictor.view(buffer.getvalue()).shape == (20, 20, 3)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (33, 61), (90, 40)])
def test_explanations_have_the_images_own_shape(predictor, height, width):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for method in ("attention", "rollout"):
        explanation = predictor.explain(picture, method)
        assert explanation.map.shape == (height, width)
        assert explanation.map.min() >= 0
        assert 0.5 < explanation.map.max() <= 1
        assert explanation.overlay().size == (width, height)
        assert explanation.label == predictor.predict(picture).label
    assert "figure" in explanation._repr_html_()
    with pytest.raises(VitralError, match="choose one of attention, rollout"):
        predictor.explain(picture, "tea leaves")


def test_what_is_drawn_is_what_the_class_token_reads(predictor):
    image = np.random.default_rng(1).integers(0, 256, (20, 20), dtype=np.uint8)
    x = predictor.preprocess(image)[None]
    _, layers = predictor.model.forward_with_attention(x)
    wanted = layers[1][0, 0, 0, 1:].detach().reshape(5, 5).numpy()
    assert np.allclose(visualize_attention(predictor, image, layer_idx=1, head_idx=0).grid, wanted, atol=1e-6)
    assert np.allclose(
        visualize_attention(predictor, image, "mean").grid,
        np.mean([a[0, :, 0, 1:].detach().numpy() for a in layers], (0, 1)).reshape(5, 5),
        atol=1e-6,
    )
    assert np.allclose(
        visualize_attention(predictor, image, query=(2, 3)).grid,
        layers[1][0, :, 1 + 13, 1:].mean(0).detach().reshape(5, 5).numpy(),
        atol=1e-6,
    )


def test_a_bare_model_is_visualised_at_any_size(tiny_vit):
    model = tiny_vit(in_channels=3, depth=12)
    x = torch.randn(3, 24, 32).clamp(-1, 1)
    shown = visualize_attention(model, x, layer_idx=11, head_idx=0)
    _, layers = model.forward_with_attention(x[None])
    assert np.allclose(shown.grid, layers[11][0, 0, 0, 1:].detach().reshape(6, 8).numpy(), atol=1e-5)
    assert shown.map.shape == (24, 32)
    assert visualize_attention(model, Image.new("RGB", (50, 30))).map.shape == (30, 50)
    with pytest.raises(VitralError, match="12 attention layers"):
        visualize_attention(model, x, layer_idx=12)


class Refusing(Engine):
    """Refuses a batch with an image that begins in white, and counts the batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, pixels):
        self.batches.append(len(pixels))
        if (pixels[:, 0, 0, 0] == 255).any():
            raise VitralError("it does not fit")
        return np.zeros((len(pixels), 3), np.float32)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_image_that_the_model_refuses_or_that_is_broken_fails_alone_and_in_its_place(predictor, tmp_path, ahead):
    for k in range(7):
        Image.new("L", (20, 20), 255 if k == 4 else k).save(tmp_path / f"{k}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    engine = Refusing()
    names = [str(tmp_path / f"{k}.png") for k in range(7)]
    found = list(
        predict_stream(type(predictor)(engine, predictor.card), zip(names, names, strict=True), 2, 3, ahead=ahead)
    )
    assert [each[0] if isinstance(each, tuple) else each.name for each in found] == names
    assert [k for k, each in enumerate(found) if isinstance(each, tuple)] == [2, 4]
    assert "does not fit" in str(found[4][1])
    assert engine.batches == [2, 3, 1, 1, 1, 1]


def test_images_are_read_ahead_of_the_model_but_not_where_each_waits_for_an_answer(predictor, shapes_folder):
    path = str(shapes_folder / "square" / "03.png")
    for ahead, read in ((0, 2), (1, 4), (2, 6)):
        asked = []
        stream = predict_stream(predictor, ((asked.append(k) or path, path) for k in range(9)), 2, 2, ahead=ahead)
        next(stream)
        assert len(asked) == read


def test_a_folder_of_shards_is_told_from_one_of_images(tmp_path):
    (tmp_path / "index.bin").write_bytes(bytes(range(200)))
    with pytest.raises(VitralError, match="holds tar shards, which vitral train, evaluate and doctor read"):
        list(find_images([str(tmp_path)]))
    (tmp_path / "index.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert [name for name, _ in find_images([str(tmp_path)])][-1].endswith("index.png")


def piped(monkeypatch, data: bytes) -> list:
    """What `find_images` makes of bytes on stdin."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    return list(find_images(["-"]))


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        ("été.png\nb.png\n".encode(), ["été.png", "b.png"]),
        ("\ufeffa.png\r\n写真.png\r\n".encode(), ["a.png", "写真.png"]),
        ("a.png\r\né.png\r\n".encode("utf-16"), ["a.png", "é.png"]),
        ("été.png".encode("latin-1"), [b"\xe9t\xe9.png".decode(errors="surrogateescape")]),
        ("né a.png\0b.png\0".encode(), ["né a.png", "b.png"]),
    ],
)
def test_paths_on_stdin_whatever_they_are_called(monkeypatch, data, paths):
    assert piped(monkeypatch, data) == [(path, path) for path in paths]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_an_image_on_stdin_is_told_by_its_first_bytes(monkeypatch, kind):
    for width in (10, 13, 40):  # 10 and 13 end the line within some headers
        file = io.BytesIO()
        Image.new("RGB", (width, 10), (200, 30, 90)).save(file, kind)
        assert piped(monkeypatch, file.getvalue()) == [("-", file.getvalue())]


def test_a_file_that_is_called_as_images_begin(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "GIF89a of a cat.gif").touch()
    assert piped(monkeypatch, b"GIF89a of a cat.gif\n") == [("GIF89a of a cat.gif",) * 2]

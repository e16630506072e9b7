"""An exported file answers as its model does, from image file to probability; one that would not is never written."""

import json
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import vitral
from exporting import MATRIX, NAMES, exported, predictor
from families import small
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard, read_card
from vitral.cli import main
from vitral.data.annotated import Annotated, Object
from vitral.data.maps import MapTruth
from vitral.data.preprocess import Preprocess
from vitral.data.steps import Resize
from vitral.data.things import ThingTruth
from vitral.data.view import Placed, View
from vitral.deploy.export import file, graph, verify
from vitral.deploy.export.file import place
from vitral.deploy.export.formats import FORMATS as ALL
from vitral.deploy.export.formats import export
from vitral.deploy.export.verify import pictures
from vitral.engines.files import opened
from vitral.engines.onnx import OnnxEngine
from vitral.errors import VitralError
from vitral.evaluation.objects import ObjectEvaluator
from vitral.evaluation.semantic import MapEvaluator
from vitral.predict import Predictor, load

FORMATS = ["onnx", "openvino", "torch"]
FAST = {  # as tracing takes seconds
    ("vit", None, "onnx"), ("vit", None, "openvino"), ("vit", None, "torch"), ("vit", "query", "onnx"), ("vit", "panoptic", "openvino"),
    ("vit", "linear", "openvino"), ("pvt_v2", "segformer", "torch"), ("swin", "dense query", "torch"), ("yolos", None, "torch"),
    ("eomt", None, "torch"),
}  # fmt: skip


def alike(found, wanted):
    """Whether two predictions say the same, to 1e-4."""
    pairs = zip(found.top, wanted.top, strict=True)
    return all(a == b and abs(p - q) < 1e-4 for (a, p), (b, q) in pairs)


@pytest.fixture
def whole(tmp_path):
    """A ViT, and its file."""
    made, path = exported("onnx")
    place(path, tmp_path / "vit.onnx")
    return made, tmp_path / "vit.onnx"


def test_the_file_answers_as_the_model_for_any_number_of_images(whole, tmp_path):
    made, path = whole
    engine = OnnxEngine(path)
    images = pictures(tmp_path, 3)[:7]
    seen = np.stack([made.card.preprocess.view(made.decode(image).numpy()) for image in images])
    assert seen.dtype == np.uint8
    wanted = made.probabilities(made.logits(torch.stack([made.preprocess(image) for image in images]))).numpy()
    for count in (1, 4, 7):
        assert np.allclose(made.probabilities(engine(seen[:count])), wanted[:count], atol=1e-5)
    assert sorted(path.parent.iterdir()) == sorted(
        [path, *images, tmp_path / "7.png"]
    )  # one file, and nothing beside it


def test_the_file_describes_itself(whole):
    made, path = whole
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert read_card(path, metadata) == made.card
    assert load(path).labels == NAMES
    assert json.loads(metadata["names"]) == dict(zip("0123", NAMES, strict=True))
    assert json.loads(metadata["imgsz"]) == [32, 48]
    assert json.loads(metadata["verified"])["difference"] < 1e-4


@pytest.mark.parametrize(
    ("family", "head", "to"),
    [
        pytest.param(*each, to, marks=[] if (*each, to) in FAST else [pytest.mark.slow])
        for each in MATRIX
        for to in FORMATS
    ],
)
def test_every_family_and_task_is_exported(family, head, to, tmp_path):
    made, path = exported(to, family, head)
    found, image = load(path), pictures(tmp_path, 3)[1]
    assert json.loads(found.engine.metadata["verified"])["difference"] < 1e-5
    threshold = made.answers.threshold
    found.answers.threshold = made.answers.threshold = (
        threshold and 0.001
    )  # a model that knows nothing is sure of nothing
    answer = made.predict(image)
    made.answers.threshold = threshold
    assert "nothing found" not in answer.line(4)
    assert found.predict(image).line(4) == answer.line(4)


def test_a_model_that_predicts_nothing_is_refused(tmp_path):
    card = ModelCard("mae", {}, [], Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(VitralError, match="has no head"):
        export(Predictor(small("mae"), card), tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 5])
def test_grey_images_and_bands_are_compared_as_such(channels, tmp_path):
    made = predictor(in_channels=channels)
    assert export(made, tmp_path / "m.onnx").verified.difference < 1e-5


def test_raw_graphs_take_normalised_pixels_and_give_logits_of_label_sets_too(tmp_path):
    made = predictor(task="multilabel")
    export(made, tmp_path / "m.onnx", raw=True)
    pixels = torch.randn(3, 3, 32, 48)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    assert np.allclose(found, made.logits(pixels).numpy(), atol=1e-4)
    image = pictures(tmp_path, 3)[0]
    assert alike(load(tmp_path / "m.onnx").predict(image), made.predict(image))


def test_evaluators_take_the_outputs_of_any_engine():
    views = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 48), np.uint8)
    placed = (Placed(32, 48, View(32, 48)),) * 3
    boxes = ThingTruth(placed, (Annotated(32, 48, objects=(Object(0, (2, 3, 20, 20)),)),) * 3)
    maps = MapTruth(placed, (torch.arange(32 * 48).reshape(32, 48) % 4,) * 3)
    for to, head, kind, truth in (
        ("onnx", "query", ObjectEvaluator, boxes),
        ("openvino", "linear", MapEvaluator, maps),
    ):
        made, path = exported(to, head=head)
        losses = []
        for engine in (made.engine, load(path).engine):
            evaluator = kind(NAMES)
            evaluator.add(engine(views), truth)
            losses.append(evaluator.result().loss)
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def broken_mean(monkeypatch):
    init = graph.Graph.__init__

    def other(self, predictor, raw):
        init(self, predictor, raw)
        self.mean += 10

    monkeypatch.setattr(graph.Graph, "__init__", other)


def swapped_labels(monkeypatch):
    described = file._described

    def other(card, form):
        stored = json.loads(described(card, form)["vitral"])
        return described(card, form) | {"vitral": json.dumps(stored | {"labels": stored["labels"][::-1]})}

    monkeypatch.setattr(file, "_described", other)


def baked_batch(monkeypatch):
    monkeypatch.setattr("vitral.deploy.export.graph._any_number", dict)


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), "torch"])
@pytest.mark.parametrize(
    ("breaks", "says"),
    [(broken_mean, "answers otherwise"), (swapped_labels, "in another order"), (baked_batch, "does not fit")],
)
def test_a_file_that_answers_otherwise_is_refused_and_not_left_behind(breaks, says, to, tmp_path, monkeypatch):
    breaks(monkeypatch)
    with pytest.raises(VitralError, match=says):
        export(predictor(), tmp_path / f"m{ALL[to].suffix}")
    assert list(tmp_path.iterdir()) == []


def test_boxes_or_classes_that_differ_are_seen_wherever_they_stand_in_the_order():
    wanted = np.random.default_rng(0).random((5, 9), np.float32)
    assert verify.difference(wanted[[1, 0, 2, 4, 3]], wanted) == 0
    for change in (np.array([0.001] + [0] * 8, np.float32), np.nan):
        found = wanted.copy()
        found[3] += change
        assert not verify.difference(found, wanted) < verify.TOLERANCE
    assert verify.difference(wanted[[0, 0, 2, 3, 4]], wanted) > verify.TOLERANCE  # one that was lost


@pytest.mark.parametrize("to", FORMATS)
def test_files_of_more_than_8_bits_are_answered_as_by_the_model(to):
    made, path = exported(to)
    ramp = np.linspace(200, 700, 60 * 80).reshape(60, 80).astype(np.uint16)  # between two levels of 8 bits
    found = load(path).predict(ramp)
    assert alike(found, made.predict(ramp))
    assert not alike(found, made.predict((ramp // 257).astype(np.uint8)))


@pytest.mark.parametrize("to", FORMATS)
def test_threads_get_the_answers_to_their_own_images(to):
    made, path = exported(to)
    found, rng = load(path), np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(6)]
    images += [rng.integers(0, 65536, (40, 50)).astype(np.uint16) for _ in range(2)]
    wanted = [made.predict(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(found.predict, images * 20))
    assert all(map(alike, answers, wanted * 20))


def test_a_file_that_was_replaced_answers_nothing_in_the_name_of_the_one_before(whole):
    """It is read again for the first image of more than 8 bits."""
    made, path = whole
    ramp = np.linspace(200, 700, 60 * 80).reshape(60, 80).astype(np.uint16)
    found = load(path)
    path.write_bytes(path.read_bytes())
    with pytest.raises(VitralError, match="is another file now"):
        found.predict(ramp)
    assert alike(found.predict((ramp // 3).astype(np.uint8)), made.predict((ramp // 3).astype(np.uint8)))
    assert alike(load(path).predict(ramp), made.predict(ramp))


@pytest.mark.parametrize("to", ["onnx", "torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_model_of_16_bits_takes_files_of_8_too(to, tmp_path):
    made, path = predictor(), tmp_path / f"m{ALL[to].suffix}"
    made = Predictor(made.model, replace(made.card, preprocess=replace(made.card.preprocess, bit_depth=16)))
    export(made, path)
    for image in pictures(tmp_path, 3)[-2:]:  # the last is of 16
        assert alike(load(path).predict(image), made.predict(image))


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("head", ["linear", "query"])
def test_raw_graphs_of_places(head, to, tmp_path):
    made, path = predictor(head=head), tmp_path / f"m{ALL[to].suffix}"
    assert export(made, path, raw=True).verified.difference < 1e-5
    assert load(path).engine.form.given[0] == "logits"


def test_images_of_many_sizes_are_refused_in_a_sentence(tmp_path):
    made = predictor()
    keeps = replace(made.card.preprocess, resize="steps", steps=(Resize("shortest", 32, 32, "bicubic"),))
    with pytest.raises(VitralError, match="takes images of many sizes"):
        export(Predictor(made.model, replace(made.card, preprocess=keeps)), tmp_path / "m.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_what_is_not_installed_is_told(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        VitralError, match=r"needs onnx, onnxscript and onnxruntime; run pip install 'vitral\[export\]'"
    ):
        export(predictor(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_tells_no_format_is_refused(tmp_path):
    with pytest.raises(VitralError, match=r"\.onnx \(onnx\), \.xml \(openvino\), \.pt2 \(torch\)"):
        export(predictor(), tmp_path / "m.bin")


def test_a_program_that_would_unpickle_is_refused(tmp_path):
    with zipfile.ZipFile(exported("torch")[1]) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    listed = next(name for name in parts if name.endswith("weights_config.json"))
    parts[listed] = parts[listed].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(VitralError, match="holds Python pickles"):
        load(tmp_path / "other.pt2")


def test_the_command_writes_beside_the_model_and_says_how_it_compares(tmp_path, capsys):
    made = predictor()
    save_model(tmp_path / "model.safetensors", made.model, made.card)
    Image.effect_noise((50, 40), 60).convert("RGB").save(tmp_path / "one.png")
    with pytest.raises(SystemExit) as done:
        main(["export", str(tmp_path), "--check-on", str(tmp_path / "one.png")])
    assert done.value.code == 0
    *steps, verified, wrote = capsys.readouterr().err.splitlines()
    assert steps == ["tracing the model", "writing the file", "comparing answers on 1 image"]
    assert verified.startswith("1 image from file to answer, in batches of 1, 2, 3, 7")
    assert wrote.startswith(f"wrote {tmp_path / 'model.onnx'}")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize(
    ("content", "says"), [(b"", "cannot load it"), (b"\x08\x07junk" * 9, "cannot load it"), (None, "no such file")]
)
def test_what_is_no_exported_file_is_refused_by_name(content, says, suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    if content is not None:
        path.write_bytes(content)
        path.with_suffix(".bin").write_bytes(content)
    with pytest.raises(VitralError, match=rf"m\{suffix}: .*{says}"):
        opened(path)


def altered(path, key, **fields):
    """The .onnx file with other values in a part of its metadata."""
    model = onnx.load(path)
    for each in model.metadata_props:
        if each.key == key:
            each.value = json.dumps(json.loads(each.value) | fields)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("head", "key", "fields", "says"),
    [
        (None, "vitral", {"labels": NAMES[:3]}, "has 3 labels for 4 outputs"),
        (None, "vitral", {"labels": [*NAMES, "more"]}, "has 5 labels for 4 outputs"),
        ("query", "vitral", {"labels": NAMES[:3]}, "has 3 labels for 4 outputs"),
        (None, "vitral", {"labels": "abcd"}, "its description is damaged"),
        (None, "vitral", {"task": "multilabel"}, "outputs are not those of its task, multilabel"),
        (None, "vitral", {"task": "detect"}, "outputs are not those of its task, detect"),
        ("query", "vitral", {"task": "semantic"}, "outputs are not those of its task, semantic"),
        (None, "outputs", {"kind": "blob"}, "does not say what its outputs are"),
        (None, "outputs", {"squash": "tanh"}, "does not say what its outputs are"),
        ("query", "outputs", {"names": []}, "does not fit"),
    ],
)
def test_a_file_whose_description_was_altered_is_refused(head, key, fields, says, tmp_path):
    path = tmp_path / "m.onnx"
    place(exported("onnx", head=head)[1], path)
    with pytest.raises(VitralError, match=says):
        load(altered(path, key, **fields)).predict(np.zeros((40, 40, 3), np.uint8))


def test_of_engines_errors_the_line_is_shown_that_says_what_is_wrong(tmp_path):
    place(exported("openvino")[1], tmp_path / "m.xml")
    (tmp_path / "m.bin").write_bytes(b"short")
    with pytest.raises(VitralError, match=r"cannot load it.*Incorrect weights in bin file"):
        load(tmp_path / "m.xml")
    (tmp_path / "m.pt2").write_bytes(exported("torch")[1].read_bytes()[:-900])
    with pytest.raises(VitralError, match="is no whole program"):
        load(tmp_path / "m.pt2")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    for path, says in ((tmp_path / "m.bin", r"ends in \.onnx"), (tmp_path / "no" / "m.onnx", "there is no folder")):
        with pytest.raises(VitralError, match=says):
            export(predictor(), path, "onnx")
    said = []
    with pytest.raises(VitralError, match="no such file"):
        export(predictor(), tmp_path / "m.onnx", images=[tmp_path / "none.png"], say=said.append)
    assert said == []


def test_what_needs_the_model_says_so(whole):
    _, path = whole
    with pytest.raises(VitralError, match="an exported file gives answers and cannot be looked into"):
        vitral.load(path).explain(np.zeros((40, 40, 3), np.uint8))


def test_every_kind_of_image_is_taken(whole, tmp_path):
    made, path = whole
    found = load(path)
    image = pictures(tmp_path, 3)[0]
    pixels = np.asarray(Image.open(image))
    for each in (
        image,
        str(image),
        image.read_bytes(),
        Image.open(image),
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ):
        assert alike(found.predict(each), made.predict(image))

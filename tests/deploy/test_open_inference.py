"""The Open Inference Protocol, as Triton's own client speaks it, and what is said to those that speak it badly."""

import base64
import json
import struct

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from served import SIZE, TASKS, client, listening, saved, served
from tritonclient.utils import InferenceServerException
from viewing import encoded

from vitral.data.decode import decode_array
from vitral.deploy.serve import protocol
from vitral.errors import VitralError


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for task in TASKS:
        saved(folder / f"{task}.safetensors", task)
    with served(*(folder / f"{task}.safetensors" for task in TASKS)) as serving:
        for task in ("detect", "instance", "panoptic"):
            serving.models[task].loaded.predictor.answers.threshold = 0.0
        yield serving


@pytest.fixture(scope="module")
def speaker(serving):
    """Triton's client of a server that listens."""
    with listening(serving) as port:
        speaker = triton.InferenceServerClient(f"localhost:{port}")
        yield speaker
        speaker.close()


def files(*data, binary=True):
    tensor = triton.InferInput("image", [len(data)], "BYTES")
    packed = data if binary else [base64.b64encode(each) for each in data]
    tensor.set_data_from_numpy(np.array(packed, object), binary_data=binary)
    return [tensor]


def wanted(*names, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_health_and_descriptions(speaker, serving):
    assert speaker.is_server_live()
    assert speaker.is_server_ready()
    assert speaker.get_server_metadata()["name"] == "vitral"
    assert "binary_tensor_data" in speaker.get_server_metadata()["extensions"]
    for task in TASKS:
        version = serving.models[task].loaded.version
        assert speaker.is_model_ready(task)
        assert speaker.is_model_ready(task, version)
        said = speaker.get_model_metadata(task, version)
        assert (said["name"], said["versions"], said["platform"]) == (task, [version], "vitral_torch")
        assert said["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert not speaker.is_model_ready("classify", "1")
    with pytest.raises(InferenceServerException, match="is not served here"):
        speaker.get_model_metadata("cat")


@pytest.mark.parametrize("binary", [True, False])
def test_files_in_probabilities_out(speaker, serving, binary):
    loaded = serving.models["classify"].loaded
    data = [encoded(seed=seed) for seed in range(3)]
    found = speaker.infer(
        "classify",
        files(*data, binary=binary),
        outputs=wanted("probabilities", "answer", binary=binary),
        request_id="7",
    )
    truth = [loaded.predictor.predict(each) for each in data]
    told = found.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("classify", loaded.version, "7")
    probabilities = found.as_numpy("probabilities")
    assert (probabilities.shape, probabilities.dtype) == ((3, 4), np.float32)
    for row, text, answer in zip(probabilities, found.as_numpy("answer"), truth, strict=True):
        by_label = dict(answer.top)
        np.testing.assert_allclose(row, [by_label[label] for label in loaded.predictor.labels], atol=1e-5)
        assert json.loads(text)["label"] == answer.label


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_the_tensors_that_it_declares(speaker, serving, task):
    declared = {each["name"]: each for each in speaker.get_model_metadata(task)["outputs"]}
    found = speaker.infer(task, files(encoded(seed=2)), outputs=wanted(*declared))
    for name, said in declared.items():
        tensor = found.as_numpy(name)
        assert found.get_output(name)["datatype"] == said["datatype"]
        assert len(tensor.shape) == len(said["shape"])
        assert all(side == -1 or side == own for side, own in zip(said["shape"], tensor.shape, strict=True))
    answer = serving.models[task].loaded.predictor.predict(encoded(seed=2))
    if "boxes" in declared:
        np.testing.assert_allclose(found.as_numpy("boxes")[0], [each.box for each in answer.objects], atol=1e-2)
    if "map" in declared:
        assert (found.as_numpy("map")[0] == answer.map).mean() > 0.99
    if "masks" in declared:
        assert found.as_numpy("masks").shape[1:] == (len(answer.objects), 40, 56)


@pytest.mark.parametrize("kind", ["image", "pixels", "floats"])
def test_pixels_instead_of_files(speaker, serving, kind):
    """An image [h, w, C] goes the model's own way; pixels [C, H, W] are what it ends in."""
    predictor = serving.models["classify"].loaded.predictor
    picture = encoded(80, 100, seed=1)
    pixels = decode_array(picture, 3)[0]  # [C, h, w]
    array = pixels.transpose(1, 2, 0) if kind == "image" else predictor.card.preprocess.view(pixels)
    array = np.ascontiguousarray(array[None].astype(np.float32 if kind == "floats" else np.uint8))
    tensor = triton.InferInput(
        "image" if kind == "image" else "pixels", list(array.shape), "FP32" if kind == "floats" else "UINT8"
    )
    for binary in (True, False):
        tensor.set_data_from_numpy(array, binary_data=binary)
        found = speaker.infer("classify", [tensor], outputs=wanted("probabilities")).as_numpy("probabilities")[0]
        assert found.max() == pytest.approx(predictor.predict(picture).probability, abs=1e-5)


def test_without_a_wish_come_the_answer_and_what_has_one_shape(speaker):
    two = files(encoded(40, 56), encoded(30, 90))
    assert [each["name"] for each in speaker.infer("semantic", two).get_response()["outputs"]] == ["answer"]
    assert {each["name"] for each in speaker.infer("classify", two).get_response()["outputs"]} == {
        "answer",
        "probabilities",
    }
    with pytest.raises(InferenceServerException, match="ask for one image at a time"):
        speaker.infer("semantic", two, outputs=wanted("map"))
    with pytest.raises(InferenceServerException, match="this model gives answer, probabilities"):
        speaker.infer("classify", two, outputs=wanted("logits"))


def test_a_broken_file_is_told_by_its_place(speaker):
    with pytest.raises(InferenceServerException, match="image 1: is not a JPEG"):
        speaker.infer("classify", files(encoded(), b"broken"))


def test_compressed_requests_are_refused(speaker):
    with pytest.raises(InferenceServerException, match="packed bodies are not read"):
        speaker.infer("classify", files(encoded()), request_compression_algorithm="gzip")


GOOD = {
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(encoded()).decode()]}]
}


def changed(**fields):
    return {"inputs": [{**GOOD["inputs"][0], **fields}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": GOOD["inputs"] * 2}, "inputs"),
        ({**GOOD, "more": 1}, "more"),
        (changed(name="x"), "'x' of BYTES: is not known; send one of image BYTES"),
        (changed(datatype="FP64"), "FP64"),
        (changed(shape=[2]), "says 2 files, and there are 1"),
        (changed(shape=[1, 2]), "its shape is [1, 2]"),
        (changed(shape=[0]), "B of at least 1"),
        (changed(shape=[-1]), "shape"),
        (changed(data=["*"]), "base64"),
        (changed(data=[1]), "base64"),
        (changed(data=None), "either as data or as bytes"),
        (changed(parameters={"binary_data_size": 3}), "binary_data_size is 3, and 0 bytes"),
        (changed(parameters={"binary_data_size": "0"}), "binary_data_size is '0', and 0 bytes"),
        (changed(parameters={"shared_memory_region": "x"}), "its parameter shared_memory_region is not known"),
        ({**GOOD, "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]}, "its parameter classification is not known"),
        (changed(datatype="UINT8", shape=[1, 9, 9, 2], data=[1] * 162), "image 0: has 2 channels"),
        (changed(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2]), "has 3 values, and there are 2"),
        (changed(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 256]), "no UINT8"),
        (changed(datatype="UINT8", shape=[1, 1, 1, 3], data=["a", 2, 3]), "no UINT8"),
        (changed(name="pixels", datatype="FP32", shape=[1, 3, 2, 2], data=[1.0] * 12), "none that the model sees; give [3, 40, 56]"),
        (changed(name="pixels", datatype="UINT8", shape=[1, 4, *SIZE], data=[1] * 4 * 40 * 56), "none that the model sees"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(serving, body, says):
    answer = client(serving).post("/v2/models/classify/infer", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_numbers_that_are_none_are_refused():
    head = {
        "inputs": [{"name": "pixels", "shape": [1, 1, 1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]
    }
    told = json.dumps(head).encode()
    for wrong in (float("nan"), float("inf"), 3e38, -256, 511):
        with pytest.raises(VitralError, match="no pixels"):
            protocol.parse(told + struct.pack("<f", wrong), str(len(told)))
    for wrong in (1e39, 1e300):  # beyond float32
        told_so = {"inputs": [{"name": "pixels", "shape": [1, 1, 1, 1], "datatype": "FP32", "data": [wrong]}]}
        with pytest.raises(VitralError, match="no pixels"):
            protocol.parse(json.dumps(told_so).encode(), None)
    assert protocol.parse(told + struct.pack("<f", 7), str(len(told))).pictures[0].data == np.full((1, 1, 1), 7)


WHOLE = json.dumps(GOOD).encode()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)  # fmt: skip


def parsed(body, header=None):
    """A request, or VitralError: nothing else may come of it."""
    try:
        return protocol.parse(body, header)
    except VitralError:
        return None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.none() | st.text(max_size=6) | st.integers(0, 80).map(str))
def test_no_bytes_are_more_than_refused(body, header):
    parsed(body, header)
    parsed(WHOLE + body, str(len(WHOLE)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["name", "shape", "datatype", "parameters", "data"]), values)
def test_no_value_is_more_than_refused(field, value):
    parsed(json.dumps(changed(**{field: value})).encode())
    parsed(json.dumps({**GOOD, field: value}).encode())
    tensor = changed(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 3])["inputs"][0]
    parsed(json.dumps({"inputs": [{**tensor, field: value}]}).encode())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 255))
def test_no_wrong_byte_is_more_than_refused(place, byte):
    parsed(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.integers(0, 100))
def test_files_come_out_as_they_went_in(data, cut):
    raw = b"".join(struct.pack("<I", len(each)) + each for each in data)
    head = {
        "inputs": [
            {
                "name": "image",
                "shape": [len(data), 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(raw)},
            }
        ]
    }
    told = json.dumps(head).encode()
    assert [each.data for each in protocol.parse(told + raw, str(len(told))).pictures] == data
    if 0 < cut <= len(raw):
        assert parsed(told + raw[:-cut], str(len(told))) is None


KINDS = ["image/png", "application/json", "multipart/form-data; boundary=x", "a/b; c=d"]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["/predict", "/", "/v2/models/classify/infer"]), st.sampled_from(KINDS))
def test_no_body_is_an_error_of_the_servers(serving, body, path, kind):
    for content in (body, b'{"inputs": ' + body, b"--x\r\n" + body, encoded()[:60] + body):
        assert client(serving).post(path, content=content, headers={"content-type": kind}).status_code < 500

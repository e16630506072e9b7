"""An environment that holds what `pip install 'vitral[onnx,openvino,dense]'` would bring, and so no PyTorch, predicts with exported files."""

import importlib.metadata
import json
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vitral
from exporting import exported
from vitral.deploy.export.verify import pictures

ROOT = Path(vitral.__file__).parents[2]
EXTRAS = ("onnx", "openvino", "dense")


def distributions(required):
    """The names of all that these requirements bring, each once."""
    found, waiting = {}, [Requirement(each) for each in required]
    while waiting:
        each = waiting.pop()
        each.name = canonicalize_name(each.name)
        if each.name in found or (each.marker and not each.marker.evaluate({"extra": ""})):
            continue
        found[each.name] = importlib.metadata.distribution(each.name)
        waiting += [Requirement(line) for line in found[each.name].requires or ()]
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The Python of an environment with links to what this one has installed of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = distributions([*project["dependencies"], *(each for name in EXTRAS for each in extras[name])])
    assert not {"torch", "scikit-learn", "scipy", "safetensors", "onnx"} & found.keys()
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for each in found.values():
        for top in {file.parts[0] for file in each.files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(each.locate_file(top))
    (packages / "vitral").symlink_to(ROOT / "src" / "vitral")
    return folder / "bin" / "python"


def said(python, *words):
    done = subprocess.run([python, *map(str, words)], capture_output=True, text=True, env={})
    return done.returncode, done.stdout, done.stderr


PREDICT = """
import sys, vitral
found = vitral.load(sys.argv[1])
assert repr(found).startswith("<Predictor ")
found.answers.threshold = found.answers.threshold and 0.001
print(found.predict(sys.argv[2]).line(4))
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("to", "head"), [("onnx", None), ("onnx", "query"), ("openvino", "panoptic"), ("openvino", "linear")]
)
def test_it_answers_as_the_model(environment, to, head, tmp_path):
    made, path = exported(to, head=head)
    image, threshold = pictures(tmp_path, 3)[1], made.answers.threshold
    made.answers.threshold = threshold and 0.001  # a model that knows nothing is sure of nothing
    wanted = made.predict(image).line(4)
    made.answers.threshold = threshold
    assert said(environment, "-c", PREDICT, path, image)[1].splitlines() == [wanted]
    words = ("-m", "vitral", "predict", path, image, "--format", "jsonl")
    code, out, err = said(environment, *words, *(["--out", tmp_path / "out"] if head else []))
    assert (code, json.loads(out)["image"]) == (0, str(image)), err
    assert not head or len(list((tmp_path / "out").iterdir())) > 1


ASK = """
import sys, vitral
found, image = vitral.load(sys.argv[1]), sys.argv[2]
for ask in (
    lambda: found.model, lambda: found.explain(image), lambda: found.merging(1), lambda: found.keeping_shape(), lambda: found.logits(None),
    lambda: found.preprocess(image), lambda: vitral.load("other.pt2"), lambda: vitral.create_model("resnet18"), lambda: vitral.visualize_attention,
):
    try:
        ask()
    except vitral.VitralError as error:
        print(error)
"""


def test_what_an_exported_file_cannot_says_so_in_a_sentence(environment, tmp_path):
    _, path = exported("onnx")
    code, out, err = said(environment, "-c", ASK, path, pictures(tmp_path, 3)[1])
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 9
    assert all(line.startswith("an exported file gives answers and ") for line in lines[:5])
    assert all(line.endswith("run pip install 'vitral[train]'") for line in lines[5:])


def test_what_needs_pytorch_says_so_in_a_sentence(environment, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    for words in (("predict", tmp_path, "x.png"), ("train", "digits")):
        code, _, err = said(environment, "-m", "vitral", *words)
        assert code == 2
        assert "only predicts with exported files (.onnx, .xml); run pip install 'vitral[train]'" in err
        assert "Traceback" not in err
    assert said(environment, "-m", "vitral", "--help")[0] == 0

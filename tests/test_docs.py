"""What the README and the docs tell people to type works as it stands there."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import reference
from processes import serving
from vitral.data.options import SceneOptions
from vitral.data.scenes import write_scenes
from vitral.deploy.web import runtime
from vitral.explain.removal import Removable
from vitral.predict import load

DOCS = ["README.md", "docs/tour.md", "docs/attention.md"]  # with snippets of Python


def blocks(path, language):
    return re.findall(rf"(<!--.*?-->\n)?```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def by_its_patches(predictor, path):
    """Whether a picture's answer is another than that to an empty one: which class a model takes that for differs from machine to machine."""
    picture = Removable(predictor, path)
    whole, empty = picture.probabilities(np.array([[True] * picture.count, [False] * picture.count]))
    return whole.argmax() != empty.argmax()


@pytest.fixture
def place(shapes_run, shapes_folder, tmp_path, monkeypatch):
    """A folder as the README's reader has it: photos, new pictures, and a finished run."""
    shutil.copytree(shapes_folder, tmp_path / "photos")
    shutil.copytree(shapes_folder / "disc", tmp_path / "new")
    predictor = load(shapes_run)
    cat = next(path for path in sorted(shapes_folder.rglob("*.png")) if by_its_patches(predictor, path))
    shutil.copy(cat, tmp_path / "cat.jpg")
    for name in ("digits", "resnet", "other"):
        shutil.copytree(shapes_run, tmp_path / "runs" / name)
        shutil.copy(cat, tmp_path / "runs" / name / "example.png")
    write_scenes(tmp_path / "street", SceneOptions(images=24, test=4, size=48, classes=2))
    np.savez(tmp_path / "ViT-B_16.npz", **reference.google_arrays("google_npz_vit"))
    (tmp_path / "imagenet.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", DOCS)
def test_python_snippets_run(pytestconfig, place, name):
    ran = 0
    for _, code in blocks(pytestconfig.rootpath / name, "python"):
        if "self." in code:  # an excerpt, which the source must hold word for word
            source = (pytestconfig.rootpath / "src/vitral/models/vit.py").read_text()
            for line in code.splitlines():
                assert re.sub(r"\s+", " ", line.strip()) in re.sub(r"[ \t]+", " ", source), line
            continue
        code = "import vitral, torch\nvit = vitral.load('runs/digits')\n" + code.replace("layer_idx=2", "layer_idx=1")
        exec(compile(code, name, "exec"), {})
        ran += 1
    assert ran


def shortened(words):
    """The same command, but that a run takes two steps with a small model, and nothing is tried out for long."""
    if words[0] == "plan":
        return [*words, "--device", "t4"]  # by a table, without trials
    if words[0] == "view":  # which else would go on until it is told to end
        words = words if any("cat.jpg" in word for word in words) else [*words, "cat.jpg"]
        words = words if "--export" in words else [*words, "--export", "page.html"]
        if "--against" not in words:
            return words
        at = words.index("--against")  # a page holds one model: here the other
        return ["view", words[at + 1], *words[2:at], *words[at + 2 :]]
    if words[0] == "sweep":
        return [*words, "--dry-run"]
    if words[0] == "memory":
        words = [*words, "--budget", "1"]
    if words[0] == "optimize":
        words = [*words, "--images", "8"]
    if words[0] == "bench":
        words = [*words, "--batch-size", "1", "--seconds", "0.1"]
    if words[0] not in ("train", "pretrain", "memory", "lr-find"):
        return words
    if "--time" in words:
        at = words.index("--time")
        words = words[:at] + words[at + 2 :]
    small = (
        []
        if "--init" in words
        else [
            "--model",
            "vit_tiny_patch16_224",
            "--dim",
            "16",
            "--depth",
            "1",
            "--num-heads",
            "2",
            "--image-size",
            "20",
            "20",
            "--patch-size",
            "4",
        ]
    )
    decoder = (
        ["--decoder-dim", "16", "--decoder-depth", "1", "--decoder-num-heads", "2"] if words[0] == "pretrain" else []
    )
    steps = [] if words[0] == "lr-find" else ["--steps", "2"]
    return [*words, *steps, *small, *decoder]


@pytest.mark.parametrize(
    ("name", "least"), [("README.md", 16), ("docs/guidance.md", 6), ("docs/attention.md", 7), ("docs/viewer.md", 4)]
)
def test_the_commands_run_in_order(pytestconfig, place, monkeypatch, capsys, name, least):
    from vitral.cli import main

    if name != "README.md":  # which trains it first
        shutil.copytree(place / "runs" / "digits", place / "runs" / "photos")
    commands = [line for _, code in blocks(pytestconfig.rootpath / name, "bash") for line in code.splitlines()]
    ran = 0
    for line in commands:
        if not line.startswith("vitral "):
            continue
        words = line.partition("#")[0].partition(">")[0].split()[1:]
        if "recipes/" in line or "hf:" in line:  # long, or in need of a network
            continue
        if words[0] == "serve" or (
            "web" in words and not runtime.kept().exists()
        ):  # runs until it is told to end; needs npm once
            continue
        with pytest.raises(SystemExit) as stop:
            main(shortened(words))
        assert stop.value.code == 0, (line, capsys.readouterr().err)
        ran += 1
    assert ran >= least


@pytest.fixture(scope="module")
def served(shapes_run, shapes_folder, tmp_path_factory):
    """(the port of `vitral serve runs/photos`, the folder where that runs and pictures lie)"""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(shapes_run, folder / "runs" / "photos")
    for name, kind in (("cat.jpg", "disc"), ("dog.jpg", "cross")):
        shutil.copy(shapes_folder / kind / "00.png", folder / name)
    with serving("serve", "runs/photos", "--port", "0", folder=folder) as (_, port, _line):
        yield port, folder


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl: is not on this computer")
@pytest.mark.parametrize(("name", "least"), [("README.md", 1), ("docs/serve.md", 2)])
def test_what_curl_asks_is_answered(pytestconfig, served, name, least):
    port, folder = served
    model = load(folder / "runs" / "photos")
    lines = [line for _, code in blocks(pytestconfig.rootpath / name, "bash") for line in code.splitlines()]
    assert any(line.startswith("vitral serve runs/photos ") for line in lines)
    asked = [line for line in lines if line.startswith("curl ")]
    for line in asked:
        words = shlex.split(line.replace(":8000/", f":{port}/"), comments=True)
        words += ["--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}"]
        *body, status = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\n")
        assert status == "200", (line, body)
        found = json.loads("\n".join(body))
        rows = found if isinstance(found, list) else [found]
        for picture, row in zip(re.findall(r"@(\S+)", line), rows, strict=True):
            wanted = model.predict(folder / picture)
            assert (row["model"], row["label"]) == ("photos", wanted.label)
            assert row["probability"] == pytest.approx(wanted.probability, abs=1e-5)
    assert len(asked) >= least


def test_what_tritons_client_asks_is_answered(pytestconfig, served, monkeypatch):
    port, folder = served
    monkeypatch.chdir(folder)
    ((_, code),) = blocks(pytestconfig.rootpath / "docs/serve.md", "python")
    told = {}
    code = code.replace(":8000", f":{port}").replace("client.infer(", "found = client.infer(")
    exec(compile(code, "serve.md", "exec"), told)
    told["client"].close()
    model = load(folder / "runs" / "photos")
    wanted = dict(model.predict(folder / "cat.jpg").top)
    assert told["found"][0].tolist() == pytest.approx([wanted[label] for label in model.labels], abs=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *DOCS,
        "docs/recipes.md",
        "docs/guidance.md",
        "docs/small-data.md",
        "docs/viewer.md",
        "docs/data.md",
        "docs/annotations.md",
        "docs/dense.md",
        "docs/export.md",
        "docs/scale.md",
        "docs/serve.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ],
)
def test_links_lead_somewhere(pytestconfig, name):
    path = pytestconfig.rootpath / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{name} links to {target}"


def test_make_targets_named_in_the_docs_exist(pytestconfig):
    makefile = (pytestconfig.rootpath / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"`?make ([a-z-]+)", (pytestconfig.rootpath / name).read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert sys.version_info >= (3, 11)

"""Which engine runs a model: what is fastest and answers as well, what is kept of that, and files in 8 bits that are worth it or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vitral
from exporting import NAMES, copied, exported, predictor
from vitral.checkpoints.bundle import save_model
from vitral.cli import main
from vitral.deploy.export import eight_bits, quantise
from vitral.deploy.export.formats import export
from vitral.deploy.export.verify import pictures
from vitral.deploy.export.writers import told_anew
from vitral.deploy.fastest import choice, contest, optimise
from vitral.deploy.fastest.choice import Choice
from vitral.deploy.fastest.contest import Result, Way
from vitral.engines.engine import Engine
from vitral.errors import VitralError
from vitral.predict import Predictor, load


def command(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([*map(str, words)])
    return done.value.code, *capsys.readouterr()


@pytest.fixture
def model(tmp_path):
    """A model file, and the predictor that it holds."""
    made = predictor()
    save_model(tmp_path / "model.safetensors", made.model, made.card)
    return tmp_path / "model.safetensors", made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vitral" / "engines"


def test_a_choice_is_for_one_model_on_one_machine(model, cache, tmp_path, monkeypatch):
    path, made = model
    assert choice.chosen(path) is None
    file = tmp_path / "fast.onnx"
    file.touch()
    choice.remember(path, Choice("onnx", file=str(file)))
    choice.remember(tmp_path / "fast.onnx", Choice("torch"))
    assert choice.chosen(path) == Choice("onnx", file=str(file))
    with monkeypatch.context() as patch:
        patch.setattr(choice, "here", lambda: "another machine")
        assert choice.chosen(path) is None
    file.write_bytes(b"of another model, in the same place")
    assert choice.chosen(path) is None
    choice.remember(path, Choice("openvino", file=str(file.with_suffix(".xml"))))
    assert choice.chosen(path) is None
    choice.remember(path, Choice("onnx", file=str(file)))
    file.unlink()
    assert choice.chosen(path) is None  # its file went
    choice.remember(path, Choice("torch"))
    made.model.get_parameter("norm.bias").data += 1
    save_model(path, made.model, made.card)
    assert choice.chosen(path) is None  # another model under the same name
    (cache / "choices.json").write_text("{")
    assert choice.chosen(path) is None


def test_the_choice_depends_on_cores_and_versions(monkeypatch):
    before = choice.here()
    assert choice.here() == before
    monkeypatch.setattr(choice, "cores", lambda: 77)
    assert choice.here() != before


def test_predict_takes_the_engine_that_was_chosen_and_exports_one_that_is_asked_for_once(
    model, cache, tmp_path, capsys
):
    path, made = model
    image = pictures(tmp_path, 3)[0]
    wanted = made.predict(image).line(3)
    code, out, err = command(capsys, "predict", path, image, "--engine", "onnx")
    assert (code, out.strip()) == (0, f"{image}  {wanted}")
    assert f"exporting {path} for --engine onnx, once" in err
    assert command(capsys, "predict", path, image, "--engine", "onnx") == (0, out, "")
    (file,) = cache.glob("*.onnx")
    choice.remember(path, Choice("onnx", file=str(file)))
    assert type(choice.opened(path).engine).__name__ == "OnnxEngine"
    assert type(choice.opened(path, "torch").engine).__name__ == "TorchEngine"
    capsys.readouterr()
    code, same, err = command(capsys, "predict", path, image)
    assert (code, same) == (0, out)
    assert err.count("run by ONNX Runtime in fp32, as vitral optimize chose here") == 1
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "model.onnx").write_bytes(file.read_bytes())
    for given in (file, tmp_path / "exported"):
        assert command(capsys, "predict", given, image, "--engine", "onnx") == (0, out, "")
        code, _, err = command(capsys, "predict", given, image, "--engine", "torch")
        assert code == 2
        assert "--engine torch cannot run it" in err


def test_an_exported_file_is_scored_as_its_model(shapes_run, shapes_folder, cache, capsys, tmp_path):
    export(load(shapes_run), tmp_path / "m.onnx")
    rows = []
    for each in (shapes_run, tmp_path / "m.onnx"):
        code, out, err = command(capsys, "evaluate", each, shapes_folder, "--split", "all", "--json")
        assert code == 0, err
        rows.append(json.loads(out))
    assert rows[0]["top1"] == rows[1]["top1"]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], abs=1e-5)
    code, _, err = command(capsys, "evaluate", tmp_path / "m.onnx", shapes_folder, "--precision", "bf16")
    assert code == 2
    assert "an exported file has its own" in err


class Counting(Engine):
    """Says of every image the same class."""

    def __init__(self, label):
        self.label, self.batches = label, []

    def __call__(self, pixels):
        self.batches.append(len(pixels))
        return np.eye(3, dtype=np.float32)[[self.label] * len(pixels)]


def test_points_are_lost_beside_the_first_and_batches_are_timed_in_turns(shapes_run, shapes_folder, monkeypatch):
    monkeypatch.setattr(contest, "WARM", 0)
    made = load(shapes_run)
    data = vitral.data.sources.open_data(str(shapes_folder))
    split = vitral.evaluation.evaluate.merged(data).take(np.arange(50))  # not of all classes alike
    engines = [Counting(0), Counting(1), Counting(2)]
    ways = [Way(str(k), "torch", Predictor(each, made.card)) for k, each in enumerate(engines)]
    views = [np.zeros((1, 8, 8), np.uint8)] * 2
    found = contest.contest(ways, split, data.labels, views, (1, 3), rounds=2)
    shares = np.bincount(split.targets.values, minlength=3) / len(split)
    assert [each.score for each in found] == pytest.approx(shares[:3].tolist())
    assert [each.lost for each in found] == pytest.approx((100 * (shares[0] - shares[:3])).tolist())
    assert all(each.batches[:8] == [1] * 4 + [3] * 4 for each in engines)  # of two turns, one counts
    assert found[0].slower == {1: 1, 3: 1}


def results(ways, lost, slower):
    return [
        Result(way, dict.fromkeys((1, 8), 10 / s), 0.9 - points / 100, points, {1: s, 8: s})
        for way, points, s in zip(ways, lost, slower, strict=False)
    ]


def in_the_contest(monkeypatch, room, lost, slower):
    monkeypatch.setattr(room, "contest", lambda ways, *args, **options: results(ways, lost, slower))


@pytest.mark.parametrize(
    ("lost", "slower", "best"),
    [((0, 0, 0.2, 0.5), (1, 2, 0.5, 0.1), "ONNX Runtime"), ((0, 0, 5, 5), (1, 2, 0.5, 0.1), "PyTorch")],
)
def test_the_fastest_that_loses_little_is_written_and_remembered(
    lost, slower, best, model, cache, tmp_path, monkeypatch
):
    path, made = model
    in_the_contest(monkeypatch, optimise, lost, slower)
    monkeypatch.setattr(
        optimise, "FORMATS", {name: replace(each, write=copied) for name, each in optimise.FORMATS.items()}
    )
    monkeypatch.setattr(optimise, "choose_precision", lambda wanted, device: "bf16")
    monkeypatch.setattr(optimise, "cores", lambda: 1)
    found = optimise.optimise(path, None, NAMES, [], [], tmp_path / "fast", loss=0.3)
    assert found.best.way.name == best
    assert (
        next(line.split("  ")[0] for line in found.table().splitlines()[1:]) == "OpenVINO"
    )  # fastest, but for its answers
    assert "too much" in found.table()
    name = "model.onnx" if best == "ONNX Runtime" else "model.safetensors"
    assert sorted(each.name for each in (tmp_path / "fast").iterdir()) == [name, "optimize.json"]
    image = pictures(tmp_path, 3)[0]
    assert load(tmp_path / "fast").predict(image).line(4) == made.predict(image).line(4)
    assert choice.opened(path).predict(image).line(4) == made.predict(image).line(4)
    assert choice.chosen(path).in_words == ("ONNX Runtime in fp32" if best == "ONNX Runtime" else "PyTorch in fp32")


@pytest.mark.parametrize(
    ("to", "how"), [("onnx", "no spinning"), ("openvino", "streams"), ("openvino", "bf16, streams")]
)
def test_how_threads_work_stands_in_the_file_and_changes_no_answer(to, how, tmp_path, monkeypatch):
    monkeypatch.setattr(optimise, "cores", lambda: 2)
    made, file = exported(to)
    told = dict(optimise._others(to, ["fp32", "bf16"]))[how]
    told_anew(file, tmp_path / "told" / file.name, told)
    found = type(load(file).engine)(tmp_path / "told" / file.name, threads=2)
    assert found.card == made.card
    assert getattr(found, "blocking", False) == (to == "onnx")
    assert getattr(found, "streams", 1) == (1 if to == "onnx" else 2)
    views = np.stack(seen(made, 3))
    wanted = made.probabilities(made.engine(views)).numpy()
    for count in (1, 3):
        assert np.allclose(
            made.probabilities(found(views[:count])), wanted[:count], atol=0.02 if "bf16" in how else 1e-5
        )


def test_on_one_core_threads_have_no_other_way(monkeypatch):
    monkeypatch.setattr(optimise, "cores", lambda: 1)
    assert list(optimise._others("onnx", ["fp32"])) == []
    assert [name for name, _ in optimise._others("openvino", ["fp32", "bf16"])] == ["bf16"]


def test_weights_that_are_cast_once_answer_as_those_that_autocast_casts():
    made = predictor()
    views = np.stack(seen(made, 2))
    with made.engine.computing("bf16"):
        wanted = made.engine(views)
    found = choice.in_torch(made, "bf16").engine(views)
    assert found.dtype == wanted.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert made.model.head.weight.dtype == torch.float32


def test_optimize_wants_a_folder(model, cache, tmp_path):
    with pytest.raises(VitralError, match="give a folder"):
        optimise.optimise(model[0], None, NAMES, [], [], tmp_path / "m.onnx")
    copied(model[1], tmp_path / "exported.onnx")
    with pytest.raises(VitralError, match="an exported file gives answers"):
        optimise.optimise(tmp_path / "exported.onnx", None, NAMES, [], [], tmp_path / "fast")
    assert not (tmp_path / "fast").exists()


def seen(made, count=8):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (3, 32, 48), np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("to", "how"),
    [("onnx", "8 bits"), pytest.param("openvino", "8 bits", marks=pytest.mark.slow), ("openvino", "8 bits, smoothed")],
)
def test_a_file_in_8_bits_describes_itself_and_answers_nearly_the_same(to, how, tmp_path):
    made, file = exported(to)
    small = tmp_path / "small" / file.name
    quantise.quantised(quantise.WAYS[to][how], file, small, seen(made))
    found = load(small)
    assert found.card == made.card
    views = np.stack(seen(made))
    wanted = made.probabilities(made.engine(views)).numpy()
    assert 0 < np.abs(made.probabilities(found.engine(views)) - wanted).max() < 0.05


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_ranges_are_taken_from_images_of_8_and_of_16_bits(to, tmp_path):
    made, file = exported(to)
    deep = [view.astype(np.float32) + 0.3 for view in seen(made, 2)]
    how = next(iter(quantise.WAYS[to].values()))
    quantise.quantised(how, file, tmp_path / file.name, [*seen(made, 4), *deep])
    assert load(tmp_path / file.name).labels == NAMES


@pytest.mark.parametrize(("lost", "slower"), [(0.31, 0.5), (0.0, 1.1), (-1.0, 1.0)])
def test_8_bits_that_cost_answers_or_time_are_refused(lost, slower, tmp_path, monkeypatch):
    in_the_contest(monkeypatch, eight_bits, (0, lost), (1, slower))
    monkeypatch.setattr(eight_bits, "export", copied)
    with pytest.raises(
        VitralError, match=r"are faster than float32 on this processor.*, and here they are not"
    ) as refused:
        eight_bits.export_int8(predictor(), tmp_path / "m.onnx", None, NAMES, seen(None))
    assert f"{abs(lost):.2f} points" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_8_bits_that_pay_are_written(tmp_path, monkeypatch):
    in_the_contest(monkeypatch, eight_bits, (0, 0.3), (1, 0.9))
    monkeypatch.setattr(eight_bits, "export", copied)
    made = predictor()
    said = eight_bits.export_int8(made, tmp_path / "m.onnx", None, NAMES, seen(None))
    assert "0.30 points lost (90.00% to 89.70%), 1.11 times the speed" in str(said)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    assert load(tmp_path / "m.onnx").labels == NAMES
    with pytest.raises(VitralError, match=r"--int8 is for onnx and openvino files \(\.onnx, \.xml\)"):
        eight_bits.export_int8(made, tmp_path / "m.pt2", None, NAMES, seen(None))


def test_what_8_bits_leave_no_choice_of_is_refused(model, capsys):
    for words in (("--raw",), ("--check-on", "x.png")):
        code, _, err = command(capsys, "export", model[0], "--int8", "digits", *words)
        assert code == 2
        assert f"vitral: {words[0]}: " in err


def test_without_instructions_for_8_bits_weights_get_7(monkeypatch):
    for flags, has in (("fpu avx2", False), ("fpu avx512_vnni", True), ("fpu avx2 avx_vnni", True)):
        monkeypatch.setattr(Path, "read_text", lambda self, flags=flags: f"model : x\nflags : {flags}\nbugs :")
        assert quantise.adds_in_32_bits() == has


def test_bench_draws_into_html_alone(model, tmp_path, capsys):
    code, out, err = command(capsys, "bench", model[0], "--plot", tmp_path / "b.png")
    assert (code, out) == (2, "")
    assert "b.png: is drawn on a page; give a name that ends in .html" in err
    assert not (tmp_path / "b.png").exists()


def test_bench_says_what_running_costs(model, cache, tmp_path, capsys):
    _, made = model
    copied(made, tmp_path / "m.onnx")
    words = ("--batch-size", 1, 2, "--seconds", 0.05, "--json", "--plot", tmp_path / "b.html")
    code, out, err = command(capsys, "bench", tmp_path / "m.onnx", *words)
    assert code == 0, err
    found = json.loads(out)
    (cost,) = found["costs"]
    assert (cost["engine"], cost["library"]) == ("auto", "ONNX Runtime")
    assert [each["batch"] for each in cost["speeds"]] == [1, 2]
    for each in cost["speeds"]:
        assert 0 < each["p50"] <= each["p90"] <= each["p99"]
        assert each["images_a_second"] == pytest.approx(each["batch"] / each["p50"])
        assert each["share"] == pytest.approx(
            2 * found["multiply_adds"] * each["images_a_second"] / found["matrix_rate"], rel=1e-6
        )
    assert cost["memory"] > 10**7
    assert "<svg" in (tmp_path / "b.html").read_text()
    code, _, err = command(capsys, "bench", tmp_path / "m.onnx", "--engine", "openvino", "--seconds", 0.05)
    assert code == 2
    assert "--engine openvino cannot run it" in err

"""What the machine does fast is measured: precision, what emulation costs, and what is kept of the measurement."""

import json
import os
import subprocess
import sys

import pytest
import torch

from vitral.cli import main
from vitral.data.files import cache_folder
from vitral.errors import VitralError
from vitral.training import machine
from vitral.training.machine import Rates, choose_precision, measured_rates, precision_cost, processor, product_rates

CPU = torch.device("cpu")
OTHER_KIND = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # of processor, without bfloat16


@pytest.fixture
def rates(monkeypatch):
    """A machine with these rates."""
    return lambda fp32, bf16: monkeypatch.setattr(machine, "product_rates", lambda: Rates(fp32, bf16))


def test_bf16_is_chosen_only_where_the_processor_multiplies_it_faster(rates):
    for fp32, bf16, best in ((60e9, 0.3e9, "fp32"), (60e9, 60e9, "fp32"), (60e9, 150e9, "bf16")):
        rates(fp32, bf16)
        assert choose_precision("auto", CPU) == best
        assert choose_precision("fp32", CPU) == "fp32"
        assert choose_precision("bf16", CPU) == "bf16"
        with pytest.raises(VitralError, match=f"precision fp16: not on a processor; use {best} or auto"):
            choose_precision("fp16", CPU)


def test_emulated_bf16_by_name_says_what_it_costs(rates):
    rates(60e9, 0.3e9)
    assert precision_cost("bf16", CPU) == (
        "precision bf16: a core of this processor makes 0.3 GFLOP/s in bfloat16 and 60 in float32, so that a step's products take about "
        "200 times as long; --precision auto takes fp32"
    )
    assert precision_cost("auto", CPU) is None
    assert precision_cost("fp32", CPU) is None
    rates(60e9, 55e9)
    assert "take 1.1 times as long" in str(precision_cost("bf16", CPU))
    rates(60e9, 150e9)
    assert precision_cost("bf16", CPU) is None


def test_rates_are_measured_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    measured = []
    monkeypatch.setattr(machine, "measured_rates", lambda: measured.append(1) or Rates(5.0, 2.0))
    fresh = product_rates.__wrapped__  # without the memory of this process
    assert fresh() == fresh() == Rates(5.0, 2.0)
    assert measured == [1]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # another machine, as it were: both are kept
    fresh()
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    fresh()
    assert measured == [1, 1]
    kept = cache_folder() / "machine.json"
    assert len(json.loads(kept.read_text())) == 2
    for broken in ("{", "[]", json.dumps({key: {"fp32": 1.0} for key in json.loads(kept.read_text())})):
        kept.write_text(broken)
        assert fresh() == Rates(5.0, 2.0)


def test_rates_without_a_cache_to_write_to(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(machine, "measured_rates", lambda: Rates(5.0, 2.0))
    assert product_rates.__wrapped__() == Rates(5.0, 2.0)


def test_a_measurement_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    rates = measured_rates()
    assert torch.get_num_threads() == before
    assert rates.fp32 > 1e8
    assert rates.bf16 > 1e6
    assert processor().endswith(f"({torch.backends.cpu.get_cpu_capability()})")


def test_a_run_in_emulated_bf16_says_so_before_it_starts(rates, shapes_folder, tmp_path, capsys):
    rates(60e9, 0.3e9)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(shapes_folder), "--out", str(tmp_path / "run"), "--steps", "1", "--dim", "16", "--depth", "1", "--num-heads", "1",
              "--image-size", "16", "16", "--patch-size", "8", "--batch-size", "8", "--precision", "bf16", "--workers", "0"])  # fmt: skip
    assert stop.value.code == 0
    said = capsys.readouterr().err
    assert said.count("200 times as long") == 1
    assert said.index("200 times as long") < said.index("3 classes")


def test_a_run_on_a_processor_without_bfloat16(shapes_folder, tmp_path):
    """On a processor that has it, its instructions are taken away."""
    out = tmp_path / "run"
    words = [sys.executable, "-m", "vitral", "train", str(shapes_folder), "--out", str(out), "--steps", "12", "--dim", "32", "--depth", "2",
             "--num-heads", "2", "--image-size", "20", "20", "--patch-size", "4", "--batch-size", "16", "--workers", "0"]  # fmt: skip
    environment = os.environ | OTHER_KIND | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["machine"].endswith("cpu in fp32")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses
    assert all(loss < 3 for loss in losses)

"""What a checkpoint costs: one safetensors file, written at once or while training goes on, and torch.distributed.checkpoint, in both ways.

    python benchmarks/checkpoints.py [--model vit_small_patch16_224] [--folder /tmp]

One process, weights with AdamW's moments and their average; each file is synced. Prints the seconds that training waits, those until the checkpoint
can be relied on, and its size; the median of five rounds, in which they take turns.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp

from vitral import create_model
from vitral.checkpoints.atomic import write_safetensors
from vitral.training.state import Checkpoints, Progress

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    weights = create_model(given.model).state_dict()
    kinds = ("model", "exp_avg", "exp_avg_sq", "average")
    tensors = {f"{kind}/{name}": torch.randn_like(t) for kind in kinds for name, t in weights.items()}
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        ways: dict[str, Callable[[Path], tuple[float, float]]] = {
            "safetensors": lambda out: waited(lambda: write_safetensors(out / "step.safetensors", tensors, {})),
            "safetensors, going on (a run's)": lambda out: ours(tensors, out),
            "dcp.save": lambda out: waited(lambda: dcp.save(dict(tensors), storage_writer=writer(out))),
            "dcp.async_save": lambda out: not_waited(tensors, out),
        }
        rows: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, save in ways.items():
                out = Path(place, name)
                out.mkdir()
                os.sync()
                rows[name].append((*save(out), sum(path.stat().st_size for path in out.rglob("*") if path.is_file())))
                shutil.rmtree(out)
    print(f"{sum(t.nbytes for t in tensors.values()) / 1e6:,.0f} MB of tensors, {given.model}")
    for name, found in rows.items():
        wait, whole, size = (sorted(values)[ROUNDS // 2] for values in zip(*found, strict=True))
        print(f"{name}: training waits {wait:.2f} s, durable after {whole:.2f} s, {size / 1e6:,.1f} MB")
    torch.distributed.destroy_process_group()


def writer(out: Path) -> dcp.FileSystemWriter:
    return dcp.FileSystemWriter(out, sync_files=True)


def waited(save: Callable[[], object]) -> tuple[float, float]:
    began = time.perf_counter()
    save()
    took = time.perf_counter() - began
    return took, took


def ours(tensors: dict[str, Tensor], out: Path) -> tuple[float, float]:
    checkpoints, began = Checkpoints(out), time.perf_counter()
    checkpoints.save(tensors, Progress(step=1), best=True)
    returned = time.perf_counter() - began
    checkpoints.wait()
    return returned, time.perf_counter() - began


def not_waited(tensors: dict[str, Tensor], out: Path) -> tuple[float, float]:
    began = time.perf_counter()
    saving = dcp.async_save(dict(tensors), storage_writer=writer(out))
    returned = time.perf_counter() - began
    saving.result()
    return returned, time.perf_counter() - began


if __name__ == "__main__":
    main()

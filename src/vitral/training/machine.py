"""The machine's devices, precisions and speeds, and the settings that are fastest on it."""

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vitral.checkpoints.atomic import write_atomically
from vitral.data.files import cache_folder
from vitral.engines.memory import numbers_of
from vitral.errors import VitralError

ROOM = 0.8  # of the free memory, for one process to fill: the rest is for what else the machine does
FASTER = 1.2  # times the rate of float32 from which bfloat16 pays, as casts cost something


def choose_device(wanted: str) -> torch.device:
    """auto: CUDA, then Apple's GPU, then the CPU."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    kind = wanted.split(":")[0]
    if not available.get(kind, False):
        raise VitralError(
            f"device {wanted!r}: not on this machine; there are {', '.join(k for k, v in available.items() if v)}"
        )
    return torch.device(wanted)


def choose_precision(wanted: str, device: torch.device) -> str:
    """auto: bf16 where the device multiplies it faster than fp32, fp16 on older GPUs, else fp32."""
    if device.type == "cpu":
        rates = product_rates()
        best = "bf16" if rates.bf16 > FASTER * rates.fp32 else "fp32"
    elif device.type == "cuda":
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    else:
        best = "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise VitralError(f"precision fp16: not on a processor; use {best} or auto")
    return best if wanted == "auto" else wanted


def precision_cost(wanted: str, device: torch.device) -> str | None:
    """A warning if bf16 was asked for on a processor that emulates it; else None."""
    if wanted != "bf16" or device.type != "cpu" or choose_precision("auto", device) == "bf16":
        return None
    rates = product_rates()
    slower = rates.fp32 / rates.bf16
    said = f"about {slower:,.0f} times" if slower >= 2 else f"{slower:.1f} times"
    return (
        f"precision bf16: a core of this processor makes {rates.bf16 / 1e9:,.1f} GFLOP/s in bfloat16 and {rates.fp32 / 1e9:,.0f} in float32, so that "
        f"a step's products take {said} as long; --precision auto takes fp32"
    )


@dataclass(frozen=True)
class Rates:
    """FLOP/s of matrix products on one core of this processor."""

    fp32: float
    bf16: float


@functools.cache
def product_rates() -> Rates:
    """The rates, measured once (in less than a second) and cached for this processor, this torch and its limits on instructions.

    Emulated bfloat16 is ten to hundreds of times slower than float32, native bfloat16 two to three times faster: noise does not matter.
    """
    place, key = cache_folder() / "machine.json", _machine()
    known: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError, ValueError):  # nothing was measured yet, or the cache is damaged
        read = json.loads(place.read_text())
        known = read if isinstance(read, dict) else {}
    with contextlib.suppress(KeyError, TypeError):
        return Rates(**known[key])
    rates = measured_rates()
    with contextlib.suppress(OSError, VitralError):  # without a cache it is measured again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(known | {key: asdict(rates)}).encode())
    return rates


def measured_rates() -> Rates:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Rates(_product_rate(torch.float32), _product_rate(torch.bfloat16))
    finally:
        torch.set_num_threads(threads)


def _product_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some products, of growing matrices until one takes 20 ms."""
    rate = 0.0
    for side in (64, 256, 512):
        a = torch.ones(side, side, dtype=dtype)
        took = [_seconds(lambda a=a: torch.mm(a, a)) for _ in range(6)]  # type: ignore[misc]
        rate = max(rate, 2 * side**3 / min(took))
        if 2 * (2 * side) ** 3 / rate > 0.02:
            break
    return rate


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def processor() -> str:
    """The processor's name and the widest instructions that torch uses on it, as in "AMD EPYC (AVX2)"."""
    return f"{_cpuinfo().get('model name') or platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def _cpuinfo() -> dict[str, str]:
    """Linux's facts about the first core; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def _machine() -> str:
    """A hash of what the rates depend on."""
    facts = {
        key: value
        for key, value in _cpuinfo().items()
        if key in ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    }
    limits = [os.environ.get(name) for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    told = json.dumps([facts, platform.machine(), torch.__version__, limits], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it: each step allocates what the last one freed.

    Otherwise every large activation is mapped and page-faulted anew (measured in benchmarks/training.py). No effect without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # musl's allocator has no such options
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    mallopt(arena_max, 1)  # the autograd thread shares the main heap
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the process ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(s in str(error) for s in ("not enough memory", "can't allocate memory", "out of memory"))
    )


def available_memory(device: str) -> int:
    """Bytes that this process could hold: what is free on the GPU, or in the machine and under the container's limit, and what it has already."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = numbers_of("/proc/meminfo").get("MemAvailable")
    if free is None:  # not Linux: most of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    own = numbers_of("/proc/self/status")["VmRSS"] * 1024
    room = free * 1024 + own
    # https://docs.kernel.org/admin-guide/cgroup-v2.html, "Memory Interface Files"
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        held = int((group / "memory.current").read_text()) - numbers_of(group / "memory.stat").get("inactive_file", 0)
        room = min(room, int(limit) - held + own)
    return max(0, room)

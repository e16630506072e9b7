"""What the machine can do, and the settings under which it does it fastest."""

import ctypes
import os
import sys

import torch

from vitral.errors import VitralError


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
    """auto: bf16 where the processor multiplies it natively, fp16 on older GPUs, else fp32."""
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        best = "bf16" if native else "fp32"
    elif device.type == "cuda":
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    else:
        best = "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise VitralError(f"precision fp16: not on a processor; use {best} or auto")
    return best if wanted == "auto" else wanted


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it: each step allocates what the last one freed.

    Otherwise every large activation is mapped and page-faulted anew (measured in benchmarks/training.py). Harmless where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # musl: its allocator has no such switches
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


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1

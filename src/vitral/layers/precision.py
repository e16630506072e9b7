"""The precision that a model computes in: float32, bfloat16 or float16."""

from contextlib import AbstractContextManager, nullcontext

import torch


def torch_dtype(precision: str) -> torch.dtype:
    """fp32, bf16 or fp16 as torch's type."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to this precision inside; in fp32 nothing changes."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch_dtype(precision))

"""In which numbers a model computes: float32, bfloat16 or float16 where they are faster."""

from contextlib import AbstractContextManager, nullcontext

import torch


def torch_dtype(precision: str) -> torch.dtype:
    """fp32, bf16 or fp16 as torch's type."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Products in this precision inside; nothing in fp32."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch_dtype(precision))

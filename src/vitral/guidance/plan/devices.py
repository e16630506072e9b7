"""Accelerators for which a plan can be made without having one: memory, the rate of matrix products, and the share of it that training reaches.

Memory and dense half-precision rates (float32 accumulation) are NVIDIA's data sheets'. The share is what is published of ViT training in plain
PyTorch: 0.41 (ViT-S) to 0.61 (ViT-L) on an RTX 3090 (timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv), 0.43 to 0.45 (ViT-g) on an
A100 and 0.27 to 0.29 on an H100 (NVIDIA NeMo's ViT performance page), 0.05 (eager) to 0.23 (compiled) for a ViT-S on an H100 (NVIDIA BioNeMo,
nvSubquadratic). Small models reach less of it on fast devices, whose time then goes into starting kernels: such a plan is an estimate.
"""

from dataclasses import dataclass

from vitral.errors import VitralError


@dataclass(frozen=True)
class Device:
    name: str
    memory: int
    """Bytes."""
    rate: float
    """Dense half-precision multiply-adds a second, twice which are FLOP/s."""
    share: float
    """Share of that rate which training a medium-sized ViT reaches."""
    precision: str


def _device(name: str, gigabytes: int, teraflops: float, share: float, precision: str = "bf16") -> Device:
    return Device(name, gigabytes * 10**9, teraflops * 1e12 / 2, share, precision)


DEVICES = {
    device.name: device
    for device in (
        _device("t4", 16, 65, 0.3, "fp16"),
        _device("v100", 16, 125, 0.3, "fp16"),
        _device("rtx3090", 24, 71, 0.4),
        _device("rtx4090", 24, 165, 0.35),
        _device("l4", 24, 121, 0.3),
        _device("a10g", 24, 70, 0.35),
        _device("a100", 40, 312, 0.2),
        _device("h100", 80, 989, 0.1),
        _device("h200", 141, 989, 0.1),
    )
}


def device_row(name: str) -> Device:
    """The row of the table, or a VitralError that lists it."""
    if name not in DEVICES:
        raise VitralError(
            f"device {name!r}: is not in the table; choose one of {', '.join(DEVICES)}, or auto, cpu, cuda or mps for this machine"
        )
    return DEVICES[name]

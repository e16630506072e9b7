"""Images per second of inference against Hugging Face's implementation, for every family that both have: same weights, batch and precision.

    make bench        # or: python benchmarks/inference.py [--rounds 9] [--models ViT-Ti Swin-T ...]

The peer's random weights are converted to ours, and the two must give the same answer before they are timed. Then they take turns in one process,
and the ratio is the median over the rounds of theirs / ours in seconds. The last column is the share of the processor's matrix-product rate in that
precision, measured in the same rounds, that our multiply-adds reach. bf16 means weights and activations in bfloat16.
"""

import argparse
import time
from statistics import median

import torch
import transformers as hf

from vitral.checkpoints.convert import load_weights
from vitral.checkpoints.create import create_model
from vitral.models.measure import measure
from vitral.training.machine import choose_precision

BATCH = 8
DTYPES = {"fp32": torch.float32}  # and bfloat16, where the processor does more than emulate it
if choose_precision("auto", torch.device("cpu")) == "bf16":
    DTYPES["bf16"] = torch.bfloat16
# name: our model, Transformers' class and configuration (its own defaults are the published base model)
PAIRS = {
    "ViT-Ti/16": (
        "vit_tiny_patch16_224",
        hf.ViTForImageClassification,
        hf.ViTConfig,
        {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    ),
    "ViT-S/16": (
        "vit_small_patch16_224",
        hf.ViTForImageClassification,
        hf.ViTConfig,
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "ViT-B/16": ("vit_base_patch16_224", hf.ViTForImageClassification, hf.ViTConfig, {}),
    "DeiT-S distilled": (
        "deit_small_distilled_patch16_224",
        hf.DeiTForImageClassificationWithTeacher,
        hf.DeiTConfig,
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "BEiT-B/16": (
        "beit_base_patch16_224",
        hf.BeitForImageClassification,
        hf.BeitConfig,
        {"use_relative_position_bias": True},
    ),
    "Swin-T": ("swin_tiny_patch4_window7_224", hf.SwinForImageClassification, hf.SwinConfig, {}),
    "SwinV2-T": (
        "swinv2_tiny_window8_256",
        hf.Swinv2ForImageClassification,
        hf.Swinv2Config,
        {"image_size": 256, "window_size": 8, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    ),
    "PVT-Tiny": (
        "pvt_tiny",
        hf.PvtForImageClassification,
        hf.PvtConfig,
        {"hidden_sizes": [64, 128, 320, 512], "depths": [2, 2, 2, 2]},
    ),
    "PVTv2-B0": ("pvt_v2_b0", hf.PvtV2ForImageClassification, hf.PvtV2Config, {}),
    "DINOv2-S/14": (
        "vit_small_patch14_dinov2",
        hf.Dinov2Model,
        hf.Dinov2Config,
        {"hidden_size": 384, "num_attention_heads": 6, "image_size": 224, "patch_size": 14},
    ),
    "DINOv3-S/16": (
        "vit_small_patch16_dinov3_qkvb",
        hf.DINOv3ViTModel,
        hf.DINOv3ViTConfig,
        {"num_register_tokens": 4, "image_size": 256},
    ),
    "ResNet-50": ("resnet50", hf.ResNetForImageClassification, hf.ResNetConfig, {}),
}
SIDES = {"SwinV2-T": 256, "DINOv3-S/16": 256}


def pair(name: str, dtype: torch.dtype):
    """The two as functions of a batch, with equal weights and answers."""
    ours, kind, configuration, options = PAIRS[name]
    head = {} if "DINO" in name else {"num_labels": 1000}
    theirs = kind(configuration(**options, **head)).eval()
    overrides = {"image_size": 224} if "DINOv2" in name else {}
    if "PVT" in name:
        overrides["conv_norm_eps"] = theirs.config.layer_norm_eps
    model = (
        create_model(ours, norm_eps=theirs.config.layer_norm_eps, **overrides)
        if name != "ResNet-50"
        else create_model(ours)
    )
    report = load_weights(model.eval(), theirs.state_dict())
    assert report.loaded == report.total
    side = SIDES.get(name, 224)
    images = torch.randn(BATCH, 3, side, side)

    def answer(batch: torch.Tensor) -> torch.Tensor:
        out = theirs(pixel_values=batch)
        return out.last_hidden_state[:, 0] if "DINO" in name else out.logits

    with torch.inference_mode():
        expected = answer(images)
        apart = (model(images) - expected).abs().max() / expected.abs().max()
    assert apart < 1e-4, f"{name}: answers differ by {apart:.1e}"
    model.to(dtype)
    theirs.to(dtype)
    return model, answer, images.to(dtype)


def seconds(function, *arguments) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


@torch.inference_mode()
def compare(name: str, dtype: torch.dtype, rounds: int) -> tuple[float, float, float, float]:
    """Our and their images per second, the paired ratio, and our share of the matrix-product rate."""
    ours, theirs, images = pair(name, dtype)
    a, b = torch.randn(2, 2048, 2048, dtype=dtype).unbind(0)
    times = []
    for turn in range(rounds + 2):
        mine, other = seconds(ours, images), seconds(theirs, images)
        product = seconds(torch.mm, a, b)
        if turn >= 2:  # the first two warm caches
            times.append((mine, other, product))
    mine, other, product = (median(column) for column in zip(*times, strict=True))
    ratio = median(other / mine for mine, other, _ in times)
    share = (BATCH * measure(ours.config).multiply_adds / mine) / (2048**3 / product)
    return BATCH / mine, BATCH / other, ratio, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=list(PAIRS))
    given = parser.parse_args()
    print(
        f"{'batch ' + str(BATCH):18} {'precision':>9} {'vitral':>9} {'Transformers':>13} {'ratio':>6} {'of matrix products':>19}"
    )
    for name in given.models:
        for label, dtype in DTYPES.items():
            mine, other, ratio, share = compare(name, dtype, given.rounds)
            print(f"{name:18} {label:>9} {mine:9.1f} {other:13.1f} {ratio:6.2f} {share:19.0%}", flush=True)


if __name__ == "__main__":
    main()

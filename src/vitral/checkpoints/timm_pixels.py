"""The pretrained_cfg of timm's config.json as our steps, and back.

https://github.com/huggingface/pytorch-image-models, timm/data/config.py and transforms_factory.py (`transforms_imagenet_eval`): what
`create_transform(**resolve_data_config(pretrained_cfg))` does to an image in evaluation.
"""

import math
from typing import Any

from vitral.checkpoints.processors import HALF_PIXEL, IMAGENET, OTHERWISE, other_arithmetic
from vitral.data.preprocess import Preprocess
from vitral.data.resample import INTERPOLATIONS
from vitral.data.steps import CenterCrop, Resize, Step
from vitral.errors import VitralError, some

CROP_PCT = 0.875
SETTINGS = {"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}
NEUTRAL = {
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load", "test_input_size",
    "min_input_size", "fixed_input_size", "test_crop_pct", "num_classes", "label_offset", "label_names", "label_descriptions", "pool_size",
    "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url", "paper_name", "paper_ids", "notes",
    "num_features", "global_pool", "sha256", "sha", "drop_rate",
}  # fmt: skip
"""Fields of timm's PretrainedCfg that change no pixel (the test_ ones only where they are asked for)."""


def read_timm(cfg: dict[str, Any], min_size: int) -> Preprocess:
    """The steps of a pretrained_cfg. Raises VitralError for a setting that is not known here."""
    if strange := [f"{k}={v!r}" for k, v in cfg.items() if k not in SETTINGS | NEUTRAL and v not in (None, False)]:
        raise VitralError(f"config.json: pretrained_cfg: {some(strange)}: not known here, and it may change pixels")
    channels, height, width = cfg.get("input_size") or (3, 224, 224)
    mean, std = (
        tuple(map(float, cfg.get(name) or usual)) for name, usual in zip(("mean", "std"), IMAGENET, strict=True)
    )
    mean, std = (v * channels if len(v) == 1 else v for v in (mean, std))
    if not len(mean) == len(std) == channels:
        raise VitralError(f"config.json: mean {mean} and std {std}: input_size has {channels} channels")
    how, mode = cfg.get("interpolation") or "bicubic", cfg.get("crop_mode") or "center"
    if how not in INTERPOLATIONS:
        raise VitralError(f"config.json: interpolation={how!r}: known are {', '.join(INTERPOLATIONS)}")
    if mode not in ("center", "squash", "border"):
        raise VitralError(f"config.json: crop_mode={mode!r}: timm's are center, squash and border")
    steps = _steps(height, width, cfg.get("crop_pct") or CROP_PCT, mode, how, mean)
    return Preprocess.of_steps((height, width), mean, std, steps, min_size=min_size)


def _steps(height: int, width: int, share: float, mode: str, how: str, mean: tuple[float, ...]) -> tuple[Step, ...]:
    inner = math.floor(height / share), math.floor(width / share)
    crop = CenterCrop(height, width, "even")
    if mode == "squash":
        return Resize("exact", *inner, how), crop
    if mode == "border":
        fill = tuple(float(round(255 * m)) for m in mean)
        return Resize("fit", *inner, how), CenterCrop(height, width, "even", fill)
    if inner[0] == inner[1]:
        return Resize("shortest", *inner, how), crop
    return Resize("cover", *inner, "bilinear"), crop  # timm uses the given filter for squares only


def write_timm(steps: Preprocess) -> tuple[dict[str, Any], list[str]]:
    """The settings of a pretrained_cfg for our steps, and in words where it differs from them.

    Raises VitralError, which names the step, where timm has no such step.
    """
    plan = list(steps.plan)
    unlike: list[str] = []
    first = plan[0] if plan else None
    if not isinstance(first, Resize) or not first.rounded:
        raise VitralError(f"{first}: timm resizes every image first, and rounds; write our own file instead")
    crop = plan[1] if len(plan) > 1 else CenterCrop(first.height, first.width, "even")
    if not isinstance(crop, CenterCrop) or len(plan) > 2:
        raise VitralError(f"{type(plan[-1]).__name__}: timm has no such step; write our own file instead")
    unlike += other_arithmetic(first, "pillow")
    mode = {"exact": "squash", "fit": "border"}.get(first.rule, "center")
    inner = first.height, first.width
    if first.rule == "share":
        inner = math.floor(first.height / first.fraction), math.floor(first.width / first.fraction)
        unlike.append("sides of the resized image are cut to whole pixels there, here they are rounded")
        if first.height != first.width and first.interpolation != "bilinear":
            unlike.append("timm resizes to other shapes than squares by bilinear")
    share = _share((crop.height, crop.width), inner, first)
    made = _steps(crop.height, crop.width, share, mode, first.interpolation, steps.mean)
    _compare(first, crop, made, unlike)
    return {
        "input_size": [steps.channels, crop.height, crop.width],
        "mean": list(steps.mean),
        "std": list(steps.std),
        "crop_pct": share,
        "crop_mode": mode,
        "interpolation": first.interpolation,
    }, unlike


def _share(crop: tuple[int, int], inner: tuple[int, int], first: Resize) -> float:
    """The crop_pct with which timm resizes to `inner`."""
    candidates = [first.fraction] if first.rule == "share" else []
    candidates += [crop[0] / inner[0], crop[0] / (inner[0] + 0.5), crop[1] / (inner[1] + 0.5)]
    for share in candidates:
        if (math.floor(crop[0] / share), math.floor(crop[1] / share)) == inner:
            return share
    raise VitralError(
        f"resize to {inner[0]}x{inner[1]} before a crop of {crop[0]}x{crop[1]}: timm's crop_pct is one share for both sides; "
        "write our own file instead"
    )


def _compare(first: Resize, crop: CenterCrop, made: tuple[Step, ...], unlike: list[str]) -> None:
    """A VitralError where timm would do something else; differences of rounding are added to `unlike`, in words."""
    resize, cut = made
    assert isinstance(resize, Resize)
    assert isinstance(cut, CenterCrop)
    alike = {"center": ("shortest", "cover", "share"), "squash": ("exact",), "border": ("fit",)}
    mode = {"exact": "squash", "fit": "border"}.get(resize.rule, "center")
    square = first.height == first.width
    if (
        first.rule not in alike[mode]
        or first.longest
        or (first.rule in ("shortest", "cover") and first.rule != resize.rule)
    ):
        raise VitralError(
            f"resize {first.rule} to {first.height}x{first.width}{f', at most {first.longest}' if first.longest else ''}: "
            f"timm resizes no image so{'' if square else ' for a view that is not square'}; write our own file instead"
        )
    if first.rule != "share" and first.interpolation != resize.interpolation:
        raise VitralError(f"{first.interpolation}: timm resizes to other shapes than squares by bilinear; {OTHERWISE}")
    if cut.fill != crop.fill and not (mode != "border" and not any(crop.fill)):
        raise VitralError(f"center_crop: padding with {crop.fill}: timm pads with {cut.fill}; {OTHERWISE}")
    if crop.half == "down":
        unlike.append(f"{HALF_PIXEL} to the even number there, here down: crops can be one pixel apart")

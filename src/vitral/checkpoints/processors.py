"""preprocessor_config.json of Transformers as our steps, and back.

https://github.com/huggingface/transformers, image_processing_backends.py and models/*/image_processing_*.py. A setting that the file leaves out
has its class's default; one that the class does not have is ignored there, and refused here unless it is off. Each class exists on torchvision,
the default, and on Pillow: where they differ (rounding, an odd pixel of padding) torchvision's is meant.
"""

from dataclasses import dataclass
from typing import Any

from vitral.data.preprocess import Preprocess
from vitral.data.steps import AsIs, CenterCrop, Pad, Resize, ReverseChannels, Step
from vitral.errors import VitralError, some

RESAMPLES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers."""
OTHERWISE = "write our own file instead"
HALF_PIXEL = "half a pixel before a crop is rounded"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
YOLOS = 16  # pixels: to multiples of these its processor cuts the sides
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
COMMON = {
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std", "do_pad", "pad_size",
}  # fmt: skip
"""Settings that change pixels and that every processor here has."""
NEUTRAL = {
    "image_processor_type", "feature_extractor_type", "processor_class", "data_format", "input_data_format", "return_tensors", "device",
    "disable_grouping", "image_seq_length", "do_convert_rgb", "do_reduce_labels", "reduce_labels", "default_to_square",
    "model_input_names", "format", "do_convert_annotations",
    "ignore_index", "num_labels", "_valid_processor_keys", "_processor_class", "num_channels", "transformers_version",
}  # fmt: skip
"""Settings that change no pixel of an image that has been decoded in the model's channels."""


@dataclass(frozen=True)
class Processor:
    """The defaults of a class, and how it deviates from the common resize, crop, rescale, normalise."""

    size: int | dict[str, int]
    resample: int = 3
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = HALF
    crop: int = 0
    """Default crop; 0: none."""
    square: bool = True
    """Whether a size given as one number means a square, and not the shorter side."""
    kind: str = ""
    """convnext, poolformer, levit, efficientnet, mobilevit, dinov3, yolos, eomt, or "" for none of them."""
    pads: bool = True


VIT = Processor({"height": 224, "width": 224}, 2)
BIT = Processor({"shortest_edge": 224}, 3, CLIP, 224, square=False)
PROCESSORS = {
    "ViT": VIT,
    "ViTHybrid": Processor({"shortest_edge": 448}, 3, HALF, 448, square=False),
    "Swin": VIT,
    "DeiT": Processor({"height": 256, "width": 256}, 3, HALF, 224),
    "Beit": Processor({"height": 224, "width": 224}, 3, pads=False),
    "Bit": BIT,
    "CLIP": BIT,
    "ChineseCLIP": BIT,
    "Siglip": Processor({"height": 224, "width": 224}, 3, square=False),
    "Blip": Processor({"height": 384, "width": 384}, 3, CLIP),
    "Segformer": Processor({"height": 512, "width": 512}, 2, IMAGENET, pads=False),
    "Eomt": Processor({"shortest_edge": 640, "longest_edge": 640}, 2, IMAGENET, square=False, kind="eomt", pads=False),
    "Yolos": Processor({"shortest_edge": 800, "longest_edge": 1333}, 2, IMAGENET, square=False, kind="yolos"),
    "Pvt": Processor({"height": 224, "width": 224}, 3, IMAGENET),
    "DINOv3ViT": Processor({"height": 224, "width": 224}, 2, IMAGENET, kind="dinov3", pads=False),
    "ConvNext": Processor({"shortest_edge": 384}, 3, HALF, square=False, kind="convnext", pads=False),
    "PoolFormer": Processor({"shortest_edge": 224}, 3, IMAGENET, 224, square=False, kind="poolformer"),
    "Levit": Processor({"shortest_edge": 224}, 3, IMAGENET, 224, square=False, kind="levit"),
    "EfficientNet": Processor({"height": 346, "width": 346}, 3, HALF, kind="efficientnet", pads=False),
    "MobileNetV1": Processor({"shortest_edge": 256}, 2, HALF, 224, square=False),
    "MobileNetV2": Processor({"shortest_edge": 256}, 2, HALF, 224, square=False, pads=False),
    "MobileViT": Processor({"shortest_edge": 224}, 3, HALF, 256, square=False, kind="mobilevit", pads=False),
}
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "convnext": {"crop_pct": 224 / 256},
    "poolformer": {"crop_pct": 0.9},
    "efficientnet": {"rescale_offset": False, "include_top": True},
    "mobilevit": {"do_flip_channel_order": True},
    "yolos": {"max_size": 1333},
    "eomt": {"do_split_image": False},
}
OF_MODELS = {
    "vit": "ViT", "vit_mae": "ViT", "deit": "DeiT", "beit": "Beit", "swin": "ViT", "swinv2": "ViT", "pvt": "Pvt", "pvt_v2": "Pvt",
    "dinov2": "Bit", "dinov2_with_registers": "Bit", "dinov3_vit": "DINOv3ViT", "resnet": "ConvNext",
    "segformer": "Segformer", "yolos": "Yolos", "eomt": "Eomt",
}  # fmt: skip
"""By model_type, the processor of a folder that names none."""


def read_processor(
    p: dict[str, Any], model_type: str, channels: int, size: tuple[int, int], min_size: int
) -> Preprocess:
    """The steps of a preprocessor_config.json.

    model_type: of the config.json beside it. channels, size, min_size: channels, image size and patch of the model.
    Raises VitralError for a processor or a setting that is not known here.
    """
    name, processor = _class(p, model_type)
    own = OWN_SETTINGS.get(processor.kind, {})
    given = {k: v for k, v in p.items() if v is not None}
    known = COMMON | NEUTRAL | own.keys()
    if strange := [f"{k}={v!r}" for k, v in given.items() if k not in known and v is not False and v != []]:
        raise _refused(f"{some(strange)}: {name} has no such setting, or it is not known here")
    settings = {
        "do_resize": True, "size": processor.size, "resample": processor.resample,
        "do_center_crop": bool(processor.crop), "crop_size": processor.crop or 224,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": processor.statistics[0], "image_std": processor.statistics[1], "do_pad": False, **own, **given,
    }  # fmt: skip
    try:
        mean, std = _statistics(settings, processor, channels)
        steps = _steps(settings, processor, mean)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, VitralError):
            raise
        raise _refused(f"{error!r}: a size or number is garbled; download it again") from error
    height, width = _final(steps) or size
    if len(steps) == 1 and (squash := _our_squash(steps[0], mean, std, min_size)) is not None:
        return squash
    return Preprocess.of_steps((height, width), mean, std, steps, min_size=min_size)


def _refused(what: str) -> VitralError:
    return VitralError(f"preprocessor_config.json: {what}")


def _class(p: dict[str, Any], model_type: str) -> tuple[str, Processor]:
    full = p.get("image_processor_type") or p.get("feature_extractor_type")
    if full is None:
        if model_type not in OF_MODELS:
            raise _refused("names no image_processor_type")
        full = f"{OF_MODELS[model_type]}ImageProcessor"
    short = str(full)
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        short = short.removesuffix(ending)
    if short not in PROCESSORS:
        raise _refused(f"image_processor_type {full!r}: known are {', '.join(PROCESSORS)}, each with ImageProcessor")
    return str(full), PROCESSORS[short]


def _sides(value: Any, square: bool, name: str) -> dict[str, int]:
    """A size as Transformers' dictionary of it."""
    if isinstance(value, bool) or value is None:
        raise _refused(f"{name}={value!r} is no size")
    if isinstance(value, int):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple):
        return {"height": int(value[0]), "width": int(value[-1])}
    kept = {str(k): int(v) for k, v in value.items() if v is not None}
    if set(kept) not in (
        {"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"max_height", "max_width"}
    ):  # fmt: skip
        raise _refused(
            f"{name}={value!r}: known are height and width, shortest_edge with or without longest_edge, "
            "max_height and max_width"
        )
    return kept


def _steps(s: dict[str, Any], processor: Processor, mean: tuple[float, ...]) -> tuple[Step, ...]:
    steps: list[Step] = []
    if s["do_resize"]:
        steps += _resizes(s, processor)
    if s["do_center_crop"]:
        crop = _sides(s["crop_size"], True, "crop_size")
        steps.append(CenterCrop(crop["height"], crop["width"]))
    if s.get("do_flip_channel_order") and processor.kind == "mobilevit":
        steps.append(ReverseChannels())
    if s["do_pad"] and s.get("pad_size") is not None and processor.pads:
        pad = _sides(s["pad_size"], True, "pad_size")
        zero = tuple(255 * m for m in mean)  # there padding comes last, with 0
        steps.append(Pad(pad["height"], pad["width"], zero))
    if processor.kind == "eomt":
        if s["do_split_image"]:
            raise _refused(
                "do_split_image: images that are read in several parts are not supported; give one without it"
            )
        if s["do_pad"]:  # there padding comes first, with black
            size = _sides(s["size"], False, "size")
            longest = size.get("longest_edge", size["shortest_edge"])
            steps.append(Pad(longest, longest))
    return tuple(steps) or (AsIs(),)


def _resizes(s: dict[str, Any], processor: Processor) -> list[Step]:
    size = _sides(s["size"], s.get("default_to_square", processor.square), "size")
    if isinstance(s["resample"], bool) or s["resample"] not in range(len(RESAMPLES)):
        raise _refused(f"resample={s['resample']!r}: Pillow's filters are 0 to {len(RESAMPLES) - 1}")
    how = RESAMPLES[s["resample"]]
    short = size.get("shortest_edge")
    if processor.kind == "convnext":
        if short is None:
            raise _refused(f"size={s['size']!r}: ConvNext's has a shortest_edge")
        if short >= 384:
            return [Resize("exact", short, short, how, arithmetic="torch")]
        inner = int(short / s["crop_pct"])
        return [Resize("shortest", inner, inner, how, arithmetic="torch"), CenterCrop(short, short)]
    if processor.kind == "poolformer" and s["crop_pct"]:
        if short is None and size.get("height") != size.get("width"):
            sides = int(size["height"] / s["crop_pct"]), int(size["width"] / s["crop_pct"])
            return [Resize("exact", *sides, how, arithmetic="torch")]
        inner = int((short or size["height"]) / s["crop_pct"])
        return [Resize("shortest", inner, inner, how, arithmetic="torch")]
    if processor.kind == "levit" and short is not None:
        inner = int((256 / 224) * short)
        return [Resize("shortest", inner, inner, how, arithmetic="torch")]
    if processor.kind == "yolos" and short is not None:
        longest = size.get("longest_edge", s["max_size"])
        return [Resize("shortest", short, short, how, longest=longest, multiple=YOLOS, arithmetic="torch")]
    if short is not None:
        return [Resize("shortest", short, short, how, longest=size.get("longest_edge", 0), arithmetic="torch")]
    if "max_height" in size:
        return [Resize("within", size["max_height"], size["max_width"], how, arithmetic="torch")]
    # DINOv3 rescales before it resizes, and then no value is rounded
    rounded = not (processor.kind == "dinov3" and s["do_rescale"])
    return [Resize("exact", size["height"], size["width"], how, arithmetic="torch", rounded=rounded)]


def _statistics(s: dict[str, Any], processor: Processor, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels in 0..1 that combine rescaling, its offset and normalising."""
    mean, std = (_numbers(s[name], channels, name) for name in ("image_mean", "image_std"))
    if not s["do_normalize"] or processor.kind == "mobilevit":
        mean, std = (0.0,) * channels, (1.0,) * channels
    scale = float(s["rescale_factor"]) if s["do_rescale"] else 1.0
    offset = 1.0 if processor.kind == "efficientnet" and s["do_rescale"] and s["rescale_offset"] else 0.0
    if processor.kind == "efficientnet" and s["include_top"]:  # normalised once more, by the deviation alone
        again = _numbers(s["image_std"], channels, "image_std")
        std = tuple(a * b for a, b in zip(std, again, strict=True))
    by = scale * 255
    by = 1.0 if abs(by - 1) < 1e-9 else by
    return tuple((m + offset) / by for m in mean), tuple(d / by for d in std)


def _numbers(value: Any, channels: int, name: str) -> tuple[float, ...]:
    numbers = (float(value),) * channels if isinstance(value, int | float) else tuple(float(v) for v in value)
    if len(numbers) != channels:
        raise _refused(f"{name}={list(numbers)}: the model has {channels} channels")
    return numbers


def _final(steps: tuple[Step, ...]) -> tuple[int, int] | None:
    """Height and width that every image ends with; None where they depend on it."""
    for step in reversed(steps):
        if isinstance(step, CenterCrop | Pad) or (isinstance(step, Resize) and step.rule == "exact"):
            return step.height, step.width
        if isinstance(step, Resize):
            return None
    return None


def _our_squash(step: Step, mean: tuple[float, ...], std: tuple[float, ...], min_size: int) -> Preprocess | None:
    """A resize to one size as our own rule `squash`, where it is the same."""
    if not (isinstance(step, Resize) and step.rule == "exact" and step.rounded):
        return None
    return Preprocess(
        step.height, step.width, len(mean), mean, std, resize="squash", interpolation=step.interpolation, min_size=min_size
    )  # fmt: skip


def write_processor(steps: Preprocess) -> tuple[dict[str, Any], list[str]]:
    """A preprocessor_config.json for our steps, and in words where it differs from them.

    Raises VitralError, which names the step, where Transformers has no such step.
    """
    found: dict[str, Any] = {
        "do_resize": False, "do_center_crop": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(steps.mean), "image_std": list(steps.std),
    }  # fmt: skip
    unlike: list[str] = []
    kind, plan = "Bit", [step for step in steps.plan if not isinstance(step, AsIs)]
    if plan and isinstance(plan[0], Resize):
        first = plan.pop(0)
        assert isinstance(first, Resize)
        if not first.rounded:
            kind = "DINOv3ViT"
        if first.multiple == YOLOS:
            kind = "Yolos"
        found |= {"do_resize": True, "resample": RESAMPLES.index(first.interpolation), "size": _size(first, unlike)}
        unlike += other_arithmetic(first, "torch")
    if plan and isinstance(plan[0], CenterCrop):
        crop = plan.pop(0)
        assert isinstance(crop, CenterCrop)
        if any(crop.fill):
            raise VitralError(f"center_crop: padding with {crop.fill}: Transformers pads with black; {OTHERWISE}")
        if crop.half == "even":
            unlike.append(f"{HALF_PIXEL} down there, here to the even number: crops can be one pixel apart")
        found |= {"do_center_crop": True, "crop_size": {"height": crop.height, "width": crop.width}}
    if plan and isinstance(plan[0], ReverseChannels):
        if kind != "Bit" or steps.mean != (0.0,) * steps.channels or steps.std != (1.0,) * steps.channels:
            raise VitralError(f"reverse_channels: Transformers has it only without normalising; {OTHERWISE}")
        kind = "MobileViT"
        plan.pop(0)
        found |= {"do_flip_channel_order": True, "do_normalize": False}
    first_size, pad = found.get("size", {}), plan[0] if plan else None
    if isinstance(pad, Pad) and not any(pad.fill) and pad.height == pad.width == first_size.get("longest_edge"):
        kind = "Eomt"
        found |= {"do_pad": True}
        plan.pop(0)
    if plan and isinstance(plan[0], Pad) and kind == "Bit" and plan[0].fill == tuple(255 * m for m in steps.mean):
        found |= {"do_pad": True, "pad_size": {"height": plan[0].height, "width": plan[0].width}}
        plan.pop(0)
    if plan:
        raise VitralError(f"{type(plan[0]).__name__}: Transformers has no such step there; {OTHERWISE}")
    if kind == "Bit" and not found["do_center_crop"]:
        kind = "ViT"
    return {"image_processor_type": f"{kind}ImageProcessor", **found}, unlike


def other_arithmetic(step: Resize, theirs: str) -> list[str]:
    """In words, how a resize differs in a library that does it with PyTorch's arithmetic ("torch") or Pillow's ("pillow")."""
    if step.arithmetic == theirs or not step.rounded or step.interpolation == "nearest":
        return []
    return [
        f"{step.interpolation} is rounded as in {theirs} there and as in {step.arithmetic} here: sharp edges can be a few levels apart"
    ]


def _size(step: Resize, unlike: list[str]) -> dict[str, int]:
    if step.multiple not in (1, YOLOS):
        raise VitralError(f"resize to multiples of {step.multiple}: not in Transformers; {OTHERWISE}")
    if step.rule == "exact":
        return {"height": step.height, "width": step.width}
    if step.rule == "shortest":
        return {"shortest_edge": step.height, **({"longest_edge": step.longest} if step.longest else {})}
    if step.rule == "within":
        return {"max_height": step.height, "max_width": step.width}
    if step.rule == "share" and step.height == step.width:
        unlike.append("the longer side is cut to whole pixels there, here it is rounded")
        return {"shortest_edge": round(step.height / step.fraction)}
    raise VitralError(f"resize {step.rule} to {step.height}x{step.width}: not in Transformers; {OTHERWISE}")

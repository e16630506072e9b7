"""A source's architecture, labels and preprocessing: from our card, the config.json of Transformers or timm, or an .npz's shapes."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitral.checkpoints.card import read_card
from vitral.checkpoints.from_transformers import NO_CLASS, PROBLEM_TYPES, read_config, read_head, sides
from vitral.checkpoints.processors import read_processor
from vitral.checkpoints.recognise import Source
from vitral.checkpoints.timm_pixels import read_timm
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.common import ModelConfig
from vitral.models.heads.options import HeadOptions, head_options
from vitral.models.hybrid import HybridConfig
from vitral.models.mae import MAEConfig
from vitral.models.vit import ViTConfig
from vitral.models.zoo import MODELS, family_of, model_config

MASKED = "attn_mask_probs"  # of an EoMT: the chance that a block masks its attention


@dataclass(frozen=True)
class Description:
    config: ModelConfig
    architecture: str
    """Name in the zoo, or of the family."""
    labels: list[str] | None = None
    preprocess: Preprocess | None = None
    task: str = "classify"
    head: HeadOptions | None = None
    """Of a dense task."""
    unprepared: str = ""
    """Why `preprocess` is None, where the source has preprocessing that is not supported here."""


def describe(source: Source, architecture: str | None = None) -> Description:
    """The architecture that a source is for; `architecture`, a name of the zoo, is needed where the source does not say."""
    if "vitral" in source.metadata:
        card = read_card(Path(source.name), source.metadata)
        config = model_config(card.architecture, **card.arguments)
        head = None if card.head is None else head_options(card.head)
        return Description(config, card.architecture, card.labels, card.preprocess, card.task, head)
    if "model_type" in source.config:
        return _of_transformers(source)
    if "architecture" in source.config:
        return _of_timm(source)
    if architecture is not None:
        config = model_config(architecture)
        classes = _classes(source)
        if isinstance(config, MAEConfig):
            if any("decoder" in key for key in source.tensors):
                return Description(config, architecture)
            return Description(config.backbone, "vit")
        return Description(replace(config, num_classes=classes or 0), architecture)
    if "embedding/kernel" in source.tensors and "Transformer/encoder_norm/scale" in source.tensors:
        google = _of_google(source)
        return Description(google, family_of(google))
    raise VitralError(
        f"{source.name}: does not say what model it is for; name it: vitral.create_model(NAME, weights=...), or --model NAME with `vitral convert`"
    )


def _classes(source: Source) -> int | None:
    """Classes of the head, read off its bias; None where there is none."""
    for key, tensor in source.tensors.items():
        if re.fullmatch(
            r"(head|head\.fc|head\.cls|fc|classifier|cls_classifier|classifier\.1|decode_head\.classifier)[./]bias", key
        ):
            return len(tensor)
    return None


def _of_transformers(source: Source) -> Description:
    c = source.config
    if source.tensors.get(MASKED, torch.zeros(1)).max() > 0:
        raise VitralError(
            f"{source.name}: {MASKED} is not 0: an EoMT that still masks its attention, as in the middle of its training, cannot be built; train it "
            "to the end"
        )
    config = read_config(c, set(source.tensors), source.name)
    if config.answers == "classify":
        config = replace(config, num_classes=_classes(source) or 0)
    labels, named = None, c.get("id2label")
    if config.num_classes and isinstance(named, dict):
        labels = [str(named[k]) for k in sorted(named, key=int)]
        if config.answers == "detect":
            labels = [name for name in labels if name != NO_CLASS]
        labels = labels if len(labels) == config.num_classes else None
    preprocess, why = None, ""
    if source.processor:
        shape = config.in_channels, config.image_size, getattr(config, "patch_size", 1)
        preprocess, why = _or_why(lambda: read_processor(source.processor, c["model_type"], *shape), source.name)
    task = next((task for task, kind in PROBLEM_TYPES.items() if kind == c.get("problem_type")), config.answers)
    head = read_head(c, set(source.tensors))
    task = task if head is None else "semantic"
    return Description(config, family_of(config), labels, preprocess, task, head, unprepared=why)


def _or_why(read: Callable[[], Preprocess], name: str) -> tuple[Preprocess | None, str]:
    """The preprocessing, or why it is not supported here: the weights can be read without it."""
    try:
        return read(), ""
    except VitralError as error:
        return None, f"{name}: {error}"


def _of_timm(source: Source) -> Description:
    """timm's config.json on the Hub: an architecture's name, arguments, and how to prepare images."""
    c = source.config
    name, given = str(c["architecture"]).split(".")[0], c.get("pretrained_cfg", {})
    if name not in MODELS:
        raise VitralError(f"{source.name}: timm's {name!r} is not in the zoo; see `vitral models`")
    overrides: dict[str, Any] = {"num_classes": _classes(source) or 0}
    channels, height, width = given.get("input_size", (3, *MODELS[name].config.image_size))
    overrides |= {"in_channels": channels, "image_size": (height, width)}
    arguments = dict(c.get("model_args", {}))
    if "img_size" in arguments:
        overrides["image_size"] = sides(arguments["img_size"])
    config = model_config(name, **overrides)
    labels = given.get("label_names") or c.get("label_names")
    preprocess, why = None, ""
    if "mean" in given or "crop_pct" in given:
        read = {"input_size": (channels, height, width), **given}
        preprocess, why = _or_why(lambda: read_timm(read, getattr(config, "patch_size", 1)), source.name)
    return Description(config, name, list(labels) if labels else None, preprocess, unprepared=why)


def _of_google(source: Source) -> ViTConfig:
    """The shape of a plain ViT or a hybrid read off its .npz; square images, as all of them are."""
    t = source.tensors
    patch, _, channels, dim = t["embedding/kernel"].shape
    block = "Transformer/encoderblock_0/"
    class_token = "cls" in t
    shape: dict[str, Any] = {
        "dim": dim,
        "depth": _count(r"Transformer/encoderblock_(\d+)/", t) + 1,
        "num_heads": t[f"{block}MultiHeadDotProductAttention_1/query/kernel"].shape[1],
        "mlp_ratio": t[f"{block}MlpBlock_3/Dense_0/kernel"].shape[1] / dim,
        "representation_dim": len(t["pre_logits/bias"]) if "pre_logits/bias" in t else 0,
        "class_token": class_token,
        "pooling": "cls" if class_token else "mean",
        "num_classes": len(t["head/bias"]) if "head/bias" in t else 0,
        "position_resize": "jax",
    }
    stages: tuple[int, ...] = ()
    if "conv_root/kernel" in t:
        channels = t["conv_root/kernel"].shape[2]
        stages = tuple(_count(rf"block{s + 1}/unit(\d+)/", t) for s in range(_count(r"block(\d+)/", t)))
        patch *= HybridConfig(stages=stages, patch_size=32).stride
    side = math.isqrt(t["Transformer/posembed_input/pos_embedding"].shape[1] - class_token)
    shape |= {"image_size": (side * patch,) * 2, "patch_size": patch, "in_channels": channels}
    return HybridConfig(**shape, stages=stages) if "conv_root/kernel" in t else ViTConfig(**shape)


def _count(pattern: str, names: Iterable[str]) -> int:
    """The largest number that `pattern` finds in the names, 0 if none."""
    return max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=0)

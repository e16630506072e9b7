"""The config.json of Hugging Face's Transformers as our architectures.

https://github.com/huggingface/transformers; `to_transformers.py` is the way back, `processors.py` has the preprocessing.
"""

from collections.abc import Callable
from typing import Any

from vitral.errors import VitralError
from vitral.models.beit import BeitConfig
from vitral.models.common import ModelConfig
from vitral.models.deit import DeiTConfig
from vitral.models.dino import DinoConfig
from vitral.models.mae import MAEConfig
from vitral.models.pvt import PvtConfig, PvtV2Config
from vitral.models.resnet import ResNetConfig
from vitral.models.swin import SwinConfig
from vitral.models.swinv2 import SwinV2Config
from vitral.models.vit import ViTConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
PROBLEM_TYPES = {"multilabel": "multi_label_classification"}  # by task; without one a class an image is meant


def read_config(c: dict[str, Any], keys: set[str], name: str) -> ModelConfig:
    """The architecture of a config.json, without classes.

    keys: names of the tensors beside it, which tell what it leaves out. name: of the source, for a VitralError where no such model can be built.
    """
    if c["model_type"] not in READERS:
        raise VitralError(
            f"{name}: a {c['model_type']!r} of Transformers; those that can be built are {', '.join(READERS)}"
        )
    try:
        return READERS[c["model_type"]](c, keys)
    except VitralError as error:
        raise VitralError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VitralError(f"{name}: its config.json lacks or garbles {error}; download it again") from error


def sides(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _plain(c: dict[str, Any]) -> dict[str, Any]:
    """The fields that the plain encoders of Transformers share."""
    return {
        "image_size": sides(c["image_size"]),
        "patch_size": sides(c["patch_size"])[0],
        "in_channels": c.get("num_channels", 3),
        "dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "norm_eps": c.get("layer_norm_eps", 1e-12),
        "position_resize": "hf",
    }


def _ratio(c: dict[str, Any]) -> dict[str, Any]:
    return {"mlp_ratio": c["intermediate_size"] / c["hidden_size"]}


def _vit(c: dict[str, Any], keys: set[str]) -> ViTConfig:
    return ViTConfig(**_plain(c), **_ratio(c), qkv_bias=c.get("qkv_bias", True), activation=_activation(c))


def _deit(c: dict[str, Any], keys: set[str]) -> DeiTConfig:
    _gelu_only(c)
    return DeiTConfig(**_plain(c), **_ratio(c), distilled=True, teacher_head="distillation_classifier.weight" in keys)


def _mae(c: dict[str, Any], keys: set[str]) -> ViTConfig:
    _gelu_only(c)
    shape = {**_plain(c), **_ratio(c)}
    if not any("decoder" in key for key in keys):
        return ViTConfig(**shape)
    return MAEConfig(
        **shape,
        decoder_dim=c["decoder_hidden_size"],
        decoder_depth=c["decoder_num_hidden_layers"],
        decoder_num_heads=c["decoder_num_attention_heads"],
        decoder_mlp_ratio=c["decoder_intermediate_size"] / c["decoder_hidden_size"],
        mask_ratio=c.get("mask_ratio", 0.75),
        norm_pixels=c.get("norm_pix_loss", False),
    )


def _beit(c: dict[str, Any], keys: set[str]) -> BeitConfig:
    _gelu_only(c)
    relative = (
        "shared"
        if c.get("use_shared_relative_position_bias")
        else "layer"
        if c.get("use_relative_position_bias")
        else "none"
    )
    return BeitConfig(
        **_plain(c),
        **_ratio(c),
        relative=relative,
        absolute=c.get("use_absolute_position_embeddings", False),
        layer_scale=c.get("layer_scale_init_value", 0.1) or None,
        pooling="mean" if c.get("use_mean_pooling", True) else "cls",
    )


def _dinov2(c: dict[str, Any], keys: set[str]) -> DinoConfig:
    _gelu_only(c)
    hidden = round(c["hidden_size"] * c.get("mlp_ratio", 4))
    swiglu = c.get("use_swiglu_ffn", False)
    if swiglu:  # two thirds of the MLP's width, rounded up to a multiple of 8
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    return DinoConfig(
        **{**_plain(c), "norm_eps": c.get("layer_norm_eps", 1e-6)},
        hidden=hidden,
        swiglu=swiglu,
        num_registers=c.get("num_register_tokens", 4) if c["model_type"] == "dinov2_with_registers" else 0,
        qkv_bias=c.get("qkv_bias", True),
        layer_scale=c.get("layerscale_value", 1.0),
        pooling="cls_mean" if "classifier.weight" in keys else "cls",
    )


def _dinov3(c: dict[str, Any], keys: set[str]) -> DinoConfig:
    gated = c.get("use_gated_mlp", False)
    if not gated:
        _gelu_only(c)
    elif c.get("hidden_act", "gelu") != "silu":
        raise VitralError(
            f"a gated MLP with hidden_act {c.get('hidden_act', 'gelu')!r}: only silu, as in DINOv3, can be built"
        )
    return DinoConfig(
        **{**_plain(c), "norm_eps": c.get("layer_norm_eps", 1e-5)},
        hidden=c["intermediate_size"],
        swiglu=gated,
        num_registers=c.get("num_register_tokens", 0),
        position="rotary",
        rotary_base=c.get("rope_theta", 100.0),
        qkv_bias=c.get("query_bias", True),
        key_bias=c.get("key_bias", False),
        layer_scale=c.get("layerscale_value", 1.0),
    )


def _swin(c: dict[str, Any], keys: set[str]) -> SwinConfig:
    _gelu_only(c)
    if c.get("use_absolute_embeddings"):
        raise VitralError(
            "a Swin with absolute position embeddings; no published one has them, and this cannot be built"
        )
    kind = SwinV2Config if c["model_type"] == "swinv2" else SwinConfig
    more: dict[str, Any] = (
        {"pretrained_windows": tuple(c.get("pretrained_window_sizes") or (0,) * len(c["depths"]))}
        if kind is SwinV2Config
        else {}
    )
    return kind(
        image_size=sides(c["image_size"]),
        patch_size=sides(c["patch_size"])[0],
        in_channels=c.get("num_channels", 3),
        dim=c["embed_dim"],
        depths=tuple(c["depths"]),
        num_heads=tuple(c["num_heads"]),
        window=sides(c["window_size"]),
        mlp_ratio=c.get("mlp_ratio", 4.0),
        qkv_bias=c.get("qkv_bias", True),
        norm_eps=c.get("layer_norm_eps", 1e-5),
        windowing="hf",
        **more,
    )


def _pvt(c: dict[str, Any], keys: set[str]) -> PvtConfig:
    _gelu_only(c)
    second = c["model_type"] == "pvt_v2"
    expected = ([7, 3, 3, 3], [4, 2, 2, 2]) if second else ([4, 2, 2, 2], [4, 2, 2, 2])
    if (list(c["patch_sizes"]), list(c["strides"])) != expected:
        raise VitralError(
            f"patch_sizes {c['patch_sizes']} with strides {c['strides']}: the published ones are {expected[0]} with {expected[1]}"
        )
    shape: dict[str, Any] = {
        "image_size": sides(c["image_size"]),
        "in_channels": c.get("num_channels", 3),
        "dims": tuple(c["hidden_sizes"]),
        "depths": tuple(c["depths"]),
        "num_heads": tuple(c["num_attention_heads"]),
        "mlp_ratios": tuple(c["mlp_ratios"]),
        "sr_ratios": tuple(c["sr_ratios" if second else "sequence_reduction_ratios"]),
        "qkv_bias": c.get("qkv_bias", True),
        "norm_eps": c.get("layer_norm_eps", 1e-6),
    }
    shape["conv_norm_eps"] = shape["norm_eps"]
    return PvtV2Config(**shape, linear=c.get("linear_attention", False)) if second else PvtConfig(**shape)


def _resnet(c: dict[str, Any], keys: set[str]) -> ResNetConfig:
    bottleneck = c.get("layer_type", "bottleneck") == "bottleneck"
    width = c["embedding_size"]
    sizes = [width * 2**i * (4 if bottleneck else 1) for i in range(4)]
    if (
        list(c["hidden_sizes"]) != sizes
        or c.get("downsample_in_first_stage")
        or c.get("downsample_in_bottleneck")
        or c.get("hidden_act", "relu") != "relu"
    ):
        raise VitralError(
            f"a ResNet with hidden_sizes {c['hidden_sizes']}: only the published shape can be built, here {sizes}"
        )
    return ResNetConfig(
        in_channels=c.get("num_channels", 3), depths=tuple(c["depths"]), bottleneck=bottleneck, width=width
    )


READERS: dict[str, Callable[[dict[str, Any], set[str]], ModelConfig]] = {
    "vit": _vit,
    "deit": _deit,
    "vit_mae": _mae,
    "beit": _beit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "dinov3_vit": _dinov3,
    "swin": _swin,
    "swinv2": _swin,
    "pvt": _pvt,
    "pvt_v2": _pvt,
    "resnet": _resnet,
}


def _activation(c: dict[str, Any]) -> str:
    name = c.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise VitralError(f"hidden_act {name!r}: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _gelu_only(c: dict[str, Any]) -> None:
    if _activation(c) != "gelu":
        raise VitralError(f"hidden_act {c['hidden_act']!r} in a {c['model_type']}: only gelu can be built")

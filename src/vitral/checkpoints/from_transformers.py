"""The config.json of Hugging Face's Transformers as our architectures.

https://github.com/huggingface/transformers; `to_transformers.py` is the way back by the same tables, `processors.py` has the preprocessing.
"""

from collections.abc import Callable
from typing import Any

from vitral.errors import VitralError
from vitral.models.beit import BeitConfig
from vitral.models.common import ModelConfig
from vitral.models.deit import DeiTConfig
from vitral.models.dino import DinoConfig
from vitral.models.eomt import EomtConfig
from vitral.models.heads.options import HeadOptions, SegformerOptions
from vitral.models.mae import MAEConfig
from vitral.models.pvt import PvtConfig, PvtV2Config
from vitral.models.resnet import ResNetConfig
from vitral.models.swin import SwinConfig
from vitral.models.swinv2 import SwinV2Config
from vitral.models.vit import ViTConfig
from vitral.models.yolos import YolosConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
PROBLEM_TYPES = {"multilabel": "multi_label_classification"}  # by task; without one a class an image is meant

Fields = tuple[tuple[Any, ...], ...]
"""(our field, their key, their default); without a default the key must be there. config.json leaves out what is a class's default."""

CHANNELS: Fields = (("in_channels", "num_channels", 3),)
PLAIN: Fields = (
    *CHANNELS,
    ("dim", "hidden_size"),
    ("depth", "num_hidden_layers"),
    ("num_heads", "num_attention_heads"),
    ("norm_eps", "layer_norm_eps", 1e-12),
)
MAE: Fields = (
    ("decoder_dim", "decoder_hidden_size"),
    ("decoder_depth", "decoder_num_hidden_layers"),
    ("decoder_num_heads", "decoder_num_attention_heads"),
    ("mask_ratio", "mask_ratio", 0.75),
    ("norm_pixels", "norm_pix_loss", False),
)
DINO2: Fields = (
    ("norm_eps", "layer_norm_eps", 1e-6),
    ("swiglu", "use_swiglu_ffn", False),
    ("qkv_bias", "qkv_bias", True),
    ("layer_scale", "layerscale_value", 1.0),
)
DINO3: Fields = (
    ("norm_eps", "layer_norm_eps", 1e-5),
    ("hidden", "intermediate_size"),
    ("swiglu", "use_gated_mlp", False),
    ("num_registers", "num_register_tokens", 0),
    ("rotary_base", "rope_theta", 100.0),
    ("qkv_bias", "query_bias", True),
    ("key_bias", "key_bias", False),
    ("layer_scale", "layerscale_value", 1.0),
)
SWIN: Fields = (
    *CHANNELS,
    ("dim", "embed_dim"),
    ("depths", "depths"),
    ("num_heads", "num_heads"),
    ("mlp_ratio", "mlp_ratio", 4.0),
    ("qkv_bias", "qkv_bias", True),
    ("norm_eps", "layer_norm_eps", 1e-5),
)
PVT: Fields = (
    *CHANNELS,
    ("dims", "hidden_sizes"),
    ("depths", "depths"),
    ("num_heads", "num_attention_heads"),
    ("mlp_ratios", "mlp_ratios"),
    ("qkv_bias", "qkv_bias", True),
    ("norm_eps", "layer_norm_eps", 1e-6),
)
PVT1: Fields = (("sr_ratios", "sequence_reduction_ratios"),)
PVT2: Fields = (("sr_ratios", "sr_ratios"), ("linear", "linear_attention", False))
YOLOS: Fields = (
    ("qkv_bias", "qkv_bias", True),
    ("num_detections", "num_detection_tokens", 100),
    ("middle_positions", "use_mid_position_embeddings", True),
)
NO_CLASS = "N/A"  # what COCO's models call ids that no class has
SEGFORMER: Fields = (
    *CHANNELS,
    ("dims", "hidden_sizes"),
    ("depths", "depths"),
    ("num_heads", "num_attention_heads"),
    ("mlp_ratios", "mlp_ratios"),
    ("sr_ratios", "sr_ratios"),
)
SEGFORMER_EPS = 1e-5
EOMT: Fields = (
    ("norm_eps", "layer_norm_eps", 1e-6),
    ("swiglu", "use_swiglu_ffn", False),
    ("layer_scale", "layerscale_value", 1.0),
    ("num_registers", "num_register_tokens", 4),
    ("num_queries", "num_queries", 200),
    ("joint", "num_blocks", 4),
    ("doublings", "num_upscale_blocks", 2),
)
RESNET: Fields = (*CHANNELS, ("depths", "depths"), ("width", "embedding_size"))


def read_config(c: dict[str, Any], keys: set[str], name: str) -> ModelConfig:
    """The architecture of a config.json; of families that classify images without classes.

    keys: names of the tensors beside it, which tell what it leaves out. name: of the source, for a VitralError where no such model can be built.
    """
    if c["model_type"] not in READERS:
        raise VitralError(f"{name}: model_type {c['model_type']!r}: known are {', '.join(READERS)}")
    try:
        return READERS[c["model_type"]](c, keys)
    except VitralError as error:
        raise VitralError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VitralError(f"{name}: its config.json lacks or garbles {error}; download it again") from error


def sides(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _read(c: dict[str, Any], *fields: tuple[Any, ...]) -> dict[str, Any]:
    """Our fields; of two rows for one field the later counts."""
    return {ours: c.get(theirs, *default) if default else c[theirs] for ours, theirs, *default in fields}


def _image(c: dict[str, Any]) -> dict[str, Any]:
    return {"image_size": sides(c["image_size"]), "patch_size": sides(c["patch_size"])[0]}


def _plain(c: dict[str, Any], *fields: tuple[Any, ...]) -> dict[str, Any]:
    """The fields that the plain encoders of Transformers share, and `fields`."""
    return {**_image(c), **_read(c, *PLAIN, *fields), "position_resize": "hf"}


def _wide(c: dict[str, Any], *fields: tuple[Any, ...]) -> dict[str, Any]:
    """`_plain` with the MLP's width."""
    return {**_plain(c, *fields), "mlp_ratio": c["intermediate_size"] / c["hidden_size"]}


def _vit(c: dict[str, Any], keys: set[str]) -> ViTConfig:
    return ViTConfig(**_wide(c, ("qkv_bias", "qkv_bias", True)), activation=_activation(c))


def _deit(c: dict[str, Any], keys: set[str]) -> DeiTConfig:
    _gelu_only(c)
    return DeiTConfig(**_wide(c), distilled=True, teacher_head="distillation_classifier.weight" in keys)


def _mae(c: dict[str, Any], keys: set[str]) -> ViTConfig:
    _gelu_only(c)
    if not any("decoder" in key for key in keys):
        return ViTConfig(**_wide(c))
    return MAEConfig(**_wide(c, *MAE), decoder_mlp_ratio=c["decoder_intermediate_size"] / c["decoder_hidden_size"])


def _beit(c: dict[str, Any], keys: set[str]) -> BeitConfig:
    _gelu_only(c)
    if any(key.startswith("decode_head.") for key in keys):
        raise VitralError("a BEiT with UPerNet's head cannot be built; of models with maps SegFormer and EoMT can")
    own = "layer" if c.get("use_relative_position_bias") else "none"
    return BeitConfig(
        **_wide(c, ("absolute", "use_absolute_position_embeddings", False)),
        relative="shared" if c.get("use_shared_relative_position_bias") else own,
        layer_scale=c.get("layer_scale_init_value", 0.1) or None,
        pooling="mean" if c.get("use_mean_pooling", True) else "cls",
    )


def _dinov2(c: dict[str, Any], keys: set[str]) -> DinoConfig:
    _gelu_only(c)
    hidden = _hidden(c)
    registers = c.get("num_register_tokens", 4) if c["model_type"] == "dinov2_with_registers" else 0
    pooling = "cls_mean" if "classifier.weight" in keys else "cls"
    return DinoConfig(**_plain(c, *DINO2), hidden=hidden, num_registers=registers, pooling=pooling)


def _hidden(c: dict[str, Any]) -> int:
    """The MLP's width; with SwiGLU two thirds of it, rounded up to a multiple of 8."""
    hidden = round(c["hidden_size"] * c.get("mlp_ratio", 4))
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if c.get("use_swiglu_ffn", False) else hidden


def _eomt(c: dict[str, Any], keys: set[str]) -> EomtConfig:
    _gelu_only(c)
    return EomtConfig(**_plain(c, *EOMT), hidden=_hidden(c), num_classes=len(c["id2label"]))


def _dinov3(c: dict[str, Any], keys: set[str]) -> DinoConfig:
    activation = c.get("hidden_act", "gelu")
    if not c.get("use_gated_mlp", False):
        _gelu_only(c)
    elif activation != "silu":
        raise VitralError(f"a gated MLP with hidden_act {activation!r}: only silu, as in DINOv3, can be built")
    return DinoConfig(**_plain(c, *DINO3), position="rotary")


def _swin(c: dict[str, Any], keys: set[str]) -> SwinConfig:
    _gelu_only(c)
    if c.get("use_absolute_embeddings"):
        raise VitralError("a Swin with absolute position embeddings, which no published one has, cannot be built")
    shape = {**_image(c), **_read(c, *SWIN), "window": sides(c["window_size"]), "windowing": "hf"}
    if c["model_type"] == "swin":
        return SwinConfig(**shape)
    return SwinV2Config(**shape, pretrained_windows=c.get("pretrained_window_sizes") or (0,) * len(c["depths"]))


def _pvt(c: dict[str, Any], keys: set[str]) -> PvtConfig:
    _gelu_only(c)
    second = c["model_type"] == "pvt_v2"
    _overlaps(c, [7, 3, 3, 3] if second else [4, 2, 2, 2], [4, 2, 2, 2])
    shape = {"image_size": sides(c["image_size"]), **_read(c, *PVT, *(PVT2 if second else PVT1))}
    return (PvtV2Config if second else PvtConfig)(**shape, conv_norm_eps=shape["norm_eps"])


def _resnet(c: dict[str, Any], keys: set[str]) -> ResNetConfig:
    config = ResNetConfig(**_read(c, *RESNET), bottleneck=c.get("layer_type", "bottleneck") == "bottleneck")
    other = (
        c.get("downsample_in_first_stage") or c.get("downsample_in_bottleneck") or c.get("hidden_act", "relu") != "relu"
    )
    if other or list(c["hidden_sizes"]) != resnet_widths(config):
        raise VitralError(
            f"a ResNet with hidden_sizes {c['hidden_sizes']}: known are {resnet_widths(config)}, as published"
        )
    return config


def _segformer(c: dict[str, Any], keys: set[str]) -> PvtV2Config:
    _gelu_only(c)
    _overlaps(c, [7, 3, 3, 3], [4, 2, 2, 2])
    size = sides(c.get("image_size", 512))
    return PvtV2Config(image_size=size, **_read(c, *SEGFORMER), norm_eps=SEGFORMER_EPS, conv_norm_eps=SEGFORMER_EPS)


def _overlaps(c: dict[str, Any], *expected: list[int]) -> None:
    """Refuse patches and strides other than those that can be built."""
    if (list(c["patch_sizes"]), list(c["strides"])) != expected:
        raise VitralError(
            f"patch_sizes {c['patch_sizes']}, strides {c['strides']}: known are {expected[0]}, {expected[1]}"
        )


def read_head(c: dict[str, Any], keys: set[str]) -> HeadOptions | None:
    """The head of a model for a dense task; None where the architecture's own answers."""
    if c["model_type"] != "segformer" or not any(key.startswith("decode_head.") for key in keys):
        return None
    dropout = c.get("classifier_dropout_prob", 0.1)
    return SegformerOptions(c["decoder_hidden_size"], head_dropout=dropout, batch_norm=True)


def _yolos(c: dict[str, Any], keys: set[str]) -> YolosConfig:
    _gelu_only(c)
    names = {int(k): name for k, name in c["id2label"].items()}
    gaps = tuple(sorted(k for k, name in names.items() if name == NO_CLASS))
    return YolosConfig(**_wide(c, *YOLOS), gaps=gaps, num_classes=len(names) - len(gaps))


def resnet_widths(config: ResNetConfig) -> list[int]:
    """Channels of the four stages' maps."""
    return [config.width * 2**i * (4 if config.bottleneck else 1) for i in range(4)]


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
    "segformer": _segformer,
    "eomt": _eomt,
    "yolos": _yolos,
}


def _activation(c: dict[str, Any]) -> str:
    name = c.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise VitralError(f"hidden_act {name!r}: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _gelu_only(c: dict[str, Any]) -> None:
    if _activation(c) != "gelu":
        raise VitralError(f"hidden_act {c['hidden_act']!r} in a {c['model_type']}: only gelu can be built")

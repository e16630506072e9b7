"""Our architectures and preprocessing as the config.json and preprocessor_config.json of Hugging Face's Transformers.

https://github.com/huggingface/transformers; `from_transformers.py` is the way back.
"""

from typing import Any

from vitral.checkpoints import from_transformers
from vitral.checkpoints.processors import write_processor
from vitral.data.preprocess import Preprocess
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

ACTIVATIONS = {ours: theirs for theirs, ours in from_transformers.ACTIVATIONS.items()}  # of two names the newer
PROBLEM_TYPES = from_transformers.PROBLEM_TYPES


def transformers_files(
    config: ModelConfig, labels: list[str] | None, steps: Preprocess | None, task: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files by their names: config.json, and preprocessor_config.json where the steps are known; and what that does otherwise."""
    named = labels or [f"LABEL_{i}" for i in range(config.num_classes)]
    content = {
        **transformers_config(config),
        "num_labels": config.num_classes,
        "id2label": dict(enumerate(named)),
        "label2id": {label: i for i, label in enumerate(named)},
        **({"problem_type": PROBLEM_TYPES[task]} if task in PROBLEM_TYPES else {}),
    }
    files: dict[str, dict[str, Any]] = {"config.json": content}
    unlike: list[str] = []
    if steps is not None:
        files["preprocessor_config.json"], unlike = write_processor(steps)
    return files, unlike


def transformers_config(config: ModelConfig) -> dict[str, Any]:
    """Transformers' config.json for a model of a family that it has."""
    writer = next((write for kind, write in WRITERS if type(config) is kind), None)
    if writer is None:
        raise VitralError(
            f"{type(config).__name__.removesuffix('Config')}: Transformers has no such family; write timm's layout instead"
        )
    return writer(config)


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _plain(c: Any, kind: str, model: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "architectures": [model],
        "image_size": _side(c.image_size),
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "layer_norm_eps": c.norm_eps,
        "hidden_act": "gelu",
    }


def _wide(c: Any) -> dict[str, Any]:
    return {"intermediate_size": round(c.dim * c.mlp_ratio)}


def _vit(c: ViTConfig) -> dict[str, Any]:
    default = ViTConfig()
    for name in (
        "position",
        "pooling",
        "class_token",
        "fc_norm",
        "num_registers",
        "representation_dim",
        "pre_norm",
        "stem",
        "layer_scale",
    ):
        if getattr(c, name) != getattr(default, name):
            raise VitralError(
                f"{name}={getattr(c, name)!r}: Transformers' ViT has no such model, so this one stays in its own file, which predicts the same "
                "anywhere; to export, train a model by its name, such as --model vit_tiny_patch16_224"
            )
    kind = "ViTForImageClassification" if c.num_classes else "ViTModel"
    return {**_plain(c, "vit", kind), **_wide(c), "qkv_bias": c.qkv_bias, "hidden_act": ACTIVATIONS[c.activation]}


def _deit(c: DeiTConfig) -> dict[str, Any]:
    if c.layer_scale is not None or not c.class_position:
        raise VitralError("a DeiT III: Transformers has no such model; write timm's layout instead")
    if not c.distilled:
        return {**_plain(c, "vit", "ViTForImageClassification"), **_wide(c)}
    return {**_plain(c, "deit", f"DeiTForImageClassification{'WithTeacher' if c.teacher_head else ''}"), **_wide(c)}


def _mae(c: MAEConfig) -> dict[str, Any]:
    return {
        **_plain(c, "vit_mae", "ViTMAEForPreTraining"),
        **_wide(c),
        "decoder_hidden_size": c.decoder_dim,
        "decoder_num_hidden_layers": c.decoder_depth,
        "decoder_num_attention_heads": c.decoder_num_heads,
        "decoder_intermediate_size": round(c.decoder_dim * c.decoder_mlp_ratio),
        "mask_ratio": c.mask_ratio,
        "norm_pix_loss": c.norm_pixels,
    }


def _beit(c: BeitConfig) -> dict[str, Any]:
    return {
        **_plain(c, "beit", "BeitForImageClassification"),
        **_wide(c),
        "use_relative_position_bias": c.relative == "layer",
        "use_shared_relative_position_bias": c.relative == "shared",
        "use_absolute_position_embeddings": c.absolute,
        "use_mask_token": False,
        "use_mean_pooling": c.pooling == "mean",
        "layer_scale_init_value": c.layer_scale or 0.0,
    }


def _dino(c: DinoConfig) -> dict[str, Any]:
    if c.position == "rotary":
        return {
            **_plain(c, "dinov3_vit", "DINOv3ViTModel"),
            "intermediate_size": c.hidden,
            "use_gated_mlp": c.swiglu,
            "hidden_act": "silu" if c.swiglu else "gelu",
            "num_register_tokens": c.num_registers,
            "rope_theta": c.rotary_base,
            "query_bias": c.qkv_bias,
            "key_bias": c.key_bias and c.qkv_bias,
            "value_bias": c.qkv_bias,
            "layerscale_value": c.layer_scale,
        }
    if not c.class_position:
        raise VitralError(
            "positions without a row for the class token: Transformers' DINOv2 has one; write timm's layout instead"
        )
    if c.num_classes and c.pooling != "cls_mean":
        raise VitralError(
            f"pooling={c.pooling!r}: Transformers' DINOv2 classifier reads class token and mean (cls_mean)"
        )
    kind = "dinov2_with_registers" if c.num_registers else "dinov2"
    model = "Dinov2WithRegisters" if c.num_registers else "Dinov2"
    ratio = c.hidden / c.dim * (1.5 if c.swiglu else 1)
    return {
        **_plain(c, kind, f"{model}{'ForImageClassification' if c.num_classes else 'Model'}"),
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "use_swiglu_ffn": c.swiglu,
        "qkv_bias": c.qkv_bias,
        "layerscale_value": c.layer_scale,
        **({"num_register_tokens": c.num_registers} if c.num_registers else {}),
    }


def _swin(c: SwinConfig) -> dict[str, Any]:
    second = isinstance(c, SwinV2Config)
    if c.window[0] != c.window[1]:
        raise VitralError(f"window={c.window}: Transformers' windows are square")
    return {
        "model_type": "swinv2" if second else "swin",
        "architectures": [f"Swin{'v2' if second else ''}ForImageClassification"],
        "image_size": _side(c.image_size),
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        "embed_dim": c.dim,
        "depths": list(c.depths),
        "num_heads": list(c.num_heads),
        "window_size": c.window[0],
        "mlp_ratio": c.mlp_ratio,
        "qkv_bias": c.qkv_bias,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        **({"pretrained_window_sizes": list(c.pretrained_windows)} if isinstance(c, SwinV2Config) else {}),
    }


def _pvt(c: PvtConfig) -> dict[str, Any]:
    second = isinstance(c, PvtV2Config)
    return {
        "model_type": "pvt_v2" if second else "pvt",
        "architectures": [f"Pvt{'V2' if second else ''}ForImageClassification"],
        "image_size": _side(c.image_size),
        "num_channels": c.in_channels,
        "num_encoder_blocks": len(c.depths),
        "hidden_sizes": list(c.dims),
        "depths": list(c.depths),
        "num_attention_heads": list(c.num_heads),
        "mlp_ratios": list(c.mlp_ratios),
        ("sr_ratios" if second else "sequence_reduction_ratios"): list(c.sr_ratios),
        "patch_sizes": [7, 3, 3, 3] if second else [4, 2, 2, 2],
        "strides": [4, 2, 2, 2],
        "qkv_bias": c.qkv_bias,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        **({"linear_attention": c.linear} if isinstance(c, PvtV2Config) else {}),
    }


def _resnet(c: ResNetConfig) -> dict[str, Any]:
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "num_channels": c.in_channels,
        "embedding_size": c.width,
        "hidden_sizes": [c.width * 2**i * (4 if c.bottleneck else 1) for i in range(4)],
        "depths": list(c.depths),
        "layer_type": "bottleneck" if c.bottleneck else "basic",
        "hidden_act": "relu",
    }


WRITERS: tuple[tuple[type[ModelConfig], Any], ...] = (
    (ViTConfig, _vit),
    (DeiTConfig, _deit),
    (MAEConfig, _mae),
    (BeitConfig, _beit),
    (DinoConfig, _dino),
    (SwinConfig, _swin),
    (SwinV2Config, _swin),
    (PvtConfig, _pvt),
    (PvtV2Config, _pvt),
    (ResNetConfig, _resnet),
)

"""Our architectures and preprocessing as the config.json and preprocessor_config.json of Hugging Face's Transformers.

https://github.com/huggingface/transformers; `from_transformers.py` is the way back and has the tables of fields.
"""

from typing import Any

from vitral.checkpoints import from_transformers as tables
from vitral.checkpoints.processors import write_processor
from vitral.data.preprocess import Preprocess
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

ACTIVATIONS = {ours: theirs for theirs, ours in tables.ACTIVATIONS.items()}  # of two names the newer
ONLY_OURS = (
    "position", "pooling", "class_token", "fc_norm", "num_registers", "representation_dim", "pre_norm", "stem", "layer_scale",
    "beside",
)  # fmt: skip
"""Fields of a ViT that Transformers' has at one value only, the default."""


def transformers_files(
    config: ModelConfig, labels: list[str] | None, steps: Preprocess | None, task: str, head: HeadOptions | None = None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files by name: config.json, and preprocessor_config.json where the steps are known; and in words what the latter does otherwise."""
    named = labels or [f"LABEL_{i}" for i in range(config.num_classes)]
    for gap in config.gaps if isinstance(config, YolosConfig) else ():  # in ascending order
        named = [*named[:gap], tables.NO_CLASS, *named[gap:]]
    content = {
        **transformers_config(config, head),
        "num_labels": len(named),
        "id2label": dict(enumerate(named)),
        "label2id": {label: i for i, label in enumerate(named)},
    }
    if task in tables.PROBLEM_TYPES:
        content["problem_type"] = tables.PROBLEM_TYPES[task]
    files: dict[str, dict[str, Any]] = {"config.json": content}
    unlike: list[str] = []
    if steps is not None:
        files["preprocessor_config.json"], unlike = write_processor(steps)
    return files, unlike


def transformers_config(config: ModelConfig, head: HeadOptions | None = None) -> dict[str, Any]:
    """Transformers' config.json for a model of a family that it has, with this head for a dense task."""
    if head is not None:
        return _segformer(config, head)
    if (writer := WRITERS.get(type(config))) is None:
        family = type(config).__name__.removesuffix("Config")
        raise VitralError(f"{family}: Transformers has no such family; write timm's layout instead")
    return writer(config)


def _base(c: Any, kind: str, model: str, fields: tables.Fields, activation: str = "gelu") -> dict[str, Any]:
    """What every config.json holds; `model`: the class that reads it."""
    written = {theirs: _whole(v) if isinstance(v := getattr(c, ours), tuple) else v for ours, theirs, *_ in fields}
    return {"model_type": kind, "architectures": [model], **written, "hidden_act": activation}


def _whole(values: tuple[Any, ...]) -> list[Any]:
    """The values, floats that are whole numbers as such: version 5 refuses others for the widths of MLPs."""
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]


def _image(c: Any) -> dict[str, Any]:
    h, w = c.image_size
    return {"image_size": h if h == w else [h, w]}


def _plain(
    c: Any, kind: str, model: str, fields: tables.Fields = (), *, activation: str = "gelu", wide: bool = True
) -> dict[str, Any]:
    """Of a plain encoder. wide: with the MLP's width."""
    width = {"intermediate_size": round(c.dim * c.mlp_ratio)} if wide else {}
    base = _base(c, kind, model, (*tables.PLAIN, *fields), activation)
    return {**base, **_image(c), "patch_size": c.patch_size, **width}


def _vit(c: ViTConfig) -> dict[str, Any]:
    default = ViTConfig()
    for name in ONLY_OURS:
        if getattr(c, name) != getattr(default, name):
            raise VitralError(
                f"{name}={getattr(c, name)!r}: Transformers' ViT has no such model, so this one stays in its own file, which predicts the same "
                "anywhere; to export, train a model by its name, such as --model vit_tiny_patch16_224"
            )
    kind = "ViTForImageClassification" if c.num_classes else "ViTModel"
    return {**_plain(c, "vit", kind, activation=ACTIVATIONS[c.activation]), "qkv_bias": c.qkv_bias}


def _deit(c: DeiTConfig) -> dict[str, Any]:
    if c.layer_scale is not None or not c.class_position:
        raise VitralError("a DeiT III: Transformers has no such model; write timm's layout instead")
    if not c.distilled:
        return _plain(c, "vit", "ViTForImageClassification")
    return _plain(c, "deit", f"DeiTForImageClassification{'WithTeacher' if c.teacher_head else ''}")


def _mae(c: MAEConfig) -> dict[str, Any]:
    width = round(c.decoder_dim * c.decoder_mlp_ratio)
    return {**_plain(c, "vit_mae", "ViTMAEForPreTraining", tables.MAE), "decoder_intermediate_size": width}


def _beit(c: BeitConfig) -> dict[str, Any]:
    return {
        **_plain(c, "beit", "BeitForImageClassification"),
        "use_relative_position_bias": c.relative == "layer",
        "use_shared_relative_position_bias": c.relative == "shared",
        "use_absolute_position_embeddings": c.absolute,
        "use_mask_token": False,
        "use_mean_pooling": c.pooling == "mean",
        "layer_scale_init_value": c.layer_scale or 0.0,
    }


def _dino(c: DinoConfig) -> dict[str, Any]:
    if c.position == "rotary":
        activation = "silu" if c.swiglu else "gelu"
        plain = _plain(c, "dinov3_vit", "DINOv3ViTModel", tables.DINO3, activation=activation, wide=False)
        return {**plain, "key_bias": c.key_bias and c.qkv_bias, "value_bias": c.qkv_bias}
    if not c.class_position:
        raise VitralError(
            "positions without a row for the class token: not in Transformers; write timm's layout instead"
        )
    if c.num_classes and c.pooling != "cls_mean":
        raise VitralError(f"pooling={c.pooling!r}: Transformers' DINOv2 classifiers have cls_mean only")
    kind, model = ("dinov2_with_registers", "Dinov2WithRegisters") if c.num_registers else ("dinov2", "Dinov2")
    ratio = c.hidden / c.dim * (1.5 if c.swiglu else 1)
    model += "ForImageClassification" if c.num_classes else "Model"
    return {
        **_plain(c, kind, model, tables.DINO2, wide=False),
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        **({"num_register_tokens": c.num_registers} if c.num_registers else {}),
    }


def _eomt(c: EomtConfig) -> dict[str, Any]:
    if c.image_size[0] != c.image_size[1]:
        raise VitralError(
            f"image_size={c.image_size}: Transformers' EoMT is for square images; write our own file instead"
        )
    ratio = c.hidden / c.dim * (1.5 if c.swiglu else 1)
    plain = _plain(c, "eomt", "EomtForUniversalSegmentation", tables.EOMT, wide=False)
    return {**plain, "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio}


def _swin(c: SwinConfig) -> dict[str, Any]:
    if c.window[0] != c.window[1]:
        raise VitralError(f"window={c.window}: Transformers' windows are square")
    version = "v2" if isinstance(c, SwinV2Config) else ""
    base = _base(c, f"swin{version}", f"Swin{version}ForImageClassification", tables.SWIN)
    content = {**base, **_image(c), "patch_size": c.patch_size, "window_size": c.window[0]}
    return (
        {**content, "pretrained_window_sizes": list(c.pretrained_windows)} if isinstance(c, SwinV2Config) else content
    )


def _pvt(c: PvtConfig) -> dict[str, Any]:
    second = isinstance(c, PvtV2Config)
    fields = (*tables.PVT, *(tables.PVT2 if second else tables.PVT1))
    return {
        **_base(c, "pvt_v2" if second else "pvt", f"Pvt{'V2' if second else ''}ForImageClassification", fields),
        **_image(c),
        "num_encoder_blocks": len(c.depths),
        "patch_sizes": [7, 3, 3, 3] if second else [4, 2, 2, 2],
        "strides": [4, 2, 2, 2],
    }


def _segformer(c: ModelConfig, head: HeadOptions) -> dict[str, Any]:
    if not (isinstance(c, PvtV2Config) and isinstance(head, SegformerOptions)):
        raise VitralError(
            f"a {head.name} head on a {type(c).__name__.removesuffix('Config')}: Transformers has no such model"
        )
    like = {"batch_norm": head.batch_norm, "linear": not c.linear, "qkv_bias": c.qkv_bias}
    like["head_upscale"] = head.head_upscale == 1
    like |= {name: getattr(c, name) == tables.SEGFORMER_EPS for name in ("norm_eps", "conv_norm_eps")}
    if unlike := [name for name, same in like.items() if not same]:
        raise VitralError(
            f"{', '.join(unlike)}: differs from SegFormer's in Transformers; keep this model in its own file"
        )
    return {
        **_base(c, "segformer", "SegformerForSemanticSegmentation", tables.SEGFORMER),
        **_image(c),
        "num_encoder_blocks": len(c.depths),
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
        "layer_norm_eps": c.norm_eps,
        "decoder_hidden_size": head.head_dim,
        "classifier_dropout_prob": head.head_dropout,
    }


def _yolos(c: YolosConfig) -> dict[str, Any]:
    return _plain(c, "yolos", "YolosForObjectDetection", tables.YOLOS)


def _resnet(c: ResNetConfig) -> dict[str, Any]:
    return {
        **_base(c, "resnet", "ResNetForImageClassification", tables.RESNET, "relu"),
        "hidden_sizes": tables.resnet_widths(c),
        "layer_type": "bottleneck" if c.bottleneck else "basic",
    }


WRITERS: dict[type[ModelConfig], Any] = {
    ViTConfig: _vit,
    DeiTConfig: _deit,
    MAEConfig: _mae,
    BeitConfig: _beit,
    DinoConfig: _dino,
    SwinConfig: _swin,
    SwinV2Config: _swin,
    PvtConfig: _pvt,
    PvtV2Config: _pvt,
    ResNetConfig: _resnet,
    YolosConfig: _yolos,
    EomtConfig: _eomt,
}

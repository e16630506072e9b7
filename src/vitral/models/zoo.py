"""The only table of model names: each name is timm's where timm has one, each row a size from its paper."""

import difflib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from vitral.errors import VitralError
from vitral.models.beit import Beit, BeitConfig
from vitral.models.cait import CaiT, CaiTConfig
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.deit import DeiT, DeiTConfig
from vitral.models.dino import Dino, DinoConfig
from vitral.models.eomt import Eomt, EomtConfig
from vitral.models.hybrid import HybridConfig, HybridTransformer
from vitral.models.mae import MAEConfig, MaskedAutoencoder
from vitral.models.pvt import PvtConfig, PvtV2Config, PyramidVisionTransformer, PyramidVisionTransformerV2
from vitral.models.resnet import ResNet, ResNetConfig
from vitral.models.swin import SwinConfig, SwinTransformer
from vitral.models.swinv2 import SwinTransformerV2, SwinV2Config
from vitral.models.tokenizer import Tokenizer, TokenizerConfig
from vitral.models.vit import VisionTransformer, ViTConfig
from vitral.models.yolos import Yolos, YolosConfig
from vitral.typed import fitted

FAMILIES: dict[str, tuple[type[ModelConfig], type[ImageModel]]] = {
    "vit": (ViTConfig, VisionTransformer),
    "hybrid": (HybridConfig, HybridTransformer),
    "deit": (DeiTConfig, DeiT),
    "cait": (CaiTConfig, CaiT),
    "beit": (BeitConfig, Beit),
    "mae": (MAEConfig, MaskedAutoencoder),
    "dino": (DinoConfig, Dino),
    "swin": (SwinConfig, SwinTransformer),
    "swinv2": (SwinV2Config, SwinTransformerV2),
    "pvt": (PvtConfig, PyramidVisionTransformer),
    "pvt_v2": (PvtV2Config, PyramidVisionTransformerV2),
    "resnet": (ResNetConfig, ResNet),
    "yolos": (YolosConfig, Yolos),
    "eomt": (EomtConfig, Eomt),
    "tokenizer": (TokenizerConfig, Tokenizer),  # ours, of no published size: a family without rows
}

VIT, AUGREG, SCALING = "arXiv:2010.11929", "arXiv:2106.10270", "arXiv:2106.04560"
DEIT, DEIT3, CAIT = "arXiv:2012.12877", "arXiv:2204.07118", "arXiv:2103.17239"
BEIT, BEIT2, MAE = "arXiv:2106.08254", "arXiv:2208.06366", "arXiv:2111.06377"
DINO2, REGISTERS, DINO3 = "arXiv:2304.07193", "arXiv:2309.16588", "arXiv:2508.10104"
SWIN, SWIN2, PVT, PVT2 = "arXiv:2103.14030", "arXiv:2111.09883", "arXiv:2102.12122", "arXiv:2106.13797"
RESNET = "arXiv:1512.03385"


@dataclass(frozen=True)
class Entry:
    """A row of the zoo."""

    family: str
    config: ModelConfig
    paper: str
    top1: str = ""
    """ImageNet-1k top-1 in % as the paper or its repository reports it; the weights' pre-training in brackets."""


# width, layers, heads, MLP width / width. Ti, S: AugReg; B, L, H: the ViT paper, table 1; g, G: Scaling Vision Transformers, table 2.
VIT_SIZES = {
    "tiny": (192, 12, 3, 4.0),
    "small": (384, 12, 6, 4.0),
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "huge": (1280, 32, 16, 4.0),
    "giant": (1408, 40, 16, 48 / 11),
    "gigantic": (1664, 48, 16, 64 / 13),
}
VIT_PATCHES = {8: (224, 384), 14: (224, 378, 518), 16: (224, 384), 32: (224, 384)}  # patch: resolutions
VIT_TOP1 = {
    "vit_tiny_patch16_384": "78.2 (I21k, AugReg)",
    "vit_small_patch16_384": "83.8 (I21k, AugReg)",
    "vit_small_patch32_384": "80.5 (I21k, AugReg)",
    "vit_base_patch16_384": "77.9 (I1k), 84.0 (I21k), 84.2 (JFT)",
    "vit_base_patch32_384": "73.4 (I1k), 81.3 (I21k), 80.7 (JFT)",
    "vit_large_patch16_384": "76.5 (I1k), 85.2 (I21k), 87.1 (JFT)",
    "vit_large_patch32_384": "71.2 (I1k), 81.0 (I21k), 84.4 (JFT)",
    "vit_huge_patch14_518": "88.6 (JFT)",
    "vit_gigantic_patch14_518": "90.5 (JFT-3B)",
}
# name: stages of the ResNet stem, width, layers, heads, patch in pixels, top-1 at 384
HYBRIDS = {
    "vit_tiny_r_s16_p8": ((), 192, 12, 3, 32, "75.4 (I21k, AugReg)"),
    "vit_small_r26_s32": ((2, 2, 2, 2), 384, 12, 6, 32, "83.9 (I21k, AugReg)"),
    "vit_base_r26_s32": ((2, 2, 2, 2), 768, 12, 12, 32, ""),
    "vit_base_r50_s16": ((3, 4, 9), 768, 12, 12, 16, "85.1 (I21k), 85.6 (JFT)"),
    "vit_large_r50_s32": ((3, 4, 6, 3), 1024, 24, 16, 32, "86.0 (I21k, AugReg)"),
}
DEIT_TOP1 = {"tiny": ("72.2", "74.5"), "small": ("79.9", "81.2"), "base": ("81.8", "83.4")}  # plain, distilled
DEIT3_SIZES = VIT_SIZES | {"medium": (512, 12, 8, 4.0)}
DEIT3_TOP1 = {
    ("small", 224): "81.4, 83.1 (I21k)",
    ("small", 384): "83.4, 84.8 (I21k)",
    ("medium", 224): "83.0, 84.5 (I21k)",
    ("base", 224): "83.8, 85.7 (I21k)",
    ("base", 384): "85.0, 86.7 (I21k)",
    ("large", 224): "84.9, 87.0 (I21k)",
    ("large", 384): "85.8, 87.7 (I21k)",
    ("huge", 224): "85.2, 87.2 (I21k)",
}
# CaiT, table 3. name: width, layers, heads, layer scale, drop path, {resolution: top-1}
CAITS = {
    "xxs24": (192, 24, 4, 1e-5, {224: "77.6, 78.4 (distilled)", 384: "80.9"}),
    "xxs36": (192, 36, 4, 1e-6, {224: "79.1, 79.7 (distilled)", 384: "82.2"}),
    "xs24": (288, 24, 6, 1e-5, {384: "84.1"}),
    "s24": (384, 24, 8, 1e-5, {224: "83.5", 384: "85.1"}),
    "s36": (384, 36, 8, 1e-6, {384: "85.4"}),
    "m36": (768, 36, 16, 1e-6, {384: "86.1"}),
    "m48": (768, 48, 16, 1e-6, {448: "86.5"}),
}
BEIT_TOP1 = {
    ("beit", "base", 224): "83.2, 85.2 (I22k)",
    ("beit", "base", 384): "84.6, 86.8 (I22k)",
    ("beit", "large", 224): "85.2, 87.4 (I22k)",
    ("beit", "large", 384): "86.3, 88.4 (I22k)",
    ("beit", "large", 512): "88.6 (I22k)",
    ("beitv2", "base", 224): "85.5, 86.5 (I21k)",
    ("beitv2", "large", 224): "87.3, 88.4 (I21k)",
}
# width, layers, heads, hidden, SwiGLU. DINOv2: table 17 of its paper; DINOv3: table 2.
DINO2_SIZES = {
    "small": (384, 12, 6, 1536, False),
    "base": (768, 12, 12, 3072, False),
    "large": (1024, 24, 16, 4096, False),
    "giant": (1536, 40, 24, 4096, True),
}
DINO2_TOP1 = {"small": "81.1 (linear)", "base": "84.5 (linear)", "large": "86.3 (linear)", "giant": "86.5 (linear)"}
DINO3_SIZES = {
    "small": (384, 12, 6, 1536, False),
    "small_plus": (384, 12, 6, 1536, True),
    "base": (768, 12, 12, 3072, False),
    "large": (1024, 24, 16, 4096, False),
    "huge_plus": (1280, 32, 20, 5120, True),
    "7b": (4096, 40, 32, 8192, True),
}
# name: width of the first stage, blocks, heads of the first stage
SWINS = {
    "tiny": (96, (2, 2, 6, 2), 3),
    "small": (96, (2, 2, 18, 2), 3),
    "base": (128, (2, 2, 18, 2), 4),
    "large": (192, (2, 2, 18, 2), 6),
}
SWIN_VARIANTS = {
    ("tiny", 7, 224): "81.2",
    ("small", 7, 224): "83.2",
    ("base", 7, 224): "83.5, 85.2 (I22k)",
    ("base", 12, 384): "84.5, 86.4 (I22k)",
    ("large", 7, 224): "86.3 (I22k)",
    ("large", 12, 384): "87.3 (I22k)",
}
SWIN2_VARIANTS = {
    ("tiny", 8): "81.8",
    ("tiny", 16): "82.8",
    ("small", 8): "83.7",
    ("small", 16): "84.1",
    ("base", 8): "84.2",
    ("base", 16): "84.6",
}
# Pre-trained with window 12 at 192 px on ImageNet-22k, fine-tuned with a larger one: size, window, resolution
SWIN2_LARGER = {
    ("base", 16, 256): "86.2 (I22k)",
    ("base", 24, 384): "87.1 (I22k)",
    ("large", 16, 256): "86.9 (I22k)",
    ("large", 24, 384): "87.6 (I22k)",
}
PVTS = {
    "tiny": ((2, 2, 2, 2), "75.1"),
    "small": ((3, 4, 6, 3), "79.8"),
    "medium": ((3, 4, 18, 3), "81.2"),
    "large": ((3, 8, 27, 3), "81.7"),
}
# name: widths, blocks, MLP ratios, linear, top-1
PVT2S = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), (8, 8, 4, 4), False, "70.5"),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), (8, 8, 4, 4), False, "78.7"),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), (8, 8, 4, 4), False, "82.0"),
    "b2_li": ((64, 128, 320, 512), (3, 4, 6, 3), (8, 8, 4, 4), True, "82.1"),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4), False, "83.1"),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3), (8, 8, 4, 4), False, "83.6"),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3), (4, 4, 4, 4), False, "83.8"),
}
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False, "69.8"),
    "resnet34": ((3, 4, 6, 3), False, "73.3"),
    "resnet50": ((3, 4, 6, 3), True, "76.1"),
    "resnet101": ((3, 4, 23, 3), True, "77.4"),
}


# family, or the newer half of one: its class in Transformers, and the licence of its best-known weights
PEERS = {
    "vit": ("ViTForImageClassification", "Apache-2.0 (Google)"),
    "hybrid": ("", "Apache-2.0 (Google)"),
    "deit": ("DeiTForImageClassification", "Apache-2.0 (Meta)"),
    "deit3": ("", "Apache-2.0 (Meta)"),
    "cait": ("", "Apache-2.0 (Meta)"),
    "beit": ("BeitForImageClassification", "MIT (Microsoft); timm lists Apache-2.0"),
    "mae": ("ViTMAEForPreTraining", "CC-BY-NC 4.0 (Meta)"),
    "dino": ("Dinov2Model", "Apache-2.0 (Meta)"),
    "dinov3": ("DINOv3ViTModel", "DINOv3 License (Meta)"),
    "swin": ("SwinForImageClassification", "MIT (Microsoft)"),
    "swinv2": ("Swinv2ForImageClassification", "MIT (Microsoft)"),
    "pvt": ("PvtForImageClassification", "Apache-2.0 (the authors)"),
    "pvt_v2": ("PvtV2ForImageClassification", "Apache-2.0 (the authors)"),
    "resnet": ("ResNetForImageClassification", "BSD-3-Clause (torchvision), Apache-2.0 (timm)"),
}


def peers(name: str) -> dict[str, str]:
    """What timm and Transformers call a row of the zoo ("" where they have none), and the licence of its best-known weights."""
    family = MODELS[name].family
    transformers, weights = PEERS.get(next((newer for newer in ("deit3", "dinov3") if newer in name), family), ("", ""))
    return {
        "timm": "" if family in ("mae", "pvt") or not weights else name,
        "Transformers": transformers,
        "weights": weights,
    }


def _encoder(resolution: int, dim: int, depth: int, heads: int, **more: Any) -> dict[str, Any]:
    """Arguments of a plain encoder's dataclass."""
    return {"image_size": (resolution, resolution), "dim": dim, "depth": depth, "num_heads": heads, **more}


def _vits() -> Iterator[tuple[str, Entry]]:
    for size, (dim, depth, heads, ratio) in VIT_SIZES.items():
        paper = AUGREG if size in ("tiny", "small") else SCALING if size.startswith("gi") else VIT
        for patch, resolutions in VIT_PATCHES.items():
            for resolution in resolutions:
                name = f"vit_{size}_patch{patch}_{resolution}"
                config = ViTConfig(**_encoder(resolution, dim, depth, heads, mlp_ratio=ratio, patch_size=patch))
                yield name, Entry("vit", config, paper, VIT_TOP1.get(name, ""))
    for name, (stages, dim, depth, heads, patch, top1) in HYBRIDS.items():
        paper = VIT if "r50_s16" in name else AUGREG
        for resolution, reported in ((224, ""), (384, top1)):
            config = HybridConfig(**_encoder(resolution, dim, depth, heads, patch_size=patch, stages=stages))
            yield f"{name}_{resolution}", Entry("hybrid", config, paper, reported)


def _deits() -> Iterator[tuple[str, Entry]]:
    for size, (plain, distilled) in DEIT_TOP1.items():
        for resolution in (224, 384) if size == "base" else (224,):
            shape = _encoder(resolution, *VIT_SIZES[size][:3])
            top1 = (plain, distilled) if resolution == 224 else ("82.9", "85.2")
            yield f"deit_{size}_patch16_{resolution}", Entry("deit", DeiTConfig(**shape), DEIT, top1[0])
            config = DeiTConfig(**shape, distilled=True)
            yield f"deit_{size}_distilled_patch16_{resolution}", Entry("deit", config, DEIT, top1[1])
    for (size, resolution), accuracy in DEIT3_TOP1.items():
        patch = 14 if size == "huge" else 16
        shape = _encoder(resolution, *DEIT3_SIZES[size][:3], patch_size=patch)
        config = DeiTConfig(**shape, layer_scale=1e-6, class_position=False)
        yield f"deit3_{size}_patch{patch}_{resolution}", Entry("deit", config, DEIT3, accuracy)


def _caits() -> Iterator[tuple[str, Entry]]:
    for name, (dim, depth, heads, scale, resolutions) in CAITS.items():
        for resolution, top1 in resolutions.items():
            config = CaiTConfig(**_encoder(resolution, dim, depth, heads, layer_scale=scale))
            yield f"cait_{name}_{resolution}", Entry("cait", config, CAIT, top1)


def _masked() -> Iterator[tuple[str, Entry]]:
    for (version, size, resolution), top1 in BEIT_TOP1.items():
        scale = 0.1 if size == "base" else 1e-5
        config = BeitConfig(**_encoder(resolution, *VIT_SIZES[size][:3], layer_scale=scale))
        paper = BEIT if version == "beit" else BEIT2
        yield f"{version}_{size}_patch16_{resolution}", Entry("beit", config, paper, top1)
    for size, patch, top1 in (("base", 16, "83.6"), ("large", 16, "85.9"), ("huge", 14, "86.9")):
        mae = MAEConfig(**_encoder(224, *VIT_SIZES[size][:3], patch_size=patch))
        yield f"mae_vit_{size}_patch{patch}", Entry("mae", mae, MAE, f"{top1} (fine-tuned)")


def _dinos() -> Iterator[tuple[str, Entry]]:
    for size, (dim, depth, heads, hidden, swiglu) in DINO2_SIZES.items():
        shape = _encoder(518, dim, depth, heads, hidden=hidden, swiglu=swiglu)
        yield f"vit_{size}_patch14_dinov2", Entry("dino", DinoConfig(**shape), DINO2, DINO2_TOP1[size])
        config = DinoConfig(**shape, num_registers=4, class_position=False)
        yield f"vit_{size}_patch14_reg4_dinov2", Entry("dino", config, REGISTERS)
    rotary: dict[str, Any] = {"patch_size": 16, "num_registers": 4, "position": "rotary", "norm_eps": 1e-5}
    for size, (dim, depth, heads, hidden, swiglu) in DINO3_SIZES.items():
        shape = _encoder(256, dim, depth, heads, hidden=hidden, swiglu=swiglu, **rotary)
        for suffix, bias in (("", False), ("_qkvb", True)):
            config = DinoConfig(**shape, qkv_bias=bias, key_bias=False)
            yield f"vit_{size}_patch16_dinov3{suffix}", Entry("dino", config, DINO3)


def _swins() -> Iterator[tuple[str, Entry]]:
    def shape(size: str, resolution: int, window: int) -> dict[str, Any]:
        dim, depths, heads = SWINS[size]
        stages = {"dim": dim, "depths": depths, "num_heads": tuple(heads * 2**i for i in range(4))}
        return {"image_size": (resolution, resolution), "window": window, **stages}

    for (size, window, resolution), top1 in SWIN_VARIANTS.items():
        config = SwinConfig(**shape(size, resolution, window))
        yield f"swin_{size}_patch4_window{window}_{resolution}", Entry("swin", config, SWIN, top1)
    for (size, window), top1 in SWIN2_VARIANTS.items():
        config2 = SwinV2Config(**shape(size, 256, window))
        yield f"swinv2_{size}_window{window}_256", Entry("swinv2", config2, SWIN2, top1)
    for (size, window, resolution), top1 in SWIN2_LARGER.items():
        config2 = SwinV2Config(**shape(size, resolution, window), pretrained_windows=(12, 12, 12, 6))
        yield f"swinv2_{size}_window12to{window}_192to{resolution}", Entry("swinv2", config2, SWIN2, top1)


def _pyramids() -> Iterator[tuple[str, Entry]]:
    for size, (depths, top1) in PVTS.items():
        yield f"pvt_{size}", Entry("pvt", PvtConfig(depths=depths), PVT, top1)
    for name, (dims, depths, ratios, linear, top1) in PVT2S.items():
        config = PvtV2Config(dims=dims, depths=depths, mlp_ratios=ratios, linear=linear)
        yield f"pvt_v2_{name}", Entry("pvt_v2", config, PVT2, top1)
    for name, (depths, bottleneck, top1) in RESNETS.items():
        yield name, Entry("resnet", ResNetConfig(depths=depths, bottleneck=bottleneck), RESNET, top1)


MODELS: dict[str, Entry] = {
    name: entry for rows in (_vits, _deits, _caits, _masked, _dinos, _swins, _pyramids) for name, entry in rows()
}


def model_config(name: str, **arguments: object) -> ModelConfig:
    """The row `name`, or a family's default by its name alone, with any field of its dataclass replaced."""
    if name in MODELS:
        return replaced(MODELS[name].config, name, arguments)
    if name in FAMILIES:
        return replaced(FAMILIES[name][0](), name, arguments)
    if (row := name.split(".")[0]) in MODELS:
        raise VitralError(
            f"model {name!r}: {name.removeprefix(row + '.')!r} names weights of timm, which a model's name does not load; create {row!r}, "
            f"or with these weights 'hf:timm/{name}' (to train from them: --init hf:timm/{name})"
        )
    raise VitralError(f"model {name!r} is not known; nearest: {_nearest(name, [*MODELS, *FAMILIES])}")


def replaced(config: ModelConfig, name: str, arguments: Mapping[str, object]) -> ModelConfig:
    """The config with these of its fields replaced, each held against its type. name: what errors call the model.

    Raises VitralError for what is no field of this family's dataclass, or of another type.
    """
    hints = typing.get_type_hints(type(config))
    known = [f.name for f in fields(config)]
    for key in arguments:
        if key not in known:
            family = family_of(config)
            of = "" if name == family else f" (family {family})"
            raise VitralError(
                f"{name}{of} has no argument {key!r}; nearest: {_nearest(key, known)}; all: {', '.join(known)}"
            )
    return replace(config, **{k: fitted(v, hints[k], f"{name}: {k} = {v!r}") for k, v in arguments.items()})  # type: ignore[arg-type]


def argument_types() -> dict[str, object]:
    """Every argument that a recipe can give a model of some family, with its types; the data say how many channels and classes there are."""
    kinds = {type(entry.config.backbone) for entry in MODELS.values()}
    kinds |= {
        kind for kind, _ in FAMILIES.values() if kind.answers != "classify"
    }  # without rows, but training can start from their weights
    found: dict[str, object] = {}
    for kind in sorted(kinds, key=lambda each: each.__name__):
        hints = typing.get_type_hints(kind)
        for name in (f.name for f in fields(kind)):
            found[name] = typing.Union[found[name], hints[name]] if name in found else hints[name]  # noqa: UP007
    return {name: hint for name, hint in found.items() if name not in ("in_channels", "num_classes")}


def build(config: ModelConfig) -> ImageModel:
    """A freshly initialised model of the family that `config` belongs to."""
    return next(model for kind, model in FAMILIES.values() if kind is type(config))(config)


def is_pyramid(config: ModelConfig) -> bool:
    """Whether its maps shrink from stage to stage."""
    return FAMILIES[family_of(config)][1].pyramid


def family_of(config: ModelConfig) -> str:
    """The family's name, a key of FAMILIES."""
    return next(name for name, (kind, _) in FAMILIES.items() if kind is type(config))


def _nearest(word: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(word, known, n=3, cutoff=0.3)) or ", ".join(known[:5])

"""What the sources say, typed in from them: for each recipe the settings, whole, that its paper or its authors' code states.

Sections hold what differs from our own defaults; a section is compared as a whole, so that nothing else may differ either. `lr` is the peak rate
of the batch that is used. Exact parameter counts are timm's (https://github.com/huggingface/pytorch-image-models) for 1,000 classes, unless a
sum says more.
"""

from dataclasses import dataclass, field

IMAGENET, IMAGENET21K, CIFAR = 1_281_167, 14_197_122, 50_000  # training images


@dataclass(frozen=True)
class Published:
    batch: int
    """Images in a step."""
    model: dict[str, object]
    """Fields of the model's whole configuration."""
    optim: dict[str, object]
    """Options whole; the rate is that of the batch."""
    augment: dict[str, object]
    parameters: int | None = None
    objective: dict[str, object] = field(default_factory=dict)
    transfer: dict[str, object] = field(default_factory=dict)
    view: dict[str, object] = field(default_factory=dict)
    epochs: float | None = None
    steps: int | None = None
    images: int = IMAGENET
    val_fraction: float = 0.1
    classes: int = 1000


# Mean and deviation of ImageNet and bicubic resizing, as in timm, torchvision and all that is built on them; crops of 224 px from 256.
USUAL = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_fraction": 0.875,
    "interpolation": "bicubic",
}
WHOLE = USUAL | {"crop_fraction": 1.0}
# value_range(-1, 1), resize_small(256), central_crop(224): https://github.com/google-research/big_vision, configs/vit_i1k.py
GOOGLE = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_fraction": 0.875, "interpolation": "bilinear"}

# Crops of 8 to 100 % and flips, torchvision's and timm's defaults. area_range=(0.05, 1.0): vision_transformer, vit_jax/input_pipeline.py
FLIPPED = {"crop": "resized", "scale": (0.08, 1.0), "hflip": 0.5}
INCEPTION = {"crop": "resized", "scale": (0.05, 1.0), "hflip": 0.5}
# --aa rand-m9-mstd0.5-inc1, two operations; timm's create_transform then leaves colour jitter out
RAND9 = {"policy": "randaugment", "operations": 2, "magnitude": 9.0, "magnitude_std": 0.5, "increasing": True}
# --reprob 0.25 --remode pixel, --mixup 0.8 --cutmix 1.0 --mixup-switch-prob 0.5 --mixup-prob 1.0
ERASED = {"erase": 0.25, "erase_with": "noise"}
MIXED = {"mixup": 0.8, "cutmix": 1.0, "switch": 0.5, "mix_probability": 1.0}
# randaug(2, m) of big_vision: no deviation, the paper's order of strengths
TENSORFLOW = {
    "policy": "randaugment",
    "operations": 2,
    "magnitude_std": 0.0,
    "operation_probability": 1.0,
    "increasing": False,
}

ADAM = {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.999, "schedule": "cosine"}
# https://github.com/facebookresearch/deit, main.py: defaults; lr = 5e-4 * 1024 / 512, the other rates are not scaled
DEIT = ADAM | {
    "lr": 1e-3, "weight_decay": 0.05, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_epochs": 5.0, "clip": 0.0, "ema": 0.99996,
}  # fmt: skip
PLAIN = {"loss": "ce", "smoothing": 0.0}
SMOOTH = {"loss": "ce", "smoothing": 0.1}
B16 = {"image_size": (224, 224), "patch_size": 16, "dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0}
S16 = B16 | {"dim": 384, "num_heads": 6}
TI16 = B16 | {"dim": 192, "num_heads": 3}

# https://arxiv.org/abs/2010.11929, tables 3 (pre-training), 4 (fine-tuning), appendix B.1
VIT = {
    "vit-b16-in1k": Published(
        4096, B16 | {"representation_dim": 768, "dropout": 0.1, "drop_path": 0.0, "position": "learned", "pooling": "cls"},
        ADAM | {"lr": 3e-3, "weight_decay": 0.3, "warmup_steps": 10_000, "clip": 1.0},
        INCEPTION, parameters=86_567_656 + 768 * 769, objective=PLAIN, view=GOOGLE, epochs=300,
    ),
    "vit-b16-in21k": Published(
        4096, B16 | {"representation_dim": 768, "dropout": 0.1, "drop_path": 0.0, "position": "learned", "pooling": "cls"},
        ADAM | {"lr": 1e-3, "weight_decay": 0.03, "schedule": "linear", "warmup_steps": 10_000, "clip": 0.0},
        INCEPTION, parameters=86_567_656 + 768 * 769 + 20_843 * 769, objective=PLAIN, view=GOOGLE, epochs=90, images=IMAGENET21K,
        val_fraction=0.01, classes=21_843,
    ),
    # base_lr 0.03 and warmup_steps 500: https://github.com/google-research/vision_transformer, vit_jax/configs/common.py; it squashes test images
    "vit-finetune": Published(
        512, B16 | {"image_size": (384, 384), "representation_dim": 0, "dropout": 0.0, "drop_path": 0.0},
        {"optimizer": "sgd", "momentum": 0.9, "lr": 0.03, "weight_decay": 0.0, "schedule": "cosine", "warmup_steps": 500, "clip": 1.0},
        INCEPTION, parameters=86_859_496, objective=PLAIN, transfer={"zero_head": True},
        view=GOOGLE | {"resize": "squash", "crop_fraction": 1.0}, steps=20_000,
    ),
    # appendix B.1.2: half of the patches, Adam, 2e-4, 10,000 steps of warm-up, cosine, 4096 images, 100,000 steps
    "patch-b16-pretrain": Published(
        4096, B16 | {"dropout": 0.0, "drop_path": 0.0, "position": "learned"},
        ADAM | {"lr": 2e-4, "weight_decay": 0.0, "warmup_steps": 10_000, "clip": 0.0},
        INCEPTION, objective={"name": "patch", "mask_ratio": 0.5}, view=GOOGLE, steps=100_000,
    ),
}  # fmt: skip

# https://github.com/google-research/big_vision: configs/vit_i1k.py (RANDAUG_DEF, MIXUP_DEF, the levels by size), configs/vit_s16_i1k.py.
# wd 1e-4 is not multiplied by the rate of 1e-3 there (optax.py), which makes it AdamW's 0.1. rep_size=True: a tanh layer as wide as the tokens.
BIG_VISION = ADAM | {"lr": 1e-3, "weight_decay": 0.1, "warmup_steps": 10_000, "clip": 1.0}
SIGMOID = {"loss": "bce", "smoothing": 0.0, "head_bias": -6.9}
AUGREG = {
    "augreg-s16-in1k": Published(
        4096, S16 | {"representation_dim": 384, "dropout": 0.0, "drop_path": 0.0, "position": "learned", "pooling": "cls"}, BIG_VISION,
        INCEPTION | TENSORFLOW | {"magnitude": 15.0, "mixup": 0.5, "cutmix": 0.0},
        parameters=22_050_664 + 384 * 385, objective=SIGMOID, view=GOOGLE, epochs=300,
    ),
    "augreg-ti16-in1k": Published(
        4096, TI16 | {"representation_dim": 192, "dropout": 0.0, "drop_path": 0.0, "position": "learned", "pooling": "cls"}, BIG_VISION,
        INCEPTION | TENSORFLOW | {"magnitude": 0.0, "mixup": 0.0, "cutmix": 0.0},
        parameters=5_717_416 + 192 * 193, objective=SIGMOID, view=GOOGLE, epochs=300,
    ),
    "vit-s16-baseline": Published(
        1024,
        S16 | {
            "representation_dim": 384, "dropout": 0.0, "drop_path": 0.0, "position": "sincos2d", "pooling": "mean", "class_token": False,
        },
        BIG_VISION, INCEPTION | TENSORFLOW | {"magnitude": 10.0, "mixup": 0.2, "cutmix": 0.0},
        parameters=22_050_664 - 384 - 197 * 384 + 384 * 385, objective=PLAIN, view=GOOGLE, epochs=90,
    ),
}  # fmt: skip

# https://github.com/facebookresearch/deit: README_deit.md and main.py; README_revenge.md, models_v2.py (init_values 1e-4, one rate for all blocks).
# CaiT: https://arxiv.org/abs/2103.17239, section 2.1, table 3, appendix A.1, README_cait.md (crop ratio 1.0)
DEIT_AUGMENT = FLIPPED | RAND9 | ERASED | MIXED | {"repeats": 3}
DEIT3 = {"layer_scale": 1e-4, "drop_path_uniform": True, "class_position": False}
TUNED = ADAM | {
    "lr": 1e-5, "weight_decay": 0.1, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_epochs": 5.0, "clip": 0.0, "ema": 0.0,
}  # fmt: skip
META = {
    "deit-small": Published(
        1024, S16 | {"drop_path": 0.1, "drop_path_uniform": False, "layer_scale": None, "distilled": False}, DEIT,
        DEIT_AUGMENT, parameters=22_050_664, objective=SMOOTH, view=USUAL, epochs=300,
    ),
    "deit-small-distilled": Published(
        1024, S16 | {"drop_path": 0.1, "drop_path_uniform": False, "layer_scale": None, "distilled": True}, DEIT,
        DEIT_AUGMENT, parameters=22_436_432,
        objective=SMOOTH | {"distillation": "hard", "distillation_weight": 0.5}, view=USUAL, epochs=300,
    ),
    # --batch 256 --lr 3e-3 --epochs 800 --input-size 192 --smoothing 0.0 --opt fusedlamb --drop-path 0.2 --unscale-lr --bce-loss --color-jitter 0.3
    "deit3-base": Published(
        2048, B16 | DEIT3 | {"image_size": (192, 192), "drop_path": 0.2},
        DEIT | {"optimizer": "lamb", "lr": 3e-3, "ema": 0.0},
        FLIPPED | MIXED | {"policy": "3augment", "jitter": 0.3, "repeats": 3},
        parameters=86_585_320 - (196 - 144) * 768, objective={"loss": "bce", "smoothing": 0.0, "binarise": True}, view=WHOLE, epochs=800,
    ),
    # --batch 64 --lr 1e-5 --epochs 20 --weight-decay 0.1 --reprob 0.0 --smoothing 0.1 --drop-path 0.2 --aa rand-m9-mstd0.5-inc1 --no-repeated-aug
    "deit3-base-224": Published(
        512, B16 | DEIT3 | {"drop_path": 0.2}, TUNED, FLIPPED | RAND9 | MIXED,
        parameters=86_585_320, objective=SMOOTH, view=WHOLE, epochs=20,
    ),
    # the same with --input-size 384 --drop-path 0.0
    "vit-finetune-adamw": Published(
        512, S16 | DEIT3 | {"image_size": (384, 384), "drop_path": 0.0, "drop_path_uniform": False}, TUNED, FLIPPED | RAND9 | MIXED,
        parameters=22_205_416, objective=SMOOTH, view=WHOLE, epochs=20,
    ),
    "cait-xxs24": Published(
        1024,
        TI16 | {"depth": 24, "num_heads": 4, "class_depth": 2, "layer_scale": 1e-5, "drop_path": 0.05},
        DEIT, DEIT_AUGMENT, parameters=11_956_264, objective=SMOOTH, view=WHOLE, epochs=400,
    ),
}  # fmt: skip

PYRAMIDS = {
    # https://github.com/microsoft/Swin-Transformer, config.py, configs/swin/swin_tiny_patch4_window7_224.yaml;
    # main.py scales the three rates by 1024 / 512
    "swin-tiny": Published(
        1024,
        {
            "image_size": (224, 224), "patch_size": 4, "dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window": (7, 7),
            "mlp_ratio": 4.0, "drop_path": 0.2,
        },
        ADAM | {"lr": 1e-3, "weight_decay": 0.05, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_epochs": 20.0, "clip": 5.0, "ema": 0.0},
        FLIPPED | RAND9 | ERASED | MIXED, parameters=28_288_354, objective=SMOOTH, view=USUAL, epochs=300,
    ),
    # https://github.com/whai362/PVT, classification/main.py, configs/pvt_v2/pvt_v2_b2.py; widths: https://arxiv.org/abs/2106.13797, table 1
    "pvt-v2-b2": Published(
        1024,
        {
            "image_size": (224, 224), "dims": (64, 128, 320, 512), "depths": (3, 4, 6, 3), "num_heads": (1, 2, 5, 8),
            "mlp_ratios": (8, 8, 4, 4), "sr_ratios": (8, 4, 2, 1), "linear": False, "drop_path": 0.1,
        },
        DEIT | {"ema": 0.0}, DEIT_AUGMENT, parameters=25_362_856, objective=SMOOTH, view=USUAL, epochs=300,
    ),
    # https://github.com/NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets: resnet50v1.5/README.md and configs.yml, resnet_params_2k
    "resnet50": Published(
        2048, {"image_size": (224, 224), "depths": (3, 4, 6, 3), "bottleneck": True, "width": 64},
        {
            "optimizer": "sgd", "momentum": 0.875, "lr": 2.048, "weight_decay": 1 / 32768, "schedule": "cosine", "warmup_epochs": 8.0,
            "clip": 0.0,
        },
        FLIPPED, parameters=25_557_032, objective=SMOOTH, view=USUAL | {"interpolation": "bilinear"}, epochs=90,
    ),
}  # fmt: skip

# https://github.com/microsoft/unilm/tree/master/beit: README.md, get_started_for_image_classification.md, the scripts' defaults; 75 of 196 patches
BEIT = B16 | {"layer_scale": 0.1, "drop_path": 0.1, "relative": "layer"}
# https://github.com/facebookresearch/mae: PRETRAIN.md, FINETUNE.md, the scripts' defaults; rates are stated for 256 images.
# https://github.com/facebookresearch/dino: main_dino.py's defaults, 8 x 64 images; views of 96 of 224 px
MASKED = {
    "beit-b16-pretrain": Published(
        2048, BEIT | {"relative": "shared"},
        ADAM | {"lr": 1.5e-3, "weight_decay": 0.05, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_epochs": 10.0, "clip": 3.0},
        FLIPPED | {"jitter": 0.4}, objective={"name": "beit", "mask_ratio": 0.383}, view=USUAL, epochs=800,
    ),
    "beit-b16-finetune": Published(
        1024, BEIT | {"pooling": "mean"},
        ADAM | {
            "lr": 4e-3, "weight_decay": 0.05, "min_lr": 1e-6, "warmup_lr": 1e-6, "warmup_epochs": 20.0, "layer_decay": 0.65, "clip": 0.0,
        },
        FLIPPED | RAND9 | ERASED | MIXED, parameters=86_530_984, objective=SMOOTH, view=USUAL, epochs=100,
    ),
    "mae-b16-pretrain": Published(
        4096, B16 | {"drop_path": 0.0, "dropout": 0.0},
        ADAM | {"beta2": 0.95, "lr": 2.4e-3, "weight_decay": 0.05, "warmup_epochs": 40.0, "clip": 0.0},
        FLIPPED | {"scale": (0.2, 1.0)},
        objective={
            "name": "mae", "mask_ratio": 0.75, "decoder_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16, "norm_pixels": True,
        },
        view=USUAL, epochs=1600,
    ),
    "mae-b16-finetune": Published(
        1024, B16 | {"drop_path": 0.1, "drop_path_uniform": False, "pooling": "mean", "fc_norm": True},
        ADAM | {"lr": 2e-3, "weight_decay": 0.05, "min_lr": 1e-6, "warmup_epochs": 5.0, "layer_decay": 0.65, "clip": 0.0},
        FLIPPED | RAND9 | ERASED | MIXED, parameters=86_567_656, objective=SMOOTH, view=USUAL, epochs=100,
    ),
    "mae-b16-linear": Published(
        16_384, B16 | {"drop_path": 0.0, "pooling": "cls", "fc_norm": False},
        {"optimizer": "lars", "momentum": 0.9, "lr": 6.4, "weight_decay": 0.0, "schedule": "cosine", "warmup_epochs": 10.0, "clip": 0.0},
        FLIPPED, parameters=86_567_656, objective=PLAIN,
        transfer={"freeze": "encoder", "head_norm": True, "zero_head": False}, view=USUAL, epochs=90,
    ),
    "dino-s16-pretrain": Published(
        512, S16 | {"drop_path": 0.1},
        ADAM | {
            "lr": 1e-3, "weight_decay": 0.04, "weight_decay_end": 0.4, "min_lr": 1e-6, "warmup_epochs": 10.0, "clip": 3.0,
        },
        FLIPPED | {"scale": (0.4, 1.0), "jitter": 0.4},
        objective={
            "name": "dino", "prototypes": 65_536, "local_crops": 8, "local_share": 0.4286, "local_scale": (0.05, 0.4),
            "teacher_momentum": 0.996, "teacher_temperature": 0.04,
        },
        view=USUAL, epochs=100,
    ),
}  # fmt: skip

SMALL = {
    # https://github.com/SHI-Labs/Compact-Transformers: configs/pretrained/cct_7-3x1_cifar10_300epochs.yml, src/vit.py (vit_7, stochastic_depth)
    "small-data": Published(
        128,
        {
            "image_size": (32, 32), "patch_size": 4, "dim": 256, "depth": 7, "num_heads": 4, "mlp_ratio": 2.0, "drop_path": 0.1,
            "position": "learned", "pooling": "cls",
        },
        ADAM | {
            "lr": 5.5e-4, "weight_decay": 0.06, "min_lr": 1e-5, "warmup_lr": 1e-5, "warmup_epochs": 10.0, "cooldown": 0.03226, "clip": 0.0,
        },
        FLIPPED | {"scale": (0.8, 1.0)} | RAND9 | MIXED, objective=SMOOTH,
        view={"crop_fraction": 1.0, "interpolation": "bicubic"}, epochs=310, images=CIFAR, classes=10,
    ),
}  # fmt: skip

PUBLISHED: dict[str, Published] = VIT | AUGREG | META | PYRAMIDS | MASKED | SMALL

# Our own, which were chosen and measured here: tests/test_docs.py and benchmarks/LOG.md hold what they promise.
OWN = (
    "digits",
    "elpv",
    "fashion-mnist",
    "fashion-mnist-stem",
    "scenes-instance",
    "scenes-pretrain",
    "scenes-semantic",
    "vit-t4",
)

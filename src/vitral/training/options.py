"""The sections of a recipe: typed dataclasses that need no torch.

`None` means "decide from the data": `training.defaults` fills it in and says why.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from vitral.errors import VitralError


@dataclass(frozen=True)
class ModelOptions:
    """The model, and whatever differs from its row in the zoo."""

    name: Annotated[str | None, tyro.conf.arg(name="model")] = None
    """Name in the zoo, see vitral models; default: that of the weights of --init, else vit_tiny_patch16_224."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels; default by the images' size."""
    patch_size: int | None = None
    dim: int | None = None
    """Width of the tokens."""
    depth: int | None = None
    """Number of encoder blocks."""
    num_heads: int | tuple[int, ...] | None = None
    """In a pyramid one number a stage."""
    mlp_ratio: float | None = None
    dims: tuple[int, ...] | None = None
    """Widths of a PVT's stages."""
    depths: tuple[int, ...] | None = None
    """Blocks in each stage of a Swin, PVT or ResNet."""
    mlp_ratios: tuple[float, ...] | None = None
    """MLP widths over the stages' own, in a PVT."""
    sr_ratios: tuple[int, ...] | None = None
    """Reductions of the keys' maps, in a PVT."""
    window: tuple[int, int] | None = None
    """Height and width of a Swin's windows in tokens."""
    stages: tuple[int, ...] | None = None
    """Blocks in each stage of a hybrid's ResNet."""
    width: int | None = None
    """Channels of a ResNet's stem."""
    stem: tuple[int, ...] | None = None
    """Widths of the 3x3 convolutions that replace a ViT's linear patches (https://arxiv.org/abs/2106.14881): stride 2 where the width changes."""
    position: str | None = None
    """learned, learned2d, sincos2d or none."""
    pooling: str | None = None
    """cls or mean."""
    class_token: bool | None = None
    num_registers: int | None = None
    fc_norm: bool | None = None
    """The final norm after pooling, as MAE fine-tunes."""
    representation_dim: int | None = None
    """Width of the tanh layer before the head; 0 for none."""
    dropout: float | None = None
    drop_path: float | None = None
    """Stochastic depth of the last block."""
    drop_path_uniform: bool | None = None
    """The same stochastic depth in every block (CaiT, DeiT III) instead of a linear rise from 0."""
    patch_drop: float | None = None
    """Share of the patches that a ViT does not see in training (https://arxiv.org/abs/2212.00794)."""
    layer_scale: float | None = None
    """Initial factor of the residual branches; 0 for none."""
    pre_norm: bool | None = None
    activation: str | None = None
    """gelu or relu."""
    # What a recipe file alone says, so that it holds the whole architecture of a model that came from elsewhere.
    position_resize: Annotated[str | None, tyro.conf.Suppress] = None
    norm_eps: Annotated[float | None, tyro.conf.Suppress] = None
    conv_norm_eps: Annotated[float | None, tyro.conf.Suppress] = None
    qkv_bias: Annotated[bool | None, tyro.conf.Suppress] = None
    key_bias: Annotated[bool | None, tyro.conf.Suppress] = None
    distilled: Annotated[bool | None, tyro.conf.Suppress] = None
    teacher_head: Annotated[bool | None, tyro.conf.Suppress] = None
    class_position: Annotated[bool | None, tyro.conf.Suppress] = None
    class_depth: Annotated[int | None, tyro.conf.Suppress] = None
    relative: Annotated[str | None, tyro.conf.Suppress] = None
    absolute: Annotated[bool | None, tyro.conf.Suppress] = None
    hidden: Annotated[int | None, tyro.conf.Suppress] = None
    swiglu: Annotated[bool | None, tyro.conf.Suppress] = None
    rotary_base: Annotated[float | None, tyro.conf.Suppress] = None
    windowing: Annotated[str | None, tyro.conf.Suppress] = None
    pretrained_windows: Annotated[tuple[int, ...] | None, tyro.conf.Suppress] = None
    linear: Annotated[bool | None, tyro.conf.Suppress] = None
    bottleneck: Annotated[bool | None, tyro.conf.Suppress] = None


@dataclass(frozen=True)
class ViewOptions:
    """How an image becomes the model's input in use."""

    resize: str = "crop"
    """crop (keep the aspect ratio, cut the centre out) or squash."""
    crop_fraction: float | None = None
    """Share of the image's side that the centre crop keeps; default 0.875 for photographs, 1 for small images."""
    interpolation: str = "bicubic"
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 0..1, that is subtracted; default: the training images' own."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel that is divided by; default: the training images' own."""


@dataclass(frozen=True)
class TransferOptions:
    """Whose weights training starts from, and what of them it may change."""

    init: str | None = None
    """A model file, a run, a folder or file of timm, Hugging Face or Google, or hf:org/name; its model is taken unless one is named."""
    freeze: str = "none"
    """none, encoder (only the head learns: a linear probe) or embed (patches and positions stay, as in MoCo v3)."""
    lora_rank: int = 0
    """Rank of the updates that LoRA (https://arxiv.org/abs/2106.09685) learns instead of the encoder's matrices; 0 for no LoRA."""
    lora_alpha: float = 16.0
    """LoRA's updates are multiplied by this over the rank."""
    zero_head: bool = True
    """The new head starts at zero (ViT, appendix B.1.1) instead of at random."""
    head_norm: bool = False
    """A batch norm without weights before the head, folded into it when saved: MAE's linear probe."""
    allow_pickle: bool = False
    """Read .pt and .pth files, which can run code when opened."""

    def __post_init__(self) -> None:
        if self.freeze not in ("none", "encoder", "embed"):
            raise VitralError(f"transfer.freeze {self.freeze!r}: choose one of none, encoder, embed")
        if self.lora_rank < 0 or not self.lora_alpha > 0:
            raise VitralError(
                f"transfer.lora_rank {self.lora_rank} and lora_alpha {self.lora_alpha}: give a rank of 0 (no LoRA) or more, and a factor "
                "above 0"
            )
        if self.lora_rank and self.freeze == "encoder":
            raise VitralError(
                "transfer.lora_rank: LoRA learns inside the encoder, which freeze = encoder forbids; leave out one of them"
            )


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is learned: classes, a teacher's answers, or the images themselves."""

    name: Annotated[str, tyro.conf.arg(name="objective")] = "classify"
    """classify; without labels: mae, beit, patch, dino or tokenizer (vitral pretrain)."""
    loss: str | None = None
    """ce (softmax cross-entropy) or bce (a yes or no for each class); default ce, and bce where an image can have several labels."""
    smoothing: float = 0.1
    """Label smoothing."""
    head_bias: float = 0.0
    """Where the head's biases start; with bce and many classes near -log(classes)."""
    binarise: bool = False
    """With bce: of a mixed image both classes count wholly, as in DeiT III, not each by its share."""
    class_weights: str = "none"
    """balanced (losses weighted by the inverse of a class's share) or none."""
    sampling: str = "uniform"
    """balanced (every class equally often) or uniform (every image once an epoch)."""
    teacher: str | None = None
    """Distillation (https://arxiv.org/abs/2012.12877): a model file, run or folder whose answers are learned beside the labels."""
    distillation: str = "hard"
    """hard (the teacher's class) or soft (its probabilities)."""
    distillation_weight: float = 0.5
    """Share of the loss that is the teacher's."""
    temperature: float = 3.0
    """Softening of both answers in soft distillation."""
    mask_ratio: float | None = None
    """Share of hidden patches; default 0.75 (mae), 0.5 (patch), 0.4 (beit), 0.3 (dino's masked patches)."""
    decoder_dim: int | None = None
    """Width of MAE's decoder; default the paper's 512 with 8 blocks and 16 heads, and less for encoders narrower than 384."""
    decoder_depth: int | None = None
    decoder_num_heads: int | None = None
    norm_pixels: bool = True
    """MAE paints patches less their mean over their deviation, not plain pixels."""
    tokenizer: str | None = None
    """Run of `vitral pretrain --objective tokenizer` whose codes BEiT predicts; default: one is trained first."""
    codes: int = 512
    """Size of the tokenizer's codebook."""
    code_dim: int = 32
    """Width of its codes."""
    prototypes: int = 1024
    """Outputs of DINO's head (65,536 in the paper, for ImageNet)."""
    local_crops: int = 4
    """DINO's small views beside its two large ones."""
    local_share: float = 0.5
    """Side of a small view over that of a large one."""
    local_scale: tuple[float, float] = (0.05, 0.4)
    """Smallest and largest share of the image's area in a small view; large ones follow `scale`."""
    teacher_momentum: float = 0.996
    """Where the momentum of DINO's teacher starts; it rises to 1."""
    teacher_temperature: float = 0.04
    patch_loss: float = 0.0
    """Weight of iBOT's loss on masked patches (https://arxiv.org/abs/2111.07832) beside DINO's."""


@dataclass(frozen=True)
class OptimOptions:
    """The optimiser and its schedule: warm-up, a decline, and perhaps a cool-down."""

    optimizer: str | None = None
    """adamw, sgd, lamb, lars, or muon for the encoder's matrices (orthogonalised momentum) with AdamW for the rest; default muon."""
    lr: float | None = None
    """Peak learning rate."""
    lr_per: int | None = None
    """Images in a batch that `lr` is stated for: the rate is scaled with the batch, `min_lr` and `warmup_lr` are not; default: no scaling."""
    weight_decay: float = 0.05
    """On weight matrices only; norms, biases, tokens and positions have none."""
    weight_decay_end: float | None = None
    """Where the weight decay ends, on a cosine from `weight_decay` (DINO); default: it stays."""
    momentum: float = 0.9
    """Of sgd and lars."""
    beta1: float = 0.9
    beta2: float = 0.999
    layer_decay: float = 1.0
    """Layer-wise decay: the rate of each layer over that of the next one (https://arxiv.org/abs/2106.08254); 1 for none."""
    schedule: str = "cosine"
    """cosine, linear, rsqrt (1 over the square root of what is spent over the warm-up) or constant, after the warm-up."""
    min_lr: float = 0.0
    """Where the schedule ends."""
    warmup_lr: float = 0.0
    """Where the warm-up starts."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; default: `warmup_fraction` of the budget."""
    warmup_epochs: float | None = None
    """The same in epochs."""
    warmup_fraction: float = 0.05
    cooldown: float = 0.0
    """Share of the budget at the end: rsqrt and constant fall to `min_lr` in it, cosine and linear are over and stay there."""
    clip: float = 1.0
    """Largest global gradient norm; 0 for no clipping."""
    ema: float = 0.0
    """Decay of the weights' moving average, which then is what is validated and saved; 0 for none."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("optimizer", self.optimizer, (None, "adamw", "sgd", "lamb", "lars", "muon")),
            ("schedule", self.schedule, ("cosine", "linear", "rsqrt", "constant")),
        ):
            if value not in allowed:
                raise VitralError(f"optim.{name} {value!r}: choose one of {', '.join(filter(None, allowed))}")
        for name, number in (("lr", self.lr), ("lr_per", self.lr_per)):
            if number is not None and not number > 0:
                raise VitralError(f"optim.{name} {number}: must be above 0")
        numbers = ("weight_decay", "weight_decay_end", "min_lr", "warmup_lr", "warmup_steps", "warmup_epochs", "clip")
        for name in numbers:
            if (getattr(self, name) or 0) < 0:
                raise VitralError(f"optim.{name} {getattr(self, name)}: must be 0 or more")
        for name in ("momentum", "beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise VitralError(f"optim.{name} {getattr(self, name)}: must be from 0 up to, not including, 1")
        for name in ("warmup_fraction", "cooldown"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitralError(f"optim.{name} {getattr(self, name)}: a share of the budget lies from 0 to 1")
        if not 0 < self.layer_decay <= 1:
            raise VitralError(f"optim.layer_decay {self.layer_decay}: must be above 0, up to 1 (none)")
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise VitralError("optim.warmup_steps and optim.warmup_epochs: a run has one warm-up; give one of them")
        given = next((w for w in (self.warmup_steps, self.warmup_epochs) if w is not None), self.warmup_fraction)
        if self.schedule == "rsqrt" and not given:
            raise VitralError("optim.schedule 'rsqrt': is measured by the warm-up; give one above 0")


@dataclass(frozen=True)
class TrainOptions:
    """How long, how much at once, and where."""

    epochs: float | None = None
    steps: int | None = None
    """Budget in optimiser steps."""
    time: str | None = None
    """Budget by the clock, such as 90s, 10m or 2h; the schedule then follows the clock."""
    batch_size: int | None = None
    """Images in one forward pass."""
    accumulation: int = 1
    """Forward passes to one optimiser step."""
    progressive: float = 1.0
    """Side of the images at the start over that at the end; it grows over the first three quarters of the budget. 1: the same throughout."""
    gradient_checkpointing: bool = False
    """Compute each block again in the backward pass instead of keeping its activations: less memory, a third more work."""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    workers: int | None = None
    """Loader processes; default by the data's kind."""
    seed: int = 0
    validate_every: int | None = None
    """Steps between validations; default: an epoch."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; default: at every validation."""
    keep: str = "best"
    """Which weights model.safetensors gets: best (on the validation split) or last."""
    score_split: str = "test"
    """Split that the finished model is scored on, once: test or val."""

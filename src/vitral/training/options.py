"""The sections of a recipe: typed dataclasses that need no torch.

`None` means "decide from the data": `training.defaults` fills it in and says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vitral.data.options import check_choices
from vitral.errors import VitralError


@dataclass(frozen=True, init=False)
class ModelOptions:
    """A model of the zoo, and those of its family's arguments that differ from its row: what `vitral.create_model` takes."""

    name: str | None
    arguments: Mapping[str, Any] = field(hash=False)

    def __init__(self, name: str | None = None, arguments: Mapping[str, Any] | None = None, **more: Any) -> None:
        """`more` goes over `arguments`. One that is None is as the row has it; whether the family knows the others shows when its shape is made."""
        said = {key: value for key, value in {**(arguments or {}), **more}.items() if value is not None}
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", said)

    def get(self, argument: str) -> Any:
        """What was said of an argument; None if nothing was."""
        return self.arguments.get(argument)

    def over(self, row: "ModelOptions") -> "ModelOptions":
        """These over another model's: name and arguments that are not said here are as there."""
        return ModelOptions(self.name or row.name, **{**row.arguments, **self.arguments})


@dataclass(frozen=True)
class ModelArguments:
    """The arguments of models that a command line offers, whichever families have them; default: as the model's name has it."""

    name: str | None = field(default=None, metadata={"flag": "model"})
    """Name that vitral models lists; default: that of --init, else a ViT by the images."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels, or one number for both; default: by the images' size."""
    patch_size: int | None = None
    """Pixels of a patch's side; default: of small images by their size, else as the model's name has it."""
    dim: int | None = None
    """Width of the tokens."""
    depth: int | None = None
    """Number of encoder blocks."""
    num_heads: int | tuple[int, ...] | None = None
    """Attention heads; in a pyramid one number a stage."""
    mlp_ratio: float | None = None
    """Width of an MLP's hidden layer over that of the tokens."""
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
    beside: Literal["none", "edges"] | None = None
    """What answers beside a ViT in use: edges (a linear classifier on edges and colours, fitted to the training images before the first step)
    or none; default: by how many images there are."""
    position: Literal["learned", "learned2d", "sincos2d", "none", "rotary"] | None = None
    """Position embeddings: learned, learned2d, sincos2d or none of a ViT, learned or rotary of a DINO."""
    pooling: Literal["cls", "mean", "cls_mean"] | None = None
    """What the head reads: cls (the class token), mean (the average patch), or of a DINO cls_mean (both)."""
    class_token: bool | None = None
    """A class token before the patches."""
    num_registers: int | None = None
    """Register tokens beside the patches (https://arxiv.org/abs/2309.16588)."""
    fc_norm: bool | None = None
    """The final norm after pooling, as MAE fine-tunes."""
    representation_dim: int | None = None
    """Width of the tanh layer before the head; 0 for none."""
    dropout: float | None = None
    """Share of the values that are set to 0 in training, in the MLPs and after the positions."""
    drop_path: float | None = None
    """Stochastic depth of the last block."""
    drop_path_uniform: bool | None = None
    """The same stochastic depth in every block (CaiT, DeiT III) instead of a linear rise from 0."""
    patch_drop: float | None = None
    """Share of the patches that a ViT does not see in training (https://arxiv.org/abs/2212.00794)."""
    layer_scale: float | None = None
    """Initial factor of the residual branches; 0 for none."""
    pre_norm: bool | None = None
    """Norms before attention and MLP, instead of after."""
    activation: Literal["gelu", "relu"] | None = None
    """Of the MLPs: gelu or relu."""


@dataclass(frozen=True)
class ViewOptions:
    """How an image becomes the model's input in use."""

    resize: Literal["crop", "squash", "pad"] | None = None
    """To the model's size: crop (keep the aspect ratio, cut the centre out), squash (give it up) or pad (the whole image, the mean colour around
    it); default: by the images' shapes."""
    crop_fraction: float | None = None
    """Share of the image's side that the centre crop keeps; default: 0.875 for photographs, 1 for small images."""
    interpolation: Literal["bicubic", "bilinear", "lanczos", "box", "hamming", "nearest"] = "bicubic"
    """Filter of the resizing: bicubic, bilinear, lanczos, box, hamming or nearest."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 0..1, that is subtracted; default: the training images' own."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel that is divided by; default: the training images' own."""


@dataclass(frozen=True)
class TransferOptions:
    """Whose weights training starts from, and what of them it may change."""

    init: str | None = None
    """Weights to start from: run, model file or hf:org/name. A folder or file of timm, Hugging Face or Google will do; its model is taken unless
    one is named; default: from scratch."""
    freeze: Literal["none", "encoder", "embed"] = "none"
    """What does not learn: none, encoder (only the head learns: a linear probe) or embed (patches and positions stay, as in MoCo v3)."""
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
        check_choices(self, "transfer.")
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
class OptimOptions:
    """The optimiser and its schedule: warm-up, a decline, and perhaps a cool-down."""

    optimizer: Literal["adamw", "sgd", "lamb", "lars", "muon"] | None = None
    """Optimiser: adamw, sgd, lamb, lars, or muon for the encoder's matrices (orthogonalised momentum) with AdamW for the rest; default: muon."""
    lr: float | None = None
    """Peak learning rate; default: by optimiser, width and batch."""
    lr_per: int | None = None
    """Images in a batch that --lr is stated for: the rate is scaled with the batch, --min-lr and --warmup-lr are not; default: no scaling."""
    weight_decay: float = 0.05
    """Weight decay, of weight matrices only: norms, biases, tokens and positions have none."""
    weight_decay_end: float | None = None
    """Where the weight decay ends, on a cosine from --weight-decay (DINO); default: it stays."""
    momentum: float = 0.9
    """Momentum of sgd and lars."""
    beta1: float = 0.9
    """Decay of the mean gradient, in adamw and lamb."""
    beta2: float = 0.999
    """Decay of the mean squared gradient, in adamw and lamb."""
    layer_decay: float = 1.0
    """Layer-wise decay: the rate of each layer over that of the next one (https://arxiv.org/abs/2106.08254); 1 for none."""
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine, linear, rsqrt (1 over the square root of what is spent over the warm-up) or constant."""
    min_lr: float = 0.0
    """Learning rate where the schedule ends."""
    warmup_lr: float = 0.0
    """Learning rate where the warm-up starts."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; default: --warmup-fraction of the budget."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; default: --warmup-fraction of the budget."""
    warmup_fraction: float = 0.05
    """Share of the budget that is warm-up."""
    cooldown: float = 0.0
    """Share of the budget at the end: rsqrt and constant fall to --min-lr in it, cosine and linear are over and stay there."""
    clip: float = 1.0
    """Largest global gradient norm; 0 for no clipping."""
    ema: float = 0.0
    """Decay of the weights' moving average, which then is what is validated and saved; 0 for none."""

    def __post_init__(self) -> None:
        check_choices(self, "optim.")
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
    """Budget in passes over the images; default: as many as pay, in half an hour at most."""
    steps: int | None = None
    """Budget in optimiser steps; default: as --epochs."""
    time: str | None = None
    """Budget by the clock, such as 90s, 10m or 2h. The schedule then follows the clock; default: as --epochs."""
    batch_size: int | None = None
    """Images in one forward pass; default: by how many images there are."""
    accumulation: int = 1
    """Forward passes to one optimiser step; more make a larger batch in the same memory."""
    progressive: float = 1.0
    """Side of the images at the start over that at the end; it grows over the first three quarters of the budget. 1: the same throughout."""
    gradient_checkpointing: bool = False
    """Compute each block again in the backward pass instead of keeping its activations: less memory, a third more work."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers to compute with: auto, fp32, bf16 or fp16."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or mps."""
    fsdp: Literal["auto", "no", "yes", "offload"] = "auto"
    """Whether each of several processes holds only a part of the model, its gradients and the optimiser's state: no, yes, offload (in main memory
    between steps) or auto (where the model would take over half of a process's memory)."""
    workers: int | None = None
    """Loader processes; default: by the data's kind."""
    seed: int = 0
    """Number that all chance follows from."""
    validate_every: int | None = None
    """Steps between validations; default: an epoch."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; default: at every validation."""
    keep: Literal["best", "last"] = "best"
    """Which weights model.safetensors gets: best (on the validation split) or last."""
    score_split: Literal["test", "val"] = "test"
    """Split that the finished model is scored on, once: test or val."""

    def __post_init__(self) -> None:
        check_choices(self, "train.")

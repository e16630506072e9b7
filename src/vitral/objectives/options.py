"""The table of objectives: the options of each, its views of an image, the model that it trains and the losses. A new one is a class and a row here.

A recipe's section [objective] holds a name of `OBJECTIVES` and fields of that class; the command line has a flag for each field. The module is free
of torch, so that help pages stay fast: methods import what needs it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from vitral.data.options import AugmentOptions, check_choices
from vitral.errors import VitralError

if TYPE_CHECKING:
    from torch import nn

    from vitral.data.augment import Augmentation
    from vitral.data.preprocess import Preprocess
    from vitral.models.common import ImageModel, ModelConfig
    from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is learned, and how."""

    name: ClassVar[str]
    labelled: ClassVar[bool] = False
    """Whether it learns from labels, or from images alone."""
    models: ClassVar[tuple[str, ...]] = ()
    """Fields that name a run or a model file which training reads. One that is called like an objective needs a run of that."""

    def __post_init__(self) -> None:
        check_choices(self, "objective.")

    @property
    def missing(self) -> str | None:
        """A field of `models` that training needs, and that is not set."""
        return next((name for name in self.models if name in OBJECTIVES and getattr(self, name) is None), None)

    def views(self, augment: AugmentOptions, preprocess: "Preprocess") -> "list[Augmentation]":
        """The views of each image in a batch."""
        from vitral.data.augment import Augmentation

        return [Augmentation(augment, preprocess)]

    def shape(self, config: "ModelConfig") -> "ModelConfig":
        """The shape of the model to build, from that of the model that the recipe names."""
        return config

    def settled(self, width: int) -> Self:
        """The options with None replaced by what suits a model of this width."""
        return self


@dataclass(frozen=True)
class ClassifyOptions(ObjectiveOptions):
    name = "classify"
    labelled = True
    models = ("teacher",)

    loss: Literal["ce", "bce"] | None = None
    """Loss: ce (softmax cross-entropy) or bce (a yes or no for each class); default: ce, and bce where an image can have several labels."""
    smoothing: float = 0.1
    """Label smoothing."""
    head_bias: float = 0.0
    """Where the head's biases start; with bce and many classes near -log(classes)."""
    binarise: bool = False
    """With bce: the target of both classes of a mixed image is 1, as in DeiT III, not their shares."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the losses: balanced (by the inverse of a class's share) or none."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """Which images are drawn: uniform (every image once an epoch) or balanced (every class equally often)."""
    teacher: str | None = None
    """Distillation (https://arxiv.org/abs/2012.12877): a model file, run or folder whose predictions are learned beside the labels;
    default: no teacher."""
    distillation: Literal["hard", "soft"] = "hard"
    """What is learned from the teacher: hard (its class) or soft (its probabilities)."""
    distillation_weight: float = 0.5
    """Share of the loss that is the teacher's."""
    temperature: float = 3.0
    """Softening of both models' probabilities in soft distillation."""


@dataclass(frozen=True)
class SegmentOptions(ObjectiveOptions):
    """A class for each pixel."""

    name = "segment"
    labelled = True

    rarity: float = 0.5
    """How much more pixels of rare classes weigh: by their class's share of the pixels to the power of minus this; 0: all pixels weigh the same;
    1: all classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rarity <= 1:
            raise VitralError(
                f"objective.rarity {self.rarity}: lies from 0 (all pixels weigh the same) to 1 (all classes)"
            )


@dataclass(frozen=True)
class DetectOptions(ObjectiveOptions):
    """Objects: class, box and, where the data have them, masks."""

    name = "detect"
    labelled = True

    cells: int = 8
    """Places of the image that learn each object, before any decoder layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 1:
            raise VitralError(f"objective.cells {self.cells}: at least 1 place learns an object")


@dataclass(frozen=True)
class PretextOptions(ObjectiveOptions, ABC):
    """An objective without labels."""

    scale: ClassVar[tuple[float, float] | None] = None
    """Smallest and largest share of an image in a crop, where the paper has its own."""
    small_encoder: ClassVar[Mapping[str, object]] = {"position": "sincos2d", "pooling": "mean", "class_token": False}
    """Arguments of the small ViT that is chosen for small images."""
    read_as_mean: ClassVar[bool] = False
    """Whether fine-tuning reads the mean of the encoder's patches and gives it a new norm."""

    @abstractmethod
    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        """What is trained (the model, or a module that holds it), and the objective."""


@dataclass(frozen=True)
class MaeOptions(PretextOptions):
    name = "mae"
    scale = (0.2, 1.0)  # https://arxiv.org/abs/2111.06377, appendix A.1
    small_encoder = {"pooling": "mean"}  # noqa: RUF012  # a masked autoencoder has a class token and learned positions
    read_as_mean = True

    mask_ratio: float = 0.75
    """Share of the patches that are hidden."""
    decoder_dim: int | None = None
    """Width of MAE's decoder; default: the paper's 512, and less for encoders narrower than 384."""
    decoder_depth: int | None = None
    """Blocks of MAE's decoder; default: the paper's 8, and fewer for narrow encoders."""
    decoder_num_heads: int | None = None
    """Attention heads of MAE's decoder; default: the paper's 16, and fewer for narrow encoders."""
    norm_pixels: bool = True
    """MAE paints patches less their mean over their deviation, not plain pixels."""

    def settled(self, width: int) -> Self:
        """With the paper's decoder. It is wide for a small encoder, which gets one of two thirds of its own width and 4 blocks."""
        wide = width >= 384
        dim = self.decoder_dim or (512 if wide else 32 * max(1, round(width / 48)))
        heads = self.decoder_num_heads or (16 if dim % 16 == 0 and dim >= 512 else max(1, dim // 32))
        return replace(
            self, decoder_dim=dim, decoder_depth=self.decoder_depth or (8 if wide else 4), decoder_num_heads=heads
        )

    def shape(self, config: "ModelConfig") -> "ModelConfig":
        from vitral.models.mae import autoencoder_of

        return autoencoder_of(config, **vars(self.settled(config.token_width)))

    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        from vitral.objectives.mae import PaintPatches

        return model, PaintPatches()


@dataclass(frozen=True)
class BeitOptions(PretextOptions):
    name = "beit"
    models = ("tokenizer",)

    tokenizer: str | None = None
    """Run of `vitral pretrain --objective tokenizer` whose codes BEiT predicts."""
    mask_ratio: float = 0.4
    """Share of the patches that are hidden."""

    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        from vitral.objectives.beit import PredictTokens, VisualTokens
        from vitral.objectives.masking import MaskedPrediction
        from vitral.predict import load

        assert self.tokenizer is not None  # `missing` was asked before
        tokens = VisualTokens(load(self.tokenizer), preprocess, model.patch_size)
        return MaskedPrediction(model, tokens.codes), PredictTokens(tokens, self.mask_ratio)


@dataclass(frozen=True)
class PatchOptions(PretextOptions):
    name = "patch"

    mask_ratio: float = 0.5
    """Share of the patches that are hidden."""

    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        from vitral.objectives.masking import MaskedPrediction
        from vitral.objectives.patch import MeanColours, colour_classes

        colours = MeanColours(preprocess.mean, preprocess.std, self.mask_ratio)
        return MaskedPrediction(model, colour_classes(preprocess.channels)), colours


@dataclass(frozen=True)
class DinoOptions(PretextOptions):
    name = "dino"
    scale = (0.4, 1.0)  # https://arxiv.org/abs/2104.14294, section 3.1

    prototypes: int = 1024
    """Outputs of DINO's head (65,536 in the paper, for ImageNet)."""
    local_crops: int = 4
    """DINO's small views beside its two large ones."""
    local_share: float = 0.5
    """Side of a small view over that of a large one."""
    local_scale: tuple[float, float] = (0.05, 0.4)
    """Smallest and largest share of the image's area in a small view; large ones follow --scale."""
    teacher_momentum: float = 0.996
    """Where the momentum of DINO's teacher starts; it rises to 1."""
    teacher_temperature: float = 0.04
    """Temperature of DINO's teacher: a lower one makes its probabilities sharper."""
    patch_loss: float = 0.0
    """Weight of iBOT's loss on masked patches (https://arxiv.org/abs/2111.07832) beside DINO's."""
    mask_ratio: float = 0.3
    """Share of the patches that are hidden."""

    def views(self, augment: AugmentOptions, preprocess: "Preprocess") -> "list[Augmentation]":
        """Two large views and the small ones (https://arxiv.org/abs/2104.14294, section 3.1)."""
        from vitral.data.augment import Augmentation

        patch, size = preprocess.min_size, (preprocess.height, preprocess.width)
        small = preprocess.sized(*(max(1, round(side * self.local_share / patch)) * patch for side in size))
        local = replace(augment, crop="resized", scale=self.local_scale)
        return [
            *(Augmentation(augment, preprocess, f"view{i}") for i in range(2)),
            *(Augmentation(local, small, f"local{i}") for i in range(self.local_crops)),
        ]

    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        from vitral.objectives.dino import SelfDistil, SelfDistillation

        learner = SelfDistillation(model, self.prototypes, patches=self.patch_loss > 0)
        return learner, SelfDistil(self.teacher_momentum, self.teacher_temperature, self.patch_loss, self.mask_ratio)


@dataclass(frozen=True)
class TokenizerOptions(PretextOptions):
    name = "tokenizer"

    codes: int = 512
    """Size of the tokenizer's codebook."""
    code_dim: int = 32
    """Width of the tokenizer's codes."""

    def shape(self, config: "ModelConfig") -> "ModelConfig":
        """A tokenizer of the model's images and patches."""
        from vitral.models.tokenizer import tokenizer_of

        return tokenizer_of(config, self.codes, self.code_dim)

    def learner(self, model: "ImageModel", preprocess: "Preprocess") -> "tuple[nn.Module, Objective]":
        from vitral.objectives.tokenizer import Tokenise

        return model, Tokenise()


OBJECTIVES: dict[str, type[ObjectiveOptions]] = {
    kind.name: kind
    for kind in (
        ClassifyOptions,
        SegmentOptions,
        DetectOptions,
        MaeOptions,
        BeitOptions,
        PatchOptions,
        DinoOptions,
        TokenizerOptions,
    )
}

"""The default model for a size of images: patches, stem, width and depth. The one table of sizes, for plans and defaults.

The rules were measured (benchmarks/LOG.md): on small images, patches by 3x3 convolutions (https://arxiv.org/abs/2106.14881) beat linear ones by
points in equal time, and fixed positions and averaged patches pay; a model too large for its time learns less than a small one that sees the images
more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vitral.models.common import ModelConfig
from vitral.models.zoo import model_config
from vitral.objectives.options import PretextOptions
from vitral.training.options import ModelOptions

SMALL = 64  # pixels: up to here a data set's images are taken at their own size
MODEL = "vit_tiny_patch16_224"
UNSAID = ModelOptions()


@dataclass(frozen=True)
class Size:
    """A width and depth of ViT."""

    dim: int
    depth: int
    heads: int
    images: int
    """Training images from which on it is worth trying."""


SIZES = (
    Size(64, 4, 4, 0),
    Size(128, 4, 4, 0),
    Size(192, 6, 6, 5_000),
    Size(256, 8, 8, 50_000),
    Size(384, 12, 6, 200_000),
)


def side_of_photographs(device: str) -> int:
    """Pixels of the side at which images of more than `SMALL` pixels are shown."""
    return 128 if device == "cpu" else 224


def row(model: ModelOptions) -> ModelConfig:
    """What the zoo says of the model."""
    return model_config(model.name or MODEL)


def sizes_for(model: ModelOptions, images: int) -> tuple[Size, ...]:
    """Those that so many training images can be worth, in ascending order; the one nearest to a width that was said."""
    if (dim := model.get("dim")) is not None:
        return (max((size for size in SIZES if size.dim <= dim), key=lambda size: size.dim, default=SIZES[0]),)
    worth, heads = tuple(size for size in SIZES if size.images <= images), model.get("num_heads")
    if not isinstance(heads, int):
        return worth
    return tuple(size for size in worth if size.dim % heads == 0) or worth


def patch_for(model: ModelOptions, height: int, width: int, pretext: PretextOptions | None = None) -> int:
    """Pixels of a patch's side for images of this size: as said, small for small images, else the zoo's; 1 if the model has none.

    Small images are given four to eight patches a side by convolutions, seven to ten by linear maps.
    """
    if (said := model.get("patch_size")) is not None:
        return int(said)
    config = row(model)
    if max(height, width) > SMALL or not config.any_patch:
        return getattr(config, "patch_size", 1)
    side = min(height, width)
    if convolved(model, pretext):
        return 8 if side >= 28 else 4 if side >= 14 else 2
    return 2 if side <= 16 else 4 if side <= 40 else 8


def convolved(model: ModelOptions, pretext: PretextOptions | None) -> bool:
    """Whether convolutions make the patches: of a model that was not named and learns labels, unless its stem was said to be empty.

    A name stands for an architecture that papers, other libraries and comparisons know. Tasks that hide patches need linear ones: convolutions
    show a patch what its neighbours hide.
    """
    return model.name is None and pretext is None and model.get("stem") != ()


LARGEST = 2  # times the side at which photographs are shown: so large are those whose places are answered
FINE = 8  # pixels of their patches, where these are linear
DEEP = (1, 2, 4, 5)  # convolutions of a stem before each of the last halvings, whose maps heads for places read, too
WIDE = 160  # pixels of the lesser side from which a deep stem halves four times


def shown_for_places(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width at which images are shown whose places are to be answered: their own, up to twice the side of other photographs."""
    factor = min(1.0, LARGEST * side / max(height, width))
    if factor == 1:
        return height, width
    return max(32, round(height * factor / 32) * 32), max(32, round(width * factor / 32) * 32)


def model_for(
    said: ModelOptions,
    size: Size,
    height: int,
    width: int,
    side: int,
    pretext: PretextOptions | None = None,
    *,
    places: bool = False,
) -> ModelOptions:
    """What was said of the model, and all else of it for images whose median is height x width; photographs are shown at `side` pixels.

    places: whether places in the image are answered, for which it is shown larger, in smaller patches. A model that was named is as the zoo has
    it, but that small images get patches of their size; one that was not is a ViT of `size`.
    """
    small = max(height, width) <= SMALL
    usual = shown_for_places(height, width, side) if places else (height, width) if small else (side, side)
    shown = said.get("image_size") or usual
    if said.name is not None or (pretext is not None and not small):
        patch = {"patch_size": patch_for(said, height, width)} if small and row(said).any_patch else {}
        return said.over(ModelOptions(MODEL, {"image_size": shown} | patch))
    small = max(shown) <= SMALL
    patch_size, dim = patch_for(said, shown[0], shown[1], pretext), said.get("dim") or size.dim
    if places and said.get("patch_size") is None and not (convolved(said, pretext) and min(shown) >= WIDE):
        patch_size = min(FINE, patch_size)
    heads = next(n for n in range(size.heads, 0, -1) if dim % n == 0)
    planned: dict[str, object] = {"image_size": shown, "patch_size": patch_size}
    planned |= {
        "dim": dim,
        "depth": max(2, size.depth // 2) if places else size.depth,
        "num_heads": heads,
        "mlp_ratio": 2.0,
    }
    if pretext is None:
        planned |= {"position": "sincos2d" if small else "learned", "pooling": "mean"}
        planned["class_token"] = said.get("pooling") == "cls"
    else:
        planned |= pretext.small_encoder
    if convolved(said, pretext):
        planned["stem"] = stem(dim, patch_size, DEEP if places else (2,) if small else (1,))
    return said.over(ModelOptions(MODEL, planned))


def stem(dim: int, patch: int, counts: Sequence[int]) -> tuple[int, ...] | None:
    """Widths of the convolutions that halve the image until patches are left, doubling up to `dim`; so many of each of the last widths. None, linear
    patches, where the patch is no power of two or `dim` too small to be halved so often.
    """
    halvings = patch.bit_length() - 1
    widths = [max(8, dim >> (halvings - 1 - i)) for i in range(halvings)]
    if 1 << halvings != patch or len(set(widths)) < halvings:
        return None
    each = [*[counts[0]] * halvings, *counts][-halvings:] if halvings else []
    return tuple(width for width, count in zip(widths, each, strict=True) for _ in range(count))

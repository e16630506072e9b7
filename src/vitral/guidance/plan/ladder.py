"""Which shape of model from scratch, and for how many passes: rules over the images, and a ladder of sizes that a time budget chooses from.

What the rules rest on was measured here (benchmarks/LOG.md): patches made by 3x3 convolutions (https://arxiv.org/abs/2106.14881) beat linear ones by
points on small images in equal time, fixed positions and averaged patches are worth their while there, and a model that is too large for its time
learns less than a small one that sees the images more often.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitral.training.config import Recipe
from vitral.training.options import ModelOptions
from vitral.training.shape import MODEL, SMALL

PASSES, AT = (
    10.0,
    57_000,
)  # Fashion-MNIST's images: so often a model of width 128 saw each in its best run of eight minutes
FEWEST, MOST = 8.0, 300.0  # passes
AS_PLANNED = ModelOptions()


@dataclass(frozen=True)
class Rung:
    """A size of model."""

    dim: int
    depth: int
    heads: int
    images: int
    """Of training, from which on it is worth trying."""


LADDER = (
    Rung(64, 4, 4, 0),
    Rung(128, 4, 4, 0),
    Rung(192, 6, 6, 5_000),
    Rung(256, 8, 8, 50_000),
    Rung(384, 12, 6, 200_000),
)


def passes_worth(images: int) -> float:
    """How often a run should see each of its training images at least: the fewer there are the more often, by the square root."""
    return min(MOST, max(FEWEST, PASSES * math.sqrt(AT / images)))


SIZED = ("dim", "depth", "num_heads", "dims", "depths", "stages", "width")


def open_size(recipe: Recipe) -> bool:
    """Whether the size of the model was left open, so that a rung may decide it; weights to start from bring their own."""
    model = recipe.model
    return recipe.transfer.init is None and model.name is None and all(model.get(size) is None for size in SIZED)


def model_for(rung: Rung, height: int, width: int, side: int, said: ModelOptions = AS_PLANNED) -> ModelOptions:
    """The ViT of this size for images whose median is height x width; photographs are shown at `side` pixels. What was said of it stays."""
    small = max(height, width) <= SMALL
    height, width = said.get("image_size") or ((height, width) if small else (side, side))
    small = max(height, width) <= SMALL
    patch = said.get("patch_size") or patch_for(height, width)
    planned = ModelOptions(
        name=MODEL,
        image_size=(height, width),
        patch_size=patch,
        stem=stem(rung.dim, patch, twice=small),
        dim=rung.dim,
        depth=rung.depth,
        num_heads=rung.heads,
        mlp_ratio=2.0,
        position="sincos2d" if small else "learned",
        pooling="mean",
        class_token=False,
    )
    if said.get("pooling") == "cls":
        planned = ModelOptions(class_token=True).over(planned)
    return said.over(planned)


def patch_for(height: int, width: int) -> int:
    """Pixels of a patch's side: of images of up to 64 pixels so many that there are four to eight patches a side."""
    if max(height, width) > SMALL:
        return 16
    return 8 if min(height, width) >= 28 else 4 if min(height, width) >= 14 else 2


def stem(dim: int, patch: int, *, twice: bool) -> tuple[int, ...] | None:
    """Widths of the convolutions that halve the image until patches are left, doubling up to `dim`; each twice for small images. None, linear
    patches, where the patch is no power of two.
    """
    halvings = patch.bit_length() - 1
    if 1 << halvings != patch:
        return None
    widths = [max(8, dim >> (halvings - 1 - i)) for i in range(halvings)]
    return tuple(width for width in widths for _ in range(2 if twice else 1))


def climb(rungs: Sequence[Rung], passes: Callable[[Rung], float], worth: float) -> Rung:
    """The largest rung that makes as many passes as are worth having, asking about few of them; the smallest if none does."""
    low, high = 0, len(rungs) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes(rungs[middle]) >= worth else (low, middle - 1)
    return rungs[low]

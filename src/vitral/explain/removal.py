"""A picture whose patches can be removed, and the model's answer without them: the basis of faithfulness and counterfactuals.

Axes: S sets of patches, C channels, H W pixels, h w grid of patches, n = h*w, K classes.
"""

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.drawing.colours import upsample
from vitral.errors import VitralError
from vitral.explain.figure import Explanation
from vitral.explain.perturbation import cell_side
from vitral.layers.patch import PatchEmbed
from vitral.models.common import ImageModel
from vitral.predict import ImageLike, Predictor
from vitral.randomness import uniforms

Removal = Literal["mean", "blur", "drop"]
IN_WORDS = {
    "mean": "painted in the mean colour",
    "blur": "blurred until no detail of a patch is left",
    "drop": "left out of the tokens",
}
BRIEFLY = {"mean": "mean colour", "blur": "blurred", "drop": "left out"}
BATCH = 64


class Removable:
    """One picture as a model reads it, cut into n = h*w square patches, each of which can be removed.

    A Vision Transformer's patches are its tokens. A pyramid's are of the stride that occlusion uses, too: fine, but a few hundred at most.
    """

    def __init__(self, predictor: Predictor, image: ImageLike, removal: Removal = "mean") -> None:
        """removal: how a patch is removed; `drop` is only for models whose tokens carry their position themselves.

        `mean` is the colour that the preprocessing makes zero: the picture's own mean would depend on what was removed.
        """
        if removal not in get_args(Removal):
            raise VitralError(f"removal {removal!r}: choose one of {', '.join(get_args(Removal))}")
        predictor.check_head()
        self.predictor, self.removal = predictor, removal
        self.pixels = predictor.preprocess(image).to(next(predictor.model.parameters()).device)  # [C, H, W]
        self.side, self.grid = cut(predictor.model, *self.pixels.shape[1:])
        if removal == "drop":
            check_droppable(predictor.model)
        self.filling = self._blurred() if removal == "blur" else torch.zeros_like(self.pixels[:, :1, :1])

    @property
    def count(self) -> int:
        """n, the number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the patches over those of the view: above 1 where the last ones reach over the edge."""
        (h, w), (height, width) = self.grid, self.pixels.shape[1:]
        return h * self.side / height, w * self.side / width

    def on_grid(self, values: NDArray[np.floating], extent: tuple[float, float] = (1.0, 1.0)) -> NDArray[np.float64]:
        """A map [*, *] of the view at any resolution as its mean over each patch, [h, w]; a map of this grid as it is."""
        if values.shape == self.grid:
            return values.astype(np.float64)
        height, width = self.pixels.shape[1:]
        fine = over_view(values, (height, width), extent)
        fine = np.pad(fine, ((0, -height % self.side), (0, -width % self.side)), mode="edge")  # [h*side, w*side]
        return fine.reshape(self.grid[0], self.side, self.grid[1], self.side).mean(axis=(1, 3))

    def explained(self, explanation: Explanation) -> NDArray[np.float64]:
        """The values of an explanation of this view on the patches, [h, w]."""
        check_ordered(explanation)
        return self.on_grid(explanation.grid, explanation.extent)

    @torch.inference_mode()
    def probabilities(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[S, n], which patches stay, to [S, K], the classes' probabilities. Equal sets are computed once."""
        sets, which = np.unique(kept, axis=0, return_inverse=True)
        model, rows = self.predictor.model, torch.from_numpy(sets).to(self.pixels.device)
        logits = torch.zeros(len(rows), model.num_classes)
        left = rows.sum(dim=1)
        tokens = model.embed(self.pixels[None]) if self.removal == "drop" else None  # [1, prefix + n, D]
        groups = torch.zeros_like(left) if tokens is None else left  # sequences of one length go together
        for group in groups.unique():
            for part in (groups == group).nonzero()[:, 0].split(BATCH):
                answer = model(self._painted(rows[part])) if tokens is None else self._shortened(tokens, rows[part])
                logits[part.cpu()] = answer.float().cpu()
        answers = self.predictor.probabilities(logits).double().numpy()
        return answers[which.reshape(-1)]

    def _painted(self, kept: Tensor) -> Tensor:
        """Patches that stay [S, n] to images [S, C, H, W]."""
        height, width = self.pixels.shape[1:]
        stays = kept.view(-1, 1, *self.grid).repeat_interleave(self.side, 2).repeat_interleave(self.side, 3)
        return torch.where(stays[..., :height, :width], self.pixels, self.filling)

    def _shortened(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """All tokens [1, prefix + n, D] and the patches that stay [S, n], as many in each row, to logits [S, K]."""
        model, prefix = self.predictor.model, tokens.shape[1] - kept.shape[1]
        stays = F.pad(kept, (prefix, 0), value=True)  # [S, prefix + n]
        fewer = prefix + int(kept[0].sum())
        chosen = tokens.expand(len(kept), -1, -1)[stays].unflatten(0, (len(kept), fewer))  # [S, fewer, D]
        return model.head(model.pool(model.encode(chosen, self.grid)))

    def _blurred(self) -> Tensor:
        """[C, H, W] through a Gaussian whose deviation is a patch's side, the edge going on outside."""
        reach = 3 * self.side
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / self.side) ** 2).to(self.pixels.device)
        kernel /= kernel.sum()
        blurred = self.pixels[:, None]  # [C, 1, H, W]
        blurred = F.conv2d(F.pad(blurred, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
        return F.conv2d(F.pad(blurred, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))[:, 0]


def cut(model: ImageModel, height: int, width: int) -> tuple[int, tuple[int, int]]:
    """The side in pixels of the patches that can be removed, and their grid (h, w); the last may reach over the edge."""
    side = cell_side(model.token_strides, (height, width))
    return side, (-(-height // side), -(-width // side))


def check_droppable(model: ImageModel) -> None:
    """A VitralError where tokens cannot be left out, or where the model has no answer without any."""
    kind = type(model).__name__
    other = "; choose removal mean or blur"
    if not model.droppable:
        raise VitralError(f"removal drop: {kind} needs all its patches in their grid{other}")
    if type(model.patch_embed) is not PatchEmbed:
        raise VitralError(f"removal drop: convolutions before this {kind}'s tokens mix neighbours{other}")
    if model.reader == "mean":
        raise VitralError(f"removal drop: this {kind} averages its patches, and without any has no answer{other}")


def check_ordered(explanation: Explanation) -> None:
    """A VitralError where an explanation is a picture in colours, which has no order of patches."""
    if explanation.colours is not None:
        raise VitralError(f"{explanation.method}: colours have no order; choose a method that gives a map")


def over_view(
    values: NDArray[np.floating], size: tuple[int, int], extent: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.float64]:
    """A map [*, *] of any resolution at that of the view, [H, W]. extent: the map's height and width over the view's."""
    fine = upsample(values, (round(size[0] * extent[0]), round(size[1] * extent[1])))[: size[0], : size[1]]
    short = [(0, side - n) for side, n in zip(size, fine.shape, strict=True)]
    return np.pad(fine, short, mode="edge")


def order_of(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """[h, w] to the patches' numbers [n], the largest value first; equal ones in an order that is random but always the same."""
    flat = values.ravel()
    if not np.isfinite(flat).all():
        raise VitralError("the map has values that are not finite, so patches have no order; choose another")
    chance = uniforms(0, "equal values of a map", 0, np.zeros(1), flat.size)[0]
    return np.lexsort((chance, -flat))


def random_maps(grid: tuple[int, int], count: int, seed: int = 0) -> NDArray[np.float64]:
    """[count, h, w] in [0, 1): random maps."""
    return uniforms(seed, "random maps", 0, np.arange(count), grid[0] * grid[1]).reshape(count, *grid)


def centre_map(grid: tuple[int, int]) -> NDArray[np.float64]:
    """[h, w]: a Gaussian in the middle with a quarter of each side as deviation, since photographers put things there."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in grid)
    return np.exp(-8 * (y[:, None] ** 2 + x[None, :] ** 2))

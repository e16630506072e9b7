"""Does a map depend on what the model learned, and is it stable under noise?

Sanity Checks for Saliency Maps, https://arxiv.org/abs/1810.03292 (section 3.1): weights are randomised from the head down, and a map that does
not change cannot have shown what was learned. Deviation: each tensor's trained values are shuffled, not drawn anew, so that they keep their
scale and no family needs a rule of its own.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.models.common import ImageModel
from vitral.predict import ImageLike, Predictor
from vitral.randomness import derive, uniforms

Mapper = Callable[[Predictor, ImageLike], NDArray[np.floating]]
"""A method with its target: a predictor and an image to a map [h, w]."""


@dataclass(frozen=True)
class Sanity:
    """Correlations of the model's map with those of ever more randomised copies."""

    stages: list[str]
    """The last part randomised, from the head down; each includes all before it."""
    correlations: list[float]
    """Spearman's, in [-1, 1]: near 0 is sound, near 1 a map that does not depend on what the model learned."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.correlations))


def sanity(predictor: Predictor, image: ImageLike, mapper: Mapper, seed: int = 0) -> Sanity:
    """Randomise a copy of the model stage by stage, and correlate its maps with the model's own."""
    before = mapper(predictor, image)
    rows = [(name, spearman(before, mapper(random, image))) for name, random in cascade(predictor, seed)]
    return Sanity([name for name, _ in rows], [correlation for _, correlation in rows])


def cascade(predictor: Predictor, seed: int = 0) -> Iterator[tuple[str, Predictor]]:
    """(last stage randomised, predictor) from the head down. All share one copy: use each before taking the next."""
    model = copy.deepcopy(predictor.model)
    randomised = Predictor(model, predictor.card)
    for name, parameters in stages(model):
        for i, parameter in enumerate(parameters):
            generator = torch.Generator().manual_seed(derive(seed, f"randomise {name}", i))
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            with torch.no_grad():
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        yield name, randomised


def stages(model: ImageModel) -> list[tuple[str, list[nn.Parameter]]]:
    """The model's parameters in parts: the head, blocks from the last to the first, and the tables of tokens and positions."""
    parts: list[tuple[str, list[nn.Parameter]]] = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            parts += [(f"{name}.{i}", list(part.parameters())) for i, part in enumerate(child)]
        else:
            parts.append((name, list(child.parameters())))
    parts.sort(key=lambda part: part[0] == "head")  # stable: the head goes last, the rest stays in order
    parts = [("tokens and positions", list(model.parameters(recurse=False))), *parts]
    return [(name, parameters) for name, parameters in reversed(parts) if parameters]


def max_sensitivity(
    predictor: Predictor, image: ImageLike, mapper: Mapper, *, radius: float = 0.02, draws: int = 5, seed: int = 0
) -> float:
    """The largest change of the map under noise too small to see, as a share of the map (both in Frobenius norm).

    https://arxiv.org/abs/1901.09392, definition 3. radius: of the uniform noise on each pixel, where white is 1. draws: samples of noise.
    """
    pixels = predictor.decode(image)  # [C, h, w]
    before = mapper(predictor, pixels)
    norm = float(np.linalg.norm(before))
    if norm == 0:
        raise VitralError("the map is 0 everywhere, so a change has no scale; choose another method or layer")
    changes = []
    for noise in uniforms(seed, "sensitivity", 0, np.arange(draws), pixels.numel()):
        moved: Tensor = pixels + torch.from_numpy((2 * noise - 1) * radius * 255).view(pixels.shape)
        after = mapper(predictor, moved.clamp(0, 255).float())
        changes.append(float(np.linalg.norm(after - before)) / norm)
    return max(changes)


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two maps of one shape, equal values sharing their rank; 0 where a map is flat."""
    assert a.shape == b.shape, f"maps {a.shape} and {b.shape}"
    x, y = (ranks(values.ravel()) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """[n] to ranks from 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]

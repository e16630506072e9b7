"""Maps from the patches' features: logit lens, similarity and principal components. Axes: h w grid, D width, R representation."""

import torch
from torch import Tensor

from vitral.drawing.colours import EVEN
from vitral.errors import VitralError
from vitral.explain.capture import Features, Pass, patch_representations
from vitral.explain.geometry import Floats, weights
from vitral.explain.perturbation import log_odds
from vitral.layers.attention import check_layer
from vitral.models.common import ImageModel


def chosen(seen: Pass, layer: int | None) -> tuple[int, Features]:
    """The number of a block, by default the last, and its output."""
    layer = check_layer(-1 if layer is None else layer, len(seen.features) - 1, "blocks")
    return layer, seen.features[layer + 1]


def logit_lens(model: ImageModel, seen: Pass, target: int, independent: bool, layer: int | None) -> tuple[Floats, int]:
    """([h, w], the layer): the target's log-odds when the model's norm and head are applied to each patch of this layer.

    Analyzing Vision Transformers for Image Classification in Class Embedding Space, https://arxiv.org/abs/2310.18969.

    Raises:
        VitralError: a layer of a pyramid's earlier stage, whose width the head cannot read.
    """
    layer, features = chosen(seen, layer)
    if layer + 1 < seen.last_stage:
        raise VitralError(f"layer {layer}: narrower than the head; choose one from {seen.last_stage - 1} on, or pca")
    logits = model.head(patch_representations(model, features))  # [h*w, K]
    return log_odds(logits, target, independent).reshape(features.grid).float().cpu().numpy(), layer


@torch.no_grad()
def early_answers(model: ImageModel, seen: Pass) -> list[tuple[int, Tensor]]:
    """(block, logits [K]): the answer if the model's norm and head followed each block, for the blocks where that is possible, in order.

    The logit lens of the tokens that the head reads; see `logit_lens` for one patch. Left out are blocks of a pyramid's earlier stages, which
    are narrower than the head, and those of a CaiT's trunk, which has no class token. Class blocks are numbered after those over patches.
    """
    if seen.class_tokens:
        given = list(enumerate(seen.class_tokens, start=len(seen.features) - 1))  # [1, 1, D]
    else:
        readable = [(i, f) for i, f in enumerate(seen.features[1:]) if i + 1 >= seen.last_stage]
        given = [(i, f.tokens if f.tokens.ndim == 3 else f.patches()[None]) for i, f in readable]
    return [(i, model.head(model.pool(model.final_norm(tokens)))[0]) for i, tokens in given]


def similarity(model: ImageModel, seen: Pass, patch: tuple[int, int] | None) -> Floats:
    """[h, w] in -1..1: the cosine of each patch of the last layer with the head's input, or with one `patch`."""
    features = seen.features[-1]
    if patch is not None:
        weights(patch, 0, features.grid)  # refuses a patch outside
    each = patch_representations(model, features)  # [h*w, R]
    to = seen.representation if patch is None else each[None, patch[0] * features.grid[1] + patch[1]]  # [1, R]
    return torch.cosine_similarity(each, to).reshape(features.grid).float().cpu().numpy()


def principal_components(model: ImageModel, seen: Pass, layer: int | None) -> tuple[Floats, int]:
    """([h, w, 3], the layer): the first three principal components of the patches, each scaled to 0..1.

    As DINOv2 shows its features, https://arxiv.org/abs/2304.07193. A component's sign makes its largest loading positive. Patches that hardly
    differ get one colour.
    """
    layer, features = chosen(seen, layer)
    tokens = features.tokens
    if layer == len(seen.features) - 2:
        tokens = model.final_norm(tokens)
    patches = features.patches(tokens).flatten(0, 1).double().cpu()  # [h*w, D]
    colours = torch.zeros(len(patches), 3, dtype=torch.double)
    found = _scores(patches - patches.mean(0))
    colours[:, : found.shape[1]] = found
    low, high = colours.amin(0), colours.amax(0)
    spread = high - low
    if spread.max() < EVEN * patches.norm(dim=1).mean():  # what is left is noise, which the scale would blow up
        return torch.full((*features.grid, 3), 0.5).numpy(), layer
    flat = spread <= 1e-9 * spread.max()
    colours = torch.where(flat, 0.0, (colours - low) / torch.where(flat, 1.0, spread))
    return colours.reshape(*features.grid, 3).float().numpy(), layer


def _scores(centred: Tensor) -> Tensor:
    """[n, D] to the scores of at most three components, [n, up to 3]."""
    left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()[:, 0]
    return (left * sizes * signs)[:, :3]

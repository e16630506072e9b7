"""Maps from gradients of a class's logit: by attention, by the last tokens, and by pixels along a path.

Axes: H heads, Q queries, K keys, T tokens, h w grid, D width, K classes where a logit is meant.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.explain.attention import squares
from vitral.explain.capture import Pass
from vitral.explain.geometry import Floats
from vitral.models.common import ImageModel, evaluating

FEWEST, MOST = 32, 256  # points on the path of integrated gradients
OFF = 0.01  # share of the logits' difference that integrated gradients may miss before they use more points
BATCH = 16


def weighted_attention(seen: Pass, target: int) -> list[Floats]:
    """For each layer [1, T, T]: the mean over heads of the positive part of attention times its gradient for the target's logit."""
    gradients = torch.autograd.grad(
        seen.logits[0, target],
        [layer.attention for layer in seen.layers],
        retain_graph=bool(seen.crossed),
        allow_unused=True,
        materialize_grads=True,
    )
    products = [
        (layer.array() * layer.array(gradient)).clip(min=0).mean(axis=0, keepdims=True)
        for layer, gradient in zip(seen.layers, gradients, strict=True)
    ]
    return squares([layer.geometry for layer in seen.layers], products)


def relevance(layers: Sequence[Floats]) -> NDArray[np.float64]:
    """[T, T]: R = R + A R from the first layer to the last, beginning with the identity, A the layer's `weighted_attention`.

    Generic Attention-model Explainability, https://arxiv.org/abs/2103.15679, equations 5 and 6, as its ViT notebook has it.
    """
    total = np.eye(layers[0].shape[-1])
    for layer in layers:
        total = total + layer[0].astype(np.float64) @ total
    return total


def legrad(model: ImageModel, seen: Pass, target: int) -> Floats:
    """[h, w]: how the class's score, read from each layer's own tokens, would rise with the layer's attention to a patch.

    LeGrad, https://arxiv.org/abs/2404.03214: the positive part of the gradient, mean over heads, queries and layers. In CaiT
    the layers with an answer of their own are those of class attention.
    """
    patches, last = [], seen.layers[-1].geometry
    own = seen.class_tokens or [features.tokens for features in seen.features[1:]]
    for layer, tokens in zip(seen.layers[-len(own) :], own, strict=True):
        score = model.head(model.pool(model.final_norm(tokens)))[0, target]
        (gradient,) = torch.autograd.grad(score, [layer.attention], retain_graph=True)
        patches.append(layer.array(gradient).clip(min=0).mean(axis=(0, 1))[last.num_prefix :])  # [H, Q, K] -> [h*w]
    return np.mean(patches, axis=0).reshape(last.grid)


def grad_cam(seen: Pass, target: int) -> tuple[Floats, int]:
    """([h, w], its stride): the patches where they are used last, weighted by their channels' mean gradients; negatives become 0.

    Grad-CAM, https://arxiv.org/abs/1610.02391, equations 1 and 2. A Transformer's patches are taken after the norm of the last layer that uses
    them: before a layer norm a token's gradient is orthogonal to the token, and their product is 0.
    """
    features = seen.last_read
    (gradient,) = torch.autograd.grad(seen.logits[0, target], [features.tokens])
    channels = features.patches(gradient).mean(dim=(0, 1))  # [D]
    return (features.patches().detach() @ channels).relu().cpu().numpy(), features.stride


def integrated_gradients(model: ImageModel, image: Tensor, target: int) -> tuple[Tensor, float]:
    """([C, H, W], missed): what each pixel adds to the target's logit on the straight path from the mean colour to the image [C, H, W].

    Axiomatic Attribution for Deep Networks, https://arxiv.org/abs/1703.01365, equation 1, by Gauss-Legendre quadrature; the mean colour is
    what the preprocessing makes zero. The sum should equal the logit's rise along the path (completeness, proposition 1): the number of points
    doubles until it does within 1 %, up to 256 points. `missed` is the remaining error as a share of the rise.
    """
    with evaluating(model), torch.enable_grad():
        with torch.no_grad():
            start, end = model(torch.stack([torch.zeros_like(image), image]))[:, target].double().tolist()
        points = FEWEST
        while True:
            attributions = _along(model, image, target, points)
            off = abs(float(attributions.double().sum()) - (end - start))
            if off <= OFF * abs(end - start) or points >= MOST:
                return attributions, off / max(abs(end - start), 1e-12)
            points *= 2


def _along(model: ImageModel, image: Tensor, target: int, points: int) -> Tensor:
    """The image times the mean gradient at so many points of the path, [C, H, W]."""
    places, shares = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(image)
    for first in range(0, points, BATCH):
        chosen = slice(first, first + BATCH)
        at = torch.as_tensor((places[chosen] + 1) / 2, dtype=image.dtype, device=image.device)[:, None, None, None]
        batch = (at * image).requires_grad_(True)  # [points, C, H, W]
        (gradient,) = torch.autograd.grad(model(batch)[:, target].sum(), [batch])
        share = torch.as_tensor(shares[chosen] / 2, dtype=image.dtype, device=image.device)
        total += torch.einsum("b,bchw->chw", share, gradient)
    return total * image

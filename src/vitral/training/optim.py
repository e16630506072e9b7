"""Optimisers over groups of parameters: decay on matrices only, slower rates for early layers, and the moving average of the weights."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitral.models.beit import Beit
from vitral.models.common import ImageModel
from vitral.models.hybrid import HybridTransformer
from vitral.models.pvt import PyramidVisionTransformer
from vitral.training.machine import choose_precision, torch_dtype
from vitral.training.optimizers import Lamb, Lars, Muon
from vitral.training.options import OptimOptions

# Matrices between the embedding and the head: blocks of the plain encoders, stages of the pyramids.
INNER = re.compile(r"(^|\.)(decoder_)?(blocks|blocks_token_only|layers|stages|block\d)\.")
# One block of an image model, whose number is at the end.
BLOCK = re.compile(r"(.*\.)?(blocks|blocks_token_only|block\d|layer\d)\.\d+(?=\.)")


def decays(name: str, parameter: Tensor) -> bool:
    """Weight matrices decay; biases, norms, tokens and positions do not (https://arxiv.org/abs/2012.12877's code)."""
    return (
        parameter.ndim >= 2
        and re.search(r"pos_embed|(cls|dist|reg|mask)_token$|relative_position_bias_table$|logit_scale$", name) is None
    )


def layer_of(model: ImageModel) -> dict[str, int]:
    """The layer of every parameter: 0 for the embedding, 1, 2, ... for the blocks in the order of computation, then one for norm and head.

    What leads from one stage of a pyramid to the next is of the layer before it. As in BEiT's and SimMIM's code (https://arxiv.org/abs/2106.08254,
    https://arxiv.org/abs/2111.09886), where the biases that BEiT's blocks share are of the last layer.
    """
    blocks: dict[str, int] = {}
    layers: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if block := BLOCK.match(name):
            layers[name] = blocks.setdefault(block[0], len(blocks) + 1)
        else:
            layers[name] = len(blocks)
    last = len(blocks) + 1
    for name, layer in layers.items():
        if layer == len(blocks) and not BLOCK.match(name):
            layers[name] = last
    # A module's own parameters come first in the list, wherever they are used.
    if isinstance(model, PyramidVisionTransformer):
        for name, stage in [("cls_token", 4), *((f"pos_embed{stage}", stage) for stage in (2, 3, 4))]:
            layers[name] = layers[f"patch_embed{stage}.proj.weight"]
    elif isinstance(model, HybridTransformer):
        for name in ("patch_embed.proj.weight", "patch_embed.proj.bias"):
            layers[name] = layers["blocks.0.norm1.weight"] - 1
    elif isinstance(model, Beit) and model.rel_pos_bias is not None:
        layers["rel_pos_bias.relative_position_bias_table"] = last
    return layers


def rate_scales(learner: nn.Module, layer_decay: float) -> dict[str, float]:
    """Each parameter's share of the learning rate: layer_decay ** (number of layers above its own); 1 outside of image models.

    `learner` is an image model or holds one, as masked pre-training does.
    """
    scales = {name: 1.0 for name, _ in learner.named_parameters()}
    for prefix, module in learner.named_modules():
        if isinstance(module, ImageModel) and not any(isinstance(child, ImageModel) for child in module.children()):
            layers = layer_of(module)
            last = max(layers.values())
            for name, layer in layers.items():
                scales[f"{prefix}.{name}" if prefix else name] = layer_decay ** (last - layer)
    return scales


def build_optimizers(model: nn.Module, options: OptimOptions) -> list[torch.optim.Optimizer]:
    """One optimiser for everything, or Muon for the matrices inside the encoder and AdamW for the rest. Frozen parameters are left out.

    A group is {params, scale, decays}: `set_rates` sets its learning rate and weight decay from these. Muon's updates are of AdamW's size, so
    that one learning rate and one decay serve both; it computes in the precision that the parameters' device multiplies fastest.
    """
    assert options.lr is not None
    scales = rate_scales(model, options.layer_decay)
    parted: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            decaying = decays(name, p)
            by_muon = options.optimizer == "muon" and decaying and p.ndim == 2 and INNER.search(name) is not None
            parted.setdefault((by_muon, decaying, scales[name]), []).append(p)
    assert parted, "nothing to train: every parameter is frozen"
    groups: dict[bool, list[dict[str, object]]] = {True: [], False: []}
    for (by_muon, decaying, scale), params in sorted(parted.items(), key=lambda item: item[0], reverse=True):
        groups[by_muon].append({"params": params, "scale": scale, "decays": decaying})
    device = next(p.device for params in parted.values() for p in params)
    optimizers = [_optimizer(groups[False], options, fused=device.type in ("cpu", "cuda"))] if groups[False] else []
    if groups[True]:
        optimizers.append(Muon(groups[True], options.lr, dtype=torch_dtype(choose_precision("auto", device))))
    set_rates(optimizers, options.lr, options.weight_decay)
    return optimizers


def _optimizer(groups: list[dict[str, object]], options: OptimOptions, fused: bool) -> torch.optim.Optimizer:
    assert options.lr is not None
    betas = (options.beta1, options.beta2)
    if options.optimizer == "sgd":  # its decay is part of the gradient
        return torch.optim.SGD(groups, options.lr, momentum=options.momentum)
    if options.optimizer == "lars":
        return Lars(groups, options.lr, options.momentum)
    if options.optimizer == "lamb":
        return Lamb(groups, options.lr, betas)
    return torch.optim.AdamW(groups, options.lr, betas, fused=fused)


def set_rates(optimizers: list[torch.optim.Optimizer], lr: float, weight_decay: float) -> None:
    """The coming step's learning rate, of which each group has its share, and decay, which some groups have."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = lr * group["scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


@torch.no_grad()
def update_average(
    average: dict[str, Tensor], parameters: Iterable[tuple[str, Tensor]], decay: float, step: int
) -> None:
    """Exponential moving average in place; early on the decay is held to (1 + step) / (10 + step), so the start is forgotten.

    The average then spans about a tenth of the steps so far. DeiT's decay of 0.99996 is reached after 225,000 steps; its own code begins with it.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(parameters)
    torch._foreach_lerp_([average[n] for n, _ in pairs], [p.detach() for _, p in pairs], weight)

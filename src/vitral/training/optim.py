"""Optimisers over parameter groups: weight decay on matrices only, lower rates for early layers, and the moving average of the weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitral.layers.precision import torch_dtype
from vitral.models.common import ImageModel
from vitral.training.machine import choose_precision
from vitral.training.optimizers import Lamb, Lars, Muon
from vitral.training.options import OptimOptions
from vitral.training.world import ALONE, World

MATRICES = ("weight", "a", "b")  # linear layers and convolutions; a and b are LoRA's


def decays(name: str, parameter: Tensor) -> bool:
    """Weight matrices decay; biases, norms, tokens and position tables do not (as in the code of https://arxiv.org/abs/2012.12877)."""
    return parameter.ndim >= 2 and name.rpartition(".")[2] in MATRICES


def rate_scales(learner: nn.Module, layer_decay: float) -> dict[str, float]:
    """Each parameter's factor on the learning rate: layer_decay ** (layers above its own); 1 outside image models.

    `learner` is an image model or holds one, as masked pre-training does.
    """
    scales = {name: 1.0 for name, _ in learner.named_parameters()}
    for prefix, model in image_models(learner):
        if model.backbone is model:
            layers = model.layer_numbers()
            last = max(layers.values())
            scales |= {prefix + name: layer_decay ** (last - layer) for name, layer in layers.items()}
    return scales


def image_models(learner: nn.Module) -> list[tuple[str, ImageModel]]:
    """The image models in a learner, each with the prefix of its parameter names."""
    return [(f"{name}." if name else "", m) for name, m in learner.named_modules() if isinstance(m, ImageModel)]


def build_optimizers(model: nn.Module, options: OptimOptions, world: World = ALONE) -> list[torch.optim.Optimizer]:
    """One optimiser for everything, or Muon for each model's `whole_matrices` and AdamW for the rest. Frozen parameters are left out.

    A group is {params, scale, decays}, from which `set_rates` sets its learning rate and weight decay. Muon's updates are scaled to AdamW's size, so
    both take one learning rate and one decay; Muon computes in the precision that the parameters' device multiplies fastest, and shares the work
    among the processes of `world`.
    """
    assert options.lr is not None
    scales = rate_scales(model, options.layer_decay)
    whole = {prefix + name for prefix, each in image_models(model) for name in each.whole_matrices()}
    parted: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            decaying = decays(name, p)
            by_muon = options.optimizer == "muon" and decaying and name in whole
            parted.setdefault((by_muon, decaying, scales[name]), []).append(p)
    assert parted, "nothing to train: every parameter is frozen"
    groups: dict[bool, list[dict[str, object]]] = {True: [], False: []}
    for (by_muon, decaying, scale), params in sorted(parted.items(), key=lambda item: item[0], reverse=True):
        groups[by_muon].append({"params": params, "scale": scale, "decays": decaying})
    device = next(p.device for params in parted.values() for p in params)
    optimizers = [_optimizer(groups[False], options, fused=device.type in ("cpu", "cuda"))] if groups[False] else []
    if groups[True]:
        dtype = torch_dtype(choose_precision("auto", device))
        optimizers.append(Muon(groups[True], options.lr, dtype=dtype, world=world))
    set_rates(optimizers, options.lr, options.weight_decay)
    return optimizers


def _optimizer(groups: list[dict[str, object]], options: OptimOptions, fused: bool) -> torch.optim.Optimizer:
    assert options.lr is not None
    betas = (options.beta1, options.beta2)
    if options.optimizer == "sgd":  # with decay as part of the gradient
        return torch.optim.SGD(groups, options.lr, momentum=options.momentum)
    if options.optimizer == "lars":
        return Lars(groups, options.lr, options.momentum)
    if options.optimizer == "lamb":
        return Lamb(groups, options.lr, betas)
    return torch.optim.AdamW(groups, options.lr, betas, fused=fused)


def set_rates(optimizers: list[torch.optim.Optimizer], lr: float, weight_decay: float) -> None:
    """Set the next step's learning rate, scaled for each group, and weight decay, for the groups that decay."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = lr * group["scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


@torch.no_grad()
def update_average(
    average: dict[str, Tensor], parameters: Iterable[tuple[str, Tensor]], decay: float, step: int
) -> None:
    """Exponential moving average in place, with the decay limited to (1 + step) / (10 + step), so that the start is forgotten.

    Until the limit passes `decay` the average spans about a tenth of the steps so far. DeiT's 0.99996 is reached after 225,000 steps; DeiT's own code
    uses it from the start.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(parameters)
    torch._foreach_lerp_([average[n] for n, _ in pairs], [p.detach() for _, p in pairs], weight)

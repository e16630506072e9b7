"""AdamW and Muon with decay on matrices only, and the learning rate as a pure function of progress."""

import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitral.training.config import OptimOptions

# Matrices between the embedding and the head: blocks of the plain encoders, stages of the pyramids.
INNER = re.compile(r"(encoder\.|decoder_)?(blocks|blocks_token_only|layers|stages|block\d)\.")


def decays(name: str, parameter: Tensor) -> bool:
    """Weight matrices decay; biases, norms, tokens and positions do not (https://arxiv.org/abs/2012.12877's code)."""
    return (
        parameter.ndim >= 2
        and re.search(r"pos_embed|(cls|dist|reg|mask)_token$|relative_position_bias_table$|logit_scale$", name) is None
    )


def build_optimizers(model: nn.Module, options: OptimOptions) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the encoder and AdamW for the rest; the loop sets the learning rate.

    Muon (https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum of a matrix; its update is scaled to AdamW's size
    (https://arxiv.org/abs/2502.16982, section 2.2), so that one learning rate and one decay serve both.
    """
    assert options.lr is not None
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inner = [p for n, p in named if INNER.match(n) and p.ndim == 2] if options.optimizer == "muon" else []
    chosen = {id(p) for p in inner}
    rest = [(n, p) for n, p in named if id(p) not in chosen]
    groups = [
        {"params": [p for n, p in rest if decays(n, p)], "weight_decay": options.weight_decay},
        {"params": [p for n, p in rest if not decays(n, p)], "weight_decay": 0.0},
    ]
    fused = {p.device.type for _, p in named} <= {"cpu", "cuda"}
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=options.lr, betas=(options.beta1, options.beta2), fused=fused)
    ]
    if inner:
        decay = options.weight_decay
        optimizers.append(torch.optim.Muon(inner, lr=options.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def learning_rate(options: OptimOptions, progress: float, step: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to `min_lr`; `progress` in [0, 1] is the share of the budget that is spent.

    Warm-up follows the step where `warmup_steps` is given, else progress.
    """
    assert options.lr is not None
    if options.warmup_steps is not None:
        ramp = (step + 1) / max(1, options.warmup_steps)
    else:
        ramp = progress / warmup_fraction if warmup_fraction else 1.0
        ramp = max(ramp, 1e-3)
    if ramp < 1:
        return options.lr * ramp
    done = min(1.0, max(0.0, (progress - warmup_fraction) / max(1e-9, 1 - warmup_fraction)))
    return options.min_lr + (options.lr - options.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def update_average(
    average: dict[str, Tensor], parameters: Iterable[tuple[str, Tensor]], decay: float, step: int
) -> None:
    """Exponential moving average in place; early on the decay is held to (1 + step) / (10 + step), so the start is forgotten."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(parameters)
    torch._foreach_lerp_([average[n] for n, _ in pairs], [p.detach() for _, p in pairs], weight)

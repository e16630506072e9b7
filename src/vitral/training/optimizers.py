"""Two optimisers that torch lacks: LAMB and LARS, which hold each tensor's step to a share of the tensor's own norm.

Their state is tensors in `optimizer.state[parameter]`, so that checkpoints keep it; the loop sets the rates and clips the gradients.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

Group = dict[str, object]
Tensors = list[Tensor] | tuple[Tensor, ...]


class Lamb(torch.optim.Optimizer):
    """Adam whose update of a tensor, its decay included, is scaled to the tensor's norm: https://arxiv.org/abs/1904.00962, algorithm 2.

    As in apex and timm, with which DeiT III was trained: moments are corrected for their start, the scaling has no bounds, and
    tensors without decay are left to Adam.
    """

    def __init__(
        self, groups: Iterable[Group], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            if not (params := [p for p in group["params"] if p.grad is not None]):
                continue
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    zeros = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
                    self.state[p] = {"step": torch.zeros(()), **zeros}  # steps stay on the processor
            steps, means, squares = ([self.state[p][key] for p in params] for key in ("step", "exp_avg", "exp_avg_sq"))
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1)
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

            updates = torch._foreach_div(means, [1 - beta1 ** step.item() for step in steps])
            deviations = torch._foreach_div(squares, [1 - beta2 ** step.item() for step in steps])
            torch._foreach_sqrt_(deviations)
            torch._foreach_add_(deviations, group["eps"])
            torch._foreach_div_(updates, deviations)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
                torch._foreach_mul_(updates, trust_ratios(params, updates))
            torch._foreach_add_(params, updates, alpha=-group["lr"])


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose gradient of a tensor, its decay included, is scaled to `trust` times the tensor's norm.

    https://arxiv.org/abs/1708.03888, algorithm 1, as in MAE's and MoCo v3's code: the learning rate is outside the momentum, and tensors of
    one dimension (biases, norms) are neither scaled nor decayed.
    """

    def __init__(self, groups: Iterable[Group], lr: float, momentum: float = 0.9, trust: float = 0.001) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for adapted in (False, True):
                params = [p for p in group["params"] if p.grad is not None and (p.ndim > 1) == adapted]
                if not params:
                    continue
                updates: Tensors = [p.grad for p in params]
                if adapted:
                    updates = torch._foreach_add(updates, params, alpha=group["weight_decay"])
                    torch._foreach_mul_(updates, trust_ratios(params, updates, group["trust"]))
                for p in params:
                    if not self.state[p]:
                        self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
                momenta = [self.state[p]["momentum_buffer"] for p in params]
                torch._foreach_mul_(momenta, group["momentum"])
                torch._foreach_add_(momenta, updates)
                torch._foreach_add_(params, momenta, alpha=-group["lr"])


def trust_ratios(params: Tensors, updates: Tensors, trust: float = 1.0) -> tuple[Tensor, ...]:
    """For each tensor `trust` times its norm over that of its update, a scalar; 1 where either norm is 0."""
    norms, lengths = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(updates))  # [tensors]
    return torch.where((norms > 0) & (lengths > 0), trust * norms / lengths, 1.0).unbind()

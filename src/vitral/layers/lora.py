"""Linear layers that are trained through a low-rank update or behind a batch norm, and merged into plain linear layers afterwards.

LoRA, https://arxiv.org/abs/2106.09685: to a frozen matrix W an update of low rank is added, W + (alpha / r) B A. The batch norm before a head
is the linear probe of MAE, https://arxiv.org/abs/2111.06377, appendix A.1. Axes: B batch, D width in, E width out, r rank.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.layers.attention import AttentionLayer

M = TypeVar("M", bound=nn.Module)


class Adapted(nn.Module, ABC):
    """Replaces a linear layer in training, and can be merged into one."""

    @abstractmethod
    def plain(self) -> nn.Linear:
        """The linear layer that computes the same in evaluation mode."""


class LoraLinear(Adapted):
    """base(x) + scale * B A x with `base` frozen: [..., D] -> [..., E]. B starts at zero, so training starts from W (section 4.1)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        weight = base.weight
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=weight.device, dtype=weight.dtype))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=weight.device, dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as in the paper's code and in nn.Linear

    @property
    def weight(self) -> Tensor:
        """[E, D]: for layers that add a bias of their own, and so use the matrix and not the module."""
        return self.base.weight + self.scale * (self.b @ self.a)

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(x, self.a), self.b)

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        linear = copy.deepcopy(self.base)
        update = self.b.double() @ self.a.double() * self.scale
        linear.weight.copy_(self.base.weight.double() + update)
        return linear


class NormedLinear(Adapted):
    """linear(batch norm without weights of x): [B, D] -> [B, E]. In training each feature is whitened over the micro-batch."""

    def __init__(self, linear: nn.Linear, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(linear.in_features, eps=eps, affine=False, device=linear.weight.device)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.linear.weight.dtype)  # under autocast the statistics stay in float32
        if len(x) > 1 or not self.training:
            return self.linear(self.norm(x))
        mean, variance = self.statistics()  # one image has no deviation
        return self.linear(F.batch_norm(x, mean, variance, eps=self.norm.eps))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Running mean and variance, [D] each."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        return mean, variance

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        mean, variance = (each.double() for each in self.statistics())
        weight = self.linear.weight.double() / (variance + self.norm.eps).sqrt()  # [E, D]
        linear = nn.Linear(self.linear.in_features, self.linear.out_features).to(self.linear.weight)
        linear.weight.copy_(weight)
        linear.bias.copy_((0 if self.linear.bias is None else self.linear.bias.double()) - weight @ mean)
        return linear


def add_lora(model: nn.Module, rank: int, alpha: float) -> int:
    """Put LoRA on the linear layers of every attention and MLP below `model`; returns how many there are.

    Layers with a side no longer than the rank (CaiT's mixing of heads) stay plain: the update would hold more numbers than the layer.
    """
    adapted = 0
    for owner in list(model.modules()):
        layers = dict(owner.named_children())
        if isinstance(owner, AttentionLayer) or {"fc1", "fc2"} <= layers.keys():  # an MLP of any kind has these
            for name, layer in layers.items():
                if isinstance(layer, nn.Linear) and min(layer.weight.shape) > rank:
                    setattr(owner, name, LoraLinear(layer, rank, alpha))
                    adapted += 1
    return adapted


def add_head_norm(head: nn.Module) -> nn.Module:
    """The head with a batch norm before each linear layer in it."""
    return _replaced(head, nn.Linear, NormedLinear)


def merged(model: M) -> M:
    """A copy of the model in which every adapted layer is a plain one; the model itself where there is none."""
    if not any(isinstance(module, Adapted) for module in model.modules()):
        return model
    return cast(M, _replaced(copy.deepcopy(model), Adapted, lambda module: module.plain()))


def _replaced(module: nn.Module, kind: type[nn.Module], new: Callable[[Any], nn.Module]) -> nn.Module:
    """The module with `new` of each part that is a `kind` in its place."""
    if isinstance(module, kind):
        return new(module)
    for name, child in list(module.named_children()):
        setattr(module, name, _replaced(child, kind, new))
    return module

"""Optimisers that torch lacks, or whose torch version is slow on some machines.

LAMB and LARS scale each tensor's step to the tensor's norm. Muon orthogonalises the momentum of whole matrices: all matrices of one shape at once, in
the precision that the machine multiplies fast (torch's takes them one by one and always in bfloat16).

Their state is tensors in `optimizer.state[parameter]`, which checkpoints store; the loop sets the rates and clips the gradients.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vitral.training.whole import cut, whole
from vitral.training.world import ALONE, World

Group = dict[str, object]
Tensors = list[Tensor] | tuple[Tensor, ...]

QUINTIC = (3.4445, -4.7750, 2.0315)  # Muon's a, b, c: https://kellerjordan.github.io/posts/muon/
ITERATIONS = 5
STACKED = 2**24  # numbers in one stack of matrices, so that a large model needs little memory beside its own


class Lamb(torch.optim.Optimizer):
    """Adam whose update of a tensor, its decay included, is scaled to the tensor's norm: https://arxiv.org/abs/1904.00962, algorithm 2.

    As in apex and timm, with which DeiT III was trained: moments are bias-corrected, the scaling has no bounds, and tensors without decay get
    plain Adam.
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
                    self.state[p] = {"step": torch.zeros(()), **zeros}  # the step count stays on the CPU
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
    norms, lengths = (whole(torch.stack(torch._foreach_norm(each))) for each in (params, updates))  # [tensors]
    return torch.where((norms > 0) & (lengths > 0), trust * norms / lengths, 1.0).unbind()


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of a matrix is orthogonalised: https://kellerjordan.github.io/posts/muon/.

    The update is scaled to the size of AdamW's (https://arxiv.org/abs/2502.16982, section 2.2), so that both share a learning rate and a decay.
    The results equal `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` computed in `dtype`.

    Args:
        groups: parameters or groups of them, matrices or the kernels of convolutions [out, in, h, w], taken as matrices [out, in * h * w].
        dtype: of the orthogonalisation; momentum and parameters keep their own.
        world: the processes whose parameters and gradients are the same; each orthogonalises some of the matrices.
    """

    def __init__(
        self,
        groups: Iterable[Group] | Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        world: World = ALONE,
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype, self.world = dtype, world
        assert all(p.ndim >= 2 for group in self.param_groups for p in group["params"]), (
            "Muon is for matrices and kernels"
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        shapes: dict[tuple[int, ...], list[tuple[Tensor, Tensor, float]]] = {}
        for group in self.param_groups:
            if not (params := [p for p in group["params"] if p.grad is not None]):
                continue
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
            momenta = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(params, updates, strict=True):
                matrix = whole(update).flatten(1)
                wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
                shapes.setdefault(tuple(wide.shape), []).append((p, wide, group["lr"]))
        for (rows, columns), matrices in shapes.items():
            count = max(self.world.size, STACKED // (rows * columns))
            for start in range(0, len(matrices), count):
                part = matrices[start : start + count]
                stack = torch.stack([wide for _, wide, _ in part])  # [n, rows, columns]
                found = self.world.shared(stack, lambda some: orthogonal(some, self.dtype).to(self.dtype))
                for (p, _, lr), wide in zip(part, found.to(stack.dtype), strict=True):
                    turned = wide if len(p) == len(wide) else wide.T
                    p.add_(cut(turned.reshape(p.shape), p), alpha=-lr * 0.2 * math.sqrt(columns))


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices [n, r, c], r <= c, near U Vᵀ of their singular value decompositions, computed in `dtype`: five Newton-Schulz iterations.

    An iteration is X <- (a + b XXᵀ + c (XXᵀ)²) X with Muon's coefficients, which bring every singular value that is not tiny to 0.7 to 1.2.
    """
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-7)
    x = x.to(dtype)
    if dtype == torch.float32 and x.shape[2] >= 2 * x.shape[1]:
        return _by_squares(_by_squares(x, 3), ITERATIONS - 3)
    for _ in range(ITERATIONS):
        x = torch.bmm(_polynomial(torch.bmm(x, x.mT)), x)
    return x.to(matrices.dtype)


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G² of G = XXᵀ [n, r, r]."""
    a, b, c = QUINTIC
    sum_ = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    sum_.diagonal(dim1=1, dim2=2).add_(a)
    return sum_


def _by_squares(x: Tensor, iterations: int) -> Tensor:
    """The same iterations of wide matrices [n, r, c] with a third fewer products: the polynomials P of G = XXᵀ commute with G, so that the next
    G is P (P G) and needs no X; their product meets X once, at the end.

    Small singular values drown in the rounding of G; restarted after three iterations it is as exact as the plain way (benchmarks/LOG.md).
    """
    gram, product = torch.bmm(x, x.mT), None
    for i in range(iterations):
        p = _polynomial(gram)
        product = p if product is None else torch.bmm(p, product)
        if i + 1 < iterations:
            gram = torch.bmm(p, torch.bmm(p, gram))
    assert product is not None
    return torch.bmm(product, x)

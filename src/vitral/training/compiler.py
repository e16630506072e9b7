"""Keeping torch's compiler out of a run that compiles nothing."""

import inspect
import types
from collections.abc import Iterable

import torch

GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # of torch.optim.Optimizer


def step_without_compiler(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Call the optimisers' `step` without torch's wrapper, which loads the compiler at the first step to mark a graph break."""
    for optimizer in optimizers:
        plain = inspect.unwrap(type(optimizer).step)
        optimizer.step = types.MethodType(torch.no_grad()(plain), optimizer)  # type: ignore[method-assign]


def leave_compiler_out() -> None:
    """Create optimisers without loading torch's compiler, and with it sympy, torch.distributed and scikit-learn, which takes seconds of every start.

    torch loads it only to exclude some methods of an optimiser from compilation (`torch._compile._disable_dynamo`), and caches that in an attribute
    of the method. Here the attribute is set beforehand. With a torch that caches it elsewhere, this has no effect.
    """
    for name in GUARDED:
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and getattr(plain, "__dynamo_disable", None) is None:
            setattr(plain, "__dynamo_disable", plain)  # inside a class the name would be changed

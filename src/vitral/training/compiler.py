"""Keeping torch's compiler out of a run that compiles nothing."""

import inspect
import types
from collections.abc import Iterable

import torch

GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # of torch.optim.Optimizer


def step_without_compiler(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Take the optimisers' steps as they are written, without the wrapper that loads torch's compiler at the first of them to tell it of a break."""
    for optimizer in optimizers:
        plain = inspect.unwrap(type(optimizer).step)
        optimizer.step = types.MethodType(torch.no_grad()(plain), optimizer)  # type: ignore[method-assign]


def leave_compiler_out() -> None:
    """Let optimisers be made without loading torch's compiler, and with it sympy, torch.distributed and scikit-learn: seconds of every start.

    torch loads it only to keep it away from some methods of an optimiser (`torch._compile._disable_dynamo`), which remembers in an attribute of the
    method what it found; here each method is said to be kept away already. With a torch that remembers otherwise, nothing changes.
    """
    for name in GUARDED:
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and getattr(plain, "__dynamo_disable", None) is None:
            setattr(plain, "__dynamo_disable", plain)  # inside a class the name would be changed

"""Models on the meta device: shapes, counts and every check of a constructor, without time or memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWS = (nn.init.normal_, Tensor.normal_)


class NoDraws(TorchFunctionMode):
    """Leaves random fills out: on the meta device they fill nothing, but load torch's compiler to find that out, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in DRAWS:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """What is built inside has shapes only."""
    with torch.device("meta"), NoDraws():
        yield

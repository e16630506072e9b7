"""Tensors of which each process may hold a part (`vitral.training.parts`): torch's DTensor, which only such runs import."""

from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, whole; all processes must ask."""
    if type(tensor) in PLAIN:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: dict[str, Tensor], here: bool) -> dict[str, Tensor]:
    """The tensors whole, in main memory where they were in parts; empty in processes other than those that want them `here`. All must ask."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor)
        if here:
            found[name] = tensor if complete is tensor else complete.cpu()
    return found


def own(tensor: Tensor) -> Tensor:
    """Of a tensor of which each process may hold a part, that of this process, which shares its memory."""
    if type(tensor) in PLAIN:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cut(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, which all processes have, the part that each has of `like`, which has its shape; or the tensor where `like` is whole."""
    if type(like) in PLAIN:
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(like, DTensor):
        return tensor
    copied = DTensor.from_local(tensor.to(like.to_local().device), like.device_mesh, [Replicate()], run_check=False)
    return copied.redistribute(placements=like.placements)

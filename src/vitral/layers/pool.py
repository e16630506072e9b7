"""Tokens to one vector an image: the class token, or the mean of the patches (https://arxiv.org/abs/2010.11929, appendix D.3)."""

from torch import Tensor

POOLS = ("cls", "mean")


def pool(tokens: Tensor, how: str, num_prefix: int) -> Tensor:
    """[B, N, D] -> [B, D]: the first token ("cls") or the mean over the patch tokens, prefix tokens left out ("mean")."""
    return tokens[:, 0] if how == "cls" else tokens[:, num_prefix:].mean(dim=1)

"""Other ways through a plain ViT, for use: with tokens that are merged as they go.

Axes: B batch, C channels, H W pixels, N tokens, D width, K classes.
"""

from torch import Tensor

from vitral.layers.block import Block
from vitral.layers.merge import Merging
from vitral.models.common import ImageModel


def forward_merging(model: ImageModel, images: Tensor, each: int) -> Tensor:
    """Images [B, C, H, W] to logits [B, K], with `each` tokens fewer after the attention of every block (https://arxiv.org/abs/2210.09461)."""
    tokens = model.embed(images)  # [B, N, D]
    merging = Merging(tokens, each, model.num_prefix)
    (blocks,) = model.blocks_by_stage()
    for block in blocks:
        assert isinstance(block, Block)
        tokens = merging(block.attention_half(tokens, merging.attend))  # [B, fewer, D]
        tokens = block.mlp_half(tokens)
    tokens = merging.undone(model.final_norm(tokens))  # [B, N, D]
    return model.joined(model.head(model.pool(tokens)), images)

"""Other ways through a plain ViT, for use: with tokens that are merged as they go, and with images of many shapes in one sequence.

Axes: B batch, C channels, H W pixels, N tokens, D width, K classes.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from vitral.layers.attention import attend_within
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


def forward_packed(model: ImageModel, images: Sequence[Tensor]) -> Tensor:
    """Images [C, H, W] of any shapes to logits [B, K], as of each alone: their tokens stand one after the other, so that nothing is padded and
    a block's products are one for all, and attention stays within an image (https://arxiv.org/abs/2307.06304)."""
    each = [model.embed(image[None]) for image in images]  # each [1, N, D], with the positions of its own grid
    counts = [tokens.shape[1] for tokens in each]
    tokens = torch.cat(each, dim=1)  # [1, sum of N, D]
    (blocks,) = model.blocks_by_stage()
    for block in blocks:
        tokens = block(tokens, partial(attend_within, counts))
    encoded = model.final_norm(tokens).split(counts, dim=1)
    logits = model.head(torch.cat([model.pool(tokens) for tokens in encoded]))  # [B, K]
    return torch.cat([model.joined(row[None], image[None]) for row, image in zip(logits, images, strict=True)])

"""Token merging: in each layer the patches that are most alike become one token, so that later ones have fewer to compute.

Token Merging: Your ViT But Faster, https://arxiv.org/abs/2210.09461. Alike are patches whose keys, the mean over heads, point the same way. For use,
not for training. Axes: B batch, H heads, N tokens as they are now, P tokens before the patches, n patches, D width, d width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.layers.attention import Recorder, attend


class Merging:
    """The tokens of one forward pass as they become fewer: in each block `attend` is its attention, and calling this follows before the MLP."""

    def __init__(self, tokens: Tensor, each: int, protected: int) -> None:
        """tokens: [B, N, D] before the first block. each: how many go in a block, at most half of the patches. protected: first ones that stay."""
        B, N, _ = tokens.shape
        self.each, self.protected = each, protected
        self.sizes = tokens.new_ones(B, N)
        """[B, N]: how many of the first tokens each stands for."""
        self.place = torch.arange(N, device=tokens.device).expand(B, N)
        """[B, first N]: where each of the first tokens is now."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, recorder: Recorder | None = None) -> Tensor:
        """Proportional attention (section 3 of the paper): to a token as much as to all those that it stands for."""
        self.keys = k.mean(dim=1)  # [B, N, d]
        return attend(q, k, v, bias=self.sizes.log()[:, None, None], recorder=recorder)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, D] with fewer patches, by bipartite matching: every second patch looks for the most alike of the others, and of these
        pairs the closest become one, the mean of what they stand for."""
        P, (B, N, D) = self.protected, tokens.shape
        keys = F.normalize(self.keys[:, P:], dim=-1)  # [B, n, d]
        from_, to = keys[:, 1::2], keys[:, ::2]
        merged = min(self.each, from_.shape[1])
        if not merged:
            return tokens
        alike, partner = (from_ @ to.mT).max(dim=-1)  # [B, n // 2]
        closest = alike.argsort(dim=-1, descending=True, stable=True)
        stay = closest[:, merged:].sort(dim=-1).values  # in their order, behind the protected
        first = P + stay.shape[1]  # then those that others are merged into
        place = torch.empty(B, N, dtype=torch.long, device=tokens.device)
        place[:, :P] = torch.arange(P)
        place[:, P::2] = torch.arange(first, N - merged)
        place[:, P + 1 :: 2] = (first + partner).scatter(1, stay, torch.arange(P, first).expand(B, -1))
        sizes = self.sizes.new_zeros(B, N - merged).scatter_add(1, place, self.sizes)  # [B, fewer]
        sums = tokens.new_zeros(B, N - merged, D)  # [B, fewer, D]
        sums.scatter_add_(1, place[..., None].expand(-1, -1, D), tokens * self.sizes[..., None])
        self.sizes, self.place = sizes, place.gather(1, self.place)
        return sums / sizes[..., None]

    def undone(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, D] as many as at first, each that which stands for it: a mean over them is then that of the paper."""
        return tokens.gather(1, self.place[..., None].expand(-1, -1, tokens.shape[-1]))

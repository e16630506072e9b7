"""A visual tokenizer: convolutions encode each patch as one of a few hundred codes, others decode the image from the codes.

VQ-VAE, https://arxiv.org/abs/1711.00937 (the convolutions of section 4.1: strides of 2, then residual blocks, and the mirror of both), with the
codebook of BEiT v2, https://arxiv.org/abs/2208.06366, section 3.1 and its code: vectors of unit length, moved to the mean of what they stand for by a
moving average and not by gradients. BEiT's own tokenizer, DALL-E's, was trained on 250 million images; this one trains on the images at hand.

Deviations. A code that no patch has chosen for some steps is moved to a patch that its code describes badly, drawn as k-means++ draws its seeds
(https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf); that also places the codes at the start, where BEiT v2 runs k-means.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.conv import Conv2d
from vitral.layers.patch import check_channels, patch_grid
from vitral.layers.position import Grid
from vitral.models.common import Each, ImageModel, ModelConfig, ignore

DECAY = 0.99  # of the moving averages, as in BEiT v2's code
PATIENCE = 20  # steps without a patch after which a code is moved
NARROWEST = 16  # channels next to the pixels


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ModelConfig):
    """Everything that decides a tokenizer's shape. It has no head."""

    num_classes: int = 0
    patch_size: int = 16
    dim: int = 128
    """Channels of the maps at the grid of patches; halved with each doubling of their side."""
    depth: int = 2
    """Residual blocks in the encoder, and in the decoder."""
    codes: int = 512
    code_dim: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes:
            raise VitralError(
                "a tokenizer has no classes; pre-train a BEiT with it (--objective beit), and fine-tune it"
            )
        for name in ("codes", "code_dim"):
            if getattr(self, name) < 2:
                raise VitralError(f"{name}={getattr(self, name)}: must be at least 2")


def tokenizer_of(model: ModelConfig, codes: int, code_dim: int) -> TokenizerConfig:
    """The shape of a tokenizer of a model's images and patches."""
    size, patch, channels = model.image_size, getattr(model, "patch_size", 1), model.in_channels
    return TokenizerConfig(image_size=size, patch_size=patch, in_channels=channels, codes=codes, code_dim=code_dim)


class Codebook(nn.Module):
    """Vectors of unit length [codes, d], and the sums from which a step updates them."""

    vectors: Tensor
    usage: Tensor
    idle: Tensor
    sums: Tensor
    counts: Tensor
    spare: Tensor
    rank: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(codes, dim), dim=1))
        self.register_buffer("usage", torch.zeros(codes))  # moving average of each code's share of the patches
        self.register_buffer("idle", torch.full((codes,), PATIENCE))  # steps since a patch chose the code
        # Of the current step only, so no part of a checkpoint.
        self.register_buffer("sums", torch.zeros(codes, dim), persistent=False)
        self.register_buffer("counts", torch.zeros(codes), persistent=False)
        self.register_buffer("spare", torch.zeros(codes, dim), persistent=False)  # where unused codes may go
        self.register_buffer("rank", torch.full((codes,), -torch.inf), persistent=False)  # the highest first

    def nearest(self, vectors: Tensor) -> Tensor:
        """Unit vectors [..., d] to the indices of the most similar codes, int64 [...]."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors @ self.vectors.T).argmax(-1)

    def clear(self) -> None:
        self.sums.zero_()
        self.counts.zero_()
        self.rank.fill_(-torch.inf)

    @torch.no_grad()
    def gather(self, vectors: Tensor, indices: Tensor, uniform: Tensor) -> None:
        """Add a micro-batch: unit vectors [n, d], their codes [n], and uniform numbers [n] that draw which of them replace unused codes."""
        self.sums.index_add_(0, indices, vectors)
        self.counts += torch.bincount(indices, minlength=len(self.counts))
        # The largest u^(1/w) are a draw without replacement by the weights w (Efraimidis and Spirakis 2006).
        weights = (vectors - self.vectors[indices]).square().sum(1).clamp(min=1e-12)
        self.offer(torch.cat([self.rank, uniform.log() / weights]), torch.cat([self.spare, vectors]))

    def offer(self, rank: Tensor, spare: Tensor) -> None:
        """Keep as many of the vectors `spare` [n, d] as there are codes, those of the highest rank [n]."""
        self.rank, best = rank.topk(len(self.rank))
        self.spare = spare[best]

    @torch.no_grad()
    def update(self) -> None:
        """Update the codes from all that was gathered since the last update."""
        used = self.counts > 0
        assert used.any()
        toward = F.normalize(self.sums, dim=1)
        moved = F.normalize(self.vectors.lerp(toward, 1 - DECAY), dim=1)
        self.vectors.copy_(torch.where(used[:, None], moved, self.vectors))
        self.usage.lerp_(self.counts / self.counts.sum(), 1 - DECAY)
        self.idle.copy_(torch.where(used, 0, self.idle + 1))
        given_up = (self.idle >= PATIENCE).nonzero()[:, 0][: int(self.rank.isfinite().sum())]
        self.vectors[given_up] = self.spare[: len(given_up)]
        self.idle[given_up] = 0
        self.clear()

    def perplexity(self) -> Tensor:
        """How many codes are in use: the exponential of the entropy of their shares, from 1 to their number."""
        return torch.special.entr(self.usage / self.usage.sum().clamp(min=1e-12)).sum().exp()


class Residual(nn.Sequential):
    """[B, D, h, w] -> [B, D, h, w]"""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.ReLU(), Conv2d(dim, dim, 3, padding=1), nn.ReLU(), Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def strides(patch_size: int, in_channels: int, dim: int) -> list[tuple[int, int, int, int, int]]:
    """The convolutions from the pixels to the grid: channels in and out, kernel, stride, padding.

    A stride of 2 for each factor 2 of the patch; what is left, if anything, is a linear patch.
    """
    halvings = (patch_size & -patch_size).bit_length() - 1  # how often 2 divides the patch
    left = patch_size >> halvings
    steps, channels = [], in_channels
    for i in reversed(range(halvings)):
        width = max(min(NARROWEST, dim), dim >> i)
        steps.append((channels, width, 4, 2, 1))
        channels = width
    if left > 1 or not halvings:
        steps.append((channels, dim, left, left, 0))
    return steps


class Tokenizer(ImageModel):
    """Images [B, C, H, W] to codes [B, N] (`tokenise`), vectors of codes [B, N, d] to images (`decode`).

    `embed` gives the vectors before quantisation, `encode` the codes' vectors, and `pool` their mean.
    """

    config: TokenizerConfig
    num_prefix = 0

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.patch_size, D = config.patch_size, config.dim
        steps = strides(config.patch_size, config.in_channels, D)
        down = [layer for step in steps for layer in (Conv2d(*step), nn.ReLU())]
        up = [
            layer for step in reversed(steps) for layer in (nn.ReLU(), nn.ConvTranspose2d(step[1], step[0], *step[2:]))
        ]
        encoder_blocks, decoder_blocks = ([Residual(D) for _ in range(config.depth)] for _ in range(2))
        self.encoder = nn.Sequential(*down, *encoder_blocks, nn.ReLU(), Conv2d(D, config.code_dim, 1))
        self.codebook = Codebook(config.codes, config.code_dim)
        self.decoder = nn.Sequential(Conv2d(config.code_dim, D, 3, padding=1), *decoder_blocks, *up)
        self.head = nn.Identity()
        self.strides = [config.patch_size]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.represent(images))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that cover an image of this size."""
        return patch_grid((self.patch_size, self.patch_size), height, width)

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to unit vectors [B, N, d] in float32; what the patch does not tile is padded at the bottom and the right."""
        check_channels(images, self.config.in_channels)
        H, W = images.shape[2:]
        h, w = self.grid(H, W)
        padded = F.pad(images, (0, w * self.patch_size - W, 0, h * self.patch_size - H))
        maps = self.encoder(padded)  # [B, d, h, w]
        return F.normalize(maps.flatten(2).transpose(1, 2).float(), dim=2)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """Vectors [B, N, d] to those of the nearest codes."""
        return self.codebook.vectors[self.codebook.nearest(tokens)]

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return []  # only convolutions between pixels and codes

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)

    def tokenise(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to the indices of their codes, int64 [B, N]."""
        return self.codebook.nearest(self.embed(images))

    def decode(self, vectors: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Vectors of codes [B, N, d] to images [B, C, H, W] of this size."""
        maps = vectors.transpose(1, 2).unflatten(2, self.grid(*image_size))  # [B, d, h, w]
        return self.decoder(maps)[..., : image_size[0], : image_size[1]]

"""EoMT: a DINOv2 whose last blocks also hold learned queries, each of which answers with a class and a mask.

Your ViT is Secretly an Image Segmentation Model, https://arxiv.org/abs/2503.19108, as its masks are after training: without the masked attention that
training begins with and gives up step by step. Classes compete with each other and with "no object" in a softmax; `Found.logits` are its log-odds
(`log_odds`). Boxes are those around the masks.

Axes: B batch, C channels, H W pixels, h w grid of patches, Q queries, N tokens (queries, class token, registers, patches), D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.conv import Conv2d
from vitral.layers.patch import prepend
from vitral.layers.position import Grid
from vitral.models.common import Each, Reader, ignore
from vitral.models.dino import Dino, DinoConfig
from vitral.models.heads.outputs import Found
from vitral.models.yolos import log_odds


@dataclass(frozen=True, kw_only=True)
class EomtConfig(DinoConfig):
    """Everything that decides the shape of an EoMT."""

    answers = "instance"
    image_size: tuple[int, int] = (640, 640)
    num_classes: int = 80
    patch_size: int = 16
    num_registers: int = 4
    class_position: bool = False
    num_queries: int = 200
    joint: int = 4
    """Blocks, the last ones, in which the queries take part."""
    doublings: int = 2
    """How often the map of patches is doubled for the masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position != "learned" or self.class_position:
            raise VitralError(
                "an EoMT has learned positions, and none for its class token; set position='learned', class_position=False"
            )
        for name, least, most in (("num_queries", 1, 10**5), ("joint", 1, self.depth), ("doublings", 0, 6)):
            if not least <= getattr(self, name) <= most:
                raise VitralError(f"{name}={getattr(self, name)}: must be {least} to {most}")


class Doubling(nn.Module):
    """A map [B, D, h, w] at twice its height and width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        self.mix = Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.gelu(self.enlarge(x)))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class QueryMasks(nn.Module):
    """Queries [B, Q, D] and the patches' map [B, h, w, D] to classes and masks."""

    def __init__(self, dim: int, classes: int, patch: int, doublings: int) -> None:
        super().__init__()
        self.stride = patch / 2**doublings
        self.classes = nn.Linear(dim, classes + 1)
        self.mask = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.pixels = nn.Sequential(*(Doubling(dim) for _ in range(doublings)))

    def scores(self, queries: Tensor) -> Tensor:
        """[B, Q, K + 1]: the softmax's logits, the last of "no object"."""
        return self.classes(queries)

    def forward(self, queries: Tensor, patches: Tensor) -> Found:
        pixels = self.pixels(patches.permute(0, 3, 1, 2))  # [B, D, h', w']
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask(queries), pixels)
        return Found(log_odds(self.scores(queries).float())[..., :-1], boxes_around(masks), masks, self.stride)


def boxes_around(masks: Tensor) -> Tensor:
    """The boxes of what is above 0 in masks [B, Q, h, w], as shares of width and height: [B, Q, 4], zeros around nothing."""
    inside = (masks > 0).float()
    edges = []
    for along, across in ((3, 2), (2, 3)):  # x, then y
        line = inside.amax(across)  # [B, Q, w] or [B, Q, h]
        count = masks.shape[along]
        first, last = line.argmax(-1), count - line.flip(-1).argmax(-1)
        edges.append((first / count, torch.where(line.amax(-1) > 0, last, first) / count))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], -1)


class Eomt(Dino):
    """forward = head(queries and patches of encode(embed(images), grid)): [B, C, H, W] -> Found with masks."""

    config: EomtConfig

    def __init__(self, config: EomtConfig) -> None:
        super().__init__(config)
        self.query = nn.Parameter(torch.randn(config.num_queries, config.dim))
        if config.num_classes:
            self.head = QueryMasks(config.dim, config.num_classes, config.patch_size, config.doublings)

    def forward(self, images: Tensor) -> Found:  # type: ignore[override]
        grid = self.grid_of(images)
        tokens = self.encode(self.embed(images), grid)  # [B, N, D]
        patches = tokens[:, -grid[0] * grid[1] :].unflatten(1, grid)  # [B, h, w, D]
        return self.head(tokens[:, : self.config.num_queries], patches)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """The embedded tokens through every block and the norm; from the joint blocks on the queries are before them."""
        alone = len(self.blocks) - self.config.joint
        for i, block in enumerate(self.blocks):
            if i == alone:
                tokens = prepend(tokens, self.query[None])
            tokens = block(tokens)
            each(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean of the queries, [B, D]: no token stands for the whole image."""
        return tokens[:, : self.config.num_queries].mean(1)

    @property
    def reader(self) -> Reader:
        return "mean"

    def layer_numbers(self) -> dict[str, int]:
        return super().layer_numbers() | {"query": self.config.depth - self.config.joint}

    def embedding_parameters(self) -> set[str]:
        return super().embedding_parameters() - {"query"}

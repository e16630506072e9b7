"""Objects from a backbone's maps: a dense stage answers at each place, and its best answers become queries that a decoder refines.

Two-stage selection as in Deformable DETR (https://arxiv.org/abs/2010.04159, section 4.2), global cross-attention with a box-relative bias as in
Plain DETR (https://arxiv.org/abs/2308.01904), boxes as changes of reference boxes as in LW-DETR (https://arxiv.org/abs/2406.03459), masks as
products of queries and pixels as in MaskFormer (https://arxiv.org/abs/2107.06278). Without decoder layers it is a dense detector by itself.

Axes: B batch, N = h*w places of the memory, Q queries, K classes, D width, C width of the pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitral.layers.attention import Attention
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.position import Grid
from vitral.layers.query import OCTAVES, BoxBias, CrossAttention, QueryLayer, centred, refined, waves
from vitral.models.heads.neck import PlainNeck, PyramidNeck
from vitral.models.heads.options import QueryOptions
from vitral.models.heads.outputs import Found

PRIOR = 0.01  # probability of a class at the start, https://arxiv.org/abs/1708.02002, section 4.1
ANCHOR = 4  # cells of an anchor's side


class Answer(nn.Module):
    """Vectors [..., D] -> a class [..., K], a change of a box [..., 4] and a mask's kernel [..., C], where C is not 0."""

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        self.label = nn.Linear(dim, classes)
        self.box = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))
        self.kernel = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, width)) if width else None

    def forward(self, x: Tensor, references: Tensor) -> Found:
        """references: boxes [..., 4] that the changes are of."""
        kernels = None if self.kernel is None else self.kernel(x)
        return Found(self.label(x).float(), refined(references, self.box(x)), kernels=kernels)


class QueryDecoder(nn.Module):
    """Refines queries layer by layer; every layer answers through the same norm and linear layers."""

    def __init__(self, dim: int, num_heads: int, depth: int, classes: int, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(dim, dim)
        self.positions = nn.Sequential(nn.Linear(8 * OCTAVES, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(
            QueryLayer(dim, Attention(dim, num_heads), CrossAttention(dim, num_heads), Mlp(dim, 4 * dim))
            for _ in range(depth)
        )
        self.biases = nn.ModuleList(BoxBias(num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.answer = Answer(dim, classes, width)

    def forward(self, tokens: Tensor, best: Tensor, boxes: Tensor, grid: Grid, cells: Tensor) -> list[Found]:
        """What each layer finds.

        Args:
            tokens: [B, N, D], the memory; those numbered `best` [B, Q] become queries.
            boxes: [B, Q, 4], where they begin.
            cells: [4]: how many cells of the grid the image is wide, high, wide, high.
        """
        held = Tensor.detach if self.training else nn.Identity()  # in use gradients explain, and go all the way
        x = self.content(held(rows(tokens, best)))  # [B, Q, D]
        boxes, found = held(boxes), []
        for layer, bias in zip(self.layers, self.biases, strict=True):
            x = layer(x, self.positions(waves(boxes)), tokens, bias(boxes * cells, grid))
            found.append(self.answer(self.norm(x), boxes))
            boxes = held(found[-1].boxes)
        return found


class QueryHead(nn.Module):
    """head(maps, size) -> Found, over maps of a plain ViT or of a pyramid, for images of any size.

    widths, strides: of the backbone's maps, finest first.
    """

    answers: ClassVar = ("label", "box.4", "kernel.2")
    """The layers that give the answers."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], classes: int, options: QueryOptions) -> None:
        super().__init__()
        D, C, depth = options.query_dim, options.pixel_dim if options.masks else 0, options.decoder_layers
        self.queries, self.stuff = options.queries, frozenset(options.stuff)
        self.neck = (PlainNeck if len(set(strides)) == 1 else PyramidNeck)(widths, strides, D, C)
        self.token = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D))
        self.dense = Answer(D, classes, C)
        self.decoder = QueryDecoder(D, options.query_heads, depth, classes, C) if depth else None
        self.stride = max(1, round(self.neck.fine))
        """Pixels of a mask's cell."""
        self.chosen: Tensor | None = None
        """Places [1, Q] that answer in use instead of the best, so that the same ones are asked about a changed image."""
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Truncated normals of deviation 0.02; every class at a probability of 0.01, every box at its reference."""
        truncated_normal(self)
        for answer in (module for module in self.modules() if isinstance(module, Answer)):
            nn.init.constant_(answer.label.bias, -math.log((1 - PRIOR) / PRIOR))
            nn.init.zeros_(answer.box.get_parameter("4.weight"))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Found:
        """Maps [B, h, w, *] of images of `size` (height, width) pixels; they may reach beyond the images."""
        memory, pixels = self.neck(maps)  # [B, h, w, D], [B, h', w', C]
        grid = memory.shape[1], memory.shape[2]
        anchors, cells = self.places(grid, size, memory.device)
        tokens = self.token(memory.flatten(1, 2))  # [B, N, D]
        dense = self.dense(tokens, anchors)
        best = self.best(dense)  # [B, Q]
        stages = [replace(dense, centres=centred(anchors)[:, :2].expand(tokens.shape[0], -1, -1))]
        if self.decoder is not None:
            stages += self.decoder(tokens, best, rows(dense.boxes, best), grid, cells)
        elif not self.training:
            kernels = None if dense.kernels is None else rows(dense.kernels, best)
            stages = [Found(rows(dense.logits, best), rows(dense.boxes, best), kernels=kernels)]
        return self.together(stages, None if pixels is None else pixels.permute(0, 3, 1, 2))

    def best(self, dense: Found) -> Tensor:
        """The places with the surest answers, [B, Q], or those that were `chosen`."""
        if self.chosen is not None:
            return self.chosen.expand(dense.logits.shape[0], -1)
        return dense.logits.amax(-1).topk(min(self.queries, dense.logits.shape[1])).indices

    def together(self, stages: list[Found], pixels: Tensor | None) -> Found:
        """The last stage with the earlier ones (in training), or with its masks (in use); pixels: [B, C, h', w'], None without masks."""
        fine = [replace(each, pixels=pixels, stride=self.neck.fine) for each in stages]
        last = replace(fine[-1], repeated=self.decoder is None, stuff=self.stuff)
        if self.training:
            return replace(last, earlier=tuple(fine[:-1]))
        masks = None if pixels is None else torch.einsum("bqc,bchw->bqhw", last.kernels, pixels)  # [B, Q, h', w']
        return replace(last, masks=masks, kernels=None, pixels=None, centres=None)

    def places(self, grid: Grid, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Anchors [N, 4], boxes of ANCHOR cells around each place, and how many cells wide, high, wide, high an image is, [4]."""
        h, w = grid
        y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
        middles = torch.stack([x, y], -1).flatten(0, 1)  # [N, 2], in cells
        cells = torch.tensor([size[1], size[0]] * 2, device=device) / self.neck.stride
        return torch.cat([middles - ANCHOR / 2, middles + ANCHOR / 2], -1) / cells, cells


def rows(x: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` [B, Q] of x [B, N, *]."""
    return x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))

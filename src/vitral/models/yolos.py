"""YOLOS: a plain Vision Transformer with detection tokens beside its patches, each of which answers with one object.

You Only Look at One Sequence, https://arxiv.org/abs/2106.00666. As in the authors' code, the larger models add learned positions after every block
but the last, pixels beyond the last whole patch are dropped, and boxes are shares of the whole input. Classes compete with each other and with "no
object" in a softmax: `Found.logits` are the log-odds of each class against all else, so that their sigmoids are the softmax's probabilities.

Axes: B batch, C channels, H W pixels, h w grid of patches, Q detection tokens, N tokens (1 + Q + h*w), D width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.attention import Attention
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed, prepend
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import CLASS_TOKEN, Each, ImageModel, ModelConfig, Reader, ignore
from vitral.models.heads.outputs import Found


@dataclass(frozen=True, kw_only=True)
class YolosConfig(ModelConfig):
    """Everything that decides the shape of a YOLOS."""

    answers = "detect"
    image_size: tuple[int, int] = (512, 864)
    """Of the positions; images may have any size."""
    num_classes: int = 80
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    num_detections: int = 100
    """Detection tokens: as many objects are found at most."""
    middle_positions: bool = False
    """Learned positions after every block but the last, beside those of the embedding."""
    gaps: tuple[int, ...] = ()
    """Outputs, among K + len(gaps), that are of no class: COCO's 91 ids name 80 classes. They compete in the softmax and are never answered."""
    drop_path: float = 0.0
    qkv_bias: bool = True
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_detections < 1:
            raise VitralError(f"num_detections={self.num_detections}: must be at least 1")
        outputs = self.num_classes + len(self.gaps)
        wrong = len(set(self.gaps)) < len(self.gaps) or not all(0 <= gap < outputs for gap in self.gaps)
        if self.num_classes and wrong:
            raise VitralError(f"gaps={self.gaps}: must be different numbers from 0 to {outputs - 1}")


class DetectionHead(nn.Module):
    """Detection tokens [B, Q, D] to classes and boxes, through an MLP of three layers each."""

    def __init__(self, dim: int, classes: int, gaps: tuple[int, ...]) -> None:
        super().__init__()
        outputs = classes + len(gaps)
        self.named = [k for k in range(outputs) if k not in gaps]
        self.classes = layers(dim, outputs + 1)
        self.boxes = layers(dim, 4)

    def scores(self, tokens: Tensor) -> Tensor:
        """[B, Q, K + gaps + 1]: the softmax's logits, the last of "no object"."""
        return self.classes(tokens)

    def forward(self, tokens: Tensor) -> Found:
        centre, size = self.boxes(tokens).sigmoid().chunk(2, dim=-1)  # shares of the input's width and height
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        return Found(log_odds(self.scores(tokens).float())[..., self.named], boxes)


def layers(dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs))


def log_odds(logits: Tensor) -> Tensor:
    """Logits of a softmax [..., K] to those whose sigmoids are its probabilities: each less the log-sum-exp of the others."""
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others = logits[..., None, :].masked_fill(itself, -torch.inf)  # [..., K, K]
    return logits - others.logsumexp(-1)


class Yolos(ImageModel):
    """forward = head(detection tokens of encode(embed(images), grid)): [B, C, H, W] -> Found."""

    config: YolosConfig

    def __init__(self, config: YolosConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.num_prefix = 1 + config.num_detections
        self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, config.dim)
        D, Q = config.dim, config.num_detections
        h, w = self.table_grid = config.image_size[0] // config.patch_size, config.image_size[1] // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.det_tokens = nn.Parameter(torch.zeros(1, Q, D))
        # As in the weights, the detection tokens' rows are the last.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + h * w + Q, D))
        depth = config.depth
        self.mid_pos_embed = (
            nn.Parameter(torch.zeros(depth - 1, 1, 1 + h * w + Q, D)) if config.middle_positions else None
        )
        self.blocks = nn.ModuleList(
            Block(
                D,
                Attention(D, config.num_heads, qkv_bias=config.qkv_bias),
                Mlp(D, round(D * config.mlp_ratio)),
                drop_path=rate,
                eps=config.norm_eps,
            )
            for rate in drop_path_rates(config.drop_path, depth)
        )
        self.norm = nn.LayerNorm(D, eps=config.norm_eps)
        self.head = DetectionHead(D, config.num_classes, config.gaps) if config.num_classes else nn.Identity()
        self.strides = [config.patch_size] * min(4, depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the authors' code: truncated normals of deviation 0.02."""
        truncated_normal(self, self.cls_token, self.det_tokens, self.pos_embed, self.mid_pos_embed)

    def forward(self, images: Tensor) -> Found:  # type: ignore[override]
        tokens = self.embed(images)  # [B, N, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, N, D]
        return self.head(tokens[:, 1 : self.num_prefix])

    def grid_of(self, images: Tensor) -> Grid:
        return super().grid_of(self.whole(images))

    def whole(self, images: Tensor) -> Tensor:
        """The images without what is beyond their last whole patch."""
        H, W = (side // self.patch_size * self.patch_size or side for side in images.shape[2:])
        return images[:, :, :H, :W]

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to the class token, detection tokens and patches with their positions, [B, N, D]."""
        patches = self.patch_embed(self.whole(images))  # [B, h*w, D]
        tokens = prepend(patches, self.cls_token, self.det_tokens)
        return tokens + self.positions(self.pos_embed, self.grid_of(images))

    def features(self, images: Tensor) -> list[Tensor]:
        return super().features(self.whole(images))

    def positions(self, table: Tensor, grid: Grid) -> Tensor:
        """A table [1, 1 + h*w + Q, D] on another grid, in the order of the tokens: [1, N, D]."""
        rows = self.config.num_detections
        cls, patches, detections = table[:, :1], table[:, 1:-rows], table[:, -rows:]
        patches = resize_positions(patches, self.table_grid, grid, self.config.position_resize)
        return torch.cat([cls, detections, patches], dim=1)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        middle = () if self.mid_pos_embed is None else self.mid_pos_embed
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i < len(middle):
                tokens = tokens + self.positions(middle[i], grid)
            each(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean of the detection tokens, [B, D]: no token stands for the whole image."""
        return tokens[:, 1 : self.num_prefix].mean(1)

    @property
    def reader(self) -> Reader:
        return "mean"

    def answer_token(self, row: int) -> int | None:
        return 1 + row

    @property
    def prefix_names(self) -> tuple[str, ...]:
        return (CLASS_TOKEN, *(f"detection {i}" for i in range(1, self.num_prefix)))

    def position_vectors(self) -> dict[str, tuple[Tensor, Grid]]:
        rows = self.pos_embed.detach()[0, 1 : -self.config.num_detections]
        return {"pos_embed": (rows, self.table_grid)}

    def layer_numbers(self) -> dict[str, int]:
        middle = {} if self.mid_pos_embed is None else {"mid_pos_embed": 1}  # one tensor for all blocks: of the first
        return super().layer_numbers() | middle

    def embedding_parameters(self) -> set[str]:
        return super().embedding_parameters() - {"mid_pos_embed"}

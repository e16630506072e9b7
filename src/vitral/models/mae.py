"""Masked autoencoders: a ViT encodes a quarter of the patches, a small decoder reconstructs the pixels of the rest.

Masked Autoencoders Are Scalable Vision Learners, https://arxiv.org/abs/2111.06377. The encoder is a ViT, used through `embed` and `encode` only.
Decoder names are those of the paper's release.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.attention import Attention
from vitral.layers.block import Block
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import patchify, unpatchify
from vitral.layers.position import Grid, resize_positions, sincos2d
from vitral.models.common import Each, ImageModel, ModelConfig, ignore
from vitral.models.hybrid import HybridConfig
from vitral.models.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True, kw_only=True)
class MAEConfig(ViTConfig):
    """The encoder's shape, and the decoder's. The encoder has no head."""

    num_classes: int = 0
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    decoder_mlp_ratio: float = 4.0
    mask_ratio: float = 0.75
    norm_pixels: bool = True
    """The target is each patch less its mean, divided by its deviation (section 4.1); False: the pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio < 1:
            raise VitralError(f"mask_ratio={self.mask_ratio}: must lie between 0 and 1")
        if self.num_classes or not self.class_token or self.num_registers or self.position != "learned" or self.stem:
            raise VitralError(
                "a masked autoencoder has linear patches, a class token, positions of its own and no head; fine-tune its encoder"
            )

    @property
    def backbone(self) -> ViTConfig:
        return ViTConfig(**{f.name: getattr(self, f.name) for f in fields(ViTConfig)})


def autoencoder_of(encoder: ModelConfig, **options: object) -> MAEConfig:
    """The shape of an autoencoder around that of its encoder, a plain ViT; options: MAEConfig's own fields."""
    if not isinstance(encoder, ViTConfig) or isinstance(encoder, HybridConfig):
        family = type(encoder).__name__.removesuffix("Config")
        raise VitralError(f"the mae objective needs a plain ViT, not a {family}; choose one, or another objective")
    shape = {f.name: getattr(encoder, f.name) for f in fields(ViTConfig)}
    return MAEConfig(**(shape | {"num_classes": 0} | options))


class MAEOutput(NamedTuple):
    loss: Tensor
    """Mean squared error over the masked patches, a scalar."""
    logits: Tensor
    """The decoder's pixels for every patch, [B, N, p*p*C], in the order row, column, channel."""
    mask: Tensor
    """[B, N] float: 1 where the patch was hidden from the encoder."""


class MaskedAutoencoder(ImageModel):
    """images [B, C, H, W] -> MAEOutput. The rest of the contract (embed, encode, pool) is that of its encoder."""

    config: MAEConfig
    num_prefix = 1

    def __init__(self, config: MAEConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        D = config.decoder_dim
        self.encoder = VisionTransformer(config.backbone)
        self.grid = self.encoder.grid
        N = self.grid[0] * self.grid[1]
        self.decoder_embed = nn.Linear(config.dim, D)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + N, D), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(
                D,
                Attention(D, config.decoder_num_heads),
                Mlp(D, round(D * config.decoder_mlp_ratio)),
                eps=config.norm_eps,
            )
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(D, eps=config.norm_eps)
        self.decoder_pred = nn.Linear(D, config.patch_size**2 * config.in_channels)
        self.head = nn.Identity()
        self.strides = self.encoder.strides
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: Xavier-uniform layers, tokens N(0, 0.02), fixed sine positions in encoder and decoder (0 for the class token)."""
        truncated_normal(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.xavier_uniform_(self.encoder.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.encoder.cls_token, std=0.02)  # type: ignore[arg-type]
        nn.init.normal_(self.mask_token, std=0.02)
        for table in (self.encoder.pos_embed, self.decoder_pos_embed):
            assert isinstance(table, nn.Parameter)
            table[0, 0] = 0
            table[0, 1:] = sincos2d(*self.grid, table.shape[-1], endpoint=False).to(table.device)
            table.requires_grad_(False)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> MAEOutput:  # type: ignore[override]
        """`noise` [B, N] decides the mask: the patches with the smallest values stay visible. Random unless given."""
        tokens = self.encoder.embed(images)  # [B, 1 + N, D]
        cls, patches = tokens[:, :1], tokens[:, 1:]
        grid = self.grid_of(images)
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=images.device)
        noise = torch.as_tensor(noise, device=images.device)
        if noise.shape != patches.shape[:2]:
            raise VitralError(f"noise {tuple(noise.shape)}: give one number a patch, {tuple(patches.shape[:2])}")
        order = noise.argsort(dim=1)  # [B, N], the kept ones first
        keep = int(order.shape[1] * (1 - self.config.mask_ratio))
        visible = patches.gather(1, order[:, :keep, None].expand(-1, -1, patches.shape[-1]))  # [B, keep, D]
        mask = torch.ones_like(noise).scatter(1, order[:, :keep], 0.0)  # [B, N]

        latent = self.encoder.encode(torch.cat([cls, visible], dim=1), grid)  # [B, 1 + keep, D]
        logits = self.decode(latent, order, grid)  # [B, N, p*p*C]

        target = self.patches(images)
        if self.config.norm_pixels:
            mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        error = (logits.float() - target).square().mean(-1)  # [B, N]
        return MAEOutput((error * mask).sum() / mask.sum(), logits, mask)

    def decode(self, latent: Tensor, order: Tensor, grid: Grid) -> Tensor:
        """Encoded class and visible tokens [B, 1 + keep, D], and where each patch went, to pixels of all patches [B, N, p*p*C]."""
        tokens = self.decoder_embed(latent)  # [B, 1 + keep, D']
        B, _, D = tokens.shape
        hidden = self.mask_token.to(tokens.dtype).expand(B, order.shape[1] - tokens.shape[1] + 1, -1)
        shuffled = torch.cat([tokens[:, 1:], hidden], dim=1)  # [B, N, D']
        patches = shuffled.gather(1, order.argsort(dim=1)[..., None].expand(-1, -1, D))  # back in their places
        tokens = torch.cat([tokens[:, :1], patches], dim=1)
        positions = resize_positions(self.decoder_pos_embed, self.grid, grid, self.config.position_resize, prefix=1)
        tokens = tokens + positions.to(tokens.dtype)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {"encoder.pos_embed": (self.grid, 1), "decoder_pos_embed": (self.grid, 1)}

    def embed(self, images: Tensor) -> Tensor:
        return self.encoder.embed(images)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        return self.encoder.encode(tokens, grid, each)

    @property
    def backbone(self) -> ImageModel:
        return self.encoder

    def inner_parameters(self) -> set[str]:
        decoder = {name for name, _ in self.named_parameters() if name.startswith("decoder_blocks.")}
        return super().inner_parameters() | decoder

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return self.encoder.blocks_by_stage()

    def pool(self, tokens: Tensor) -> Tensor:
        return self.encoder.pool(tokens)

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder's representation [B, D] of whole images, and its attention."""
        return self.encoder.forward_with_attention(images)

    def patches(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to [B, N, p*p*C], row, column, channel, padded at the bottom and the right as the encoder pads."""
        return patchify(images, (self.patch_size, self.patch_size), channels_last=True)

    def picture(self, patches: Tensor, image_size: tuple[int, int]) -> Tensor:
        """The inverse of `patches`: [B, N, p*p*C] to images [B, C, H, W]."""
        return unpatchify(patches, (self.patch_size, self.patch_size), image_size, channels_last=True)

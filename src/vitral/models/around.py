"""A model around another one, of which it adds another answer: all of the contract up to the pooled token is the inner model's."""

from abc import abstractmethod

from torch import Tensor, nn

from vitral.layers.position import Grid
from vitral.models.common import Each, ImageModel, ModelConfig, Reader, ignore


class Around(ImageModel):
    """What holds the inner model says where, before its own `forward`."""

    def __init__(self, config: ModelConfig, inner: ImageModel) -> None:
        super().__init__(config)
        self.patch_size, self.num_prefix, self.strides = inner.patch_size, inner.num_prefix, inner.strides

    @property
    @abstractmethod
    def inner(self) -> ImageModel:
        """The other model."""

    @property
    def backbone(self) -> ImageModel:
        return self.inner.backbone

    @property
    def token_strides(self) -> list[int]:
        return self.inner.token_strides

    @property
    def widths(self) -> list[int]:
        return self.inner.widths

    @property
    def class_blocks(self) -> list[nn.Module]:
        return self.inner.class_blocks

    @property
    def final_norm(self) -> nn.Module:
        return self.inner.final_norm

    @property
    def reader(self) -> Reader:
        return self.inner.reader

    @property
    def prefix_names(self) -> tuple[str, ...]:
        return self.inner.prefix_names

    def embed(self, images: Tensor) -> Tensor:
        return self.inner.embed(images)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        return self.inner.encode(tokens, grid, each)

    def pool(self, tokens: Tensor) -> Tensor:
        return self.inner.pool(tokens)

    def features(self, images: Tensor) -> list[Tensor]:
        return self.inner.features(images)

    def grid_of(self, images: Tensor) -> Grid:
        return self.inner.grid_of(images)

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return self.inner.blocks_by_stage()

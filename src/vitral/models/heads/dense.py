"""A model for dense tasks: a backbone of any family, and a head that reads its maps.

Axes: B images, C channels, H W pixels, h w of a map, D its width.
"""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from vitral.models.around import Around
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.heads.options import HeadOptions
from vitral.models.heads.outputs import Found, Maps
from vitral.models.zoo import build


class Dense(Around):
    """Images [B, C, H, W] -> Maps or Found. All else of the contract is that of the backbone, which has no head of its own.

    `config` is the backbone's with `num_classes` of this head.
    """

    def __init__(self, config: ModelConfig, options: HeadOptions) -> None:
        encoder = build(replace(config, num_classes=0))
        super().__init__(config, encoder)
        self.options, self.encoder = options, encoder
        self.head = options.build(encoder.widths, encoder.strides, config.num_classes)

    @property
    def inner(self) -> ImageModel:
        return self.encoder

    def forward(self, images: Tensor) -> Maps | Found:  # type: ignore[override]
        H, W = images.shape[2:]
        whole = self.strides[-1]  # padded to whole cells of the coarsest map, so that all maps cover the same
        images = F.pad(images, (0, -W % whole, 0, -H % whole))
        return self.answered(images, (H, W))

    def answered(self, images: Tensor, size: tuple[int, int]) -> Maps | Found:
        """Of images that are padded to whole cells, and whose own height and width are `size`."""
        return self.head(self.encoder.features(images), size)

    @property
    def stride(self) -> int:
        """Pixels of a cell of the head's own grid."""
        return int(self.head.stride)  # type: ignore[arg-type]

    def layer_numbers(self) -> dict[str, int]:
        """Those of the backbone, whose last layer the head is of, too."""
        layers = {f"encoder.{name}": layer for name, layer in self.encoder.layer_numbers().items()}
        last = max(layers.values())
        return layers | {f"head.{name}": last for name, _ in self.head.named_parameters()}

    def whole_matrices(self) -> set[str]:
        """All matrices and kernels but those that read the image, work in single channels, or give the answers."""
        last = tuple(f".{name}." for name in self.head.answers)  # type: ignore[union-attr]
        few = 1, self.config.in_channels
        return {
            name
            for name, p in self.named_parameters()
            if p.ndim in (2, 4) and p.shape[1] not in few and not any(part in name for part in last)
        }

    def embedding_parameters(self) -> set[str]:
        return {f"encoder.{name}" for name in self.encoder.embedding_parameters()}

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {f"encoder.{name}": grid for name, grid in self.encoder.grids().items()}

    def bias_tables(self) -> dict[str, tuple[int, int]]:
        return {f"encoder.{name}": window for name, window in self.encoder.bias_tables().items()}


def build_model(config: ModelConfig, head: HeadOptions | None) -> ImageModel:
    """A freshly initialised model of this shape: with this head, or where there is none with the architecture's own."""
    return build(config) if head is None else Dense(config, head)

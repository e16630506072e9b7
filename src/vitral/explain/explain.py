"""What a model's answer was read from, for one image: the glue between a predictor, its recorded attention and the pictures.

Methods: `attention`, the class token's attention to the patches (https://arxiv.org/abs/2010.11929, section 4.5), and `rollout`
(https://arxiv.org/abs/2005.00928). Attention says where information came from, not what it was used for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitral.checkpoints.bundle import ModelCard
from vitral.data.decode import decode
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.explain.figure import Explanation, grid_figure
from vitral.explain.maps import Query, rollout, token_map
from vitral.layers.attention import attention_layers, check_layer
from vitral.models.beit import Beit
from vitral.models.common import ImageModel
from vitral.models.deit import DeiT
from vitral.models.dino import Dino
from vitral.models.vit import VisionTransformer
from vitral.models.zoo import family_of
from vitral.predict import ImageLike, Predictor, load, to_rgb

METHODS = ("attention", "rollout")
Plain = VisionTransformer | DeiT | Beit | Dino  # families whose every layer lets all tokens attend to all
Layer = int | Literal["mean"]


@dataclass(frozen=True)
class Attention:
    """All attention of one forward pass. `layers` holds a float32 [H, N, N] for each layer; N = num_prefix + h * w tokens."""

    layers: list[np.ndarray]
    logits: np.ndarray
    num_prefix: int
    grid: tuple[int, int]
    box: tuple[int, int, int, int]
    """Top, left, height, width of the model's view in the picture."""
    picture: np.ndarray
    """uint8 [h, w, 3], in its own size and shape."""
    label: str
    probability: float
    query: Query
    """Who reads by default: the class token, or all patches in their mean, as the model's pooling has it."""
    class_token: bool = True

    def heads(self, query: Query | None = None) -> np.ndarray:
        """[layers, heads, h, w]: what `query` reads from each patch."""
        query = self.asked(query)
        return np.stack([token_map(layer, self.num_prefix, self.grid, query) for layer in self.layers])

    def asked(self, query: Query | None) -> Query:
        """Who reads, given whom a person asked for."""
        if query == "cls" and not self.class_token:
            raise VitralError(
                "query cls: this model has no class token; ask for mean, or for a patch by its row and column"
            )
        return query or self.query

    def map(self, layer: Layer = -1, head: int | None = None, query: Query | None = None) -> np.ndarray:
        """[h, w] of one layer (or the mean of all) and one head (or the mean of all)."""
        maps = self.heads(query)  # [layers, heads, h, w]
        chosen = maps.mean(axis=0) if layer == "mean" else maps[check_layer(layer, len(maps))]
        if head is None:
            return chosen.mean(axis=0)
        if not -len(chosen) <= head < len(chosen):
            raise VitralError(f"head {head}: a layer has {len(chosen)} heads, numbered 0 to {len(chosen) - 1}")
        return chosen[head]

    def rollout(self, query: Query | None = None) -> np.ndarray:
        """[h, w] of attention rolled out through all layers."""
        return token_map(rollout(self.layers), self.num_prefix, self.grid, self.asked(query))

    def explain(
        self,
        method: str = "attention",
        layer: Layer | None = None,
        head: int | None = None,
        query: Query | None = None,
    ) -> Explanation:
        """The map of one method, as `explain` describes."""
        if method not in METHODS:
            raise VitralError(f"method {method!r}: choose one of {', '.join(METHODS)}")
        query = self.asked(query)
        if method == "rollout":
            if layer is not None or head is not None:
                raise VitralError(
                    "rollout goes through all layers and heads; leave layer and head out, or use attention"
                )
            values, what = self.rollout(query), "rollout through all layers"
        else:
            layer = -1 if layer is None else layer
            which = "mean of layers" if layer == "mean" else f"layer {check_layer(layer, len(self.layers))}"
            values = self.map(layer, head, query)
            what = f"attention, {which}, {'mean of heads' if head is None else f'head {head}'}"
        asking = query if isinstance(query, tuple) else None
        method = f"{what}: what {reader(query)} reads"
        return Explanation(self.picture, values, method, self.label, self.probability, self.box, asking)

    def figure(self, title: str, query: Query | None = None) -> Image.Image:
        """The grid of layers x heads, as the model saw the picture."""
        top, left, height, width = self.box
        picture, query = self.picture[top : top + height, left : left + width], self.asked(query)
        return grid_figure(picture, self.heads(query), title, asking=query if isinstance(query, tuple) else None)

    def save(self, path: Path) -> None:
        """The raw arrays: attention [layers, heads, N, N], logits [K], grid, num_prefix and the picture."""
        if path.suffix != ".npz":
            raise VitralError(f"{path}: arrays are written as .npz; choose that ending")
        try:
            np.savez_compressed(
                path,
                attention=np.stack(self.layers),
                logits=self.logits,
                grid=self.grid,
                num_prefix=self.num_prefix,
                picture=self.picture,
            )
        except OSError as error:
            raise VitralError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def reader(query: Query) -> str:
    """Who reads, in words."""
    if isinstance(query, tuple):
        return f"the patch in row {query[0]} and column {query[1]}"
    return {"cls": "the class token", "mean": "the average patch"}[query]


def explainable(model: ImageModel) -> Plain:
    """The model, if its attention is of all tokens to all tokens; else a VitralError."""
    if isinstance(model, Plain):
        return model
    kind = type(model).__name__
    if not attention_layers(model):
        raise VitralError(f"{kind}: has no attention to show")
    raise VitralError(
        f"{kind}: its attention is not between all patches, so it has no one map; its arrays are in model.forward_with_attention(images)"
    )


def look(predictor: Predictor, image: ImageLike) -> Attention:
    """One forward pass with all attention recorded."""
    model, steps = explainable(predictor.model), predictor.card.preprocess
    pixels = predictor.decode(image)
    with torch.inference_mode():
        batch = steps(pixels)[None].to(next(model.parameters()).device)  # [1, C, H, W]
        logits, layers = model.forward_with_attention(batch)
    probabilities = predictor.probabilities(logits.float())[0]
    best = int(probabilities.argmax())
    picture = to_rgb(decode(image, 3) if isinstance(image, str | Path | bytes | Image.Image) else pixels)
    return Attention(
        layers=[layer[0].float().cpu().numpy() for layer in layers],
        logits=logits[0].float().cpu().numpy(),
        num_prefix=model.num_prefix,
        grid=model.patch_embed.grid(steps.height, steps.width),
        box=steps.box(*picture.shape[:2]),
        picture=picture,
        label=predictor.labels[best] if predictor.labels else "",
        probability=float(probabilities[best]),
        query="mean" if getattr(model.config, "pooling", "cls") == "mean" else "cls",
        class_token=getattr(model.config, "class_token", True),
    )


def explain(
    predictor: Predictor,
    image: ImageLike,
    method: str = "attention",
    layer: Layer | None = None,
    head: int | None = None,
    query: Query | None = None,
) -> Explanation:
    """The map of one method: `attention` of a layer (default the last; "mean" for all) and head (default their mean), or `rollout`.

    `query` says whose reading is shown: "cls", "mean" over the patches, or a patch's (row, column); default: what the head reads.
    """
    return look(predictor, image).explain(method, layer, head, query)


def visualize_attention(
    model: Predictor | nn.Module | str | Path,
    image: ImageLike,
    layer_idx: Layer = -1,
    head_idx: int | None = None,
    query: Query | None = None,
) -> Explanation:
    """The attention over the image that the model's answer was read from, ready to be shown in a notebook, saved, or read as `.map` and `.grid`.

    A bare module has no labels and preprocessing: classes are then numbered, images resized to its size and scaled to -1..1; a float
    tensor [C, H, W] is taken as its input as it is.
    """
    if isinstance(model, str | Path):
        model = load(model)
    if isinstance(model, nn.Module):
        if not isinstance(model, ImageModel):
            raise VitralError(f"{type(model).__name__}: not a model of vitral's; create it with vitral.create_model")
        size = model.image_size
        if isinstance(image, Tensor) and image.is_floating_point():
            image = image[0] if image.ndim == 4 and len(image) == 1 else image
            size = (image.shape[-2], image.shape[-1])
            image = (image + 1) * 127.5  # which the preprocessing undoes
        model = _bare(model, size)
    return explain(model, image, "attention", layer_idx, head_idx, query)


def _bare(model: ImageModel, size: tuple[int, int]) -> Predictor:
    config = model.config
    half = (0.5,) * config.in_channels
    steps = Preprocess(*size, config.in_channels, half, half, min_size=model.patch_size)
    return Predictor(
        model, ModelCard(family_of(config), config.arguments(), [str(k) for k in range(config.num_classes)], steps)
    )

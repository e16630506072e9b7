"""Predictor: file -> pixels -> logits -> labels, the one path that evaluation, explanations, export and serving share."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Union

import numpy as np
from PIL import Image

from vitral.answers import ANSWERS, Answer
from vitral.checkpoints.card import ModelCard
from vitral.data.arrays import arranged, array_pixels
from vitral.data.bands import in_words, with_channels
from vitral.data.decode import PageOf, decode_array
from vitral.data.options import DataOptions
from vitral.data.resample import Pixels
from vitral.data.tiles import Tile, tiles
from vitral.data.values import Range, beyond
from vitral.data.view import Placed
from vitral.engines.engine import Engine
from vitral.engines.files import SUFFIXES, opened
from vitral.errors import VitralError, counted, installed_whole, some

if TYPE_CHECKING:
    from torch import Tensor

    from vitral.engines.torch import TorchEngine
    from vitral.models.common import ImageModel

TILES = 8  # in one forward pass
ImageLike = Union[str, Path, bytes, PageOf, Image.Image, np.ndarray, "Tensor"]


class Predictor:
    """A model with its labels and its preprocessing. PyTorch is imported only where the model is PyTorch's."""

    def __init__(self, model: "ImageModel | Engine", card: ModelCard) -> None:
        if card.task not in ANSWERS:
            raise VitralError(f"the model's task {card.task!r} is not one of {', '.join(ANSWERS)}; upgrade vitral")
        if isinstance(model, Engine):
            self.engine = model
        else:
            from vitral.engines.torch import TorchEngine

            if len(card.labels) != model.num_classes:
                raise VitralError(
                    f"{len(card.labels)} labels for {model.num_classes} outputs; save the model with one label for each output"
                )
            self.engine = TorchEngine(model, card.preprocess)
        self.card = card
        self.labels = card.labels
        self.answers = ANSWERS[card.task](card.labels)
        """Makes answers of the model's outputs."""
        if card.ids:
            self.answers.ids = card.ids
        if card.threshold is not None:
            self.answers.threshold = card.threshold

    @property
    def model(self) -> "ImageModel":
        """The model in PyTorch. Raises VitralError for an exported file, which has none, and where tokens are merged."""
        engine = self._torch()
        if engine.merging:
            raise VitralError(
                "a model that merges tokens gives answers and cannot be looked into; use the same without merging"
            )
        return engine.model

    def _torch(self, other: str = "cannot be looked into or trained") -> "TorchEngine":
        module = sys.modules.get("vitral.engines.torch")  # not imported, so that this is said without PyTorch, too
        if module is None or not isinstance(self.engine, module.TorchEngine):
            raise VitralError(
                f"an exported file gives answers and {other}; use the run or model file that it was made of"
            )
        return self.engine

    def __repr__(self) -> str:
        steps = self.card.preprocess
        return (
            f"<Predictor {self.card.model}; {steps.height}x{steps.width} {in_words(steps.channels)}, "
            f"{counted(len(self.labels), 'class', 'classes')}: {some(self.labels)}>"
        )

    def reading_as(self, value_range: tuple[float, float] | None = None, page: str | None = None) -> Self:
        """The same model, reading files with another value range or page, as in `DataOptions`; None: as before."""
        options = DataOptions(value_range=value_range, page=page)  # which validates them
        steps = self.card.preprocess
        changed = replace(steps, value_range=options.value_range or steps.value_range, page=options.page or steps.page)
        return type(self)(self.engine, replace(self.card, preprocess=changed))

    def merging(self, tokens: int) -> Self:
        """The same model with so many tokens fewer after each layer: the patches that are most alike become one (token merging,
        https://arxiv.org/abs/2210.09461), which is faster, and less exact; see `vitral evaluate --merge`. 0 gives the model as it is.

        Raises VitralError for an exported file, and for models that are no plain ViTs with one answer an image.
        """
        engine = self._torch("merges no tokens")
        if tokens < 0:
            raise VitralError(f"{tokens} tokens merged in each layer: give 0 or more")
        if tokens and not engine.model.plain:
            raise VitralError(
                f"merging tokens is for plain ViTs with one answer an image, and this model is not one ({self.card.model}); leave it out"
            )
        made = type(engine)(engine.model, self.card.preprocess, engine.precision, merging=tokens)
        return type(self)(made, self.card)

    def keeping_shape(self) -> Self:
        """The same model, seeing whole images in their own shapes at about as many pixels as before, nothing cropped or padded: sides are multiples
        of a patch, and images of several shapes go through it in one sequence (https://arxiv.org/abs/2307.06304).

        Raises VitralError for an exported file, and for models that are no plain ViTs with one answer an image, or that merge tokens.
        """
        if not self._torch("takes images of one shape").packs:
            raise VitralError(
                "keeping shapes is for plain ViTs with one answer an image that merge no tokens, and this model is not one "
                f"({self.card.model}); leave it out"
            )
        steps = self.card.preprocess.keeping_shape(self.model.patch_size)
        return type(self)(self.engine, replace(self.card, preprocess=steps))

    def decode(self, image: ImageLike) -> "Tensor":
        """Any image to [C, h, w] on the 0..255 scale with the model's channels. Raises VitralError if it is smaller than a patch.

        Arrays are [h, w], [h, w, C] or [C, h, w], of uint8, uint16 or, if the model has a value range, any real numbers. Tensors are [C, h, w] on the
        0..255 scale. Files are read as in the model's training; `PageOf` is one page of a file.
        """
        with installed_whole("a tensor"):
            import torch

        return torch.from_numpy(self.read(image))

    def read(self, image: ImageLike) -> Pixels:
        """`decode`, as an array."""
        return self.read_seen(image)[0]

    def read_seen(self, image: ImageLike) -> tuple[Pixels, Range | None]:
        """`read`, and the file's smallest and largest value if any were clipped to the value range."""
        steps, extremes = self.card.preprocess, None
        if isinstance(image, list | tuple):
            raise VitralError("a list of images: give one at a time, as in [vit.predict(image) for image in images]")
        if isinstance(image, np.ndarray):
            pixels = self._from_array(image)
        elif isinstance(image, str | Path | bytes | PageOf | Image.Image):
            pixels, extremes = decode_array(image, steps.channels, reading=steps.reading)
        else:
            pixels = self._from_tensor(image)
        steps.check(pixels.shape[1], pixels.shape[2], _name(image))
        return pixels, beyond(extremes, steps.value_range)

    def preprocess(self, image: ImageLike) -> "Tensor":
        """Any image to the model's input: float32 [C, H, W]."""
        return self.card.preprocess(self.decode(image))

    def view(self, image: ImageLike) -> np.ndarray:
        """The image as the model sees it, for display: uint8 [H, W, 3]."""
        return self.card.preprocess.shown(self.card.preprocess.view(self.read(image)))

    def _from_tensor(self, image: Any) -> Pixels:
        """What is neither file nor array: a tensor, if PyTorch is there at all."""
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(image, torch.Tensor):
            raise VitralError(f"{image!r} is no image: give a path, bytes, a Pillow image, an array or a tensor")
        if image.ndim != 3 or image.shape[0] != self.card.preprocess.channels:
            raise VitralError(
                f"a tensor {tuple(image.shape)}: give [{self.card.preprocess.channels}, h, w] on the 0..255 scale"
            )
        pixels: Pixels = (image if image.dtype == torch.uint8 else image.float()).detach().cpu().numpy()
        return pixels

    def _from_array(self, array: np.ndarray) -> Pixels:
        """[C, h, w] on the 0..255 scale, with the model's channels."""
        pages = arranged(array, "array")
        if len(pages) > 1:
            raise VitralError(f"an array of shape {array.shape}, {len(pages)} images: give one at a time")
        steps = self.card.preprocess
        if array.dtype not in (np.bool_, np.uint8, np.uint16) and steps.value_range is None:
            raise VitralError(
                f"an array of {array.dtype} {array.shape}: give uint8 or uint16, or name its values for black and white with "
                "vit.reading_as(value_range=(LOW, HIGH))"
            )
        pixels = with_channels(array_pixels(pages[0], steps.reading, "array")[0], steps.channels, "array")
        return np.require(pixels, requirements=["C", "W"]).transpose(2, 0, 1)  # [h, w, C] -> [C, h, w]

    def logits(self, batch: "Tensor") -> "Tensor":
        """[B, C, H, W] as `preprocess` makes them to [B, K], float32 on the CPU. Raises VitralError for a model whose answers are of places."""
        self.check_whole()
        found: Tensor = self.outputs(batch)
        return found

    def outputs(self, batch: "Tensor") -> Any:
        """[B, C, H, W] as `preprocess` makes them to the model's outputs, float32 on the CPU: logits [B, K], or `Maps` or `Found`."""
        self.check_head()
        return self._torch().outputs(batch)

    def check_whole(self) -> None:
        """A VitralError where the model answers places in an image, and so has no one answer of it."""
        if not self.answers.of_whole:
            raise VitralError(
                f"this model ({self.card.model}) answers places in an image (task {self.card.task}), and this is for models with one answer an "
                "image; see what it finds with vitral predict"
            )

    def find_from(self, threshold: float) -> None:
        """Answer objects from this score on. Raises VitralError for models that find none, and for what is no score."""
        if self.answers.threshold is None:
            raise VitralError(
                f"threshold {threshold}: is for models that find objects, and this one finds none; leave it out"
            )
        if not 0 <= threshold <= 1:
            raise VitralError(f"threshold {threshold}: a score lies in 0 to 1")
        self.answers.threshold = threshold

    def find_once(self) -> None:
        """Answer of objects of a class that overlap only the best. Raises VitralError for models that find no objects."""
        if self.answers.once is None:
            raise VitralError("nms: is for models that find objects, and this one finds none; leave it out")
        self.answers.once = True

    def check_head(self) -> None:
        """Raise VitralError if the model was trained without labels and so predicts nothing."""
        if not self.labels:
            raise VitralError(
                f"this model ({self.card.model}) was trained without labels and has no head, so it predicts nothing; fine-tune it with "
                "vitral train DATA --init MODEL, or see how useful its features are with vitral probe MODEL DATA"
            )

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Logits [B, K] to probabilities [B, K]: softmax, or if an image can have several labels a sigmoid of each."""
        return self.answers.probabilities(logits)

    def predict(self, image: ImageLike, top_k: int = 5, *, tile: bool | int = False) -> Answer:
        """The model's answer for one image: its class, or all its labels if it can have several, or the class of each pixel, or objects.

        tile: answer places in an image that is larger than the training images in overlapping tiles of their size, or of so many pixels a side.
        """
        pixels = self.read(image)
        if tile:
            return self.predict_tiles(pixels, _name(image), tile, top_k)
        return self.predict_batch([self.card.preprocess.view(pixels)], [_name(image)], [self.placed(pixels)], top_k)[0]

    def predict_tiles(self, pixels: Pixels, name: str, tile: bool | int = True, top_k: int = 5) -> Answer:
        """The answer for one image [C, h, w] as `read` gives it, in tiles as in `predict`; whole where it is no larger than a tile."""
        self.check_head()
        steps, (h, w) = self.card.preprocess, pixels.shape[1:]
        side = self.tile_size if tile is True else (tile, tile)
        if min(side) < steps.min_size:
            raise VitralError(f"a tile of {side[0]}x{side[1]} pixels: give {steps.min_size}, one patch, or more a side")
        boxes = tiles(h, w, side)
        batches = [boxes[k : k + TILES] for k in range(0, len(boxes), TILES)]
        if self.answers.glances and len(boxes) > 1:
            batches = [[(0, 0, h, w)], *batches]

        def seen() -> Iterator[Tile]:
            for batch in batches:
                parts = [pixels[:, top : top + tall, left : left + wide] for top, left, tall, wide in batch]
                found = self.engine(np.stack([steps.view(part) for part in parts]))
                for k, part in enumerate(parts):
                    yield Tile(found[k : k + 1], self.placed(part), batch[k])

        return self.answers.joined(seen(), name, (h, w), top_k)

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of a tile: of the median training image, or where that is not known of the model's view."""
        known = self.card.data.get("size")
        if not isinstance(known, list):
            return self.card.preprocess.height, self.card.preprocess.width
        return int(known[0]), int(known[1])

    def placed(self, pixels: "Tensor | Pixels") -> Placed:
        """Where the model's pixels lie in an image [C, h, w]."""
        h, w = pixels.shape[1:]
        return Placed(h, w, self.card.preprocess.where(h, w))

    def predict_batch(
        self, views: Sequence[Pixels], names: Sequence[str], placed: Sequence[Placed], top_k: int = 5
    ) -> Sequence[Answer]:
        """Answers for images as `Preprocess.view` leaves them, in one forward pass. placed: where these lie in each, as `placed` gives it."""
        self.check_head()
        if top_k < 1:
            raise VitralError(f"top_k {top_k}: ask for at least 1 class")
        if len({view.shape for view in views}) > 1 and not self.engine.packs:
            pairs = zip(views, names, placed, strict=True)
            return [self.predict_batch([view], [name], [place], top_k)[0] for view, name, place in pairs]
        return self.answered(self.run(views), names, placed, top_k)

    def run(self, views: Sequence[Pixels]) -> Any:
        """The engine's outputs for images as `Preprocess.view` leaves them, in one forward pass: of one size, or of several where it packs them."""
        self.check_head()
        return self.engine(np.stack(views)) if len({view.shape for view in views}) == 1 else self.engine.packed(views)

    def answered(
        self, outputs: Any, names: Sequence[str], placed: Sequence[Placed], top_k: int = 5
    ) -> Sequence[Answer]:
        """Answers of what `run` gives, or of a slice of it."""
        return self.answers(outputs, names, top_k, placed)


def load(path: str | Path) -> Predictor:
    """A predictor from a model file, a run folder, a file of `vitral export`, or a folder or "hf:org/name" of Hugging Face or timm that has labels
    and preprocessing.
    """
    if not isinstance(path, str | Path):
        raise VitralError(f"{path!r} is no path: give a model file or a run folder")
    if (file := exported_file(Path(path))) is not None:
        engine = opened(file)
        found = Predictor(engine, engine.card)
        if (engine.form.kind, engine.form.squash) != (found.answers.kind, found.answers.squash):
            raise VitralError(
                f"{file}: its outputs are not those of its task, {found.card.task}; export the model again"
            )
        return found
    with installed_whole(str(path)):
        if str(path).startswith("hf:") or (Path(path) / "config.json").is_file():
            return _adopt(str(path))
        path = Path(path)
        if path.is_dir():
            if not (path / "model.safetensors").is_file():
                raise VitralError(f"{path}: holds no model.safetensors; give a finished run or a model file")
            path = path / "model.safetensors"
        from vitral.checkpoints.bundle import load_model

        return Predictor(*load_model(path))


def exported_file(path: Path) -> Path | None:
    """The exported file that the path names, or that a folder without model.safetensors holds; None if there is none."""
    if not path.is_dir() or (path / "model.safetensors").is_file():
        return path if path.suffix in SUFFIXES else None
    return next((file for suffix in SUFFIXES if (file := path / f"model{suffix}").is_file()), None)


def _adopt(source: str) -> Predictor:
    """A predictor from another library's folder."""
    from vitral.checkpoints.create import open_model

    opened = open_model(source)
    if not opened.model.num_classes:
        opened.labels = []
    if opened.unprepared:
        raise VitralError(f"{opened.unprepared}; predict with the library that the model is from")
    if opened.labels is None or opened.preprocess is None:
        missing = "class names" if opened.labels is None else "preprocessing (preprocessor_config.json)"
        raise VitralError(f"{source}: has no {missing} to predict with; see vitral convert {source} OUT.safetensors")
    arguments = opened.model.config.arguments()
    head = None if opened.head is None else opened.head.to_json()
    card = ModelCard(opened.architecture, arguments, opened.labels, opened.preprocess, task=opened.task, head=head)
    card.data = {"source": source}
    return Predictor(opened.model, card)


def _name(image: object) -> str:
    return str(image) if isinstance(image, str | Path | PageOf) else "image"

"""`vitral predict`: a model's answers to images."""

import csv
import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitral.cli.options import argument
from vitral.cli.parse import at_least
from vitral.cli.reading import ReadingOptions
from vitral.errors import VitralError, counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vitral.answers import Answer, Answers
    from vitral.answers.answer import Record
    from vitral.predict import Predictor


@dataclass
class Predict:
    """Label images, a row each as they are read. An image that cannot be read has its error in its row, and the exit code is then 1.

    Example: vitral predict runs/photos cat.jpg

    Example: vitral predict runs/photos new/ --format csv > labels.csv

    Example: vitral predict runs/ground fields/ --out maps/
    """

    model: Path = argument()
    """Run folder or model file."""
    images: list[str] = argument()
    """Image files, folders (every file in them), or - for a list of paths (or one image) on stdin."""
    format: Literal["table", "csv", "jsonl"] = "table"
    """Form of the rows."""
    top_k: int = 3
    """How many classes to show."""
    out: Path | None = None
    """Folder for pictures of answers that are places: of a map a PNG of class numbers and an overlay, of objects an overlay, YOLO's text and, of all
    images, COCO's JSON; default: none."""
    threshold: float | None = None
    """Score from which an object counts as found; default: what was best on the validation images, else 0.4."""
    nms: bool = False
    """Answer of overlapping objects of a class only the best, as models without decoder layers always do."""
    tile: bool = False
    """Answer places in images that are larger than the training images in overlapping tiles of their size."""
    tile_size: int | None = None
    """Pixels of a tile's side, with --tile; default: the median training image."""
    batch_size: int = 16
    """Images in one forward pass."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What runs the model: torch, onnx (ONNX Runtime) or openvino; auto takes what vitral optimize found fastest for it here, or the model's own."""
    merge: int = 0
    """Tokens that become one with others in each layer of a plain ViT: faster, and less exact by what vitral evaluate --merge says; default: none."""
    keep_shape: bool = False
    """Let a plain ViT see whole images in their own shapes, as vitral evaluate --keep-shape scores it; nothing is cropped or padded."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)


def predict(given: Predict, words: list[str]) -> int:
    from vitral.data.asked import by_page, find_images
    from vitral.data.values import clipped_in_words
    from vitral.stream import predict_stream
    from vitral.training.toml import stored_data_options

    at_least(1, top_k=given.top_k, batch_size=given.batch_size)
    at_least(0, merge=given.merge)
    if not given.images:
        raise VitralError("predict: which images? Give files, folders, or - to read from stdin")
    predictor = _opened(given)
    separator = stored_data_options(predictor.card.recipe).label_separator or ";"
    if given.out is not None and predictor.answers.of_whole:
        raise VitralError(
            f"--out: is for answers that are places, and {given.model} says one thing of an image; leave it out"
        )
    if given.threshold is not None:
        predictor.find_from(given.threshold)
    if given.nms:
        predictor.find_once()
    tile = tiling(given.tile, given.tile_size, predictor)
    print_row = Rows(given.format, predictor.answers, given.top_k, separator)
    pictures = None if given.out is None else Pictures(given.out, predictor)
    failed = total = empty = 0
    clipped: list[tuple[float, float]] = []
    batch, ahead = (1, 0) if given.images == ["-"] else (given.batch_size, 2)  # a pipe wants each answer at once
    images = by_page(find_images(given.images), predictor.card.preprocess.page)
    images = images if pictures is None else pictures.remembering(images)
    for row in predict_stream(predictor, images, given.top_k, batch, ahead=ahead, tile=tile):
        total += 1
        failed += isinstance(row, tuple)
        if not isinstance(row, tuple) and row.clipped is not None:
            clipped.append(row.clipped)
        empty += not isinstance(row, tuple) and row.empty
        print_row(row)
        if pictures is not None:
            pictures(row)
    if pictures is not None:
        pictures.finish()
    if clipped:
        assert predictor.card.preprocess.value_range is not None
        print(f"vitral: {clipped_in_words(clipped, predictor.card.preprocess.value_range)}", file=sys.stderr)
    if empty and empty == total - failed:
        least = predictor.answers.threshold or 0.0
        print(
            f"vitral: nothing scored {least:.0%} or more; --threshold {least / 4:.2g} shows what is less sure",
            file=sys.stderr,
        )
    if failed:
        print(f"vitral: {failed} of {counted(total, 'image')} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _opened(given: Predict) -> "Predictor":
    """The model as it is to answer."""
    from vitral.deploy.fastest.choice import opened

    itself = given.engine == "auto" and (given.merge or given.keep_shape)  # an exported file has neither
    predictor = opened(given.model, "own" if itself else given.engine)
    predictor = predictor.merging(given.merge) if given.merge else predictor
    predictor = predictor.keeping_shape() if given.keep_shape else predictor
    return given.reading.read_by(predictor, every=True)


def tiling(tile: bool, side: int | None, predictor: "Predictor") -> bool | int:
    """Whether there are tiles, and of which side if that is said. VitralError where they make no sense."""
    if side is not None and not tile:
        raise VitralError(f"--tile-size {side}: is for --tile; give both")
    if tile and predictor.answers.of_whole:
        raise VitralError(
            "--tile: is for models that answer places, and this one says one thing of an image; leave it out"
        )
    if side is not None and side < (least := predictor.card.preprocess.min_size):
        raise VitralError(f"--tile-size {side}: give {least}, one patch of the model, or more")
    return side or tile


class Pictures:
    """The pictures of answers, in a folder, and beside them which number of a map is which class."""

    def __init__(self, folder: Path, predictor: "Predictor") -> None:
        self.folder, self.predictor = folder, predictor
        self.images: dict[str, Any] = {}
        self.taken: set[str] = set()
        self.records: list[Record] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VitralError(f"--out {folder}: cannot be made ({error.strerror}); name another folder") from error

    def remembering(self, images: "Iterable[tuple[str, Any]]") -> "Iterator[tuple[str, Any]]":
        """The images as they pass, kept until their answers are there."""
        for name, image in images:
            self.images[name] = image
            yield name, image

    def __call__(self, row: "Answer | tuple[str, VitralError]") -> None:
        from vitral.answers.answer import Record

        if isinstance(row, tuple):
            self.images.pop(row[0], None)
            return
        pixels = self.predictor.read(self.images.pop(row.name))
        stem = self._free(Path(row.name).stem)
        for ending, picture in row.pictures(self.predictor.card.preprocess.shown(pixels)):
            path = self.folder / f"{stem}{ending}"
            path.parent.mkdir(exist_ok=True)
            picture.save(path)
        for ending, text in row.texts().items():
            (self.folder / f"{stem}{ending}").write_text(text)
        self.records.append(Record(row.name, stem, row.record()))

    def _free(self, stem: str) -> str:
        """The stem, with a number where images of several folders have the same name."""
        names = (stem if n == 1 else f"{stem}-{n}" for n in itertools.count(1))
        found = next(name for name in names if name not in self.taken)
        self.taken.add(found)
        return found

    def finish(self) -> None:
        for name, text in self.predictor.answers.gathered(self.records).items():
            (self.folder / name).write_text(text)
        print(f"pictures of {counted(len(self.taken), 'image')}: {self.folder}", file=sys.stderr)


class Rows:
    """Answers on stdout, a line each: a table, CSV with a header, or JSON lines. separator: of several labels in a cell of the CSV."""

    def __init__(self, how: str, answers: "Answers", top_k: int, separator: str) -> None:
        self.how, self.top_k, self.separator = how, top_k, separator
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        self.columns = answers.columns(top_k, separator) if how == "csv" else []
        if how == "csv":
            self.writer.writerow(["image", *self.columns, "error"])

    def __call__(self, row: "Answer | tuple[str, VitralError]") -> None:
        if isinstance(row, tuple):
            name, error = row[0], str(row[1]).removeprefix(f"{row[0]}: ")  # the row names the image already
            rows, line = [[*[""] * len(self.columns), error]], f"error: {error}"
            found: dict[str, Any] = {"error": error}
        else:
            name, found, line = row.name, row.to_json(), row.line(self.top_k)
            rows = [[*cells, ""] for cells in row.rows(self.top_k, self.separator)] if self.how == "csv" else []
        match self.how:
            case "jsonl":
                print(json.dumps({"image": name, **found}))
            case "csv":
                self.writer.writerows([name, *cells] for cells in rows)
            case _:
                print(f"{name}  {line}")
        sys.stdout.flush()

"""Many images through one predictor: files are read while the model computes, and each has an answer or an error, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from vitral.answers import Answer
from vitral.data.decode import PageOf
from vitral.data.resample import Pixels
from vitral.data.values import Range
from vitral.data.view import Placed
from vitral.engines.cores import cores
from vitral.errors import VitralError
from vitral.predict import Predictor


def predict_stream(
    predictor: Predictor,
    images: Iterable[tuple[str, str | bytes | PageOf]],
    top_k: int = 5,
    batch_size: int = 16,
    *,
    ahead: int = 2,
    tile: bool | int = False,
) -> Iterator[Answer | tuple[str, VitralError]]:
    """For each image in order its answer, or (name, error); computed in batches as images arrive.

    ahead: batches that are read while the model computes; 0 where the next image comes only after an answer. tile: as in `Predictor.predict`; an
    image at a time then.
    """
    predictor.check_head()
    if tile:
        for name, image in images:
            yield _in_tiles(predictor, name, image, tile, top_k)
        return
    source = iter(images)
    with ThreadPoolExecutor(max(2, cores())) as pool:

        def following() -> list[Future[_Read]]:
            return [pool.submit(_read, predictor, *item) for item in islice(source, batch_size)]

        waiting = deque([following()])
        while waiting and waiting[0]:
            while len(waiting) <= ahead and waiting[-1]:
                waiting.append(following())
            yield from _answered(predictor, [each.result() for each in waiting.popleft()], top_k)
            if not waiting:
                waiting.append(following())


@dataclass(frozen=True)
class _Read:
    """An image as the model sees it, or why it cannot be read."""

    name: str
    view: Pixels | None = None
    placed: Placed | None = None
    clipped: Range | None = None
    error: VitralError | None = None


def _read(predictor: Predictor, name: str, image: str | bytes | PageOf) -> _Read:
    try:
        with _memory(name):
            pixels, clipped = predictor.read_seen(image)
            return _Read(name, predictor.card.preprocess.view(pixels), predictor.placed(pixels), clipped)
    except VitralError as error:
        return _Read(name, error=error)


def _in_tiles(
    predictor: Predictor, name: str, image: str | bytes | PageOf, tile: bool | int, top_k: int
) -> Answer | tuple[str, VitralError]:
    try:
        with _memory(name):
            pixels, clipped = predictor.read_seen(image)
            return replace(predictor.predict_tiles(pixels, name, tile, top_k), clipped=clipped)
    except VitralError as error:
        return name, error


@contextmanager
def _memory(name: str) -> Iterator[None]:
    """A VitralError where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch's allocator raises RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise VitralError(f"{name}: needs more memory than there is; make the image smaller") from error


def _answered(predictor: Predictor, batch: list[_Read], top_k: int) -> Iterator[Answer | tuple[str, VitralError]]:
    """The answers of a batch; where the model refuses it, each image's own."""
    good = [each for each in batch if each.error is None]
    views, placed = [each.view for each in good], [each.placed for each in good]
    try:
        found = predictor.predict_batch(views, [each.name for each in good], placed, top_k) if good else []  # type: ignore[arg-type]
    except VitralError as error:
        if len(batch) > 1:
            for each in batch:
                yield from _answered(predictor, [each], top_k)
        else:
            yield batch[0].name, error
        return
    answers = iter(found)
    for each in batch:
        yield (each.name, each.error) if each.error else replace(next(answers), clipped=each.clipped)

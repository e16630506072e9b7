"""From pictures to answers, for every protocol: bounded, in batches with what else waits, each picture alone in its failure."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np

from vitral.answers import Answer
from vitral.data.view import Placed, View
from vitral.deploy.limits import MAX_PIXELS, check_picture, told_senders
from vitral.deploy.refused import RefusedError
from vitral.deploy.serve.metrics import Metrics
from vitral.deploy.serve.models import Loaded, Prepared, Served, load_all, watch
from vitral.deploy.worker import Job, Together, Worker
from vitral.drawing.figure import png
from vitral.engines.cores import cores
from vitral.engines.openvino import OpenvinoEngine
from vitral.errors import VitralError, some
from vitral.predict import Predictor, load

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """One image of a request: a file's bytes or an array [h, w, C], or with `seen` pixels [C, H, W] as the model sees them."""

    name: str
    data: "bytes | np.ndarray"
    seen: bool = False


@dataclass(frozen=True)
class Limits:
    """batch: images in a forward pass. queue: images that wait. deadline: seconds within which a request is answered or refused."""

    batch: int = 8
    queue: int = 128
    deadline: float = 10.0


class Serving:
    """Models, the one thread that computes, and what is counted."""

    def __init__(self, given: Sequence[str], limits: Limits, read: Callable[[str], Predictor] = load) -> None:
        """given: models, each as PATH or NAME=PATH. Raises VitralError where one cannot be loaded."""
        self.limits = limits
        OpenvinoEngine.mapped = False
        self.metrics = Metrics(self._pending)
        self.worker = Worker(limits.queue)
        self.models = {name: Served(name, path, read, self.metrics, limits.batch) for name, path in load_all(given)}
        self._decoders = ThreadPoolExecutor(cores(), "decoding")
        self._ended = Event()

    @property
    def ready(self) -> bool:
        """Whether all models are warm and the server does not end."""
        return not self._ended.is_set() and all(model.ready for model in self.models.values())

    def model(self, name: str | None = None) -> Served:
        """The model of this name, or the first; RefusedError where there is none."""
        name = name or next(iter(self.models))
        if name not in self.models:
            raise RefusedError(404, f"model {name[:80]!r}: is not served here; there is {some(list(self.models))}")
        return self.models[name]

    def begin(self) -> None:
        """Warm the models up and then watch their files, in a thread of its own."""
        Thread(target=self._begin, name="models", daemon=True).start()

    def _begin(self) -> None:
        for model in self.models.values():
            model.warm_up(self.worker)
        watch(self.models.values(), self.worker, self._ended)

    def ending(self) -> None:
        """Be not ready any more, and look at no file; what is asked is answered still."""
        self._ended.set()

    def close(self) -> None:
        """Drop what waits."""
        self.ending()
        self.worker.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _pending(self) -> dict[str, int]:
        by_batch = {model.loaded.together: name for name, model in self.models.items()}
        return {
            name: self.worker.count(lambda job, together=together: job.together is together)  # type: ignore[misc]
            for together, name in by_batch.items()
        }

    async def predict(
        self, model: Served, loaded: Loaded, pictures: Sequence[Picture], top_k: int, gone: Awaitable[None]
    ) -> "list[Answer | VitralError]":
        """For each picture its answer or its error, all by one state of the model.

        gone: ends when the client has left. Raises RefusedError where there is no room or no time, ConnectionAbortedError where the client has left.
        """
        if top_k < 1:
            raise VitralError(f"top_k {top_k}: ask for at least 1 class")
        until = time.monotonic() + self.limits.deadline
        jobs = [Job(loaded.together, picture, until) for picture in pictures]
        prepare = partial(self._prepared, model, loaded)
        try:
            results = await self.worker.answers(jobs, gone, prepare)
        except BaseException as error:
            reason = "CANCELED" if isinstance(error, ConnectionAbortedError | asyncio.CancelledError) else "REJECTED"
            self._failed(model, loaded, len(pictures), reason)
            raise
        for result in results:
            if (
                isinstance(result, RefusedError) and result.status == 503
            ):  # one that came too late: all of it is asked again
                self._failed(model, loaded, len(pictures), "REJECTED")
                raise result
            if isinstance(result, BaseException) and not isinstance(result, VitralError):
                self._failed(model, loaded, len(pictures), "BACKEND")
                raise result
        with self.metrics.postprocess.labels(model.name).time():
            answers = await asyncio.to_thread(self._answers, loaded.predictor, jobs, results, top_k)
        broken = sum(isinstance(answer, VitralError) for answer in answers)
        self._failed(model, loaded, broken, "OTHER")
        labels = {"model": model.name, "version": loaded.version}
        self.metrics.count("nv_inference_request_success", len(answers) - broken, **labels)
        return answers

    async def compute(self, function: Callable[[], T], gone: Awaitable[None]) -> T:
        """Something else by the thread that computes, within the deadline."""
        until = time.monotonic() + self.limits.deadline
        (result,) = await self.worker.answers([Job(Together(lambda _: [function()]), None, until)], gone)
        if isinstance(result, BaseException):
            raise result
        return result

    def _failed(self, model: Served, loaded: Loaded, images: int, reason: str) -> None:
        labels = {"model": model.name, "version": loaded.version, "reason": reason}
        self.metrics.count("nv_inference_request_failure", images, **labels)

    async def _prepared(self, model: Served, loaded: Loaded, picture: Picture) -> Prepared:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, self._timed, model, loaded, picture)

    def _timed(self, model: Served, loaded: Loaded, picture: Picture) -> Prepared:
        with self.metrics.preprocess.labels(model.name).time():
            return prepared_of(loaded.predictor, picture)

    def _answers(
        self, predictor: Predictor, jobs: Sequence[Job], results: Sequence[Any], top_k: int
    ) -> "list[Answer | VitralError]":
        answers: list[Answer | VitralError] = []
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, VitralError):
                answers.append(result)
                continue
            image: Prepared = job.thing
            (answer,) = predictor.answered(result, [image.name], [image.placed], top_k)
            answers.append(replace(answer, clipped=image.clipped))
        return answers


def prepared_of(predictor: Predictor, picture: Picture) -> Prepared:
    """A picture as the model sees it. Raises VitralError for one that is too large, or no picture."""
    steps = predictor.card.preprocess
    if picture.seen:
        assert isinstance(picture.data, np.ndarray)
        count, height, width = picture.data.shape
        made = steps.where(height, width) if height and width else None
        if made is None or (count, height, width) != (steps.channels, made.height, made.width):
            seen = [steps.channels, steps.height, steps.width]
            raise VitralError(
                f"{picture.name}: pixels {[count, height, width]} are none that the model sees; give {seen}"
            )
        return Prepared(picture.name, picture.data, Placed(height, width, View(height, width)))
    if isinstance(picture.data, bytes):
        check_picture(picture.data, picture.name, steps.reading)
    elif picture.data.size > steps.channels * MAX_PIXELS:
        raise RefusedError(413, f"{picture.name}: has more pixels than the limit of {MAX_PIXELS:,}; shrink it")
    try:
        with told_senders():
            pixels, clipped = predictor.read_seen(picture.data)
        return Prepared(picture.name, steps.view(pixels), predictor.placed(pixels), clipped)
    except VitralError as error:
        raise VitralError(re.sub("^(image bytes|array):", lambda _: f"{picture.name}:", str(error))) from error
    except (MemoryError, RuntimeError) as error:  # PyTorch's allocator raises RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise VitralError(f"{picture.name}: needs more memory than there is; make the image smaller") from error


def explained(predictor: Predictor, picture: bytes, method: str) -> bytes:
    """The map of what counted for the answer, over the picture, as PNG. Raises VitralError for a method that this model has not."""
    from vitral.explain.explain import explain

    return png(explain(predictor, picture, method).overlay())

"""What a server counts, for Prometheus, under the names that KServe and Triton use.

KServe's seconds (https://kserve.github.io/website/, "Prometheus Metrics") are histograms with the label model_name; Triton's counters
(https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md) count images here, and have the labels model and version.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the histograms' bins, seconds."""
COUNTED = {
    "nv_inference_request_success": "Images that were answered",
    "nv_inference_request_failure": "Images that were not answered, by reason",
    "nv_inference_queue_duration_us": "Time that images waited for the engine, in microseconds",
    "nv_inference_compute_infer_duration_us": "Time of the engine, in microseconds: each image's share of its batch",
    "nv_inference_count": "Images that the engine was given",
    "nv_inference_exec_count": "Batches that the engine was given",
    "vitral_reload": "Times that a model's file changed, by what came of it: loaded or refused",
}
PENDING = "nv_inference_pending_request_count"


class Metrics(Collector):
    """Counters and histograms of one server."""

    def __init__(self, pending: Callable[[], dict[str, int]]) -> None:
        """pending: images by model that wait or are computed, asked when somebody looks."""
        self.pending = pending
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._lock = Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.preprocess, self.predict, self.postprocess = (
            Histogram(f"request_{what}_seconds", f"Seconds of {said}", ["model_name"], buckets=STEPS, registry=self._registry)
            for what, said in (
                ("preprocess", "decoding and preprocessing an image"),
                ("predict", "an image's forward pass, that is of its batch"),
                ("postprocess", "making a request's answer of outputs"),
            )
        )  # fmt: skip

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to one of `COUNTED`."""
        assert name in COUNTED
        with self._lock:
            self._counts[name, tuple(labels.items())] += by  # type: ignore[assignment]

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            counts = dict(self._counts)
        for name, about in COUNTED.items():
            metric = Metric(
                name, about, "unknown"
            )  # a counter would be called ..._total, which those who read these names do not know
            for (own, labels), value in counts.items():
                if own == name:
                    metric.add_sample(name, dict(labels), value)
            yield metric
        waiting = Metric(PENDING, "Images that wait or are computed", "gauge")
        for model, number in self.pending().items():
            waiting.add_sample(PENDING, {"model": model}, number)
        yield waiting

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

"""Prometheus metrics under text-embeddings-inference's names, so that its dashboards work, and under our own prefix as well.

A counter keeps the name that dashboards ask for (`te_request_count`); the client library alone would add `_total`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

PREFIXES = ("te_", "vitlens_")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Count:
    """A counter that is shown under the name it has; values by labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count `amount` more."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def metric(self) -> Metric:
        """What is shown."""
        metric = Metric(self.name, self.text, "unknown")  # of type counter it would have to be called name_total
        for labels, value in list(self.values.items()):
            metric.add_sample(self.name, dict(zip(self.labels, labels, strict=True)), value)
        return metric


class Metrics(Collector):
    """Everything that is measured of one service."""

    def __init__(self) -> None:
        self._inner = CollectorRegistry()
        histogram: dict[str, Any] = {"registry": self._inner, "buckets": _SECONDS}
        self.count = Count("request_count", "Requests.", ("method", "modality"))
        self.success = Count("request_success", "Requests that were answered with what they asked for.", ("method", "modality"))
        self.failure = Count("request_failure", "Requests that were not, by the code of the refusal.", ("method", "err"))
        self.items = Count("item_count", "Things that were embedded.", ("modality",))
        self.duration = Histogram(
            "request_duration", "Seconds from a request's first byte to its answer.", ("method", "modality"), **histogram
        )
        self.reading_duration = Histogram(
            "request_tokenization_duration", "Seconds of reading and preprocessing an item.", ("modality",), **histogram
        )
        self.queue_duration = Histogram(
            "request_queue_duration", "Seconds that a preprocessed item waited for its batch.", ("modality",), **histogram
        )
        self.inference_duration = Histogram(
            "request_inference_duration", "Seconds of a batch in the model.", ("modality",), **histogram
        )
        self.queue_size = Gauge("queue_size", "Items that wait for the model.", registry=self._inner)
        self.accepted = Gauge("accepted_requests", "Requests that were accepted and are not answered.", registry=self._inner)
        self.batch_size = Histogram("batch_next_size", "Items of a batch.", ("modality",), registry=self._inner, buckets=_SIZES)
        self._outer = CollectorRegistry()
        self._outer.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics, once under each prefix."""
        for prefix in PREFIXES:
            for count in (self.count, self.success, self.failure, self.items):
                yield _prefixed(count.metric(), prefix)
            for metric in self._inner.collect():
                yield _prefixed(metric, prefix)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._outer)


def _prefixed(metric: Metric, prefix: str) -> Metric:
    copy = Metric(prefix + metric.name, metric.documentation, metric.type)
    copy.samples = [
        sample._replace(name=prefix + sample.name) for sample in metric.samples if not sample.name.endswith("_created")
    ]
    return copy

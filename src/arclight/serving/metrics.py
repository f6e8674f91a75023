"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCIES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one server; the label `model` is the name of a run there."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ("model",)
        self.requests = Counter("arclight_requests", "Answered requests", ("model", "status"), registry=self.registry)
        self.seconds = Histogram(
            "arclight_request_seconds",
            "From the whole request to the answer",
            model,
            buckets=LATENCIES_S,
            registry=self.registry,
        )
        self.compute_seconds = Histogram(
            "arclight_batch_seconds", "Of a worker for a batch", model, buckets=LATENCIES_S, registry=self.registry
        )
        self.batch_size = Histogram(
            "arclight_batch_size", "Inputs in a batch", model, buckets=BATCH_SIZES, registry=self.registry
        )
        self.queue = Gauge("arclight_queue", "Inputs that wait", model, registry=self.registry)
        self.restarts = Counter("arclight_worker_restarts", "Workers that died", model, registry=self.registry)
        self.reloads = Counter("arclight_reloads", "Runs that replaced another", ("model", "status"), registry=self.registry)

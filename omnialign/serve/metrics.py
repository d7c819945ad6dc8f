"""What is counted, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Of one service."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.requests = Counter(
            "omnialign_requests",
            "Requests by path and status.",
            ["path", "status"],
            registry=self._all,
        )
        self.seconds = Histogram(
            "omnialign_request_seconds",
            "Until the last byte of the answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._all,
        )
        self.errors = Counter(
            "omnialign_errors", "Failures of our own, by kind.", ["kind"], registry=self._all
        )
        self.batch_size = Histogram(
            "omnialign_batch_size",
            "Questions that were answered together.",
            buckets=SIZES,
            registry=self._all,
        )
        self.rows = Gauge("omnialign_rows", "Rows of the library.", registry=self._all)

    def text(self) -> bytes:
        return generate_latest(self._all)

"""What Prometheus is told: requests, how long they took, batches, the cache of classifiers."""

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from littune.apps.server.http.refusals import error_response

_log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's numbers, in a registry of its own.

    Args:
        paths: the routes that are told apart; all others are "other", for anyone can ask for any path.
    """

    def __init__(self, paths: frozenset[str]) -> None:
        self.registry = CollectorRegistry()
        self._paths = paths
        self._requests = Counter("littune_requests", "Answers sent.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "littune_request_seconds",
            "From the request's headers to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._under_way = Gauge("littune_requests_under_way", "Requests without an answer yet.", registry=self.registry)
        self._batches = Histogram(
            "littune_batch_size", "Items that ran together.", ("kind",), buckets=_SIZES, registry=self.registry
        )
        self._classifiers = Counter(
            "littune_classifiers",
            "Label sets asked for, by whether they were there.",
            ("found",),
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)

    def batch(self, kind: str, size: int) -> None:
        """A batch runs."""
        self._batches.labels(kind).observe(size)

    def classifier(self, found: bool) -> None:
        """A label set was asked for."""
        self._classifiers.labels("yes" if found else "no").inc()

    def begin(self) -> float:
        """A request is there; its time."""
        self._under_way.inc()
        return time.perf_counter()

    def end(self, path: str, status: str, began: float) -> None:
        """Its answer is out, or its client gone."""
        path = path if path in self._paths else "other"
        self._under_way.dec()
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(time.perf_counter() - began)


class Measured:
    """ASGI middleware that counts requests, and answers for those that fail by a fault of ours.

    Those whose client goes before the answer have the status "gone".
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = self.metrics.begin(), "gone"

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            # The connection is closed where an answer had begun.
            if status == "gone":
                failure = error_response(500, "the server failed; its log says why")
                await failure(scope, receive, send_and_look)
        finally:
            self.metrics.end(scope["path"], status, began)

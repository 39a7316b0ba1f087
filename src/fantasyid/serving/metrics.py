"""Numbers for Prometheus: the videos as they lie in the folder, the queue, and what this server answered."""

from collections.abc import Iterator
from http import HTTPMethod
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fantasyid.serving.service import VideoService
from fantasyid.serving.store import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The numbers of one server.

    Args:
        service: Its videos.
    """

    def __init__(self, service: VideoService) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_VideoNumbers(service))
        self.requests = Counter(
            "fantasyid_requests", "Answers of this server.", ["method", "route", "status"], registry=self._registry
        )

    def text(self) -> bytes:
        """All of them, in the text format."""
        return generate_latest(self._registry)


class CountRequests:
    """Counts what is answered.

    Args:
        app: What is behind.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Not the path, nor any word sent as a method: clients choose them, and each would be kept.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in tuple(HTTPMethod) else "other"
                self._metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)


class _VideoNumbers(Collector):
    def __init__(self, service: VideoService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        counts = self._service.count()
        videos = GaugeMetricFamily("fantasyid_videos", "Videos that are kept.", labels=["status"])
        for status in get_args(Status):
            videos.add_metric([status], counts[status])
        yield videos
        yield GaugeMetricFamily("fantasyid_queue_length", "Videos that wait.", value=len(self._service.queue))

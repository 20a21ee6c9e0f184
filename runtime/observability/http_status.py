"""`/healthz`, `/readyz` and `/metrics` over HTTP, on loopback by default; a program may add pages of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from runtime.errors import SettingsError
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.settings import TelemetrySettings

_STOP_LIMIT_S: Final = 1.0
log = structlog.get_logger(__name__)


@asynccontextmanager
async def http_status(
    settings: TelemetrySettings,
    readiness: Readiness,
    metrics: Metrics,
    add_pages: Callable[[web.Application], None] | None = None,
) -> AsyncIterator[str | None]:
    """Serves until the end of the block.

    Args:
        settings: where to listen.
        readiness: of the program.
        metrics: of the program.
        add_pages: adds the routes of the program's own pages.

    Yields:
        The base address, for example `http://127.0.0.1:8080`; None if `telemetry.http_enabled` is off.

    Raises:
        SettingsError: if the address cannot be listened on.
    """
    if not settings.http_enabled:
        yield None
        return
    application = _application(readiness, metrics)
    if add_pages is not None:
        add_pages(application)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_STOP_LIMIT_S)
    await runner.setup()
    try:
        address = await _listen(runner, settings)
        log.info("status", address=address)
        yield address
    finally:
        await runner.cleanup()


def _application(readiness: Readiness, metrics: Metrics) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        """The process is alive: its event loop answers."""
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        """200 when work may be sent, else 503 with the reasons."""
        if readiness.is_ready:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reasons": readiness.reasons()}, status=503)

    async def exposition(_: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)])
    return application


async def _listen(runner: web.AppRunner, settings: TelemetrySettings) -> str:
    site = web.TCPSite(runner, settings.http_host, settings.http_port)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.http_host}:{settings.http_port} ({error.strerror}); "
            "set telemetry.http_port to a free one, or to 0"
        ) from error
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The HTTP status."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from runtime.errors import SettingsError
from runtime.observability.http_status import http_status
from runtime.observability.readiness import Readiness
from runtime.observability.telemetry import Metrics
from runtime.settings import TelemetrySettings


async def get(address):
    """Status code and text."""
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        return response.status, await response.text()


async def test_readiness_is_503_with_reasons_then_200():
    """A program that is not ready says why; its health does not depend on it."""
    readiness = Readiness(["tables"])
    async with http_status(TelemetrySettings(), readiness, Metrics("test")) as address:
        assert address.startswith("http://127.0.0.1:")
        status, text = await get(f"{address}/readyz")
        assert status == 503
        assert '"tables": "starting"' in text
        assert (await get(f"{address}/healthz"))[0] == 200
        readiness.ready("tables")
        assert (await get(f"{address}/readyz"))[0] == 200


async def test_metrics_are_exposed_in_prometheus_format():
    """The registry of this program, and nothing global, is what `/metrics` shows."""
    metrics = Metrics("test")
    metrics.dead_letters.labels("requests").inc()
    async with http_status(TelemetrySettings(), Readiness(), metrics) as address:
        status, text = await get(f"{address}/metrics")
    assert status == 200
    assert 'exitstream_test_dead_letters_total{topic="requests"} 1.0' in text


async def test_a_port_in_use_ends_in_one_line():
    """The line names the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = TelemetrySettings(http_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="http_port"):
            async with http_status(settings, Readiness(), Metrics("test")):
                pass


async def test_it_can_be_turned_off():
    """Without the endpoint there is no address."""
    async with http_status(TelemetrySettings(http_enabled=False), Readiness(), Metrics("test")) as address:
        assert address is None

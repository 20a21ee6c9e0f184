"""A live page with a model behind it, without Kafka."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from worker_lab import until

from runtime.observability.http_status import http_status
from runtime.observability.readiness import Readiness
from runtime.process.lifecycle import owned_tasks
from runtime.settings import TelemetrySettings
from worker.compute import ComputeThread
from worker.live.page import LivePage
from worker.live.site import LiveSite
from worker.serving import Serving
from worker.settings import WorkerSettings


@dataclass
class Served:
    """A page on a port, the worker behind it, and a browser's part."""

    page: LivePage
    serving: Serving
    readiness: Readiness
    address: str
    session: aiohttp.ClientSession

    async def score(self, user_id="u1", items=("i3", "i1"), budget_ms=60_000, **more):
        """Status and answer of a typed request."""
        body = {"user_id": user_id, "candidate_item_ids": list(items), "budget_ms": budget_ms} | more
        async with self.session.post(f"{self.address}/live/score", json=body) as response:
            return response.status, await response.json()

    @asynccontextmanager
    async def events(self):
        """Follows the page; yields the stream of pairs of event and data."""
        async with self.session.get(f"{self.address}/live/events") as response:
            assert response.status == 200
            yield _events(response)


async def _events(response):
    event = ""
    async for line in response.content:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)


@pytest.fixture
def serve_page(make_desk, monkeypatch):
    """Serves a page over a model; without one it is as while a worker starts. Seconds are short."""
    monkeypatch.setattr("worker.live.page.INTERVAL_S", 0.02)
    monkeypatch.setattr("worker.live.typed.PAUSE_S", 0.0)

    @asynccontextmanager
    async def serve(*, with_model=True):
        desk, readiness = make_desk(), Readiness(())
        settings = WorkerSettings(telemetry=TelemetrySettings(live_page=True))
        page = LivePage(settings, desk.metrics, readiness, desk.clock)
        add_pages = LiveSite(page, settings.telemetry).add_to
        async with (
            http_status(settings.telemetry, readiness, desk.metrics, add_pages) as address,
            owned_tasks() as spawn,
            aiohttp.ClientSession(read_bufsize=2**22) as session,
        ):
            thread = ComputeThread()
            spawn(thread.run(), "compute")
            if with_model:
                spawn(page.run(desk.serving, thread, lambda: 0, desk.outcomes), "live page")
                await until(lambda: page.typed is not None)
            yield Served(page, desk.serving, readiness, address, session)
            await asyncio.sleep(0)

    return serve

"""`exitstream live`: a line per worker, from the streams of their live pages."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from rich.console import Console
from rich.live import Live

from cli import live as live_module
from cli.live import NoLivePage, WorkerTable, page_of

FIGURES = {
    "point": {"requests_per_s": 20.04, "p50_ms": 31.2, "p99_ms": None, "budget_ms": 200.0, "threshold": 0.8714},
    "within_budget": 0.9954,
    "gauges": {"request_lag": 17},
    "exits": {"0": 0.25, "2": 0.75},
}


def outcomes(auc):
    """What became of the scores; None while there are too few."""
    return {"quality": {"auc": auc}}


def told(table):
    """The table as text."""
    console = Console(width=160, highlight=False)
    with console.capture() as captured:
        console.print(table.table())
    return captured.get()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/live"]
)
def test_a_worker_is_named_as_its_log_or_the_demo_names_it(address):
    """With and without scheme, with and without the page's path."""
    assert page_of(address) == "http://127.0.0.1:8080/live"


def test_an_address_of_another_kind_is_refused():
    """It says how one looks."""
    with pytest.raises(NoLivePage, match=r"http://127\.0\.0\.1:8080"):
        page_of("ftp://somewhere")


def test_a_line_tells_the_figures_or_why_there_are_none():
    """What is not known is a dash; a worker that is not heard any more shows no old figures. Markup stays text."""
    table = WorkerTable(["a", "b"])
    table.begun("a", {"model_version": "9424464aac42"})
    table.heard("a", {"figures": FIGURES, "not_ready": {"search": "[red]slow[/red]"}, "outcomes": outcomes(0.7412)})
    assert "connecting" in told(table)
    for word in (
        "942446 ",
        "0.741",
        "20.0",
        "31",
        "–",
        "99.5%",
        "0.871",
        "17",
        "graph 25%  2: 75%",
        "search: [red]slow[/red]",
    ):
        assert word in told(table)
    table.failed("a", "it ended the connection")
    assert "20.0" not in told(table)
    assert "it ended the connection" in told(table)


async def test_it_follows_a_worker_and_comes_back_after_an_end(monkeypatch):
    """From the stream of server-sent events; why there is none is told, and it asks again."""
    monkeypatch.setattr(live_module, "AGAIN_S", 0.0)
    asked = 0

    async def events(request):
        nonlocal asked
        asked += 1
        if asked == 1:
            return web.json_response({"error": "the worker is starting"}, status=503)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'event: start\ndata: {"model_version": "9424464aac42"}\n\nevent: second\ndata: ')
        second = {"figures": FIGURES, "not_ready": {}, "outcomes": outcomes(None)}
        await response.write(json.dumps(second).encode() + b"\n\n")
        return response

    application = web.Application()
    application.add_routes([web.get("/live/events", events)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    table, said = WorkerTable([address]), []
    with Live(console=Console(quiet=True), auto_refresh=False) as shown:
        monkeypatch.setattr(shown, "update", lambda *_, **__: said.append(told(table)))
        following = asyncio.create_task(live_module._follow_all(table, shown))
        async with asyncio.timeout(30):
            while asked < 3:
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait([following])
    await runner.cleanup()

    assert "the worker is starting" in said[0]
    assert "99.5%" in said[1]
    assert "942446" in said[1]
    assert "it ended the connection" in said[2]

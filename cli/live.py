"""`exitstream live`: what running workers do, in the terminal. It follows the live pages of their status ports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.replay_table import exit_shares
from runtime.errors import ExitstreamError

CONNECT_S: Final = 5.0
SILENCE_S: Final = 10.0
AGAIN_S: Final = 2.0
_COLUMNS: Final = (
    "worker", "model", "req/s", "p50 ms", "p99 ms", "budget", "within", "threshold", "lag", "AUC", "exits by layer",
)  # fmt: skip
_SHOWN_VERSION: Final = 6
"""Digits of a model version: enough to tell two apart."""
_LONGEST_LINE: Final = 2**22
"""Bytes: the first event holds three minutes of figures and the last scores."""


class NoLivePage(ExitstreamError):
    """An address at which no worker shows a live page."""


def follow_workers(addresses: Sequence[str]) -> None:
    """Show a line per worker, renewed every second, until interrupted; at first the addresses of their pages."""
    console = Console(highlight=False)
    for address in addresses:
        console.print(f"page: {page_of(address)}", markup=False)
    table = WorkerTable(addresses)
    with Live(table.table(), console=console, auto_refresh=False) as live:
        try:
            asyncio.run(_follow_all(table, live))
        except KeyboardInterrupt:
            return  # the usual end


def page_of(address: str) -> str:
    """The page's address, from a worker's with or without scheme and path.

    Raises:
        NoLivePage: it is no address over HTTP.
    """
    whole = address if "://" in address else f"http://{address}"
    if not whole.startswith(("http://", "https://")):
        raise NoLivePage(f"{address} is no address of a worker; one looks like http://127.0.0.1:8080")
    return whole.rstrip("/").removesuffix("/live") + "/live"


class WorkerTable:
    """The last that was heard of each worker.

    Args:
        addresses: as given.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self._heard: dict[str, Mapping[str, Any]] = {}
        self._models: dict[str, str] = {}
        self._trouble = dict.fromkeys(addresses, "connecting")

    def begun(self, address: str, start: Mapping[str, Any]) -> None:
        """Takes in what a worker tells first, and again when another model serves."""
        self._models[address] = str(start["model_version"])

    def heard(self, address: str, snapshot: Mapping[str, Any]) -> None:
        """Takes in what a worker told."""
        self._heard[address] = snapshot
        waiting = [f"{condition}: {reason}" for condition, reason in snapshot["not_ready"].items()]
        self._trouble[address] = "; ".join(waiting)

    def failed(self, address: str, reason: str) -> None:
        """Notes why nothing is heard of a worker."""
        self._heard.pop(address, None)
        self._trouble[address] = reason

    def table(self) -> Table:
        """A line for each worker."""
        table = Table(*_COLUMNS)
        for address in self.addresses:
            told, trouble = self._heard.get(address), self._trouble[address]
            # What comes from elsewhere must not be interpreted as markup.
            name = Text(address) + Text(f"\n{trouble}" if trouble else "", style="red")
            model = Text(self._models.get(address, "")[:_SHOWN_VERSION])
            cells: list[Text | str] = [model, *_cells(told)] if told else []
            table.add_row(name, *cells)
        return table


def _cells(told: Mapping[str, Any]) -> list[str]:
    figures, point = told["figures"], told["figures"]["point"]
    shares = {int(layer): share for layer, share in figures["exits"].items()}
    return [
        _told(point["requests_per_s"], ".1f"),
        _told(point["p50_ms"], ".0f"),
        _told(point["p99_ms"], ".0f"),
        _told(point["budget_ms"], ".0f"),
        _told(figures["within_budget"], ".1%"),
        _told(point["threshold"], ".3f"),
        str(figures["gauges"]["request_lag"]),
        _told(told["outcomes"]["quality"]["auc"], ".3f"),
        exit_shares(shares),
    ]


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


async def _follow_all(table: WorkerTable, live: Live) -> None:
    async with aiohttp.ClientSession(read_bufsize=_LONGEST_LINE) as session, asyncio.TaskGroup() as following:
        for address in table.addresses:
            following.create_task(_follow(session, address, table, live))


async def _follow(session: aiohttp.ClientSession, address: str, table: WorkerTable, live: Live) -> None:
    """Follows one worker, and comes back to it for as long as it is away."""
    while True:
        try:
            await _listen(session, address, table, live)
            table.failed(address, "it ended the connection")
        except (aiohttp.ClientError, TimeoutError, NoLivePage) as error:
            table.failed(address, str(error) or "nothing heard")
        live.update(table.table(), refresh=True)
        await asyncio.sleep(AGAIN_S)


async def _listen(session: aiohttp.ClientSession, address: str, table: WorkerTable, live: Live) -> None:
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    async with session.get(f"{page_of(address)}/events", timeout=limits) as response:
        if response.status != 200:
            raise NoLivePage(await _reason(response))
        event = ""
        async for line in response.content:
            name, _, value = line.decode(errors="replace").rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "start":
                table.begun(address, json.loads(value))
            elif name == "data" and event == "second":
                table.heard(address, json.loads(value))
                live.update(table.table(), refresh=True)


async def _reason(response: aiohttp.ClientResponse) -> str:
    if response.status == 404:
        return "it shows no live page: start it with telemetry.live_page = true"
    try:
        return str((await response.json())["error"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return f"it answers with status {response.status}"

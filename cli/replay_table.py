"""The live table that is shown during a replay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadgen.player import Player

REDRAW_S: Final = 0.5
RECENT: Final = 100
"""Latencies and exits are those of this many latest answers."""


class LiveTable:
    """Redraws itself on the running event loop until its block ends."""

    def __init__(self, player: Player, console: Console) -> None:
        self._player = player
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._redrawing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._live.__enter__()
        self._redrawing = asyncio.create_task(self._keep_redrawing(), name="live table")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._redrawing is not None:
            self._redrawing.cancel()
            await asyncio.wait([self._redrawing])
            if not self._redrawing.cancelled():
                self._redrawing.result()
        self._redraw()
        self._live.__exit__(kind, error, trace)
        if not self._console.is_terminal:
            self._console.line()  # rich ends the table's last line only in a terminal

    async def _keep_redrawing(self) -> None:
        while True:
            self._redraw()
            await asyncio.sleep(REDRAW_S)

    def _redraw(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        answers = list(self._player.answers.by_request.values())
        recent = answers[-RECENT:]
        read_ms = self._player.answers.read_ms
        latencies = [read_ms[scores.request_id] - scores.created_time_ms for scores in recent]
        table = Table("sent", "answered", "p50 ms", "p99 ms", "threshold", f"exits by layer (last {RECENT} requests)")
        table.add_row(
            f"{len(self._player.sent)} / {len(self._player.plan.impressions)}",
            str(len(answers)),
            f"{np.percentile(latencies, 50):.0f}" if latencies else "",
            f"{np.percentile(latencies, 99):.0f}" if latencies else "",
            f"{recent[-1].exit_threshold:.3f}" if recent else "",
            exit_shares(Counter(score.exit_layer for scores in recent for score in scores.scores)),
        )
        return table


def exit_shares(exits: Mapping[int, float]) -> str:
    """Of counts or shares by layer, for example `graph 2%  1: 31%  4: 67%`."""
    total = sum(exits.values())
    return "  ".join(
        f"{'graph' if layer == 0 else f'{layer}:'} {count / total:.0%}" for layer, count in sorted(exits.items())
    )

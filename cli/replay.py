"""`exitstream replay`: replays a data set against workers that are already running."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.replay_table import LiveTable
from cli.report import show_report
from event_data.load import load_log
from loadgen.plan import make_plan
from loadgen.player import Player
from loadgen.report import Report, make_report
from programs.settings import ExitstreamSettings
from runtime.kafka import probe, require_topics
from runtime.settings_sources import load_settings

HISTORY_PATIENCE_S: Final = 600.0


def run_replay(
    data: Path | None, requests: int, rate: float, config: Path | None, click_at: float | None = None
) -> None:
    """Send catalogue, history and requests; show the report as a table, then as one line of JSON."""
    settings = load_settings(ExitstreamSettings, config)
    player = Player(settings.kafka, settings.topics, make_plan(load_log(data, click_at), requests), rate)
    console = Console(highlight=False)
    report = asyncio.run(_play(player, console))
    show_report(report, None, console)
    print(json.dumps(msgspec.to_builtins(report)))


async def _play(player: Player, console: Console) -> Report:
    await probe(player.kafka)
    topics = player.topics
    needed = {*topics.logs, *topics.compacted} - {topics.item_parts}
    await require_topics(player.kafka, sorted(needed))
    console.print(f"sending {len(player.plan.items):,} items and {len(player.plan.history):,} interactions of history")
    await player.prepare(HISTORY_PATIENCE_S)
    console.print(f"{len(player.plan.impressions)} impression requests at {player.rate:g} per second:")
    async with LiveTable(player, console):
        await player.play()
    return make_report(player.plan, player.sent, player.answers)

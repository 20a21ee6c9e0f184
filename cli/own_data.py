"""`exitstream check-data` and `exitstream load`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.console import Console

from event_data.event_log import EventLog
from event_data.folder import read_folder
from event_data.own.findings import find
from event_data.own.reader import OwnData, is_own_data
from loadgen.player import record_of
from programs.settings import ExitstreamSettings
from runtime.errors import DatasetError
from runtime.kafka import RecordSink, probe, require_topics
from runtime.settings_sources import load_settings


def check(folder: Path) -> None:
    """Show what is in a folder of one's own data.

    Raises:
        DatasetError: it cannot be read at all, or cannot be trained on.
    """
    if not folder.is_dir() or not is_own_data(folder):
        raise DatasetError(
            f"no interactions.parquet, .csv or .jsonl in {folder}; docs/your-own-data.md says how to lay them out"
        )
    console = Console(highlight=False, soft_wrap=True)
    findings = find(OwnData(folder.resolve()))
    for line in findings.lines():
        console.print(line, markup=False)
    if findings.problems:
        raise DatasetError(f"{folder} cannot be trained on as it is")
    console.print(f"ready: exitstream train --data {folder} --out bundle", markup=False)


def load(data: Path, config: Path | None, click_at: float | None = None) -> None:
    """Send a data set's catalogue and interactions, each under its key.

    Raises:
        DatasetError: the data cannot be read.
        BrokerError: the topics are not there, or cannot be written.
    """
    settings = load_settings(ExitstreamSettings, config)
    log = read_folder(data, click_at)
    console = Console(highlight=False)
    started = time.perf_counter()
    asyncio.run(_send(log, settings))
    console.print(
        f"sent {len(log.items):,} items and {len(log.interactions):,} interactions "
        f"to {settings.kafka.bootstrap_servers} in {time.perf_counter() - started:.1f} s"
    )
    if log.skipped:
        console.print(f"{log.skipped:,} rows could not be used; the first: {log.first_skipped}", markup=False)


async def _send(log: EventLog, settings: ExitstreamSettings) -> None:
    """Keys are the item id and the user id: compaction and order go by them."""
    kafka, topics = settings.kafka, settings.topics
    await probe(kafka)
    await require_topics(kafka, [topics.items, topics.interactions])
    async with RecordSink(kafka) as sink:
        for item in log.items:
            await sink.send(record_of(topics.items, item.item_id, item, kafka.wire_format))
        for event in log.interactions:
            await sink.send(record_of(topics.interactions, event.user_id, event, kafka.wire_format))
        await sink.flush()

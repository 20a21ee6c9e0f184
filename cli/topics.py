"""`exitstream topics create`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console

from programs.settings import ExitstreamSettings
from runtime.kafka.topics import TopicReport, create_missing_topics
from runtime.settings_sources import load_settings


def create(config: Path | None) -> None:
    """Create missing topics; show which were created, which exist, and which differ from the expected settings."""
    settings = load_settings(ExitstreamSettings, config)
    show(asyncio.run(create_missing_topics(settings.kafka, settings.topics.specs())), Console(highlight=False))


def show(report: TopicReport, console: Console) -> None:
    """One line per created topic, one for all existing ones, one per difference."""
    for name in report.created:
        console.print(f"created  {name}")
    if report.present:
        console.print(f"present  {', '.join(report.present)}")
    for difference in report.differences:
        console.print(f"differs  {difference} (left as it is)")

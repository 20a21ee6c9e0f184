"""Writes the report's file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cli.evaluation_report.page import Subject, report_page
from event_data.event_log import EventLog
from models.bundle import Bundle
from runtime.clock import Clock, SystemClock
from training.evaluate import Evaluation


def write_report(evaluation: Evaluation, bundle: Bundle, log: EventLog, file: Path, clock: Clock | None = None) -> None:
    """Write the page; its folder is made if it is missing."""
    subject = Subject(
        dataset=log.name,
        trained_on=bundle.dataset,
        version=bundle.version,
        made=datetime.fromtimestamp((clock or SystemClock()).wall_ms() / 1000, UTC),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(report_page(evaluation, subject), encoding="utf-8")

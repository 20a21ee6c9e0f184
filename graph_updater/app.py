"""The updater as a program: `exitstream updater` and `python -m graph_updater`."""

from __future__ import annotations

from graph_updater.settings import UpdaterSettings
from runtime.clock import SystemClock
from runtime.observability.stages import note_stage, process_age_s, stage
from runtime.observability.telemetry import configure_logging
from runtime.observability.tracing import tracing
from runtime.process.cpus import set_thread_counts
from runtime.process.lifecycle import run_service


def run(settings: UpdaterSettings) -> None:
    """Runs until asked to stop.

    Raises:
        ExitstreamError: on anything that keeps it from running, in one line.
    """
    configure_logging(settings.telemetry, "updater")
    note_stage("program", process_age_s())
    set_thread_counts(1)
    clock = SystemClock()
    with stage("libraries", clock):
        from graph_updater.updater import Updater  # noqa: PLC0415 - numeric libraries read their thread counts at import

    with tracing(settings.telemetry, "updater") as tracer:
        run_service(Updater(settings, clock, tracer).main, settings.telemetry.drain_limit_s)

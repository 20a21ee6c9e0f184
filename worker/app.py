"""`exitstream worker`: the start that must come before the numeric libraries are imported."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from runtime.clock import SystemClock
from runtime.kafka import require_topics
from runtime.observability.stages import note_stage, process_age_s, stage
from runtime.observability.telemetry import configure_logging
from runtime.observability.tracing import tracing
from runtime.process.allocator import keep_freed_memory
from runtime.process.cpus import set_thread_counts
from runtime.process.lifecycle import run_service, unless_stopped
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

SWITCH_INTERVAL_S: Final = 0.001
"""How long the compute thread may hold the interpreter while the event loop waits for it; Python's own 5 ms would cost
every request that much at each step."""


def run(settings: WorkerSettings) -> None:
    """Runs a worker until it is asked to stop.

    Raises:
        ExitstreamError: it cannot start or go on; the text says what to change.
    """
    configure_logging(settings.telemetry, "worker")
    note_stage("program", process_age_s())
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it lists every instruction set that it was not built for
    threads = set_thread_counts(settings.worker.threads)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tracing(settings.telemetry, "worker") as tracer:
        run_service(partial(_main, settings, threads, tracer), settings.telemetry.drain_limit_s)


async def _main(settings: WorkerSettings, threads: int, tracer: Tracer | None, stopping: asyncio.Event) -> None:
    """Checks Kafka first: loading libraries and the model takes seconds."""
    clock = SystemClock()
    with stage("topics", clock):
        if await unless_stopped(stopping, require_topics(settings.kafka, settings.required_topics())) is None:
            return
    with stage("libraries", clock):
        from worker.service import Service  # noqa: PLC0415 - imports torch and FAISS, whose thread counts are set by now

    await Service(settings, threads, tracer=tracer).main(stopping)

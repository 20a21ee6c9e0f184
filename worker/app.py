"""`exitstream worker`: the start that must come before the numeric libraries are imported."""

from __future__ import annotations

import sys
from typing import Final

from runtime.cpus import set_thread_counts
from runtime.lifecycle import run_service
from runtime.telemetry import configure_logging
from worker.settings import WorkerSettings

_SWITCH_INTERVAL_S: Final = 0.001
"""How long the compute thread may hold the interpreter while the event loop waits for it; Python's own 5 ms would cost
every request that much at each step."""


def run(settings: WorkerSettings) -> None:
    """Runs a worker until it is asked to stop.

    Raises:
        ExitstreamError: it cannot start or go on; the text says what to change.
    """
    configure_logging(settings.telemetry, "worker")
    threads = set_thread_counts(settings.worker.threads)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    from worker.service import Service  # noqa: PLC0415 - imports torch and FAISS, whose thread counts are set now

    run_service(lambda stopping: Service(settings, threads).main(stopping), settings.telemetry.drain_limit_s)

"""Traces, off by default. OpenTelemetry is imported only where `telemetry.traces` asks for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runtime.errors import MissingDependency
from runtime.settings import TelemetrySettings

if TYPE_CHECKING:
    from runtime.observability.spans import Tracer

FLUSH_LIMIT_S: Final = 3.0
"""How long the end of the program waits for a collector to take the last spans."""


@contextmanager
def tracing(settings: TelemetrySettings, program: str) -> Iterator[Tracer | None]:
    """The tracer while the program runs; None where traces are off. The end sends the last spans.

    Args:
        settings: whether there are traces.
        program: names the service, where no standard variable does.

    Raises:
        MissingDependency: OpenTelemetry, or the exporter that a variable names, is not installed.
        SettingsError: a variable names an exporter that there is not.
    """
    if not settings.traces:
        yield None
        return
    try:
        from runtime.observability import spans  # noqa: PLC0415 - OpenTelemetry is an extra, and takes time to import
    except ImportError as error:
        raise MissingDependency(
            "telemetry.traces needs OpenTelemetry: pip install 'exitstream[tracing]', or switch the setting off"
        ) from error
    tracer = spans.make_tracer(spans.exporting_processors(), program)
    try:
        yield tracer
    finally:
        # In a thread of its own: a collector that does not answer must not keep the program from ending.
        ending = threading.Thread(target=tracer.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(FLUSH_LIMIT_S)

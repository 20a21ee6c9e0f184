"""Traces are off by default, and switched on by one setting."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest
from span_recorder import SAMPLED

from runtime.errors import MissingDependency
from runtime.observability.tracing import tracing
from runtime.settings import TelemetrySettings


def test_by_default_there_is_no_tracer():
    """One setting switches traces on."""
    with tracing(TelemetrySettings(), "worker") as tracer:
        assert tracer is None


def test_nothing_of_opentelemetry_is_imported_where_traces_are_off():
    """Neither by the programs' modules nor by the switch: it is an extra, and costs start-up time and memory."""
    code = (
        "import sys, worker.app, worker.tracing, graph_updater.updater\n"
        "from runtime.observability.tracing import tracing\n"
        "from runtime.settings import TelemetrySettings\n"
        "with tracing(TelemetrySettings(), 'worker'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_extra_the_error_names_it(monkeypatch):
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "runtime.observability.spans", raising=False)
    monkeypatch.delattr("runtime.observability.spans", raising=False)

    with (
        pytest.raises(MissingDependency, match=r"pip install 'exitstream\[tracing\]'"),
        tracing(TelemetrySettings(traces=True), "worker"),
    ):
        pass


def test_a_collector_that_does_not_answer_does_not_keep_the_program_from_ending(monkeypatch):
    """It has a moment for the last spans; then the program goes on to its end without it."""
    monkeypatch.setattr("runtime.observability.tracing.FLUSH_LIMIT_S", 0.05)
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with tracing(TelemetrySettings(traces=True), "worker") as tracer:
            tracer.start("work", SAMPLED, 0.0, {}).end(1.0)
        [waiting] = [thread for thread in threading.enumerate() if thread.name == "last spans"]
        waiting.join()

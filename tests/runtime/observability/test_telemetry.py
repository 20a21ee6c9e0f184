"""Logs and metrics."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
from aiokafka.errors import KafkaError

from runtime.clock import ManualClock
from runtime.observability.telemetry import ClientLines, Metrics, configure_logging
from runtime.settings import TelemetrySettings


@pytest.fixture(autouse=True)
def restore_logging():
    """Restores the process-wide logging configuration."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_carry_program_level_time_and_fields(capsys):
    """Our lines and the libraries' have the same shape, one JSON object each."""
    configure_logging(TelemetrySettings(log_format="json"), "worker")
    structlog.get_logger("ours").info("scored", request_id="r1")
    logging.getLogger("theirs").warning("careful: %s", "x")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["request_id"], ours["program"], ours["level"]) == ("scored", "r1", "worker", "info")
    assert (theirs["event"], theirs["logger"], theirs["program"]) == ("careful: x", "theirs", "worker")
    assert "timestamp" in ours
    assert "timestamp" in theirs


def test_the_level_holds_for_all_and_aiokafka_is_quiet(capsys):
    """What is below the level is not written; the client library's information never is."""
    configure_logging(TelemetrySettings(log_level="info", log_format="console"), "worker")
    structlog.get_logger("ours").debug("unseen")
    logging.getLogger("aiokafka.cluster").info("unseen")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_from_a_record_cannot_blow_up_a_line(capsys, log_format):
    """A megabyte in a value or in the text is cut, and the line says how long it was."""
    configure_logging(TelemetrySettings(log_format=log_format), "worker")
    structlog.get_logger().info("refused", reason="x" * 1_000_000)
    logging.getLogger("theirs").warning("y" * 1_000_000)
    ours, theirs = capsys.readouterr().err.splitlines()
    assert "x" * 200 in ours
    assert "(1000000 characters)" in ours
    assert len(ours) < 500
    assert len(theirs) < 1_500


def test_exceptions_become_part_of_the_json_line(capsys):
    """A traceback does not break the one-object-per-line format."""
    configure_logging(TelemetrySettings(), "worker")
    try:
        int("what went wrong")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "what went wrong" in json.dumps(json.loads(line)["exception"])


def test_two_programs_in_one_process_do_not_share_metrics():
    """No metric is global: each `Metrics` has a registry of its own."""
    first, second = Metrics("one"), Metrics("one")
    first.dead_letters.labels("t").inc()
    assert first.value("exitstream_one_dead_letters_total", topic="t") == 1
    assert second.value("exitstream_one_dead_letters_total", topic="t") is None


def test_the_client_may_write_one_line_a_minute():
    """While no broker answers it writes several a second; the next line says how many were held back."""
    clock = ManualClock()
    lines = ClientLines(clock.monotonic)

    def passes(name="aiokafka.client", exc_info=None):
        line = logging.LogRecord(name, logging.ERROR, "", 1, "no node %s", (7,), exc_info)
        return line.getMessage() if lines.filter(line) else None

    assert passes() == "no node 7"
    clock.advance(59)
    assert [passes(), passes()] == [None, None]
    assert passes(name="aiohttp.server") == "no node 7"
    assert passes(exc_info=(ValueError, ValueError(), None)) == "no node 7"
    assert passes(exc_info=(KafkaError, KafkaError(), None)) is None
    clock.advance(1)
    assert passes() == "no node 7 (and 3 lines held back)"
    assert passes() is None

"""Structured logs and Prometheus metrics. No module-level metric state: each program makes its own `Metrics`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from runtime.observability.distribution import Histogram
from runtime.settings import TelemetrySettings

LATENCY_BUCKETS_S: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
"""Fine around the usual budgets, and up to the latencies of a backlog."""
LIBRARY_INTERVAL_S: Final = 60.0
"""At most one line of the Kafka client in this time, unless it tells a fault of its own."""
LONGEST_VALUE: Final = 200
LONGEST_EVENT: Final = 1_000
"""Characters of a log line's values and of its text; the rest is cut."""


def configure_logging(settings: TelemetrySettings, program: str) -> None:
    """Makes structlog and the standard library log the same way, to standard error.

    Args:
        settings: format and level.
        program: name that every line carries.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _naming(program),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _cut_long_values,
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(shared, rendering, level)


def _naming(program: str) -> structlog.typing.Processor:
    """Puts the program's name into every line, also of threads, which inherit no context."""

    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["program"] = program
        return event

    return add


def _cut_long_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Bounds what a single line can become: values may come from records, which may hold a megabyte."""
    for key, value in event.items():
        longest = LONGEST_EVENT if key == "event" else LONGEST_VALUE
        if isinstance(value, str) and len(value) > longest:
            event[key] = f"{value[:longest]}… ({len(value)} characters)"
    return event


def _adopt_standard_logging(
    shared: list[structlog.typing.Processor], rendering: list[structlog.typing.Processor], level: int
) -> None:
    """Libraries' log lines in our format; of aiokafka, which logs every reconnection, only warnings and not all."""
    handler = logging.StreamHandler(sys.stderr)
    if level > logging.DEBUG:
        handler.addFilter(ClientLines())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("aiokafka", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class ClientLines(logging.Filter):
    """Holds back most lines of the Kafka client: while no broker answers it writes several a second, for every failed
    attempt of its own. What they mean for the program is said by `runtime.observability.outages`.

    Args:
        clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next_at = clock()
        self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; if so it tells how many were not."""
        if not record.name.startswith("aiokafka") or self._tells_a_fault(record):
            return True
        if self._clock() < self._next_at:
            self._held_back += 1
            return False
        if self._held_back:
            record.msg, record.args = f"{record.getMessage()} (and {self._held_back} lines held back)", ()
        self._next_at, self._held_back = self._clock() + LIBRARY_INTERVAL_S, 0
        return True

    @staticmethod
    def _tells_a_fault(record: logging.LogRecord) -> bool:
        """Whether it carries a traceback of another error than Kafka's, which the client's caller gets as well."""
        error = record.exc_info[1] if record.exc_info else None
        return error is not None and not type(error).__module__.startswith("aiokafka")


class MetricFamily(NamedTuple):
    """What a metric is, for the reference: its full name, kind, text and labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...]


class Metrics:
    """One program's metrics. Subclasses make theirs in `__init__` with `counter`, `gauge` and `histogram`.

    Names get the prefix `exitstream_<program>_`; times are in seconds, as Prometheus wants them.

    Args:
        program: for the prefix.

    Attributes:
        families: all metrics made so far, in this order.
    """

    def __init__(self, program: str) -> None:
        self.registry = CollectorRegistry()
        self.families: list[MetricFamily] = []
        self._prefix = f"exitstream_{program}_"
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.event_loop_lag = self.histogram("event_loop_lag_seconds", "How late the event loop ran a due task")
        self.consumer_lag = self.gauge("consumer_lag_records", "Records not read yet", ("topic", "partition"))
        self.dead_letters = self.counter("dead_letters_total", "Records put aside", ("topic",))

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
        """Something that only grows."""
        self._note(name, "counter", description, labels)
        return Counter(self._prefix + name, description, labels, registry=self.registry)

    def gauge(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Something that goes up and down."""
        self._note(name, "gauge", description, labels)
        return Gauge(self._prefix + name, description, labels, registry=self.registry)

    def histogram(
        self,
        name: str,
        description: str,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = LATENCY_BUCKETS_S,
    ) -> Histogram:
        """A distribution; by default of times in seconds."""
        self._note(name, "histogram", description, labels)
        histogram = Histogram(self._prefix + name, description, labels, buckets)
        self.registry.register(histogram)
        return histogram

    def _note(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], description: str, labels: tuple[str, ...]
    ) -> None:
        self.families.append(MetricFamily(self._prefix + name, kind, description, labels))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: Any) -> float | None:  # noqa: ANN401 - label values of any kind
        """One sample's value by its full name, for status displays and tests; None if there is none."""
        return self.registry.get_sample_value(name, {key: str(value) for key, value in labels.items()})

"""Spans by OpenTelemetry; the only file that knows it. Traces must be switched on: `runtime.observability.tracing`.

Where spans go, how many and under which name is said by the standard `OTEL_*` variables. Two defaults are ours: the
service is named after the program, and of work that comes without a trace one in a hundred begins one
(`OTEL_TRACES_SAMPLER`), so that switching traces on costs little under any load.

Spans are made of timestamps that were taken anyway, so that work that is not sampled costs next to nothing. Times are
Unix milliseconds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Final, Literal, cast

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.errors import MissingDependency, SettingsError
from runtime.observability.trace_context import is_sampled
from runtime.records import Headers

SAMPLED_SHARE: Final = 0.01
"""Of work that comes without a trace, where `OTEL_TRACES_SAMPLER` says nothing."""
Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["consumer", "producer", "internal"]
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "internal": SpanKind.INTERNAL,
}
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""What `OTEL_EXPORTER_OTLP_PROTOCOL` may be, and the names of the exporters."""
_NO_CONTEXT: Final = Context()
_propagator: Final = TraceContextTextMapPropagator()


class Span:
    """A step of a trace that is not over."""

    def __init__(self, span: OtelSpan, tracer: OtelTracer) -> None:
        self._span = span
        self._tracer = tracer
        self._as_parent = set_span_in_context(span, _NO_CONTEXT)

    @property
    def headers(self) -> Headers:
        """Its context, for the records that come of it."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, self._as_parent)
        return tuple((name, value.encode()) for name, value in carrier.items())

    def child(
        self, name: str, start_ms: float, end_ms: float, attributes: Attributes | None = None, kind: Kind = "internal"
    ) -> None:
        """Adds a step inside it that is over."""
        span = self._tracer.start_span(
            name, self._as_parent, _KINDS[kind], attributes, start_time=_nanoseconds(start_ms)
        )
        span.end(_nanoseconds(end_ms))

    def end(self, end_ms: float, attributes: Attributes | None = None, error: str | None = None) -> None:
        """Ends the step.

        Args:
            end_ms: when.
            attributes: those that are known only now.
            error: why it failed; None if it did not.
        """
        if attributes:
            self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(_nanoseconds(end_ms))

    def link(self) -> Link:
        """Its place, for spans of other traces."""
        return Link(self._span.get_span_context())


class Tracer:
    """Begins spans.

    Args:
        provider: OpenTelemetry's, with its sampler and its processors.
        ids: gives the provider its ids.
        root_sampler: decides about work that comes without a trace.
    """

    def __init__(self, provider: TracerProvider, ids: DrawnIds, root_sampler: Sampler) -> None:
        self._provider = provider
        self._ids = ids
        self._root_sampler = root_sampler
        self._tracer = provider.get_tracer("exitstream")
        self._follows_senders = isinstance(provider.sampler, ParentBased)

    def start(
        self, name: str, context: Headers, start_ms: float, attributes: Attributes, links: Sequence[Span] = ()
    ) -> Span | None:
        """A span of the work on a record, in the record's trace or in one that begins here.

        Args:
            name: of the step.
            context: the record's, from `trace_context`.
            start_ms: when the work began.
            attributes: those that are known by now.
            links: steps of other traces whose effects come together with this one's.

        Returns:
            None if the work is not sampled.
        """
        parent = _NO_CONTEXT
        if not context:
            if not self._draw(name):
                return None
        elif self._follows_senders and not is_sampled(context):
            return None
        else:
            carrier = {header: value.decode("latin-1") for header, value in context}
            parent = _propagator.extract(carrier, _NO_CONTEXT)
        linked = [other.link() for other in links]
        span = self._tracer.start_span(
            name, parent, SpanKind.CONSUMER, attributes, linked, start_time=_nanoseconds(start_ms)
        )
        return Span(span, self._tracer) if span.is_recording() else None

    def shutdown(self) -> None:
        """Sends what is left, which takes as long as the collector wants."""
        self._provider.shutdown()

    def _draw(self, name: str) -> bool:
        """Whether to begin a trace. `start_span` would ask the sampler as well, and takes three times as long."""
        trace_id = random.getrandbits(128) or 1
        if self._root_sampler.should_sample(None, trace_id, name).decision is Decision.DROP:
            return False
        self._ids.drawn = trace_id
        return True


class DrawnIds(RandomIdGenerator):
    """Random ids; the next trace gets the id that was drawn for it."""

    def __init__(self) -> None:
        self.drawn: int | None = None

    def generate_trace_id(self) -> int:
        """The drawn id once, then random ones."""
        drawn, self.drawn = self.drawn, None
        return super().generate_trace_id() if drawn is None else drawn


def make_tracer(processors: Sequence[SpanProcessor], program: str) -> Tracer:
    """A tracer that samples and names itself as the standard variables say, and hands its spans to these processors."""
    ids = DrawnIds()
    own_root = None if os.environ.get("OTEL_TRACES_SAMPLER") else TraceIdRatioBased(SAMPLED_SHARE)
    named = dict(OTELResourceDetector().detect().attributes)
    provider = TracerProvider(
        sampler=None if own_root is None else ParentBased(own_root),
        resource=Resource.create({"service.name": f"exitstream-{program}"} | named),
        shutdown_on_exit=False,
        id_generator=ids,
    )
    for processor in processors:
        provider.add_span_processor(processor)
    return Tracer(provider, ids, own_root or provider.sampler)


def exporting_processors() -> list[SpanProcessor]:
    """One per exporter in `OTEL_TRACES_EXPORTER`; by default OTLP over HTTP.

    Raises:
        MissingDependency: an exporter is not installed.
        SettingsError: there is no exporter of that name.
    """
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return [BatchSpanProcessor(_exporter(name)) for name in names if name not in {"", "none"}]


def _exporter(name: str) -> SpanExporter:
    known = _otlp_exporter() if name == "otlp" else name
    for entry in entry_points(group="opentelemetry_traces_exporter", name=known):
        return cast("SpanExporter", entry.load()())
    if known in _PROTOCOLS.values():
        package = f"opentelemetry-exporter-{known.replace('_', '-')}"
        raise MissingDependency(f"traces are to go out by OTLP, whose exporter is not installed: pip install {package}")
    raise SettingsError(
        f"OTEL_TRACES_EXPORTER names {name!r}, which is not installed; there are otlp, console and none"
    )


def _otlp_exporter() -> str:
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((value for value in map(os.environ.get, variables) if value), "http/protobuf")
    if protocol not in _PROTOCOLS:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; there are {' and '.join(_PROTOCOLS)}")
    return _PROTOCOLS[protocol]


def _nanoseconds(time_ms: float) -> int:
    return 1000 * round(time_ms * 1000)  # further digits of a float this large are noise

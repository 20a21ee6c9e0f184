"""A tracer whose spans stay in memory."""

from __future__ import annotations

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.observability.spans import make_tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-01".encode()),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-00".encode()),)


class SpanRecorder:
    """A tracer as the programs make it, and the spans that ended."""

    def __init__(self, program="worker"):
        self._exporter = InMemorySpanExporter()
        self.tracer = make_tracer([SimpleSpanProcessor(self._exporter)], program)

    def spans(self, name=None):
        """All spans, or those of a name, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if name in {None, span.name}]

    def span(self, name):
        """The only span of its name."""
        [span] = self.spans(name)
        return span


def trace_id(span):
    """As the headers write it."""
    return f"{span.context.trace_id:032x}"


def span_id(span):
    """As the headers write it."""
    return f"{span.context.span_id:016x}"


def parent_id(span):
    """As the headers write it; None for a span that begins a trace."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def header_of(span):
    """The `traceparent` of what comes of it. W3C's second flag says that the id is random."""
    return f"00-{trace_id(span)}-{span_id(span)}-".encode()

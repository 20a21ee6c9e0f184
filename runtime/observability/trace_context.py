"""Which trace a record belongs to, in its headers, as W3C Trace Context has it. Pure."""

from __future__ import annotations

import re
from typing import Final

from runtime.records import Headers

PARENT_HEADER: Final = "traceparent"
STATE_HEADER: Final = "tracestate"
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-|\Z)"
)
_LONGEST_PARENT: Final = 256
_LONGEST_STATE: Final = 512  # bytes that everyone must be able to carry; more would make every record longer


def trace_context(headers: Headers) -> Headers:
    """The headers of a record that tell its trace, as they are written to what comes of it.

    Returns:
        `traceparent` first, then `tracestate` if there is one; nothing if the record tells no valid trace.
    """
    for name, parent in headers:
        if name == PARENT_HEADER:
            return ((name, parent), *_state(headers)) if _is_valid(parent) else ()
    return ()


def is_sampled(context: Headers) -> bool:
    """Whether the sender records this trace.

    Args:
        context: as `trace_context` returns it.
    """
    match = _TRACEPARENT.match(context[0][1]) if context else None
    return match is not None and bool(int(match[1], 16) & 1)


def _is_valid(parent: bytes | None) -> bool:
    """Kafka's headers may be null, and hold anything."""
    return parent is not None and len(parent) <= _LONGEST_PARENT and _TRACEPARENT.match(parent) is not None


def _state(headers: Headers) -> Headers:
    state = dict(headers).get(STATE_HEADER)
    return ((STATE_HEADER, state),) if state and len(state) <= _LONGEST_STATE else ()

"""Messages as the records that a user's systems would send."""

from __future__ import annotations

from runtime.records import OutRecord
from schemas.codec import WireFormat, encode, headers_for
from schemas.messages import Message


def record_of(topic: str, key: str, message: Message, wire_format: WireFormat) -> OutRecord:
    """A record for the topic, its headers saying how to read it."""
    return OutRecord(topic, key.encode(), encode(message, wire_format), tuple(headers_for(wire_format)))

"""Encodes and decodes messages. Encoders and decoders are built once; a record's header decides which one reads it.

Any fault in a record's bytes is a `MalformedRecord` whose message says what and where, fit for a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from schemas.messages import SCHEMA_VERSION, Message

WireFormat = Literal["msgpack", "json"]

FORMAT_HEADER: Final = "content-type"
VERSION_HEADER: Final = "schema-version"
CONTENT_TYPES: Final[dict[WireFormat, bytes]] = {
    "msgpack": b"application/msgpack",
    "json": b"application/json",
}
_FORMAT_OF: Final[Mapping[bytes, WireFormat]] = {content: wire for wire, content in CONTENT_TYPES.items()}
_ENCODERS: Final[dict[WireFormat, msgspec.msgpack.Encoder | msgspec.json.Encoder]] = {
    "msgpack": msgspec.msgpack.Encoder(),
    "json": msgspec.json.Encoder(),
}
_LONGEST_VERSION: Final = 9  # digits; Python refuses to parse numbers of thousands of them
_QUOTED: Final = 40  # how much of an invalid header an error quotes

M = TypeVar("M", bound=Message)
Headers = Iterable[tuple[str, bytes | None]]


class MalformedRecord(ValueError):
    """The bytes are not a message of the expected kind and version. The text says what is wrong and where."""


def headers_for(wire_format: WireFormat) -> list[tuple[str, bytes]]:
    """The headers that tell a reader how to decode what `encode` made."""
    return [(FORMAT_HEADER, CONTENT_TYPES[wire_format]), (VERSION_HEADER, str(SCHEMA_VERSION).encode())]


def encode(message: Message, wire_format: WireFormat = "msgpack") -> bytes:
    """The message as bytes of the given format."""
    return _ENCODERS[wire_format].encode(message)


class _Nothing(msgspec.Struct, tag=""):
    """Second member of every decoder's union: msgspec requires the tag only in a union."""


class MessageDecoder(Generic[M]):
    """Reads records of one message type, strictly: right tag, no newer version, exact types, finite numbers.

    Args:
        message_type: the Struct to expect.
        max_bytes: larger records are refused without decoding.
    """

    def __init__(self, message_type: type[M], max_bytes: int = 1_048_576) -> None:
        self._name = message_type.__name__
        self._max_bytes = max_bytes
        expected: Any = message_type | _Nothing
        self._decoders: dict[WireFormat, msgspec.msgpack.Decoder[M | _Nothing] | msgspec.json.Decoder[M | _Nothing]] = {
            "msgpack": msgspec.msgpack.Decoder(expected),
            "json": msgspec.json.Decoder(expected),
        }

    def decode(self, value: bytes | None, headers: Headers = ()) -> M:
        """The message in a record's value.

        A record without a content type is read as JSON if it begins with `{`, else as MessagePack, so that a
        hand-written JSON record works without headers.

        Raises:
            MalformedRecord: whatever is wrong with the record, in words.
        """
        if value is None:
            raise MalformedRecord(f"empty value where the message {self._name} was expected")
        if len(value) > self._max_bytes:
            raise MalformedRecord(f"{len(value)} bytes, more than the {self._max_bytes} allowed for {self._name}")
        named = dict(headers)
        self._check_version(named.get(VERSION_HEADER))
        try:
            message = self._decoders[self._wire_format(value, named.get(FORMAT_HEADER))].decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedRecord(f"not a valid {self._name}: {error}") from error
        if isinstance(message, _Nothing):
            raise MalformedRecord(f"not a valid {self._name}: Invalid value '' - at `$.type`")
        return message

    def _check_version(self, header: bytes | None) -> None:
        if header is None:
            return
        if not header.isdigit() or len(header) > _LONGEST_VERSION:
            raise MalformedRecord(f"the header {VERSION_HEADER} holds {header[:_QUOTED]!r}, not a version number")
        if int(header) > SCHEMA_VERSION:
            raise MalformedRecord(f"schema version {int(header)} is newer than {SCHEMA_VERSION}, the newest known here")

    def _wire_format(self, value: bytes, header: bytes | None) -> WireFormat:
        if header is None:
            return "json" if value[:1] == b"{" else "msgpack"
        if header not in _FORMAT_OF:
            known = ", ".join(content.decode() for content in _FORMAT_OF)
            raise MalformedRecord(f"unknown {FORMAT_HEADER} {header[:_QUOTED]!r}; known are {known}")
        return _FORMAT_OF[header]

"""Encodes and decodes messages. Encoders and decoders are built once; a record's header decides which one reads it.

Any fault in a record's bytes is a `MalformedRecord` whose message says what and where, fit for a dead letter. What
other writers may do without changing the meaning is read: a byte order mark or blanks before JSON, parameters in the
content type, and whole numbers written as `2000.0`, as JavaScript and Spark do.
"""

from __future__ import annotations

import re
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
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_JSON_BLANKS: Final = b" \t\r\n"
_BEFORE_JSON: Final = frozenset({b"{", b" ", b"\t", b"\r", b"\n", _BYTE_ORDER_MARK[:1]})
_UTF_8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})
"""Charsets that JSON may declare; it is UTF-8 whatever the header says (RFC 8259)."""
_FLOAT_FOR_INT: Final = re.compile(r"^Expected `int\b.*, got `float`")
_EXACT: Final = 2.0**53
"""Whole floats up to here are the numbers that were written."""
_ENCODERS: Final[dict[WireFormat, msgspec.msgpack.Encoder | msgspec.json.Encoder]] = {
    "msgpack": msgspec.msgpack.Encoder(),
    "json": msgspec.json.Encoder(),
}
_LONGEST_VERSION: Final = 9  # digits; Python refuses to parse numbers of thousands of them
_LONGEST_CONTENT_TYPE: Final = 200
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


def check_key(key: bytes | None, name: str, what: str) -> None:
    """Checks a record of a compacted topic: its key must be the id that its value is about.

    Compaction keeps the latest record of each key, so that a value under another key would outlive its successor, or
    remove somebody else's.

    Args:
        key: the record's.
        name: the id in the value.
        what: what the id is called, for the error.

    Raises:
        MalformedRecord: they differ, or there is no key.
    """
    if key != name.encode():
        found = "no key" if key is None else f"the key {key[:_QUOTED]!r}"
        raise MalformedRecord(
            f"{found} where the {what} {name[:_QUOTED]!r} is needed: compaction goes by the key, "
            f"so write the record again under its {what}"
        )


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
        self._expected: Any = message_type | _Nothing
        self._decoders: dict[WireFormat, msgspec.msgpack.Decoder[M | _Nothing] | msgspec.json.Decoder[M | _Nothing]] = {
            "msgpack": msgspec.msgpack.Decoder(self._expected),
            "json": msgspec.json.Decoder(self._expected),
        }

    def decode(self, value: bytes | None, headers: Headers = ()) -> M:
        """The message in a record's value.

        Raises:
            MalformedRecord: whatever is wrong with the record, in words.
        """
        return self.decode_with_format(value, headers)[0]

    def decode_with_format(self, value: bytes | None, headers: Headers = ()) -> tuple[M, WireFormat]:
        """The message in a record's value, and the format that it was read in.

        A record without a content type is read as JSON if it begins with `{`, blanks and a byte order mark aside, else
        as MessagePack, so that a hand-written JSON record works without headers.

        Raises:
            MalformedRecord: whatever is wrong with the record, in words.
        """
        if value is None:
            raise MalformedRecord(f"empty value where the message {self._name} was expected")
        self.check_size(value)
        named = dict(headers)
        self._check_version(named.get(VERSION_HEADER))
        content = named.get(FORMAT_HEADER)
        wire_format: WireFormat = "msgpack"
        if content is not None:
            wire_format = _FORMAT_OF.get(content) or _declared_format(content)
        elif value[:1] in _BEFORE_JSON:
            wire_format = _undeclared_format(value)
        try:
            try:
                message = self._decoders[wire_format].decode(value)
            except msgspec.DecodeError as error:
                message = self._read_tolerantly(value, wire_format, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedRecord(f"not a valid {self._name}: {error}") from error
        if isinstance(message, _Nothing):
            raise MalformedRecord(f"not a valid {self._name}: Invalid value '' - at `$.type`")
        return message, wire_format

    def check_size(self, value: bytes) -> None:
        """Checks that a record is not larger than allowed.

        Raises:
            MalformedRecord: it is.
        """
        if len(value) > self._max_bytes:
            raise MalformedRecord(f"{len(value)} bytes, more than the {self._max_bytes} allowed for {self._name}")

    def _check_version(self, header: bytes | None) -> None:
        if header is None:
            return
        if not header.isdigit() or len(header) > _LONGEST_VERSION:
            raise MalformedRecord(f"the header {VERSION_HEADER} holds {header[:_QUOTED]!r}, not a version number")
        if int(header) > SCHEMA_VERSION:
            raise MalformedRecord(f"schema version {int(header)} is newer than {SCHEMA_VERSION}, the newest known here")

    def _read_tolerantly(self, value: bytes, wire_format: WireFormat, error: msgspec.DecodeError) -> M | _Nothing:
        """The message, if a byte order mark or integers written as floats are all that was wrong; else the error."""
        if wire_format == "json" and value.startswith(_BYTE_ORDER_MARK):
            value = value.removeprefix(_BYTE_ORDER_MARK)
        elif not _FLOAT_FOR_INT.match(str(error)):
            raise error
        untyped = (msgspec.json if wire_format == "json" else msgspec.msgpack).decode(value)
        builtin_types = None if wire_format == "json" else (bytes,)  # JSON carries bytes as base64
        message: M | _Nothing = msgspec.convert(_whole_numbers(untyped), self._expected, builtin_types=builtin_types)
        return message


def _undeclared_format(value: bytes) -> WireFormat:
    """The format of a record that begins like JSON. As MessagePack, blanks and byte order marks are small numbers."""
    return "json" if value.removeprefix(_BYTE_ORDER_MARK).lstrip(_JSON_BLANKS)[:1] == b"{" else "msgpack"


def _declared_format(header: bytes) -> WireFormat:
    """The format that a content type names in any case and with parameters."""
    content, *parameters = (part.strip() for part in header[:_LONGEST_CONTENT_TYPE].lower().split(b";"))
    if content not in _FORMAT_OF:
        known = ", ".join(content.decode() for content in _FORMAT_OF)
        raise MalformedRecord(f"unknown {FORMAT_HEADER} {header[:_QUOTED]!r}; known are {known}")
    for parameter in parameters:
        name, _, charset = parameter.partition(b"=")
        if name.strip() == b"charset" and charset.strip().strip(b'"') not in _UTF_8:
            raise MalformedRecord(f"{FORMAT_HEADER} {header[:_QUOTED]!r}: only UTF-8 is read")
    return _FORMAT_OF[content]


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401 - any JSON or MessagePack value
    """The value with its whole floats as integers. Fields of floats accept integers too."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT else value
    if isinstance(value, list):
        return [_whole_numbers(part) for part in value]
    if isinstance(value, dict):
        return {name: _whole_numbers(part) for name, part in value.items()}
    return value

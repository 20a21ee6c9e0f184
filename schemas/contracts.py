"""Generates the public contracts from the Structs: JSON Schemas and an AsyncAPI 3 document.

Never edited by hand: `exitstream schemas generate` writes `schemas/generated/`, and a test holds them together.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.codec import CONTENT_TYPES, FORMAT_HEADER, VERSION_HEADER
from schemas.examples import FULL
from schemas.messages import SCHEMA_VERSION, ItemState, Message, UserState
from schemas.packed_states import CONTENT_TYPE
from schemas.topics import (
    CHANNELS,
    DEAD_LETTER_HEADERS,
    DEAD_LETTER_SUFFIX,
    NULL_VALUE_HEADERS,
    REPLAY_MARK_HEADERS,
    Channel,
)

GENERATED: Final = Path(__file__).parent / "generated"
MESSAGES: Final[tuple[type[Message], ...]] = tuple(dict.fromkeys(channel.message for channel in CHANNELS))
PACKED: Final = (UserState, ItemState)
"""Messages that are packed as `schemas.packed_states` tells, by default."""

Json = dict[str, Any]


def generate(folder: Path = GENERATED) -> list[Path]:
    """Write every contract into the folder; the same Structs give the same bytes. Returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in documents().items():
        path = folder / name
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def documents() -> dict[str, Json]:
    """Every contract by its file name."""
    schemas = {f"{tag_of(message)}.schema.json": json_schema(message) for message in MESSAGES}
    return {"asyncapi.json": asyncapi()} | schemas


def tag_of(message: type[Message]) -> str:
    """The value of the message's `type` field."""
    return str(message.__struct_config__.tag)


def json_schema(message: type[Message]) -> Json:
    """A JSON Schema (2020-12) of one message, complete in itself."""
    (reference,), components = msgspec.json.schema_components([message], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{message.__name__}, schema version {SCHEMA_VERSION}",
        **reference,
        "$defs": _tidy(components),
    }


def asyncapi() -> Json:
    """An AsyncAPI 3.0 document of all topics: channels, operations, messages with keys, headers and examples."""
    _, components = msgspec.json.schema_components(MESSAGES, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "exitstream",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": (
                "Real-time click-through-rate scoring over Kafka. Topic names are settings; these are the defaults. "
                "Records are MessagePack by default and JSON by setting: the content type in the header decides, and "
                "a record without one is JSON if it begins with an opening brace, blanks and a byte order mark aside. "
                "The states that exitstream itself writes are columns of bytes by default (schemas/packed_states.py). "
                "In JSON, bytes are base64. An integer may be written as a float without a fraction. Records of a "
                "compacted topic are refused unless their key is the id that they are about."
            ),
        },
        "defaultContentType": CONTENT_TYPES["msgpack"].decode(),
        "channels": {channel.topic: _channel(channel) for channel in CHANNELS} | _dead_letter_channels(),
        "operations": {f"{channel.action}-{channel.topic}": _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {channel.message.__name__: _message(channel) for channel in CHANNELS}
            | {"DeadLetter": _dead_letter(), "ReplayMark": _replay_mark()},
            "schemas": {
                **_tidy(components),
                "Headers": _headers(),
                "DeadLetterHeaders": _headers_of(DEAD_LETTER_HEADERS, NULL_VALUE_HEADERS),
                "ReplayMarkHeaders": _headers_of(REPLAY_MARK_HEADERS),
            },
        },
    }


def _channel(channel: Channel) -> Json:
    name = channel.message.__name__
    return {
        "address": channel.topic,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {
                "topic": channel.topic,
                "topicConfiguration": {"cleanup.policy": ["compact" if channel.compacted else "delete"]},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operation(channel: Channel) -> Json:
    name = channel.message.__name__
    return {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{channel.topic}"},
        "messages": [{"$ref": f"#/channels/{channel.topic}/messages/{name}"}],
    }


def _message(channel: Channel) -> Json:
    name = channel.message.__name__
    example = next(example for example in FULL if isinstance(example, channel.message))
    value: Json = {
        "name": tag_of(channel.message),
        "title": name,
        "summary": channel.description,
        "contentType": (CONTENT_TYPE if channel.message in PACKED else CONTENT_TYPES["msgpack"]).decode(),
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The {channel.key}, as UTF-8."},
                "bindingVersion": "0.5.0",
            }
        },
        "examples": [{"payload": msgspec.to_builtins(example, builtin_types=())}],
    }
    if channel.compacted:
        value["description"] = f"An empty value (a tombstone) withdraws the {channel.key.removesuffix(' id')}."
    return value


def _headers() -> Json:
    return {
        "type": "object",
        "properties": {
            FORMAT_HEADER: {
                "type": "string",
                "enum": [content.decode() for content in (*CONTENT_TYPES.values(), CONTENT_TYPE)],
                "description": "How the value is encoded.",
            },
            VERSION_HEADER: {
                "type": "string",
                "pattern": "^[0-9]{1,9}$",
                "description": f"Version of the set of messages, now {SCHEMA_VERSION}; a newer one is not read.",
            },
        },
    }


def _dead_letter_channels() -> Json:
    inputs = [channel for channel in CHANNELS if channel.action == "receive"]
    return {
        channel.topic + DEAD_LETTER_SUFFIX: {
            "address": channel.topic + DEAD_LETTER_SUFFIX,
            "description": f"Records of {channel.topic} that could not be read, byte for byte as they came.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("DeadLetter", "ReplayMark")},
        }
        for channel in inputs
    }


def _dead_letter() -> Json:
    return {
        "name": "dead-letter",
        "title": "DeadLetter",
        "summary": "A record that could not be read, as it came, and the reason in further headers.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"type": "string", "format": "binary"},
    }


def _replay_mark() -> Json:
    return {
        "name": "replay-mark",
        "title": "ReplayMark",
        "summary": "Says that a letter's record was written to its topic again; its headers name the letter.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/ReplayMarkHeaders"},
        "payload": {"type": "string", "maxLength": 0},
    }


def _headers_of(always: Mapping[str, str], sometimes: Mapping[str, str] | None = None) -> Json:
    described = {**always, **(sometimes or {})}
    properties = {name: {"type": "string", "description": text} for name, text in described.items()}
    return {"type": "object", "properties": properties, "required": list(always)}


def _tidy(components: Json) -> Json:
    """Descriptions without the indentation of the docstrings that they come from."""
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return components

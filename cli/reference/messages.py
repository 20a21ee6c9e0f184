"""The reference of messages, from the generated contracts."""

from __future__ import annotations

import json
from typing import Any

from schemas import messages
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER, VERSION_HEADER
from schemas.contracts import asyncapi, json_schema
from schemas.messages import SCHEMA_VERSION
from schemas.packed_states import CONTENT_TYPE
from schemas.topics import CHANNELS, Channel

_FORMATS = " or ".join(f"`{content.decode()}`" for content in CONTENT_TYPES.values())
_HEAD = f"""# Messages

The topics by their default names, and the fields of what they hold. The same for machines:
`schemas/generated/asyncapi.json`, and a JSON Schema per message beside it. How formats are told apart, and what is read
although it is written differently: [topics](../architecture.md#topics).

| header | value |
| --- | --- |
| `{FORMAT_HEADER}` | {_FORMATS}; of states `{CONTENT_TYPE.decode()}`, too |
| `{VERSION_HEADER}` | `{SCHEMA_VERSION}` |

`exitstream reference` writes this page.
"""


_ANY = 1e300
"""Bounds beyond this only keep infinity out."""


def page() -> str:
    """The page in Markdown."""
    contracts = asyncapi()["components"]["messages"]
    return _HEAD + "".join(_channel(channel, contracts[channel.message.__name__]) for channel in CHANNELS)


def _channel(channel: Channel, message: dict[str, Any]) -> str:
    schema = json_schema(channel.message)
    own = schema["$ref"].rsplit("/", 1)[-1]
    parts = [own, *(name for name in schema["$defs"] if name != own)]
    tables = "".join(_table(name, schema["$defs"][name], is_own=name == own) for name in parts)
    example = json.dumps(message["examples"][0]["payload"], indent=2, ensure_ascii=False)
    kept = "compacted: the newest record per key" if channel.compacted else "by time"
    written = "your systems write it" if channel.action == "receive" else "exitstream writes it"
    key = message["bindings"]["kafka"]["key"]["description"]
    return (
        f"\n## `{channel.topic}`\n\n{message['summary']} Key: {key[0].lower()}{key[1:]} Kept {kept}; {written}.\n"
        f"{tables}\n```json\n{example}\n```\n"
    )


def _table(name: str, schema: dict[str, Any], *, is_own: bool) -> str:
    title = "" if is_own else f"\n`{name}`: {_line(schema.get('description', ''))}\n"
    properties, required = schema.get("properties"), set(schema.get("required", ()))
    if properties is None:  # packed as an array, whose schema has no names
        names = getattr(messages, name).__struct_fields__
        properties, required = dict(zip(names, schema["prefixItems"], strict=True)), set(names)
    rows = "".join(
        f"| `{field}` | {_type(told)} | {'required' if field in required else _default(told)} | "
        f"{_line(told.get('description', ''))} |\n"
        for field, told in properties.items()
    )
    return f"{title}\n| field | type | default | |\n| --- | --- | --- | --- |\n{rows}"


def _default(told: dict[str, Any]) -> str:
    return f"`{json.dumps(told['default'])}`" if "default" in told else ""


def _type(told: dict[str, Any]) -> str:
    if "$ref" in told:
        return f"`{told['$ref'].rsplit('/', 1)[-1]}`"
    if "enum" in told:
        return " or ".join(f"`{value}`" for value in told["enum"])
    if "anyOf" in told:
        return " or ".join(_type(part) for part in told["anyOf"])
    if told.get("type") == "array":
        return f"list of {_type(told['items'])}"
    if isinstance(told.get("additionalProperties"), dict):
        return f"map to {_type(told['additionalProperties'])}"
    return str(told.get("type", "anything")) + _bounds(told)


def _bounds(told: dict[str, Any]) -> str:
    low = told.get("minimum", told.get("minLength", told.get("exclusiveMinimum")))
    high = told.get("maximum", told.get("maxLength", told.get("exclusiveMaximum")))
    low, high = (None if end is None or abs(end) > _ANY else end for end in (low, high))
    if low is None and high is None:
        return ""
    unit = " characters" if "maxLength" in told or "minLength" in told else ""
    if low is None or high is None:
        return f" ({'at least' if high is None else 'at most'} {low if high is None else high}{unit})"
    return f" ({low} to {high}{unit})"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

"""Letters as text for people and as JSON for machines. What comes from outside is escaped: it may hold anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from runtime.dead_letters import Letter
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import Message
from schemas.topics import Channel

_LATEST_MS: Final = 253_402_300_799_999


def when(time_ms: int) -> str:
    """A Unix time in milliseconds as a date and a time, UTC."""
    if not 0 <= time_ms <= _LATEST_MS:
        return str(time_ms)
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def escaped(text: str, limit: int | None = None) -> str:
    """Text in one line, without anything that a terminal would obey, cut at a length."""
    shown = text if limit is None else text[:limit]
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return safe if len(shown) == len(text) else f"{safe}… ({len(text)} characters)"


def as_json(letter: Letter, *, replayed: bool) -> dict[str, Any]:
    """What `list --json` says of a letter."""
    return {
        "place": str(letter.origin),
        "letter": letter.place,
        "topic": letter.origin.source.topic,
        "partition": letter.origin.source.partition,
        "offset": letter.origin.offset,
        "record_time_ms": letter.origin.record_time_ms,
        "time_ms": letter.time_ms,
        "program": letter.program,
        "reason": letter.reason,
        "attempt": letter.attempt,
        "bytes": letter.size,
        "replayed": replayed,
    }


def as_line(letter: Letter, *, replayed: bool, reason_limit: int) -> str:
    """What `list` says of a letter."""
    tried = f"attempt {letter.attempt}" + (", replayed" if replayed else "")
    reason = escaped(letter.reason, reason_limit)
    return f"{letter.origin}  {when(letter.time_ms)}  {letter.program}  {letter.size} bytes  {tried}  {reason}"


def bytes_as_text(data: bytes | None, limit: int) -> str:
    """Bytes as escaped text where they are UTF-8, else in hexadecimal, cut at a number of bytes."""
    if data is None:
        return "none"
    cut = "" if len(data) <= limit else f"… ({len(data)} bytes)"
    try:
        data.decode()
    except UnicodeDecodeError:
        return data[:limit].hex(" ") + cut
    return escaped(data[:limit].decode(errors="ignore")) + cut  # ignore: the cut may divide a character


def describe(letter: Letter, channel: Channel, *, max_record_bytes: int, limit: int, replayed: bool) -> str:
    """Everything about one letter, what it holds, and what to do.

    Args:
        letter: the letter.
        channel: of its input topic.
        max_record_bytes: beyond these a record is not decoded.
        limit: most bytes of key, header and value that are shown.
        replayed: whether it has been.
    """
    message, refusal = _decoded(letter, channel.message, max_record_bytes)
    lines = [
        f"record   {letter.origin}, written {when(letter.origin.record_time_ms)}",
        f"letter   {letter.place}",
        f"refused  {when(letter.time_ms)} by {escaped(letter.program)}, attempt {letter.attempt}",
        f"reason   {escaped(letter.reason)}",
        f"key      {bytes_as_text(letter.key, limit)}",
        *(f"header   {escaped(name)}: {bytes_as_text(value, limit)}" for name, value in letter.headers),
        f"value    {_size(letter.value)}{'' if message is None else f', a valid {type(message).__name__}'}",
    ]
    if letter.value:
        lines.append(bytes_as_text(letter.value if message is None else msgspec.json.encode(message), limit))
    return "\n".join([*lines, "", *_advice(letter, refusal, replayed=replayed)])


def _size(value: bytes | None) -> str:
    return "none" if value is None else f"{len(value)} bytes"


def _decoded(letter: Letter, kind: type[Message], max_bytes: int) -> tuple[Message | None, str]:
    """The message in a letter; None, and why not, if this version reads none."""
    try:
        return MessageDecoder(kind, max_bytes).decode(letter.value, letter.headers), ""
    except MalformedRecord as error:
        return None, str(error)


def _advice(letter: Letter, refusal: str, *, replayed: bool) -> list[str]:
    command = f"exitstream dead-letters replay '{letter.origin}'"
    if replayed:
        return ["It was replayed. If it was refused again, `dead-letters list` shows a letter with the next attempt."]
    if refusal:
        return [
            f"With these settings it would be refused again: {escaped(refusal)}.",
            "If its producer made it wrongly: mend the producer and have it send the data anew. If a limit is in the",
            f"way: raise it for the program and the topic, restart the program, then `{command}`.",
        ]
    return [
        "Its value can be read, so a limit, a clock, or a fault since mended refused it. Change what the reason names,",
        f"restart the program, then `{command}`.",
    ]

"""Records that no program may accept, one of every kind known to have broken something: each becomes a dead letter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from programs.topics import TopicSettings
from runtime.records import OutRecord
from schemas.codec import headers_for

OVERSIZED_BYTES: Final = 1_040_000
"""More than `kafka.max_record_bytes`, yet what a broker takes by default."""
YEAR_3000_MS: Final = 32_503_680_000_000
_TOO_MANY: Final = 20_000
"""Candidates, twice as many as `worker.max_candidates`."""
_NESTED: Final = 100_000
_MSGPACK: Final = tuple(headers_for("msgpack"))
_JSON: Final = tuple(headers_for("json"))


def poison(topics: TopicSettings, now_ms: int) -> dict[str, OutRecord]:
    """One record of every kind, by name, for the topic that the name begins with.

    Args:
        topics: the names of the topics.
        now_ms: the time that the records speak of where it is not what is wrong with them.
    """
    return {
        **{f"interactions: {kind}": record for kind, record in _interactions(topics.interactions, now_ms)},
        **{f"requests: {kind}": record for kind, record in _requests(topics.impression_requests, now_ms)},
        **{f"items: {kind}": record for kind, record in _items(topics.items)},
    }


def _bytes(topic: str) -> Iterator[tuple[str, OutRecord]]:
    """What is not even a message."""
    yield "no encoding", OutRecord(topic, b"poison", b"\xc1 poison")
    yield "nothing", OutRecord(topic, b"poison", b"")
    yield "oversized", OutRecord(topic, b"poison", b"x" * OVERSIZED_BYTES, any_size=True)
    yield "100,000 brackets", OutRecord(topic, b"poison", b'{"type":' + b"[" * _NESTED, _JSON)
    yield "unknown type", OutRecord(topic, b"poison", b'{"type": "poison"}', _JSON)
    yield "unknown encoding", OutRecord(topic, b"poison", b"{}", (("content-type", b"text/poison"),))
    yield "version of 5,000 digits", OutRecord(topic, b"poison", b"{}", (("schema-version", b"9" * 5_000),))


def _interactions(topic: str, now_ms: int) -> Iterator[tuple[str, OutRecord]]:
    good = {
        "type": "interaction",
        "event_id": "poison",
        "user_id": "poison",
        "item_id": "poison",
        "kind": "click",
        "event_time_ms": now_ms,
    }
    yield from _bytes(topic)
    yield "a tombstone", OutRecord(topic, b"poison", None)
    yield "a number for an id", _packed(topic, {**good, "item_id": 7})
    yield "an empty id", _packed(topic, {**good, "item_id": ""})
    yield "NaN", _packed(topic, {**good, "weight": float("nan")})
    yield "weight 1e-40", _packed(topic, {**good, "weight": 1e-40})
    yield "the year 3000", _packed(topic, {**good, "event_time_ms": YEAR_3000_MS})
    yield "text for a time", OutRecord(topic, b"poison", json.dumps({**good, "event_time_ms": "now"}).encode(), _JSON)


def _requests(topic: str, now_ms: int) -> Iterator[tuple[str, OutRecord]]:
    good = {
        "type": "impression-request",
        "request_id": "poison",
        "user_id": "poison",
        "candidate_item_ids": ["i1"],
        "created_time_ms": now_ms,
    }
    yield from _bytes(topic)
    yield "a tombstone", OutRecord(topic, b"poison", None)
    yield "a number for candidates", _packed(topic, {**good, "candidate_item_ids": 7})
    yield "20,000 candidates", _packed(topic, {**good, "candidate_item_ids": [f"i{n}" for n in range(_TOO_MANY)]})
    yield "a budget of NaN", _packed(topic, {**good, "budget_ms": float("nan")})
    yield "a budget of 2**70", OutRecord(topic, b"poison", json.dumps({**good, "budget_ms": 2**70}).encode(), _JSON)
    yield (
        "budget header of 5,000 digits",
        OutRecord(topic, b"poison", msgspec.msgpack.encode(good), (*_MSGPACK, ("budget-ms", b"9" * 5_000))),
    )


def _items(topic: str) -> Iterator[tuple[str, OutRecord]]:
    yield from _bytes(topic)
    yield "another item's key", _packed(topic, {"type": "item", "item_id": "i1", "title": "poison"})
    yield "a withdrawal without a key", OutRecord(topic, b"", None)


def _packed(topic: str, message: Mapping[str, Any]) -> OutRecord:
    return OutRecord(topic, b"poison", msgspec.msgpack.encode(message), _MSGPACK)

"""Decodes what the shards tell each other of items. What cannot be used is refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
import numpy as np

from graph_updater.graph.parts import LARGEST_SUM
from graph_updater.graph.shard import Shard
from graph_updater.state.shared_items import PartRecord
from runtime.records import Record
from schemas.codec import MalformedRecord, MessageDecoder, headers_for
from schemas.messages import ItemPart

_NUMBER: Final = np.dtype("<f4")
_HEADERS: Final = tuple(headers_for("msgpack"))
_QUICK: Final = msgspec.msgpack.Decoder(ItemPart)


class Reject(NamedTuple):
    """A record that cannot be used, and why."""

    record: Record
    reason: str


class PartIntake:
    """Reads the topic of parts.

    Args:
        topic: its name.
        shard: the reader; records of another number of shards are of no concern, as they were left by former ones.
        space: of the bundle's embeddings: sums of another one must not be mixed with these.
        shape: layers of every part, dimensions of an embedding.
        max_bytes: longer records are refused unread.

    Attributes:
        foreign: parts of another space so far, from shards that have another bundle: their counts are taken.
    """

    def __init__(self, topic: str, shard: Shard, space: str, shape: tuple[int, int], max_bytes: int) -> None:
        self.topic = topic
        self._shards = {Shard(number, shard.shards).name.encode(): number for number in range(shard.shards)}
        self._space = space
        self._bytes = shape[0] * shape[1] * _NUMBER.itemsize
        self._count = shard.shards
        self._decoder = MessageDecoder(ItemPart, max_bytes)
        self._max_bytes = max_bytes
        self.foreign = 0

    def read(self, records: Sequence[Record]) -> tuple[list[PartRecord], list[Reject]]:
        """What records say, in their order, without those that are of no concern; and those that cannot be used."""
        found: list[tuple[Record, PartRecord]] = []
        rejects: list[Reject] = []
        for record in records:
            try:
                part = self._read(record)
            except MalformedRecord as error:
                rejects.append(Reject(record, str(error)))
            else:
                if part is not None:
                    found.append((record, part))
        sums = b"".join(part.part.sums for _, part in found if part.part is not None and not part.is_foreign)
        if (np.abs(np.frombuffer(sums, _NUMBER)) <= LARGEST_SUM).all():
            return [part for _, part in found], rejects
        bad = [_has_wrong_numbers(part) for _, part in found]
        said = "`$.sums` holds what is no number, or too large a one"
        rejects += [Reject(record, said) for (record, _), is_bad in zip(found, bad, strict=True) if is_bad]
        return [part for (_, part), is_bad in zip(found, bad, strict=True) if not is_bad], rejects

    def _read(self, record: Record) -> PartRecord | None:
        """What a record says, but for the numbers of its sums; None if it is of no concern.

        Raises:
            MalformedRecord: it cannot be used.
        """
        layout, _, key = (record.key or b"").partition(b"/")
        shard = self._shards.get(layout)
        if shard is None:
            return None
        name = _text(key)
        if record.value is None:
            return PartRecord(shard, name, None)
        part = self._decoded(record, record.value)
        if (part.shard, part.shards, part.item_id) != (shard, self._count, name):
            raise MalformedRecord(f"a part that shard {part.shard} of {part.shards} tells of {part.item_id!r:.40}")
        if part.space != self._space:
            self.foreign += 1
            return PartRecord(shard, name, part, is_foreign=True)
        if (part.degree > 0.0) != (part.edges > 0):
            raise MalformedRecord(f"`$.degree` is {part.degree} with {part.edges} edges")
        if len(part.sums) != self._bytes:
            raise MalformedRecord(f"`$.sums` has {len(part.sums)} bytes where {self._bytes} are needed")
        return PartRecord(shard, name, part)

    def _decoded(self, record: Record, value: bytes) -> ItemPart:
        """The message. Those that updaters of this version write, which are nearly all, take a third of the time."""
        if record.headers == _HEADERS and len(value) <= self._max_bytes:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):  # the other way tells the reason
                return _QUICK.decode(value)
        return self._decoder.decode(value, record.headers)


def _has_wrong_numbers(record: PartRecord) -> bool:
    if record.part is None or record.is_foreign:
        return False
    return not (np.abs(np.frombuffer(record.part.sums, _NUMBER)) <= LARGEST_SUM).all()


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"the key names no item: {error}") from error

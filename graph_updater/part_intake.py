"""Decodes what the shards tell each other of items. What cannot be used is refused with a reason."""

from __future__ import annotations

from typing import Final

import numpy as np

from graph_updater.graph.parts import LARGEST_SUM
from graph_updater.graph.shard import Shard
from graph_updater.state.shared_items import PartRecord
from runtime.records import Record
from schemas.codec import MalformedRecord, MessageDecoder, check_key
from schemas.messages import ItemPart

_NUMBER: Final = np.dtype("<f4")


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
        self._decoder = MessageDecoder(ItemPart, max_bytes)
        self.foreign = 0

    def read(self, record: Record) -> PartRecord | None:
        """What a record says; None if it is of no concern.

        Raises:
            MalformedRecord: it cannot be used.
        """
        layout, _, name = (record.key or b"").partition(b"/")
        shard = self._shards.get(layout)
        if shard is None:
            return None
        if record.value is None:
            return PartRecord(shard, _text(name), None)
        part = self._decoder.decode(record.value, record.headers)
        check_key(record.key, Shard(part.shard, part.shards).key_of(part.item_id), "shard and item id")
        if part.space != self._space:
            self.foreign += 1
            return PartRecord(shard, part.item_id, part, is_foreign=True)
        if (part.degree > 0.0) != (part.edges > 0):
            raise MalformedRecord(f"`$.degree` is {part.degree} with {part.edges} edges")
        if len(part.sums) != self._bytes:
            raise MalformedRecord(f"`$.sums` has {len(part.sums)} bytes where {self._bytes} are needed")
        if not (np.abs(np.frombuffer(part.sums, _NUMBER)) <= LARGEST_SUM).all():
            raise MalformedRecord("`$.sums` holds what is no number, or too large a one")
        return PartRecord(shard, part.item_id, part)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise MalformedRecord(f"the key names no item: {error}") from error

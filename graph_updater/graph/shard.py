"""Which part of the users an updater has, where several share them."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Shard:
    """One of the updaters that share the users. Of a topic whose keys are users, partition p is that of p % shards.

    Attributes:
        number: its own, from 0.
        shards: how many there are.
    """

    number: int = 0
    shards: int = 1

    @property
    def is_one_of_several(self) -> bool:
        """Whether there are others."""
        return self.shards > 1

    @property
    def name(self) -> str:
        """For groups, folders and keys."""
        return f"{self.number}-of-{self.shards}"

    def key_of(self, item_id: str) -> str:
        """The key of its part of an item, in the topic of parts."""
        return f"{self.name}/{item_id}"

    def owns(self, partition: int) -> bool:
        """Whether its users are those of this partition."""
        return partition % self.shards == self.number

    def partitions(self, count: int) -> list[int]:
        """Its own of so many."""
        return list(range(self.number, count, self.shards))

    def publishes(self, item_id: str) -> bool:
        """Whether the state of this item, which all shards have, is published by this one."""
        return self.shards == 1 or crc32(item_id.encode()) % self.shards == self.number


WHOLE = Shard()
"""The only updater."""

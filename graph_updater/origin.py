"""What a snapshot must agree with to be used: the model, the cluster and the topics, down to their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from graph_updater.graph.shard import WHOLE, Shard
from graph_updater.state.snapshot_checks import IncompatibleSnapshot

_DAY_MS: Final = 86_400_000


class SavedOrigin(msgspec.Struct):
    """The origin of a snapshot, as its metadata tell it; earlier releases told neither topics' ids nor spaces."""

    model_version: str
    cluster: str
    topics: list[str]
    topic_ids: dict[str, str] = {}
    space: str = ""
    shards: int = 1
    shard: int = 0


@dataclass(frozen=True)
class Origin:
    """What a snapshot must agree with to be used.

    Attributes:
        model_version: of the bundle.
        space: of the bundle's base embeddings; embeddings of two spaces must not be mixed.
        shard: whose users the state knows.
        cluster: id of the Kafka cluster, to which the offsets belong.
        topics: the input topics; the last one is the catalogue, before it that of parts where there are several shards.
        most_age_ms: up to which a snapshot of one of several shards is used: the topic of parts still shows what was
            taken back since.
        topic_ids: of input and output topics, by name, as far as the broker tells: a topic deleted and made again has
            another id, and offsets of its own.
    """

    model_version: str
    cluster: str
    topics: tuple[str, ...]
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    space: str = ""
    shard: Shard = WHOLE
    most_age_ms: int = _DAY_MS // 2

    @property
    def of_a_space(self) -> tuple[str, ...]:
        """The topics that have to be read again from their beginning for another space: the catalogue, whose texts the
        state does not hold, and the parts that shards tell.
        """
        return self.topics[1:]

    def to_json(self) -> dict[str, Any]:
        """For a snapshot's metadata."""
        return {
            "model_version": self.model_version,
            "cluster": self.cluster,
            "topics": list(self.topics),
            "topic_ids": dict(self.topic_ids),
            "space": self.space,
            "shards": self.shard.shards,
            "shard": self.shard.number,
        }

    def check(self, saved: SavedOrigin, age_ms: int = 0) -> None:
        """Checks the origin of a snapshot.

        Args:
            saved: of the snapshot.
            age_ms: of the snapshot.

        Raises:
            IncompatibleSnapshot: if it is of another cluster, of other input topics or of another shard.
        """
        ours = self.to_json()
        for name in ("cluster", "topics", "shards", "shard"):
            theirs = getattr(saved, name)
            if theirs != ours[name]:
                raise IncompatibleSnapshot(f"it was made with {name} {theirs}, this updater has {ours[name]}")
        if self.shard.is_one_of_several and age_ms > self.most_age_ms:
            raise IncompatibleSnapshot(
                f"it is {age_ms / 3_600_000:.0f} h old: what shards have taken back since may be gone from the topic "
                "(topics.tombstone_retention_ms)"
            )
        again = self.changed_topics(saved)
        if lost := [name for name in self.topics if name in again]:
            raise IncompatibleSnapshot(
                f"{', '.join(lost)} was deleted and made again since; its offsets count records that are gone"
            )

    def is_of_same_space(self, saved: SavedOrigin) -> bool:
        """Whether the snapshot's embeddings are those of this bundle's base embeddings."""
        return saved.space == self.space if saved.space else saved.model_version == self.model_version

    def changed_topics(self, saved: SavedOrigin) -> frozenset[str]:
        """The topics that were deleted and made again since the snapshot, as far as ids are known on both sides."""
        before = saved.topic_ids
        return frozenset(name for name, topic_id in self.topic_ids.items() if before.get(name, topic_id) != topic_id)

"""How a topic should be configured. Plain data: settings make it, the adapter reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be.

    Attributes:
        name: of the topic.
        partitions: how many.
        replication_factor: copies of each.
        config: the broker's own words, for example `cleanup.policy`.
    """

    name: str
    partitions: int
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)

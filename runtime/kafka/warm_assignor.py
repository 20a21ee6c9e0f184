"""Shares the partitions of one topic among a group's members so that they go where their state is already held.

Kafka lets the members of a group decide for themselves: each says something with its wish to join, one of them, the
leader, makes the assignment. Here each says which partitions' state it holds and how many it would keep beyond its own;
the leader gives each partition, as far as equal shares allow, to its last owner, else to a member that holds its state,
and tells everyone what to keep for others. So does Kafka Streams with its standby tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION: Final = 0
log = structlog.get_logger(__name__)


class Holding(msgspec.Struct, frozen=True):
    """What a member says of itself.

    Attributes:
        owned: partitions that were its own last.
        held: partitions whose state it holds, these among them.
        standby: how many it would hold beyond its own.
    """

    owned: list[int] = []
    held: list[int] = []
    standby: int = 0


class Shares(msgspec.Struct, frozen=True):
    """What a member gets.

    Attributes:
        own: to be read.
        standby: whose state is to be held for others.
    """

    own: list[int] = []
    standby: list[int] = []


def share(partitions: Iterable[int], members: Mapping[str, Holding]) -> dict[str, Shares]:
    """Equal shares of partitions, as warm as that allows: numbers of own partitions differ by one at most.

    Args:
        partitions: all of them.
        members: at least one.
    """
    wanted = sorted(set(partitions))
    own = _own_shares(wanted, members)
    standby = _standby_shares(wanted, members, own)
    return {name: Shares(sorted(own[name]), sorted(standby[name])) for name in members}


def _own_shares(wanted: Collection[int], members: Mapping[str, Holding]) -> dict[str, list[int]]:
    least, larger_left = divmod(len(wanted), len(members))
    own: dict[str, list[int]] = {name: [] for name in sorted(members)}
    # A partition that nobody else holds comes first: who has too many gives away what is warm elsewhere.
    copies = Counter(partition for holding in members.values() for partition in set(holding.held))
    left = sorted(wanted, key=lambda one: (copies[one] > 1, one))
    everything = set(wanted)
    for homes_of in (
        {name: set(holding.owned) for name, holding in members.items()},
        {name: set(holding.held) for name, holding in members.items()},
        dict.fromkeys(members, everything),
    ):
        homeless = []
        for partition in left:
            # Only so many members may have one more than the others.
            most = least + (larger_left > 0)
            homes = [name for name in own if partition in homes_of[name] and len(own[name]) < most]
            if homes:
                home = min(homes, key=lambda name: len(own[name]))
                larger_left -= len(own[home]) == least
                own[home].append(partition)
            else:
                homeless.append(partition)
        left = homeless
    return own


def _standby_shares(
    wanted: Collection[int], members: Mapping[str, Holding], own: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """One more copy of each partition in turn, as long as there is room: of those that are held somewhere first, and
    there.
    """
    standby: dict[str, list[int]] = {name: [] for name in own}
    held = {name: set(members[name].held) for name in own}
    taken = {name: set(own[name]) for name in own}

    def places(partition: int) -> list[tuple[bool, int, str]]:
        """Members that could hold it; the least is the best."""
        return [
            (partition not in held[name], len(standby[name]), name)
            for name in own
            if len(standby[name]) < members[name].standby and partition not in taken[name]
        ]

    is_held = {one: any(one in held[name] and one not in taken[name] for name in own) for one in wanted}
    turn = sorted(wanted, key=lambda one: (not is_held[one], one))
    while turn:
        turn = [one for one in turn if places(one)]
        for partition in turn:
            if possible := places(partition):
                name = min(possible)[2]
                standby[name].append(partition)
                taken[name].add(partition)
    return standby


class WarmAssignor(AbstractPartitionAssignor):
    """For one member of a group that reads one topic.

    Args:
        holding: what this member says of itself, asked whenever the group is joined.
    """

    name = "exitstream-warm"

    def __init__(self, holding: Callable[[], Holding]) -> None:
        self._holding = holding
        self._standby: frozenset[int] = frozenset()
        self._is_used = False

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member says with its wish to join."""
        self._is_used = False
        return ConsumerProtocolMemberMetadata(_VERSION, list(topics), msgspec.json.encode(self._holding()))

    def assign(
        self,
        cluster: Any,  # noqa: ANN401 - aiokafka carries no types
        members: Mapping[str, ConsumerProtocolMemberMetadata],
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The leader's decision."""
        holdings = {name: _decoded(Holding, metadata.user_data) for name, metadata in members.items()}
        shares: dict[str, list[tuple[str, list[int]]]] = {name: [] for name in members}
        standby: dict[str, list[int]] = {name: [] for name in members}
        for topic in sorted({topic for metadata in members.values() for topic in metadata.subscription}):
            readers = {name: holdings[name] for name, metadata in members.items() if topic in metadata.subscription}
            for name, one in share(cluster.partitions_for_topic(topic) or (), readers).items():
                shares[name].append((topic, one.own))
                standby[name] += one.standby
        return {
            name: ConsumerProtocolMemberAssignment(_VERSION, shares[name], msgspec.json.encode(standby[name]))
            for name in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Takes this member's standby partitions; called before the rebalance hooks."""
        self._standby, self._is_used = frozenset(_decoded(list[int], assignment.user_data)), True

    @property
    def standby(self) -> frozenset[int]:
        """The partitions whose state this member is to hold for others; none where another assignor was used, as in a
        group with members of an earlier release.
        """
        return self._standby if self._is_used else frozenset()


def _decoded(kind: Any, data: bytes) -> Any:  # noqa: ANN401 - msgspec's types
    """What another member says; nothing where it says it in another language."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        if data:
            log.warning("a member of the group says what it holds in an unknown form", cause=str(error))
        return kind()

"""Who gets which partitions: everything once, equal shares, and where the state is."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from runtime.kafka.warm_assignor import Holding, WarmAssignor, share

_numbers = st.lists(st.integers(0, 11), max_size=12, unique=True)
_holdings = st.builds(
    lambda owned, more, standby: Holding(owned, sorted({*owned, *more}), standby), _numbers, _numbers, st.integers(0, 9)
)


@given(st.integers(0, 12), st.dictionaries(st.sampled_from("abcdef"), _holdings, min_size=1))
def test_every_partition_has_one_owner_and_shares_differ_by_one_at_most(count, members):
    """Whatever the members say of themselves."""
    shares = share(range(count), members)

    assert sorted(number for one in shares.values() for number in one.own) == list(range(count))
    sizes = [len(one.own) for one in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 12), st.dictionaries(st.sampled_from("abcdef"), _holdings, min_size=1))
def test_standby_partitions_are_as_many_as_asked_and_spread_over_all(count, members):
    """Never its own, none twice, and fewer only where a member holds everything."""
    shares = share(range(count), members)

    copies = Counter(number for one in shares.values() for number in one.standby)
    for name, one in shares.items():
        assert not set(one.own) & set(one.standby)
        assert len(set(one.standby)) == len(one.standby)
        assert len(one.standby) <= min(members[name].standby, count - len(one.own))
    spare = [name for name, one in shares.items() if len(one.standby) < members[name].standby]
    for name in spare:  # only a member that holds everything has room left
        assert len(shares[name].own) + len(shares[name].standby) == count
    if not spare and copies:
        assert sum(copies.values()) == sum(holding.standby for holding in members.values())


@given(st.integers(1, 12), st.dictionaries(st.sampled_from("abcdef"), _holdings, min_size=1))
def test_an_assignment_repeated_stays_as_it_is(count, members):
    """Nothing moves without a reason."""
    first = share(range(count), members)
    again = {name: Holding(one.own, one.own + one.standby, members[name].standby) for name, one in first.items()}

    assert {name: one.own for name, one in share(range(count), again).items()} == {
        name: one.own for name, one in first.items()
    }


def test_the_partitions_of_a_member_that_is_gone_go_where_they_are_held():
    """As far as equal shares allow."""
    members = {
        "a": Holding([0, 1], [0, 1, 4, 5], 2),
        "b": Holding([2, 3], [2, 3], 2),
    }

    shares = share(range(6), members)

    assert shares["a"].own == [0, 1, 4]  # of 4 and 5 there is room for one
    assert shares["b"].own == [2, 3, 5]
    assert 5 in shares["a"].standby  # it is there already


def test_who_has_too_many_gives_away_what_another_holds():
    """As when a worker comes back that has kept its tables."""
    shares = share(range(4), {"stays": Holding([0, 1, 2, 3], [0, 1, 2, 3]), "back": Holding([], [0, 1])})

    assert {name: one.own for name, one in shares.items()} == {"stays": [2, 3], "back": [0, 1]}


def test_a_member_that_says_nothing_readable_gets_its_share_all_the_same():
    """As one of another release."""
    cluster = SimpleNamespace(partitions_for_topic={"requests": {0, 1, 2}}.get)

    assignor = WarmAssignor(lambda: Holding([2], [2, 1], 1))
    members = {
        "new": assignor.metadata(["requests"]),
        "old": ConsumerProtocolMemberMetadata(0, ["requests"], b"\x00\x01"),
    }
    assignments = assignor.assign(cluster, members)
    wire = {name: ConsumerProtocolMemberAssignment.decode(one.encode()) for name, one in assignments.items()}

    owned = {name: {number for _, number in one.partitions()} for name, one in wire.items()}
    assert owned["new"] | owned["old"] == {0, 1, 2}
    assert 2 in owned["new"]
    assignor.on_assignment(wire["new"])
    assert len(assignor.standby) == 1
    assert not assignor.standby & owned["new"]
    assignor.metadata(["requests"])
    assert not assignor.standby  # until it is told anew, which another assignor would not do

"""States written from columns: byte for byte what the plain reference writes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from updater_parts import NOW_MS, state

from schemas.messages import Interaction
from schemas.packed_states import pack_state

_IDS = st.text(min_size=1, max_size=12)
_EVENTS = st.lists(
    st.builds(
        Interaction,
        event_id=st.one_of(_IDS, st.text("0123456789abcdef-", min_size=36, max_size=60)),
        user_id=st.sampled_from(["u", "ü", "user with a longer name", "i1"]),
        item_id=st.one_of(st.sampled_from(["i1", "i2", "dress-ß"]), _IDS),
        kind=st.sampled_from(["click", "impression", "removal", "dislike"]),
        event_time_ms=st.integers(NOW_MS - 50, NOW_MS),
        grade=st.one_of(st.none(), st.floats(0, 1)),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(_EVENTS)
def test_packed_records_are_those_of_the_reference(events):
    """Any ids, grades, removals, and histories that overflow; and users and items of one id."""
    of = state()
    of.apply(events)
    changes = of.published.take_changes()

    users = of.published.packed_users([*changes.users, "nobody"], NOW_MS)
    items = of.published.packed_items(["nothing", *changes.items], NOW_MS)

    assert users == [*(pack_state(of.published.user_state(name, NOW_MS)) for name in changes.users), None]
    assert items == [None, *(pack_state(of.published.item_state(name, NOW_MS)) for name in changes.items)]


def test_an_id_that_was_given_to_another_node_is_written_anew():
    """Numbers of nodes are used again; many ids that have left are tidied away."""
    of = state()
    names = of._nodes.ids.name_bytes
    for round_ in range(4):
        for node in range(6_000):
            names.set(node, f"{round_}-{node}".ljust(100 + round_, "x"))
        columns = names.columns()
        for node in (0, 17, 5_999):
            text = columns.text[columns.start[node] :][: columns.length[node]].tobytes().decode()
            assert text == f"{round_}-{node}".ljust(100 + round_, "x")
    assert len(columns.text) < 2_000_000


def test_a_count_past_the_end_of_its_range_stays_there():
    """As the reference tells it."""
    of = state()
    of.apply([Interaction(event_id="e", user_id="u", item_id="i1", kind="click", event_time_ms=NOW_MS)])
    of._nodes.facts.impressions[:] = np.iinfo(np.int64).min
    of.published.take_changes()

    (packed,) = of.published.packed_users(["u"], NOW_MS)

    assert packed == pack_state(of.published.user_state("u", NOW_MS))

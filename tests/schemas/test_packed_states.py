"""States as columns of bytes: what is packed comes back, and what is no packed state is refused in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import contracts, examples
from schemas.codec import MalformedRecord, encode, headers_for
from schemas.messages import FULL_GRADE, LATEST_MS, Embedding, ItemState, PastInteraction, UserState
from schemas.packed_states import (
    HEADER,
    PACKED_HEADERS,
    StateDecoder,
    id_hash,
    pack_state,
    unpack_history,
    unpack_item_state,
    unpack_user_state,
)

GOLDEN = Path(__file__).parents[1] / "golden"
_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_TIMES = st.integers(0, LATEST_MS)
_COUNTS = st.integers(0, 2**63 - 1)
_EMBEDDINGS = st.one_of(
    st.none(),
    st.builds(
        lambda numbers, dtype, version, space: Embedding(
            data=np.array(numbers, dtype).tobytes(), dtype=dtype, dim=len(numbers), version=version, space=space
        ),
        st.lists(st.floats(-100, 100), min_size=1, max_size=9),
        st.sampled_from(["float16", "float32"]),
        st.integers(1, 2**63 - 1),
        st.text("0123456789abcdef", max_size=12),
    ),
)
_PAST = st.builds(
    PastInteraction,
    item_id=_IDS,
    event_time_ms=_TIMES,
    positive=st.booleans(),
    event_id=_IDS,
    grade=st.integers(0, 255),
)
_COMMON = {
    "embedding": _EMBEDDINGS,
    "impressions": _COUNTS,
    "positives": _COUNTS,
    "grades": _COUNTS,
    "last_event_time_ms": _TIMES,
    "published_time_ms": _TIMES,
}
_USERS = st.builds(UserState, user_id=_IDS, recent=st.lists(_PAST, max_size=12), **_COMMON)
_ITEMS = st.builds(ItemState, item_id=_IDS, **_COMMON)


def _implied(state):
    """As it is read: a grade that the outcome implies is not told."""
    return UserState(
        **{field: getattr(state, field) for field in state.__struct_fields__ if field != "recent"},
        recent=[
            PastInteraction(
                **{field: getattr(past, field) for field in past.__struct_fields__ if field != "grade"},
                grade=None if past.grade == FULL_GRADE * past.positive else past.grade,
            )
            for past in state.recent
        ],
    )


@given(_USERS)
def test_a_user_state_comes_back(state):
    """Whatever it holds; its history can be read without the rest; its length is a multiple of a word."""
    packed = pack_state(state)

    assert unpack_user_state(packed) == _implied(state)
    assert unpack_history(packed) == _implied(state).recent
    assert len(packed) % 8 == 0


@given(_ITEMS)
def test_an_item_state_comes_back(state):
    """Whatever it holds."""
    assert unpack_item_state(pack_state(state)) == state


@pytest.mark.parametrize("state", [one for one in (*examples.FULL, *examples.SMALLEST) if isinstance(one, UserState)])
def test_states_are_read_in_every_format(state):
    """The header says which; earlier updaters write MessagePack or JSON."""
    decoder = StateDecoder(UserState)
    packed = decoder.decode(pack_state(state), PACKED_HEADERS)

    for wire_format in ("msgpack", "json"):
        written = decoder.decode(encode(state, wire_format), headers_for(wire_format))
        assert (written.recent, written.embedding) == (packed.recent, packed.embedding)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v*/*.packed")), ids=lambda path: path.name)
def test_released_records_are_still_read_and_written_so(path):
    """The golden bytes of the layout, which never change."""
    tag, size, _ = path.name.split(".")
    expected = next(one for one in getattr(examples, size.upper()) if contracts.tag_of(type(one)) == tag)
    decoder = StateDecoder(type(expected))

    assert pack_state(expected) == path.read_bytes()
    read = decoder.decode(path.read_bytes(), PACKED_HEADERS)
    assert msgspec.structs.replace(read, grades=expected.grades) == expected


def test_there_are_golden_bytes():
    """Of the fullest and the smallest state of each kind."""
    assert len(list(GOLDEN.glob("v*/*.packed"))) == 4


def test_a_hash_is_what_it_was():
    """Updaters and workers of different releases must agree on it."""
    assert id_hash("film-12") == 12_320_366_366_833_009_511


@settings(max_examples=300)
@given(_USERS, st.data())
def test_no_bytes_are_read_as_anything_but_a_state(state, data):
    """A byte of a record is changed, some are cut off or added: it is a state or refused, nothing else happens."""
    packed = bytearray(pack_state(state))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.sampled_from([len(packed), len(packed) - 8, len(packed) - 1, HEADER.itemsize, 4, 0]))

    said = ""
    try:
        read = unpack_user_state(bytes(packed[:kept]))
    except MalformedRecord as error:
        said = str(error)
    else:
        assert pack_state(read)
    assert len(said) < 300


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "fewer than the header"),
        (pack_state(examples.SMALLEST[-2]), "not a packed user state"),
        (pack_state(examples.SMALLEST[-3])[:-8], "bytes where the header tells"),
    ],
)
def test_what_is_wrong_is_told(value, said):
    """In words, for whoever finds it in the log."""
    with pytest.raises(MalformedRecord, match=said):
        StateDecoder(UserState).decode(value, PACKED_HEADERS)


def test_a_state_that_is_too_large_is_not_read():
    """Whatever it holds."""
    with pytest.raises(MalformedRecord, match="more than the 100 allowed"):
        StateDecoder(UserState, 100).decode(bytes(200), PACKED_HEADERS)


def test_a_state_of_a_newer_version_is_not_read():
    """As any other message."""
    packed = pack_state(examples.SMALLEST[-3])
    with pytest.raises(MalformedRecord, match="newer"):
        StateDecoder(UserState).decode(packed, (*PACKED_HEADERS[:1], ("schema-version", b"99")))


def test_a_count_beyond_64_bits_is_not_packed():
    """A JSON number can be of any size."""
    state = ItemState(
        item_id="i", embedding=None, impressions=2**63, positives=0, last_event_time_ms=0, published_time_ms=0
    )
    with pytest.raises(MalformedRecord, match="beyond 64 bits"):
        pack_state(state)

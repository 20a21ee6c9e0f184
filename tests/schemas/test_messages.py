"""The messages themselves: evolution rules and bounds that the types must state."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from schemas import codec, contracts, examples
from schemas.messages import SCHEMA_VERSION, Interaction, Message, UserState, grades_of

GOLDEN = Path(__file__).parents[1] / "golden"
WRITTEN = sorted(path for path in GOLDEN.glob("v*/*.*") if path.suffix in {".msgpack", ".json"})


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_released_record_is_still_read(path):
    """What any released version wrote decodes today, with the headers of its time."""
    tag, size, wire_format = path.name.split(".")
    headers = [
        (codec.FORMAT_HEADER, codec.CONTENT_TYPES[wire_format]),
        (codec.VERSION_HEADER, path.parent.name.removeprefix("v").encode()),
    ]
    expected = next(m for m in getattr(examples, size.upper()) if contracts.tag_of(type(m)) == tag)

    message = codec.MessageDecoder(type(expected)).decode(path.read_bytes(), headers)

    assert message == expected


@pytest.mark.parametrize("wire_format", get_args(codec.WireFormat))
@pytest.mark.parametrize("size", ["full", "smallest"])
def test_todays_bytes_are_the_golden_ones(size, wire_format):
    """Encoding gives the golden bytes of the current version: a change of the wire is never an accident."""
    for message in getattr(examples, size.upper()):
        golden = GOLDEN / f"v{SCHEMA_VERSION}" / f"{contracts.tag_of(type(message))}.{size}.{wire_format}"

        assert codec.encode(message, wire_format) == golden.read_bytes()


def test_there_are_examples_of_every_message():
    """A message added to the union has a full and a smallest example, hence golden bytes and a contract."""
    kinds = set(get_args(Message))

    assert {type(example) for example in examples.FULL} == kinds
    assert {type(example) for example in examples.SMALLEST} == kinds
    assert set(contracts.MESSAGES) == kinds


def test_no_number_may_be_nan_or_infinite():
    """Every float of every message carries bounds, so that the decoder itself refuses what JSON cannot even say."""
    unbounded = [
        f"{struct.__name__}.{field.name}"
        for struct in contracts.MESSAGES
        for node in _structs(msgspec.inspect.type_info(struct))
        for field in node.fields
        for number in _floats(field.type)
        if None in {number.ge if number.ge is not None else number.gt, number.le}
    ]

    assert unbounded == []


def test_the_tag_is_a_word_of_its_own():
    """Tags are distinct, and none is a name of another kind of message."""
    tags = [contracts.tag_of(message) for message in contracts.MESSAGES]

    assert len(set(tags)) == len(tags)


def test_a_message_never_changes_once_made():
    """Messages are frozen, so that they may be shared between threads."""
    message = examples.SMALLEST[0]

    with pytest.raises(AttributeError):
        message.user_id = "other"
    assert isinstance(message, Interaction)


def _structs(info):
    """The struct described, and all that are reachable from its fields."""
    if isinstance(info, msgspec.inspect.StructType):
        yield info
        for field in info.fields:
            yield from _structs(field.type)
    elif isinstance(info, msgspec.inspect.ListType):
        yield from _structs(info.item_type)
    elif isinstance(info, msgspec.inspect.UnionType):
        for kind in info.types:
            yield from _structs(kind)


def _floats(info):
    """The float types that a field admits."""
    if isinstance(info, msgspec.inspect.FloatType):
        yield info
    elif isinstance(info, msgspec.inspect.UnionType):
        for kind in info.types:
            yield from _floats(kind)
    elif isinstance(info, msgspec.inspect.Metadata):
        yield from _floats(info.type)


def test_what_was_written_before_grades_is_read():
    """Past interactions of four fields and states without a sum: a click counts as the best grade."""
    state = examples.FULL[4]
    plain = msgspec.to_builtins(state)
    plain.pop("grades")
    plain["recent"] = [past[:4] for past in plain["recent"]]
    read = codec.MessageDecoder(UserState).decode(msgspec.json.encode(plain), codec.headers_for("json"))
    assert [past.grade for past in read.recent] == [None, None]
    assert grades_of(read) == 255 * state.positives
    assert grades_of(state) == state.grades

"""Round trips of every message in both formats, and every kind of bad record with what is said about it."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec, contracts
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import (
    CandidateScore,
    Embedding,
    ImpressionRequest,
    ImpressionScores,
    Interaction,
    Item,
    ItemState,
    Neighbour,
    PastInteraction,
    StepTimes,
    UserState,
)

CLICK = {
    "type": "interaction",
    "event_id": "e",
    "user_id": "u",
    "item_id": "i",
    "kind": "click",
    "event_time_ms": 1_700_000_000_000,
}

# Any Unicode but lone surrogates, which neither format can carry; NUL, RTL marks and emoji included.
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
times = st.integers(0, 253_402_300_799_999)
counts = st.integers(0, 2**40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
probabilities = st.floats(0.0, 1.0)
maps = st.dictionaries(text, text, max_size=4)
embeddings = st.none() | st.builds(
    Embedding,
    data=st.binary(max_size=32),
    dtype=st.sampled_from(["float16", "float32"]),
    dim=st.integers(1, 65_536),
    version=st.integers(1, 2**40),
)
neighbours = st.builds(Neighbour, id=ids, similarity=numbers)
messages = st.one_of(
    st.builds(
        Interaction,
        event_id=ids,
        user_id=ids,
        item_id=ids,
        event_time_ms=times,
        weight=st.floats(0.0, 1e6, exclude_min=True),
    ),
    st.builds(Item, item_id=ids, title=st.none() | text, attributes=maps),
    st.builds(
        ImpressionRequest,
        request_id=ids,
        user_id=ids,
        candidate_item_ids=st.lists(ids, max_size=5),
        created_time_ms=times,
        budget_ms=st.none() | st.integers(0, 3_600_000),
        context=maps,
    ),
    st.builds(
        ImpressionScores,
        request_id=ids,
        user_id=ids,
        scores=st.lists(
            st.builds(
                CandidateScore,
                item_id=ids,
                ctr=probabilities,
                exit_layer=st.integers(0, 200),
                confidence=probabilities,
                neighbours=st.lists(neighbours, max_size=3),
            ),
            max_size=3,
        ),
        model_version=text,
        created_time_ms=times,
        deadline_ms=times,
        scored_time_ms=times,
        exit_threshold=numbers,
        lateness_ms=numbers,
        embedding_version=counts,
        embedding_age_ms=st.none() | numbers,
        step_times=st.builds(StepTimes, transit_ms=numbers, infer_ms=numbers),
    ),
    st.builds(
        UserState,
        user_id=ids,
        embedding=embeddings,
        recent=st.lists(st.builds(PastInteraction, item_id=ids, event_time_ms=times, event_id=ids), max_size=3),
        impressions=counts,
        positives=counts,
        last_event_time_ms=times,
        published_time_ms=times,
    ),
    st.builds(
        ItemState,
        item_id=ids,
        embedding=embeddings,
        impressions=counts,
        positives=counts,
        last_event_time_ms=times,
        published_time_ms=times,
    ),
)


@pytest.fixture(scope="module")
def decoders():
    """A decoder of every message."""
    return {message: MessageDecoder(message) for message in contracts.MESSAGES}


@settings(max_examples=150, deadline=None)
@given(message=messages, wire_format=st.sampled_from(["msgpack", "json"]), with_headers=st.booleans())
def test_what_is_written_is_read_again(decoders, message, wire_format, with_headers):
    """Any message survives both formats, with headers or without."""
    headers = codec.headers_for(wire_format) if with_headers else ()

    assert decoders[type(message)].decode(codec.encode(message, wire_format), headers) == message


@pytest.mark.parametrize(
    ("before", "headers", "wire_format"),
    [
        (b"", [], "json"),
        (b"\xef\xbb\xbf \n", [], "json"),
        (b"", [(codec.FORMAT_HEADER, b"Application/JSON; charset=utf-8")], "json"),
        (b"", [], "msgpack"),
        (b"", codec.headers_for("msgpack"), "msgpack"),
    ],
)
def test_the_format_that_was_read_is_told(decoders, before, headers, wire_format):
    """By whichever sign it was recognised, so that an answer can be written in it."""
    message = ImpressionRequest(request_id="r", user_id="u", candidate_item_ids=["a"], created_time_ms=1)
    value = before + codec.encode(message, wire_format)

    assert decoders[type(message)].decode_with_format(value, headers) == (message, wire_format)


@settings(max_examples=200, deadline=None)
@given(
    value=st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode),
    headers=st.dictionaries(
        st.sampled_from([codec.FORMAT_HEADER, codec.VERSION_HEADER, "other"]),
        st.none() | st.binary(max_size=20) | st.sampled_from(list(codec.CONTENT_TYPES.values())),
    ),
)
def test_no_bytes_can_do_more_than_be_malformed(decoders, value, headers):
    """Whatever the bytes and headers, the only error is MalformedRecord."""
    for decoder in decoders.values():
        with pytest.raises(MalformedRecord):
            decoder.decode(value, headers.items())


@settings(max_examples=200, deadline=None)
@given(message=messages, data=st.data())
def test_a_damaged_record_is_read_or_malformed(decoders, message, data):
    """A message with some bytes changed or cut off either still is one or raises MalformedRecord."""
    value = bytearray(codec.encode(message))
    for place in data.draw(st.lists(st.integers(0, len(value) - 1), max_size=4)):
        value[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(value)))
    try:
        read = decoders[type(message)].decode(bytes(value[:cut]))
    except MalformedRecord:
        return
    assert isinstance(read, type(message))


def msgpack(**changes):
    """A click as MessagePack with some fields changed, or left out where the change is an ellipsis."""
    return msgspec.msgpack.encode({name: value for name, value in {**CLICK, **changes}.items() if value is not ...})


def as_json(**changes):
    """The same as JSON."""
    return json.dumps({name: value for name, value in {**CLICK, **changes}.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(None, "empty value", id="tombstone"),
        pytest.param(b"", "truncated", id="no-bytes"),
        pytest.param(b"\xc1\xff\xfe", "not a valid Interaction", id="undecodable-bytes"),
        pytest.param(b"{not json", "malformed", id="undecodable-json"),
        pytest.param(b"\xff\xfe" + as_json().decode().encode("utf-16-le"), "not a valid Interaction", id="utf-16"),
        pytest.param(b"\xef\xbb\xbf", "not a valid Interaction", id="only-a-byte-order-mark"),
        pytest.param(b" \n\t", "not a valid Interaction", id="only-blanks"),
        pytest.param(msgpack(type="gesture"), "'gesture' - at `$.type`", id="unknown-tag"),
        pytest.param(msgpack(type="item"), "'item' - at `$.type`", id="tag-of-another-message"),
        pytest.param(msgpack(type=""), "'' - at `$.type`", id="empty-tag"),
        pytest.param(msgpack(type=...), "missing required field `type`", id="no-tag"),
        pytest.param(msgpack(user_id=...), "missing required field `user_id`", id="missing-field"),
        pytest.param(msgpack(user_id=""), "length >= 1 - at `$.user_id`", id="empty-id"),
        pytest.param(msgpack(item_id="x" * 1025), "length <= 1024 - at `$.item_id`", id="endless-id"),
        pytest.param(msgpack(user_id=7), "Expected `str`, got `int` - at `$.user_id`", id="number-as-id"),
        pytest.param(msgpack(event_id=None), "got `None` - at `$.event_id`", id="null-as-id"),
        pytest.param(msgpack(kind="poke"), "'poke' - at `$.kind`", id="unknown-kind"),
        pytest.param(msgpack(weight=math.nan), "at `$.weight`", id="nan-weight"),
        pytest.param(msgpack(weight=math.inf), "at `$.weight`", id="infinite-weight"),
        pytest.param(msgpack(weight=0.0), "`float` > 0.0 - at `$.weight`", id="no-weight"),
        pytest.param(msgpack(weight=-2.0), "`float` > 0.0 - at `$.weight`", id="negative-weight"),
        pytest.param(msgpack(weight=True), "got `bool` - at `$.weight`", id="flag-as-weight"),
        pytest.param(msgpack(weight="1.0"), "got `str` - at `$.weight`", id="text-as-weight"),
        pytest.param(as_json().replace(b'"e"', b'"e", "weight": NaN'), "malformed", id="nan-in-json"),
        pytest.param(as_json().replace(b'"e"', b'"e", "weight": 1e999'), "out of range", id="infinite-in-json"),
        pytest.param(msgpack(event_time_ms=-1), "`int` >= 0 - at `$.event_time_ms`", id="time-before-1970"),
        pytest.param(msgpack(event_time_ms=2**63), "at `$.event_time_ms`", id="time-after-9999"),
        pytest.param(msgpack(event_time_ms=1.5), "got `float` - at `$.event_time_ms`", id="fraction-as-time"),
        pytest.param(as_json(event_time_ms=1.5), "got `float` - at `$.event_time_ms`", id="fraction-as-time-in-json"),
        pytest.param(msgpack(event_time_ms=-1.0), "`int` >= 0 - at `$.event_time_ms`", id="whole-float-before-1970"),
        pytest.param(msgpack(event_time_ms=1e300), "got `float` - at `$.event_time_ms`", id="float-beyond-integers"),
        pytest.param(msgpack(event_time_ms=math.nan), "got `float` - at `$.event_time_ms`", id="nan-as-time"),
        pytest.param(msgpack(event_time_ms=5.0, user_id=7.0), "got `float` - at `$.user_id`", id="float-as-id"),
        pytest.param(
            msgpack(event_time_ms=5.0, extra=0)[:-1] + b"\x91" * 100_000, "not a valid", id="nested-behind-a-float"
        ),
        pytest.param(
            as_json(event_time_ms=5.0, extra=0).replace(b"0}", b"[" * 100_000), "recursion", id="json-behind-a-float"
        ),
        pytest.param(msgpack().replace(b"\xa1u", b"\xa1\xff"), "utf-8", id="id-not-utf8"),
        pytest.param(msgpack().replace(b"\xa1u", b"\xa3\xed\xa0\x80"), "utf-8", id="lone-surrogate-in-msgpack"),
        pytest.param(as_json(user_id="\ud800"), "surrogate", id="lone-surrogate-in-json"),
        pytest.param(msgpack() + b"\x00", "trailing", id="trailing-bytes"),
        pytest.param(as_json(extra=0).replace(b"0}", b"[" * 100_000), "recursion", id="endless-nesting"),
        pytest.param(b"\xdf\xff\xff\xff\xff", "truncated", id="claims-four-billion-fields"),
    ],
)
def test_a_malformed_interaction_is_refused_with_the_reason(value, said):
    """Each kind of damage is told in words that name what and where."""
    with pytest.raises(MalformedRecord) as error:
        MessageDecoder(Interaction).decode(value)

    assert said.lower() in str(error.value).lower()
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"2", "schema version 2 is newer than 1"),
        (b"999999999", "is newer"),
        (b"9" * 5_000, "not a version number"),
        (b"one", "not a version number"),
        (b"-1", "not a version number"),
        (b"", "not a version number"),
    ],
)
def test_a_newer_or_strange_version_is_refused(header, said):
    """A record that declares a version this reader does not know is never guessed at."""
    with pytest.raises(MalformedRecord, match=said):
        MessageDecoder(Interaction).decode(msgpack(), [(codec.VERSION_HEADER, header)])


def test_an_unknown_content_type_is_refused():
    """The error names the content types that are known."""
    with pytest.raises(MalformedRecord, match="known are application/msgpack, application/json"):
        MessageDecoder(Interaction).decode(msgpack(), [(codec.FORMAT_HEADER, b"application/avro")])


def test_a_record_in_the_other_format_than_declared_is_refused():
    """The header decides, not a guess from the bytes."""
    with pytest.raises(MalformedRecord):
        MessageDecoder(Interaction).decode(as_json(), codec.headers_for("msgpack"))


@pytest.mark.parametrize("content", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8" ; q=1'])
def test_a_content_type_may_have_parameters_and_any_case(content):
    """Web frameworks write it so."""
    read = MessageDecoder(Interaction).decode(as_json(), [(codec.FORMAT_HEADER, content.encode())])

    assert read.user_id == "u"


def test_another_charset_is_refused():
    """JSON is UTF-8; what declares something else would be misread."""
    with pytest.raises(MalformedRecord, match="only UTF-8"):
        MessageDecoder(Interaction).decode(as_json(), [(codec.FORMAT_HEADER, b"application/json; charset=latin-1")])


@pytest.mark.parametrize("headers", [(), codec.headers_for("json")], ids=["no-header", "header"])
@pytest.mark.parametrize("before", [b"\n", b" \t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n  "])
def test_json_may_begin_with_blanks_or_a_byte_order_mark(before, headers):
    """Editors and shells put them there."""
    assert MessageDecoder(Interaction).decode(before + as_json(), headers) == MessageDecoder(Interaction).decode(
        msgpack()
    )


@pytest.mark.parametrize("wire_format", ["msgpack", "json"])
@given(message=messages)
@settings(max_examples=100, deadline=None)
def test_whole_numbers_may_be_written_as_floats(decoders, wire_format, message):
    """A message whose every integer has a `.0` is the same message."""

    def floats(value):
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, list | tuple):
            return [floats(part) for part in value]
        return {name: floats(part) for name, part in value.items()} if isinstance(value, dict) else value

    plain = msgspec.to_builtins(message, builtin_types=(bytes,) if wire_format == "msgpack" else ())
    value = (msgspec.msgpack if wire_format == "msgpack" else msgspec.json).encode(floats(plain))

    assert decoders[type(message)].decode(value) == message


def test_bytes_in_messagepack_are_bytes_also_beside_whole_floats():
    """Only JSON carries them as text."""
    fields = {"type": "item-state", "item_id": "i", "impressions": 1.0, "positives": 0, "last_event_time_ms": 0}
    embedding = {"data": "AAAA", "dtype": "float32", "dim": 1, "version": 1}
    value = msgspec.msgpack.encode({**fields, "published_time_ms": 0, "embedding": embedding})

    with pytest.raises(MalformedRecord, match=r"Expected `bytes`, got `str` - at `\$.embedding.data`"):
        MessageDecoder(ItemState).decode(value)


@pytest.mark.parametrize("weight", ["9" * 400, "-" + "9" * 4_000, "9" * 5_000, "1" * 309 + ".0"])
def test_a_number_of_hundreds_of_digits_beside_a_whole_float_is_refused(weight):
    """Where a float is expected, too."""
    value = as_json(event_time_ms=5.0, weight=0).replace(b'"weight": 0', f'"weight": {weight}'.encode())

    with pytest.raises(MalformedRecord):
        MessageDecoder(Interaction).decode(value)


@pytest.mark.parametrize("unknown", ["9" * 5_000, "-" + "9" * 5_000, "1e999", "[" * 50 + "]" * 50])
def test_an_unknown_field_beside_a_whole_float_may_hold_anything(unknown):
    """It is read or the record is malformed, as without the float."""
    value = as_json(event_time_ms=5.0, extra=0).replace(b"0}", unknown.encode() + b"}")

    try:
        read = MessageDecoder(Interaction).decode(value)
    except MalformedRecord:
        return
    assert read.event_time_ms == 5


@pytest.mark.parametrize("zero", ["-0", "-0.0", "0.0", "0e0"])
def test_zero_is_zero_however_it_is_written(zero):
    """Signed and as a fraction."""
    value = as_json().replace(b"1700000000000", zero.encode())

    assert MessageDecoder(Interaction).decode(value).event_time_ms == 0


def test_thousands_of_headers_are_read():
    """Only those with a meaning count."""
    headers = [(f"h{number}", b"x" * 50) for number in range(5_000)]

    assert MessageDecoder(Interaction).decode(as_json(), [*headers, *codec.headers_for("json")]).user_id == "u"


def test_an_oversized_record_is_refused_unread():
    """The limit is a setting, and the error states both sizes."""
    with pytest.raises(MalformedRecord, match=r"83 bytes, more than the 64 allowed"):
        MessageDecoder(Interaction, max_bytes=64).decode(msgpack())


def test_headers_without_values_are_as_absent():
    """Kafka allows headers with null values."""
    headers = [(codec.FORMAT_HEADER, None), (codec.VERSION_HEADER, None)]

    assert MessageDecoder(Interaction).decode(msgpack(), headers).user_id == "u"


@pytest.mark.parametrize("unknown", ["\x00", "a\x00b", "𝛼", "\u202eabc", "e\u0301", " ", "\n", "🧑‍🚀" * 20])
def test_ids_are_any_unicode(unknown):
    """Ids are opaque: nothing is trimmed, normalised or refused but emptiness."""
    for value in (msgpack(user_id=unknown), as_json(user_id=unknown)):
        assert MessageDecoder(Interaction).decode(value).user_id == unknown


def test_unknown_fields_are_ignored():
    """A newer writer may add fields with defaults without breaking this reader."""
    for value in (msgpack(colour="red", nested={"a": [1, 2]}), as_json(colour="red", nested={"a": [1, 2]})):
        assert MessageDecoder(Interaction).decode(value) == MessageDecoder(Interaction).decode(msgpack())


def test_nan_deep_inside_is_refused():
    """Not only a message's own numbers are checked, but those of its parts as well."""
    scores = ImpressionScores(
        request_id="r",
        user_id="u",
        status="ok",
        scores=[
            CandidateScore(
                item_id="i",
                ctr=0.5,
                made_by="final",
                exit_layer=1,
                confidence=1.0,
                neighbours=[Neighbour(kind="past_item", id="x", similarity=math.nan)],
            )
        ],
        model_version="m",
        created_time_ms=0,
        deadline_ms=0,
        scored_time_ms=0,
        exit_threshold=1.0,
    )

    with pytest.raises(MalformedRecord, match=r"scores\[0\].neighbours\[0\].similarity"):
        MessageDecoder(ImpressionScores).decode(codec.encode(scores))


@pytest.mark.parametrize("candidates", [[], ["i"], ["i", "i"], [f"i{n}" for n in range(5_000)]])
def test_any_number_of_candidates_is_a_valid_request(candidates):
    """None, one, the same twice and thousands decode; the worker decides what they mean."""
    request = ImpressionRequest(request_id="r", user_id="u", candidate_item_ids=candidates, created_time_ms=0)

    assert MessageDecoder(ImpressionRequest).decode(codec.encode(request)).candidate_item_ids == candidates


def test_a_long_title_is_kept_whole():
    """Titles are text of any length within the record's limit, control tokens included."""
    item = Item(item_id="i", title="<s>[INST]" + "long " * 2_000)

    assert MessageDecoder(Item).decode(codec.encode(item)) == item

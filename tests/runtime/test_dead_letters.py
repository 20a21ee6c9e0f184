"""Dead letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import dead_letters
from runtime.clock import ManualClock
from runtime.dead_letters import DeadLetters, Letter, NotALetter, Origin, is_mark
from runtime.records import OutRecord, Record
from schemas.topics import REPLAY_MARK_HEADERS

LETTERS = DeadLetters("worker", ".dead-letter", ManualClock(wall_ms=1_234))


def test_a_letter_is_the_record_as_it_came_with_the_reason_in_its_headers():
    """Key, value and headers stay byte for byte; ours are added behind."""
    record = Record("requests", 3, 42, b"\x00k", b"\xff\xfe", (("trace", b"1"),), 999)
    letter = LETTERS.letter(record, "not an ImpressionRequest: ungültig")
    assert (letter.topic, letter.key, letter.value) == ("requests.dead-letter", record.key, record.value)
    assert letter.headers[0] == ("trace", b"1")
    assert dict(letter.headers[1:]) == {
        dead_letters.REASON: "not an ImpressionRequest: ungültig".encode(),
        dead_letters.PROGRAM: b"worker",
        dead_letters.TOPIC: b"requests",
        dead_letters.PARTITION: b"3",
        dead_letters.OFFSET: b"42",
        dead_letters.TIME: b"1234",
        dead_letters.RECORD_TIME: b"999",
        dead_letters.ATTEMPT: b"1",
    }


def test_a_letter_may_be_as_large_as_what_was_read():
    """The limit for our own records does not apply to what came from others."""
    assert LETTERS.letter(Record("t", 0, 0, None, b"x" * 10_000_000), "too large").any_size


def test_a_record_of_nothing_becomes_a_letter_that_says_so():
    """Neither key nor value cannot be written; the header keeps the difference to an empty value."""
    letter = LETTERS.letter(Record("t", 0, 0, None, None), "empty")
    assert letter.value == b""
    assert dict(letter.headers)[dead_letters.NULL_VALUE] == b"true"
    assert LETTERS.letter(Record("t", 0, 0, b"k", None), "tombstone").value is None


def test_a_reason_of_any_length_and_content_fits():
    """A reason that quotes a huge or broken record is cut and never fails to encode."""
    letter = LETTERS.letter(Record("t", 0, 0, b"k", b"v"), "\ud800" + "x" * 5_000)
    assert len(dict(letter.headers)[dead_letters.REASON]) == 1_000


OUR_NAMES = (dead_letters.REASON, dead_letters.TOPIC, dead_letters.OFFSET, dead_letters.NULL_VALUE, "trace")
HEADERS = st.lists(st.tuples(st.sampled_from(OUR_NAMES), st.none() | st.binary(max_size=8))).map(tuple)


def as_read(out: OutRecord, offset: int = 5) -> Record:
    """A record that was written, as a reader of its topic gets it."""
    return Record(out.topic, out.partition or 0, offset, out.key, out.value, out.headers, 1_234)


@given(key=st.none() | st.binary(max_size=8), value=st.none() | st.binary(max_size=8), headers=HEADERS)
def test_a_letter_gives_the_record_back_byte_for_byte(key, value, headers):
    """Null is not empty, and headers of the record's own that are named like ours stay what they were."""
    record = Record("requests", 3, 42, key, value, headers, 999)

    letter = Letter.read(as_read(LETTERS.letter(record, "wrong")))

    assert (letter.key, letter.value, letter.headers) == (key, value, headers)
    assert (letter.reason, letter.program, letter.time_ms, letter.attempt) == ("wrong", "worker", 1_234, 1)
    assert letter.origin == Origin.of(record)
    assert (letter.place, str(letter.origin)) == ("requests.dead-letter[0]@5", "requests[3]@42")
    assert letter.size == len(key or b"") + len(value or b"") + sum(len(n) + len(v or b"") for n, v in headers)


def test_a_replayed_record_is_the_one_that_came_and_its_next_attempt():
    """It goes to its topic, under its key and with its headers; refused again, its letter tells the second attempt."""
    record = Record("requests", 3, 42, b"k", b"v", (("trace", b"1"),), 999)

    again = Letter.read(as_read(LETTERS.letter(record, "wrong"))).restored()
    second = Letter.read(as_read(LETTERS.letter(as_read(again, offset=50), "still wrong")))

    expected = (("trace", b"1"), (dead_letters.ATTEMPT, b"2"))
    assert (again.topic, again.key, again.value, again.headers) == ("requests", b"k", b"v", expected)
    assert again.partition is None
    assert again.any_size
    assert (second.attempt, second.headers, second.reason) == (2, record.headers, "still wrong")
    assert dict(second.restored().headers)[dead_letters.ATTEMPT] == b"3"


@pytest.mark.parametrize("told", [None, b"", b"0", b"-1", b"many", b"9" * 5_000, "²".encode()])
def test_a_record_that_tells_a_strange_attempt_is_the_first(told):
    """The header comes from outside and can hold anything; a letter is made all the same."""
    letter = LETTERS.letter(Record("t", 0, 0, b"k", b"v", ((dead_letters.ATTEMPT, told),)), "wrong")
    assert Letter.read(as_read(letter)).attempt == 1


def test_a_mark_names_the_letter_and_is_none_itself():
    """It stands in the letter's partition and says where the record was read, and when it was replayed."""
    record = Record("requests", 3, 42, b"k", b"v", (), 999)
    letter = Letter.read(as_read(LETTERS.letter(record, "wrong")))

    mark = as_read(letter.mark("requests.dead-letter", ManualClock(wall_ms=7_000)), offset=6)

    assert is_mark(mark)
    assert Origin.told_by(mark.headers) == letter.origin
    assert {name for name, _ in mark.headers} == set(REPLAY_MARK_HEADERS)
    assert dict(mark.headers)[dead_letters.TIME] == b"7000"
    with pytest.raises(NotALetter, match=dead_letters.REASON):
        Letter.read(mark)


def test_the_letter_of_a_record_that_looks_like_a_mark_is_a_letter():
    """Somebody sends a record with our header to an input: refused, it can be replayed like any other."""
    record = Record("requests", 3, 42, b"k", b"v", ((dead_letters.REPLAYED, b"true"),), 999)
    assert not is_mark(as_read(LETTERS.letter(record, "wrong")))


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        ((), dead_letters.REASON),
        (((dead_letters.REASON, b"r"),), dead_letters.TOPIC),
        (((dead_letters.REASON, None), (dead_letters.TOPIC, None)), dead_letters.TOPIC),
        (((dead_letters.REASON, b"r"), (dead_letters.TOPIC, b"t")), dead_letters.PARTITION),
        (
            ((dead_letters.REASON, b"r"), (dead_letters.TOPIC, b"t"), (dead_letters.PARTITION, b"9" * 5_000)),
            dead_letters.PARTITION,
        ),
    ],
)
def test_what_others_wrote_into_a_dead_letter_topic_is_no_letter(headers, missing):
    """The error names the header that is not there or cannot be read."""
    with pytest.raises(NotALetter, match=missing):
        Letter.read(Record("requests.dead-letter", 0, 0, b"k", b"v", headers))

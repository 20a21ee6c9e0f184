"""Dead letters."""

from __future__ import annotations

from runtime import dead_letters
from runtime.clock import ManualClock
from runtime.dead_letters import DeadLetters
from runtime.records import Record

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

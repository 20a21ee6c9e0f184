"""Letters as text and as JSON."""

from __future__ import annotations

import msgspec
import pytest

from cli.dead_letters.describing import as_json, as_line, bytes_as_text, describe, escaped, when
from runtime.dead_letters import Letter, Origin
from runtime.records import TopicPartition
from schemas.codec import encode
from schemas.messages import Item
from schemas.topics import ITEMS

LETTER = Letter(
    place="items.dead-letter[0]@5",
    partition=0,
    origin=Origin(TopicPartition("items", 2), 17, 900),
    reason="not a valid Item",
    program="updater",
    time_ms=1_700_000_000_000,
    attempt=2,
    key=b"k1",
    value=b"\xc1 junk",
    headers=(("trace", b"1"), ("nothing", None)),
)


def shown(letter, *, limit=2_000, replayed=False, max_record_bytes=1_000):
    """What `show` prints."""
    return describe(letter, ITEMS, max_record_bytes=max_record_bytes, limit=limit, replayed=replayed)


def test_a_line_says_where_when_who_how_large_and_why():
    """Everything that `list` promises of a letter."""
    line = as_line(LETTER, replayed=False, reason_limit=100)
    size = len(b"k1\xc1 junk") + len("trace") + 1 + len("nothing")
    assert line == (f"items[2]@17  2023-11-14 22:13:20Z  updater  {size} bytes  attempt 2  not a valid Item")
    assert "attempt 2, replayed" in as_line(LETTER, replayed=True, reason_limit=100)


def test_the_json_of_a_letter_names_both_places():
    """A machine finds where the record was read and where the letter is, in parts and ready to be passed on."""
    told = as_json(LETTER, replayed=True)
    assert (told["place"], told["letter"]) == ("items[2]@17", "items.dead-letter[0]@5")
    assert (told["topic"], told["partition"], told["offset"], told["replayed"]) == ("items", 2, 17, True)
    assert (told["time_ms"], told["record_time_ms"], told["attempt"]) == (1_700_000_000_000, 900, 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "none"),
        (b"", ""),
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"\x1b[31m\n", "\\x1b[31m\\n"),
        (b"\xff\x00", "ff 00"),
        (b"0123456789abc", "0123456789… (13 bytes)"),
        (b"\xff" * 11, " ".join(["ff"] * 10) + "… (11 bytes)"),
        ("123456789ö".encode(), "123456789… (11 bytes)"),
    ],
)
def test_bytes_are_text_where_they_can_be_and_hexadecimal_otherwise(data, text):
    """Control characters are escaped, long ones cut; a cut through a character does not make text binary."""
    assert bytes_as_text(data, 10) == text


def test_text_from_outside_cannot_drive_the_terminal():
    """Escape sequences and line ends are shown, not obeyed; long text is cut with its length."""
    assert escaped("a\x1b]0;x\x07\nb") == "a\\x1b]0;x\\x07\\nb"
    assert escaped("x" * 20, 5) == "xxxxx… (20 characters)"


def test_times_beyond_dates_are_shown_as_numbers():
    """A record's timestamp may be -1 or anything else."""
    assert (when(0), when(-1), when(10**18)) == ("1970-01-01 00:00:00Z", "-1", "1000000000000000000")


def test_a_value_that_cannot_be_read_is_shown_as_it_is_with_what_is_wrong():
    """The advice says that a replay alone would not help, and how to replay after a limit was raised."""
    text = shown(LETTER)
    for part in ("items[2]@17", "by updater, attempt 2", "key      k1", "header   trace: 1", "header   nothing: none"):
        assert part in text
    assert "c1 20 6a 75 6e 6b" in text
    assert "would be refused again" in text
    assert "exitstream dead-letters replay 'items[2]@17'" in text


def test_a_value_that_can_be_read_is_shown_as_json():
    """What was refused for a limit is decoded, and the advice is to replay it."""
    item = Item(item_id="i1", title="a title")
    text = shown(msgspec.structs.replace(LETTER, value=encode(item)))
    assert "a valid Item" in text
    assert '{"type":"item","item_id":"i1","title":"a title"' in text
    assert "Its value can be read" in text


def test_a_value_above_the_limit_is_not_called_readable():
    """With the settings as they are it would be refused again."""
    text = shown(
        msgspec.structs.replace(LETTER, value=encode(Item(item_id="i1", title="t" * 100))), max_record_bytes=50
    )
    assert "would be refused again" in text
    assert "50 allowed" in text


def test_a_replayed_letter_says_so():
    """Nobody is told to replay it once more."""
    assert "It was replayed" in shown(LETTER, replayed=True)
    assert "dead-letters replay" not in shown(LETTER, replayed=True)

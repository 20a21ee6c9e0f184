"""Dead letters: records that could not be used, unchanged, with the reason in their headers. Written, and read again.

A dead letter is an output like any other: the offset of its record is committed once the letter is delivered.

A letter's record can be replayed: written to its topic again, as it came. A mark in the dead-letter topic, written in
the same transaction, says so. Where the record was read, and its time, tell letters apart: a record that was refused
twice because a worker crashed in between has two letters, and one mark is for both.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from runtime.clock import Clock
from runtime.records import Headers, OutRecord, Record, TopicPartition
from schemas.topics import (
    ATTEMPT,
    NULL_VALUE,
    OFFSET,
    PARTITION,
    PROGRAM,
    REASON,
    RECORD_TIME,
    REPLAYED,
    TIME,
    TOPIC,
)

_REASON_LIMIT: Final = 1_000
_LONGEST_NUMBER: Final = 19  # digits; Python refuses to parse numbers of thousands of them


class NotALetter(ValueError):
    """A record of a dead-letter topic that exitstream has not written. The text says what is missing."""


class Origin(NamedTuple):
    """Where a letter's record was read, which tells it from all others. Prints as `topic[partition]@offset`.

    The time is part of it because offsets begin anew where a topic is deleted and made again.
    """

    source: TopicPartition
    offset: int
    record_time_ms: int

    @classmethod
    def of(cls, record: Record) -> Origin:
        """Where a record that was just read comes from."""
        return cls(record.source, record.offset, record.timestamp_ms)

    @classmethod
    def told_by(cls, headers: Headers) -> Origin:
        """Where a letter or a mark says that its record comes from.

        Raises:
            NotALetter: if they do not say so.
        """
        named = dict(headers)
        topic = _text(named, TOPIC)
        if not topic:
            raise NotALetter(f"it has no header {TOPIC}")
        return cls(
            TopicPartition(topic, _number(named, PARTITION)),
            _number(named, OFFSET),
            _number(named, RECORD_TIME),
        )

    @property
    def headers(self) -> Headers:
        """The same as headers of a mark."""
        return (
            (TOPIC, self.source.topic.encode()),
            (PARTITION, b"%d" % self.source.partition),
            (OFFSET, b"%d" % self.offset),
            (RECORD_TIME, b"%d" % self.record_time_ms),
        )

    def __str__(self) -> str:
        return f"{self.source}@{self.offset}"


class DeadLetters:
    """Makes dead letters for one program.

    Args:
        program: the name that goes into the header.
        suffix: of the dead-letter topic's name.
        clock: for the time of refusal.
    """

    def __init__(self, program: str, suffix: str, clock: Clock) -> None:
        self._program = program.encode()
        self._suffix = suffix
        self._clock = clock

    def letter(self, record: Record, reason: str) -> OutRecord:
        """The record byte for byte, its own headers first, then ours: reason, program, place, times and attempt.

        Kafka's clients cannot write a record with neither key nor value: such a one gets an empty value and a header
        that says so.
        """
        ours = (
            (REASON, reason[:_REASON_LIMIT].encode(errors="replace")),
            (PROGRAM, self._program),
            (TOPIC, record.topic.encode()),
            (PARTITION, b"%d" % record.partition),
            (OFFSET, b"%d" % record.offset),
            (TIME, b"%d" % self._clock.wall_ms()),
            (RECORD_TIME, b"%d" % record.timestamp_ms),
            (ATTEMPT, b"%d" % _attempt(record.headers)),
        )
        nothing = record.key is None and record.value is None
        return OutRecord(
            topic=record.topic + self._suffix,
            key=record.key,
            value=b"" if nothing else record.value,
            headers=(*_without_attempt(record.headers), *ours, *(((NULL_VALUE, b"true"),) if nothing else ())),
            any_size=True,
        )


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that was read, and the record that it is for.

    Attributes:
        place: of the letter itself.
        partition: of the dead-letter topic.
        origin: where the record was read.
        reason: why it was refused, for people.
        program: that refused it.
        time_ms: when that was, Unix milliseconds.
        attempt: 1 for the first refusal, one more after each replay.
        key: the record's.
        value: the record's.
        headers: the record's own.
    """

    place: str
    partition: int
    origin: Origin
    reason: str
    program: str
    time_ms: int
    attempt: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @classmethod
    def read(cls, record: Record) -> Letter:
        """The letter in a record of a dead-letter topic.

        Raises:
            NotALetter: if it lacks our headers.
        """
        # The last of that name: a record may have come with one of its own.
        begin = max((at for at, (name, _) in enumerate(record.headers) if name == REASON), default=None)
        if begin is None:
            raise NotALetter(f"it has no header {REASON}")
        named = dict(record.headers[begin:])
        return cls(
            place=str(record),
            partition=record.partition,
            origin=Origin.told_by(record.headers[begin:]),
            reason=_text(named, REASON),
            program=_text(named, PROGRAM),
            time_ms=_number(named, TIME),
            attempt=_attempt(record.headers[begin:]),
            key=record.key,
            value=None if NULL_VALUE in named else record.value,
            headers=record.headers[:begin],
        )

    @property
    def size(self) -> int:
        """Bytes of the record: key, value and its own headers."""
        return OutRecord("", self.key, self.value, self.headers).size

    def restored(self) -> OutRecord:
        """The record as it came, for the topic that it came from, marked as the next attempt.

        Its key chooses the partition: where partitions were added since, the key's other records are there now. It
        gets a new time, because it is written now.
        """
        return OutRecord(
            topic=self.origin.source.topic,
            key=self.key,
            value=self.value,
            headers=(*self.headers, (ATTEMPT, b"%d" % (self.attempt + 1))),
            any_size=True,
        )

    def mark(self, topic: str, clock: Clock) -> OutRecord:
        """The record that says that this letter was replayed now.

        It goes to the letter's own partition, where it stands behind the letter and is kept at least as long.

        Args:
            topic: the dead-letter topic.
            clock: for the time.
        """
        headers = ((REPLAYED, b"true"), *self.origin.headers, (TIME, b"%d" % clock.wall_ms()))
        return OutRecord(topic=topic, key=None, value=b"", headers=headers, partition=self.partition)


def is_mark(record: Record) -> bool:
    """Whether a record of a dead-letter topic is the mark of a replay. A letter's own record may look like one."""
    names = {name for name, _ in record.headers}
    return REPLAYED in names and REASON not in names


def _without_attempt(headers: Headers) -> Headers:
    return tuple(header for header in headers if header[0] != ATTEMPT)


def _attempt(headers: Headers) -> int:
    """The attempt that a record's headers tell; 1 where they tell none."""
    told = dict(headers).get(ATTEMPT) or b""  # a header's value may be null
    return max(1, int(told)) if told.isdigit() and len(told) <= _LONGEST_NUMBER else 1


def _text(named: dict[str, bytes], name: str) -> str:
    return (named.get(name) or b"").decode(errors="replace")


def _number(named: dict[str, bytes], name: str) -> int:
    told = named.get(name) or b""
    digits = told.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise NotALetter(f"its header {name} holds {told[:40]!r}, not a number")
    return int(told)

"""Dead letters: records that could not be used, unchanged, with the reason in their headers.

A dead letter is an output like any other: the offset of its record is committed once the letter is delivered.
"""

from __future__ import annotations

from typing import Final

from runtime.clock import Clock
from runtime.records import OutRecord, Record
from schemas.topics import OFFSET, PARTITION, PROGRAM, REASON, RECORD_TIME, TIME, TOPIC

NULL_VALUE: Final = "dead-letter-null-value"
_REASON_LIMIT: Final = 1_000


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
        """The record byte for byte, its own headers first, then ours: reason, program, place and times.

        Kafka's clients cannot write a record with neither key nor value: such a one gets an empty value and a header
        that says so.
        """
        place = (
            (REASON, reason[:_REASON_LIMIT].encode(errors="replace")),
            (PROGRAM, self._program),
            (TOPIC, record.topic.encode()),
            (PARTITION, b"%d" % record.partition),
            (OFFSET, b"%d" % record.offset),
            (TIME, b"%d" % self._clock.wall_ms()),
            (RECORD_TIME, b"%d" % record.timestamp_ms),
        )
        nothing = record.key is None and record.value is None
        return OutRecord(
            topic=record.topic + self._suffix,
            key=record.key,
            value=b"" if nothing else record.value,
            headers=(*record.headers, *place, *(((NULL_VALUE, b"true"),) if nothing else ())),
            any_size=True,
        )

"""Reads a dead-letter topic from its beginning to its end, a portion at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from runtime.dead_letters import Letter, NotALetter, Origin, is_mark
from runtime.kafka import TopicFollower
from runtime.records import Record
from runtime.settings import KafkaSettings


class Stranger(NamedTuple):
    """A record of a dead-letter topic that is neither a letter of its input nor a mark: its place, and why not."""

    place: str
    why: str


class DeadLetterTopic:
    """The dead letters of one input, and the marks of those that were replayed.

    Args:
        settings: how to reach Kafka.
        name: of the dead-letter topic.
        source: the input that it belongs to.
    """

    def __init__(self, settings: KafkaSettings, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self._settings = settings

    async def replayed(self) -> set[Origin]:
        """Where the records of all replayed letters were read. Grows with the number of replays, not with the topic."""
        found = set()
        async with aclosing(self._records()) as records:
            async for record in records:
                if is_mark(record):
                    try:
                        found.add(Origin.told_by(record.headers))
                    except NotALetter:
                        continue  # told by `letters`
        return found

    async def letters(self) -> AsyncGenerator[Letter | Stranger, None]:
        """All letters in order, and what is none."""
        async with aclosing(self._records()) as records:
            async for record in records:
                if (found := self._read(record)) is not None:
                    yield found

    def _read(self, record: Record) -> Letter | Stranger | None:
        try:
            if is_mark(record):
                Origin.told_by(record.headers)
                return None
            letter = Letter.read(record)
        except NotALetter as error:
            return Stranger(str(record), str(error))
        if letter.origin.source.topic != self.source:
            return Stranger(str(record), f"it names the topic {letter.origin.source.topic}, not {self.source}")
        return letter

    async def _records(self) -> AsyncGenerator[Record, None]:
        """Everything that is there now, transactions that are open included, once they end."""
        follower = TopicFollower(self._settings, [self.name], out_of_range="earliest")
        await follower.start()
        try:
            while not follower.caught_up or follower.awaits_transactions():
                for record in await follower.poll():
                    yield record
        finally:
            await follower.stop()

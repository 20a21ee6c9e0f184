"""`exitstream dead-letters replay`: writes records to the topics that they came from, each once however often it runs.

A record and the mark of its replay are written in one transaction. A run begins by taking over the topic's
transactional id, which ends any other run, and by reading the marks; so it knows whatever an earlier run has done.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from cli.dead_letters.reading import DeadLetterTopic, Stranger
from cli.dead_letters.selection import Selection, names_of
from runtime.clock import Clock
from runtime.dead_letters import Letter, Origin
from runtime.errors import BrokerError, Fenced, RecordTooLarge, TransactionFailed, TransactionTimedOut
from runtime.kafka import TransactionalSink
from runtime.settings import KafkaSettings

TRANSACTIONAL_ID: Final = "exitstream-dead-letters"
"""How the transactional ids begin; the dead-letter topic's name follows."""
_BATCH_LETTERS: Final = 200
_BATCH_BYTES: Final = 1_000_000
Print = Callable[[str], object]


@dataclass
class Outcome:
    """What became of the letters selected.

    Attributes:
        replayed: written to their topics now (or, in a dry run, to be written).
        before: replayed by an earlier run, or another letter of a record just replayed.
        refused: not taken by the broker: too large for their topic by now, or against its rules.
        named: the places that were met, of records and letters.
    """

    replayed: int
    before: int
    refused: int
    named: set[str]

    def __str__(self) -> str:
        return f"{self.replayed} replayed, {self.before} replayed before, {self.refused} refused by the broker"


class Replaying:
    """Replays the letters of one topic.

    Args:
        settings: how to reach Kafka.
        topic: the dead letters.
        selection: which of them.
        outcome: what is counted.
        clock: for the marks.
        echo: prints a line.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: DeadLetterTopic,
        selection: Selection,
        outcome: Outcome,
        clock: Clock,
        echo: Print,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._selection = selection
        self._outcome = outcome
        self._clock = clock
        self._echo = echo
        self._replayed: set[Origin] = set()

    async def run(self) -> None:
        """Replays what is selected and has not been replayed.

        Raises:
            Fenced: another run has begun meanwhile.
            BrokerError: anything else that ends it; what was written is marked, so it can be run again.
        """
        async with TransactionalSink(self._settings, f"{TRANSACTIONAL_ID}.{self._topic.name}") as sink:
            self._replayed = await self._topic.replayed()
            async with aclosing(self._batches()) as batches:
                async for batch in batches:
                    await self._replay(sink, batch)

    async def rehearse(self) -> None:
        """Says what `run` would do, and does nothing."""
        self._replayed = await self._topic.replayed()
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for letter in batch:
                    self._note(letter, "would replay")

    async def _replay(self, sink: TransactionalSink, batch: Sequence[Letter]) -> None:
        """All of them in one transaction; where the broker refuses a record, that one is found by halving."""
        try:
            await self._write(sink, batch)
        except (Fenced, TransactionTimedOut):
            raise
        except (RecordTooLarge, TransactionFailed) as error:
            # What was refused leaves a gap in the producer's sequence numbers: only a new one goes on.
            await sink.stop()
            await sink.start()
            done = set() if isinstance(error, RecordTooLarge) else await self._topic.replayed()
            await self._replay_parts(sink, [letter for letter in batch if letter.origin not in done], error)
            batch = [letter for letter in batch if letter.origin in done]
        for letter in batch:
            self._note(letter, "replayed")

    async def _replay_parts(self, sink: TransactionalSink, batch: Sequence[Letter], error: BrokerError) -> None:
        if len(batch) == 1:
            self._outcome.refused += 1
            self._echo(f"refused  {batch[0].origin}: {error}")
        elif batch:
            half = len(batch) // 2
            await self._replay(sink, batch[:half])
            await self._replay(sink, batch[half:])

    async def _write(self, sink: TransactionalSink, batch: Sequence[Letter]) -> None:
        async with sink.transaction() as transaction:
            await transaction.send_all(letter.restored() for letter in batch)
            await transaction.send_all(letter.mark(self._topic.name, self._clock) for letter in batch)

    def _note(self, letter: Letter, done: str) -> None:
        self._outcome.replayed += 1
        self._echo(f"{done}  {letter.origin}, attempt {letter.attempt + 1}")

    async def _batches(self) -> AsyncGenerator[list[Letter], None]:
        """The letters to be replayed, in portions that fit into memory and a transaction."""
        batch: list[Letter] = []
        size = 0
        async with aclosing(self._topic.letters()) as letters:
            async for letter in letters:
                if isinstance(letter, Stranger) or not self._is_due(letter):
                    continue
                batch.append(letter)
                size += letter.size
                if len(batch) >= _BATCH_LETTERS or size >= _BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    def _is_due(self, letter: Letter) -> bool:
        if not self._selection.holds(letter):
            return False
        self._outcome.named.update(names_of(letter) if self._selection.places else ())
        if letter.origin in self._replayed:
            self._outcome.before += 1
            return False
        self._replayed.add(letter.origin)
        return True

"""All that touches the state: records in, parcels and encoded states out. Runs in the compute thread, and only there.

The state and the frontier up to which it stands live side by side, so that whoever takes one takes the other with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graph_updater.intake import Batch, Intake
from graph_updater.nodes import MemoryReport
from graph_updater.outbox import DeadLetter, Frontier, Parcel
from graph_updater.publishing import StateEncoder
from graph_updater.snapshot import Cut, SnapshotCopy
from graph_updater.state import UpdaterState
from runtime.dead_letters import DeadLetters
from runtime.records import OutRecord, Record

_REPAIRED_AT_ONCE: Final = 64
"""Nodes whose sums are computed anew with every parcel: a thousand a second, so that rounding never adds up."""
_TIMED_EVENTS: Final = 10_000
"""Events per parcel whose freshness is measured; of more the first, which waited longest."""


@dataclass(frozen=True, eq=False)
class Capture:
    """The state of a moment, with the frontier that it stands for."""

    cut: Cut
    frontier: Frontier


@dataclass(frozen=True, eq=False)
class Collection:
    """What `Engine.collect` found: a parcel if the stream moved, a capture if a snapshot's copy was complete."""

    parcel: Parcel | None
    capture: Capture | None


class Engine:
    """The state, driven by records.

    Args:
        state: what is kept fresh.
        intake: how records are read.
        letters: makes dead letters of those that cannot be.
        encoder: makes records of states.
        frontier: next offset to be read per partition, where the state comes from a snapshot.
    """

    def __init__(
        self,
        state: UpdaterState,
        intake: Intake,
        letters: DeadLetters,
        encoder: StateEncoder,
        frontier: Frontier,
    ) -> None:
        self._state = state
        self._intake = intake
        self._letters = letters
        self._encoder = encoder
        self._frontier = dict(frontier)
        self._collected: Frontier = {}
        self._dead_letters: list[DeadLetter] = []
        self._event_times_ms: list[int] = []
        self._copy: SnapshotCopy | None = None
        self._copied = False

    def absorb(self, records: Sequence[Record]) -> Batch:
        """Takes records in: the catalogue first, so that new items have their words before they meet anybody."""
        batch = self._intake.read(records)
        self._state.apply_items(batch.items)
        self._state.withdraw_items(batch.withdrawn_items)
        self._state.apply(batch.interactions)
        self._note_times([interaction.event_time_ms for interaction in batch.interactions])
        self._dead_letters += (self._dead_letter(record, reason) for record, reason in batch.rejects)
        self._frontier.update((record.source, record.offset + 1) for record in records)
        self._continue_copy()
        return batch

    def collect(self, *, everything: bool = False) -> Collection:
        """What has moved since the last call; `everything` names every state.

        A snapshot begun earlier is captured here once its copy is complete: of this moment, when nothing that has moved
        is missing from the parcels.
        """
        self._continue_copy()
        self._state.repair(_REPAIRED_AT_ONCE)
        parcel = self._parcel(everything=everything)
        return Collection(parcel, self.capture() if self._copied else None)

    def begin_snapshot(self) -> None:
        """Begins to copy the state, step by step between micro-batches."""
        if self._copy is None:
            self._copy = self._state.start_snapshot()

    def encode(self, parcel: Parcel) -> list[OutRecord]:
        """The records that a parcel stands for, with the states as they are now."""
        return self._encoder.records(self._state, parcel)

    def capture(self) -> Capture:
        """The state of this moment; at one go where no copy was begun, which is for the end, when no stream waits."""
        self._copy, self._copied = None, False
        return Capture(self._state.finish_snapshot(), dict(self._frontier))

    def memory_report(self) -> MemoryReport:
        """Bytes held by the state."""
        return self._state.memory_report()

    def _note_times(self, event_times_ms: list[int]) -> None:
        """Lets time pass as far as events say. Not by the clock: then a replay would end in another state."""
        if event_times_ms:
            self._state.advance_time(max(event_times_ms))
            self._event_times_ms += event_times_ms[: _TIMED_EVENTS - len(self._event_times_ms)]

    def _dead_letter(self, record: Record, reason: str) -> DeadLetter:
        return DeadLetter(record.source, record.offset, self._letters.letter(record, reason))

    def _parcel(self, *, everything: bool) -> Parcel | None:
        if self._frontier == self._collected and not everything:
            return None
        changes = self._state.take_changes(force=everything)
        parcel = Parcel(
            frontier=dict(self._frontier),
            users=[*changes.users, *changes.expired_users],
            items=[*changes.items, *changes.expired_items],
            dead_letters=self._dead_letters,
            everything=everything,
            event_times_ms=self._event_times_ms,
        )
        self._collected, self._dead_letters, self._event_times_ms = parcel.frontier, [], []
        return parcel

    def _continue_copy(self) -> None:
        if self._copy is not None and not self._copied:
            self._copied = self._copy.step()

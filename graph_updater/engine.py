"""All access to the state: records in, batches and encoded states out. Runs in the engine's thread only.

The state is kept together with its offsets, so that a snapshot or a batch always takes both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

import numpy as np

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.intake import Batch, Intake
from graph_updater.publication.batch import DeadLetter, Offsets, StateBatch, TracedInteraction
from graph_updater.publication.encoder import StateEncoder
from graph_updater.state.nodes import MemoryReport
from graph_updater.state.snapshot import SnapshotCopy, StateCopy
from graph_updater.state.updater_state import UpdaterState
from graph_updater.telling import Telling
from runtime.clock import Clock, SystemClock
from runtime.dead_letters import DeadLetters
from runtime.records import OutRecord, Record
from schemas.messages import Interaction, InteractionKind

P = ParamSpec("P")
T = TypeVar("T")
_REPAIRED_AT_ONCE: Final = 64
"""Nodes whose sums are recomputed with every batch: about a thousand per second, so that rounding errors stay small."""
_TIMED_EVENTS: Final = 10_000
"""Events per batch whose freshness is measured: the first ones, which waited longest."""
_TRACED_EVENTS: Final = 100
"""Interactions per batch that are traced at most: the last ones, which the states' readers see."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A copy of the state with its offsets."""

    copy: StateCopy
    offsets: Offsets


@dataclass(frozen=True, eq=False)
class Collection:
    """A batch if records were read since the last one; a capture if the copy for a snapshot is complete."""

    batch: StateBatch | None
    capture: Capture | None


class UpdaterEngine:
    """Applies records to the state and collects its changes.

    Args:
        state: the state to keep fresh.
        intake: decodes records.
        letters: makes dead letters of records that cannot be decoded.
        encoder: makes records of states.
        offsets: next offset to be read per partition, if the state comes from a snapshot.
        parts_interval_s: how often parts of items are told that only the users' embeddings have moved.
        clock: for it.
    """

    def __init__(
        self,
        state: UpdaterState,
        intake: Intake,
        letters: DeadLetters,
        encoder: StateEncoder,
        offsets: Offsets,
        parts_interval_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self._state = state
        self._intake = intake
        self._letters = letters
        self._encoder = encoder
        self._offsets = dict(offsets)
        self._collected: Offsets = {}
        self._dead_letters: list[DeadLetter] = []
        self._event_times_ms: list[int] = []
        self._traced: deque[TracedInteraction] = deque(maxlen=_TRACED_EVENTS)
        self._copy: SnapshotCopy | None = None
        self._copied = False
        self._telling = Telling(state.shared, parts_interval_s, clock or SystemClock())

    @property
    def not_finite(self) -> int:
        """Embeddings kept from being published because they were not finite."""
        return self._state.published.not_finite

    def absorb(self, records: Sequence[Record]) -> Batch:
        """Applies records: the catalogue first, so that new items have their text before their first interaction."""
        batch = self._intake.read(records)
        self._state.apply_items(batch.items)
        self._state.withdraw_items(batch.withdrawn_items)
        self._state.receive_parts(batch.parts)
        self._state.apply(batch.interactions)
        self._state.release_idle()
        event_times_ms = [interaction.event_time_ms for interaction in batch.interactions]
        self._event_times_ms += event_times_ms[: _TIMED_EVENTS - len(self._event_times_ms)]
        self._traced += batch.traced
        self._dead_letters += (self._dead_letter(record, reason) for record, reason in batch.rejects)
        self._offsets.update((record.source, record.offset + 1) for record in records)
        self._continue_copy()
        return batch

    def collect(self, term: object | None = None, *, all_published: bool = False) -> Collection:
        """The changes since the last call; in a term of leadership also what the other shards are to be told, see
        `Telling.take`.

        A snapshot begun earlier is captured here once its copy is complete: at this moment every change is in a batch.
        """
        self._continue_copy()
        self._state.repair(_REPAIRED_AT_ONCE)
        parts = self._telling.take(term, all_published=all_published)
        batch = None if self._offsets == self._collected and not parts else self._batch(parts)
        return Collection(batch, self.capture() if self._copied else None)

    def everything(self) -> StateBatch:
        """Every state, and the changes since the last batch."""
        return self._batch(everything=True)

    def keep_histories_of(self, length: int) -> None:
        """For a bundle of the same graph that asks for histories of another length."""
        self._state.keep_histories_of(length)

    def begin_snapshot(self) -> None:
        """Starts copying the state, step by step between polls."""
        if self._copy is None:
            self._copy = self._state.start_snapshot()

    def encode(self, batch: StateBatch) -> list[OutRecord]:
        """The records of a batch, with the states as they are now."""
        return self._encoder.records(self._state.published, batch, self._state.shared)

    def capture(self) -> Capture:
        """The present state. Without a copy begun before, all of it is copied now, as at the end of the program."""
        self._copy, self._copied = None, False
        return Capture(self._state.finish_snapshot(), dict(self._offsets))

    def memory_report(self) -> MemoryReport:
        """Bytes held by the state."""
        return self._state.memory_report()

    def _dead_letter(self, record: Record, reason: str) -> DeadLetter:
        return DeadLetter(record.source, record.offset, self._letters.letter(record, reason))

    def _batch(self, parts: Sequence[str] = (), *, everything: bool = False) -> StateBatch:
        changes = self._state.published.take_changes(force=everything)
        batch = StateBatch(
            offsets=dict(self._offsets),
            users=[*changes.users, *changes.expired_users],
            items=[*changes.items, *changes.expired_items],
            parts=parts,
            dead_letters=self._dead_letters,
            event_times_ms=self._event_times_ms,
            traced=list(self._traced),
        )
        self._traced.clear()
        self._collected, self._dead_letters, self._event_times_ms = batch.offsets, [], []
        return batch

    def _continue_copy(self) -> None:
        if self._copy is not None and not self._copied:
            self._copied = self._copy.step()


class EngineThread:
    """Runs calls one after the other in one thread, in the order in which they were made.

    The event loop never waits, and the state needs no lock. On exit the thread ends after its present call.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, or what it raises. Cancelling this does not stop a call that has begun."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class EngineStates:
    """The states in the engine's thread. Implements `publication.publisher.States`.

    Args:
        engine: has them.
        thread: where it lives.
    """

    def __init__(self, engine: UpdaterEngine, thread: EngineThread) -> None:
        self._engine = engine
        self._thread = thread

    async def encode(self, batch: StateBatch) -> list[OutRecord]:
        """The records of a batch."""
        return await self._thread(self._engine.encode, batch)

    async def everything(self) -> StateBatch:
        """Every state, and the changes since the last batch."""
        return await self._thread(self._engine.everything)


def warm_up() -> None:
    """Compiles every kernel, or loads it from the cache on disk, before the first record is read.

    Takes some seconds the first time on a machine, later less than one.
    """
    base = BaseEmbeddings(["item"], np.ones((1, 2), np.float32), (0.5, 0.5))
    config = GraphConfig(window_ms=1000, half_life_ms=1000)
    state = UpdaterState(config, base)
    kinds: tuple[InteractionKind, ...] = ("click", "removal", "click")
    state.apply(
        [
            Interaction(event_id=f"{time_ms}", user_id="user", item_id="item", kind=kind, event_time_ms=time_ms)
            for time_ms, kind in enumerate(kinds)
        ]
    )
    state.repair(1)
    state.published.take_changes()
    state.release_idle()
    UpdaterState.restore(config, base, *state.snapshot_arrays())

"""Tables kept in a folder, or at any fsspec address, so that a worker that starts reads only what is newer.

What is saved serves every worker whose embeddings are of the same space, on the same cluster and topics. It is used
only while the topics still show every removal since: a tombstone that compaction has taken away is not read again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from runtime.clock import Clock
from runtime.errors import SnapshotError
from runtime.process.daemon_thread import in_daemon_thread
from runtime.records import TopicPartition
from runtime.snapshots import Snapshot, SnapshotStore
from worker.compute import ComputeThread
from worker.state_store.table_copy import LAYOUT, TableCopy, copy_steps, restore
from worker.state_store.tables import Tables
from worker.steps import between_rounds

Offsets = Mapping[TopicPartition, int]
_KIND: Final = "exitstream worker tables"
_KEPT: Final = 2
_LAST_SAVE_LIMIT_S: Final = 10.0
"""How long the end of the program waits: a disk or network that hangs must not keep it from ending."""
_RESTORE_LIMIT_S: Final = 300.0
"""How long a start waits for a store that does not answer; reading everything from Kafka may be quicker."""
_SAVE_LIMIT_S: Final = 300.0
_SHARE_OF_RETENTION: Final = 0.5
"""Of the time for which topics show removals; the rest is for reading what is newer."""
log = structlog.get_logger(__name__)


class Reached(NamedTuple):
    """How far tables are."""

    offsets: dict[TopicPartition, int]
    """Next one per partition; all records before it have been applied."""
    given_up: int
    """Partitions whose users the tables gave up so far: a copy is whole if this is the same before and after."""


class _Metadata(msgspec.Struct):
    """What stands beside the arrays."""

    origin: dict[str, Any]
    offsets: list[tuple[str, int, int]]
    saved_ms: int


@dataclass(frozen=True)
class SavedTables:
    """A place for tables.

    Attributes:
        address: a folder or an fsspec address.
        origin: what a copy must agree with to be used: the space of embeddings, what of an item and a user is kept,
            cluster and topics.
        tombstone_retention_ms: how long the topics show a removal.
        users_topic: of the users' states. Users in a copy whose partition its offsets do not name had just come or were
            leaving; nobody might follow them.
        clock: the time.
    """

    address: str
    origin: Mapping[str, Any]
    tombstone_retention_ms: int
    users_topic: str
    clock: Clock

    async def restored(self, empty: Callable[[], Tables]) -> tuple[Tables, dict[TopicPartition, int]]:
        """Tables with the newest copy in them, and where to read on; both empty if there is no copy that can be used,
        which is told. In a thread.
        """
        try:
            async with asyncio.timeout(_RESTORE_LIMIT_S):
                return await in_daemon_thread(lambda: self._restored(empty), "saved tables")
        except TimeoutError:
            log.warning("the saved tables are not read within the limit; every state is read", limit_s=_RESTORE_LIMIT_S)
            return empty(), {}

    async def save(self, copy: TableCopy, offsets: Offsets) -> None:
        """Writes a copy, in a thread.

        Raises:
            SnapshotError: it cannot be written; those before are untouched.
        """
        metadata = {
            "origin": dict(self.origin),
            "offsets": [[topic, partition, offset] for (topic, partition), offset in offsets.items()],
            "saved_ms": self.clock.wall_ms(),
        }
        await in_daemon_thread(lambda: self._store().save_now(copy.joined(), metadata), "saving tables")

    def _restored(self, empty: Callable[[], Tables]) -> tuple[Tables, dict[TopicPartition, int]]:
        tables = empty()
        try:
            snapshot = self._store().load_latest_now()
            if snapshot is None:
                return tables, {}
            metadata = self._usable(snapshot)
            if isinstance(metadata, str):
                log.info("the saved tables are not used; every state is read", address=self.address, cause=metadata)
                return tables, {}
            told = {partition for topic, partition, _ in metadata.offsets if topic == self.users_topic}
            restore(tables, snapshot.arrays, told)
            tables.refresh_indexes()  # here and not where they serve, which all rows at once would keep waiting
        except SnapshotError as error:
            log.warning("the saved tables cannot be read; every state is read", cause=str(error))
        except Exception as error:  # whatever it is, the topics hold everything: a start must not fail for this
            log.exception("the saved tables cannot be used; every state is read", cause=repr(error))
        else:
            log.info("tables restored", address=self.address, users=len(tables.users.ids), items=len(tables.items.ids))
            return tables, {TopicPartition(topic, partition): offset for topic, partition, offset in metadata.offsets}
        return empty(), {}

    def _usable(self, snapshot: Snapshot) -> _Metadata | str:
        """The metadata, or why it is not to be used."""
        metadata = msgspec.convert(snapshot.metadata, _Metadata)
        differ = [name for name, ours in self.origin.items() if metadata.origin.get(name) != ours]
        if differ:
            return f"saved with another {', '.join(differ)}"
        age_ms = self.clock.wall_ms() - metadata.saved_ms
        if age_ms > _SHARE_OF_RETENTION * self.tombstone_retention_ms:
            return f"saved {age_ms / 3_600_000:.1f} hours ago: topics may show removals since then no more"
        return metadata

    def _store(self) -> SnapshotStore:
        return SnapshotStore(self.address, kind=_KIND, version=LAYOUT, keep=_KEPT)


class TableSaver:
    """Saves tables while they serve.

    Args:
        saved: where to.
        tables: owned by the thread.
        thread: copies a slice between two rounds.
        reached: tells how far the tables are.
        interval_s: between two copies.
    """

    def __init__(
        self,
        saved: SavedTables,
        tables: Tables,
        thread: ComputeThread,
        reached: Callable[[], Reached],
        interval_s: float,
    ) -> None:
        self._saved = saved
        self._tables = tables
        self._thread = thread
        self._reached = reached
        self._interval_s = interval_s
        self._last: Offsets = {}
        self._saving = asyncio.Lock()

    async def run(self, filled: Awaitable[None]) -> None:
        """Saves once the tables are filled, then at intervals, until cancelled."""
        await filled
        while True:
            await self.save()
            # Not in step with other workers, which began at the same time.
            await asyncio.sleep(self._interval_s * random.uniform(0.75, 1.25))

    async def save(self) -> None:
        """Saves, if anything has been applied since the last time. A failure is told; the next time may succeed."""
        async with self._saving:
            offsets, given_up = self._reached()
            if offsets == self._last:
                return
            clock = self._saved.clock
            began_s = clock.monotonic()
            try:
                copy, _ = await between_rounds(self._thread, copy_steps(self._tables), clock)
                if self._reached().given_up != given_up:
                    log.info("the tables were not saved: partitions were given up meanwhile, trying again later")
                    return
                async with asyncio.timeout(_SAVE_LIMIT_S):
                    await self._saved.save(copy, offsets)
            except SnapshotError as error:
                log.warning("the tables were not saved, trying again", cause=str(error), again_in_s=self._interval_s)
                return
            except Exception:  # a copy is never worth a worker
                log.exception("the tables were not saved, trying again", again_in_s=self._interval_s)
                return
            self._last = offsets
            took_s = clock.monotonic() - began_s
            log.info("tables saved", address=self._saved.address, users=len(self._tables.users.ids), took_s=took_s)

    async def save_last(self) -> None:
        """Saves before the program ends; gives up after a while."""
        try:
            async with asyncio.timeout(_LAST_SAVE_LIMIT_S):
                await self.save()
        except TimeoutError:
            log.warning("the tables were not saved at the end", cause=f"it took more than {_LAST_SAVE_LIMIT_S:g} s")

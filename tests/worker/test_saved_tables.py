"""Tables kept in a folder: what is used of them, and what is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from table_model import READER, empty_tables, record, user_of

from runtime.clock import ManualClock
from runtime.process.lifecycle import owned_tasks
from runtime.records import TopicPartition
from worker.compute import ComputeThread
from worker.saved_tables import Reached, SavedTables, TableSaver
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.table_copy import TableCopy

HOUR_MS = 3_600_000
PLACE = TopicPartition("user-states", 0)
"""Of the users u, w and y; v and x have others."""


def _copies(saved):
    """The files, the oldest first."""
    return sorted(Path(saved.address).glob("*"))


@pytest.fixture
def saved(tmp_path):
    """A place for tables, at noon."""
    return SavedTables(
        str(tmp_path / "tables"), {"bundle": "a", "topics": ["x"]}, 24 * HOUR_MS, "user-states", ManualClock(10**12)
    )


async def _save(saved, *names, offset=7):
    """Saves tables with these users; returns what saves them."""
    tables = empty_tables()
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        READER.apply(tables, [record(user_of(name)) for name in names])
        saver = TableSaver(saved, tables, thread, lambda: Reached({PLACE: offset}, 0), 300.0)
        await saver.save_last()
    return saver


async def test_what_was_saved_comes_back_with_its_offsets(saved):
    """The newest copy counts."""
    await _save(saved, "u")
    await _save(saved, "u", "w", offset=9)

    tables, offsets = await saved.restored(empty_tables)

    assert (len(tables.users.ids), offsets) == (2, {PLACE: 9})


async def test_users_of_a_partition_without_an_offset_are_left_out(saved):
    """They had just come, or were leaving, when the copy was made; perhaps nobody follows their partition any more."""
    await _save(saved, "u", "v")

    tables, _ = await saved.restored(empty_tables)

    assert tables.users.ids.row("u") != UNKNOWN_ROW
    assert tables.users.ids.row("v") == UNKNOWN_ROW
    assert len(tables.users.ids) == 1


async def test_nothing_is_written_while_nothing_changes(saved):
    """A copy of a million users takes seconds and hundreds of megabytes."""
    tables = empty_tables()
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        saver = TableSaver(saved, tables, thread, lambda: Reached({PLACE: 7}, 0), 300.0)
        await saver.save()
        await saver.save()

    assert len(_copies(saved)) == 1


@pytest.mark.parametrize(
    ("origin", "age_ms", "said"),
    [
        ({"bundle": "b", "topics": ["x"]}, 0, "saved with another bundle"),
        ({"bundle": "b", "topics": ["y"]}, 0, "another bundle, topics"),
        ({"bundle": "a", "topics": ["x"]}, 13 * HOUR_MS, "13.0 hours ago: topics may show removals since then no more"),
    ],
)
async def test_what_may_be_wrong_is_not_used(saved, origin, age_ms, said):
    """Every state is read instead, and the log says why."""
    await _save(saved, "u")
    other = SavedTables(saved.address, origin, 24 * HOUR_MS, "user-states", ManualClock(10**12 + age_ms))

    with capture_logs() as logs:
        tables, offsets = await other.restored(empty_tables)

    assert (len(tables.users.ids), offsets) == (0, {})
    assert said in logs[-1]["cause"]


async def test_a_damaged_copy_is_not_used(saved):
    """The one before it is; with none left every state is read."""
    await _save(saved, "u")
    await _save(saved, "u", "v", offset=9)
    older, newest = _copies(saved)
    newest.write_bytes(newest.read_bytes()[:-20])

    tables, offsets = await saved.restored(empty_tables)
    older.write_bytes(b"{" * 40)
    nothing, nowhere = await saved.restored(empty_tables)

    assert (len(tables.users.ids), offsets) == (1, {PLACE: 7})
    assert (len(nothing.users.ids), nowhere) == (0, {})


async def test_a_copy_that_fits_no_tables_does_not_keep_a_worker_from_starting(saved):
    """Written by a release that kept other columns."""
    await saved.save(TableCopy([{"user_ids": empty_tables().users.counts}], {}), {PLACE: 7})

    with capture_logs() as logs:
        tables, offsets = await saved.restored(empty_tables)

    assert (len(tables.users.ids), offsets) == (0, {})
    assert "the saved tables cannot be used" in logs[-1]["event"]


async def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path):
    """It is told, and tried again."""
    (tmp_path / "file").write_text("no folder")
    saved = SavedTables(str(tmp_path / "file"), {}, HOUR_MS, "user-states", ManualClock(0))

    with capture_logs() as logs:
        await _save(saved, "u")
        tables, offsets = await saved.restored(empty_tables)

    assert [line["event"].split(",")[0].split(";")[0] for line in logs] == [
        "the tables were not saved",
        "the saved tables cannot be read",
    ]
    assert (len(tables.users.ids), offsets) == (0, {})


async def test_a_copy_is_made_once_the_tables_are_filled_and_then_at_intervals(saved):
    """Until it is cancelled."""
    offsets = {PLACE: 1}
    filled = asyncio.Event()
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        saver = TableSaver(saved, empty_tables(), thread, lambda: Reached(dict(offsets), 0), 0.01)
        running = spawn(saver.run(filled.wait()), "saving")
        await asyncio.sleep(0.05)
        assert not _copies(saved)
        filled.set()
        async with asyncio.timeout(10):
            while (await saved.restored(empty_tables))[1] != {PLACE: 1}:
                await asyncio.sleep(0.01)
            offsets[PLACE] = 2
            while (await saved.restored(empty_tables))[1] != {PLACE: 2}:
                await asyncio.sleep(0.01)
        running.cancel()


async def test_tables_that_give_users_up_are_saved_another_time(saved):
    """The offsets that were noted before the copy name a partition of which not all users are in it."""
    told = iter([1, 2])
    async with owned_tasks() as spawn:
        thread = ComputeThread()
        spawn(thread.run(), "compute")
        saver = TableSaver(saved, empty_tables(), thread, lambda: Reached({PLACE: 7}, next(told, 3)), 300.0)
        await saver.save()
        assert not _copies(saved)
        await saver.save()

    assert len(_copies(saved)) == 1

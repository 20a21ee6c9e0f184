"""When snapshots are written, and what becomes of those that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading

import pytest
from structlog.testing import capture_logs
from updater_parts import CLICKS, click, engine, records

from graph_updater.metrics import UpdaterMetrics
from graph_updater.origin import Origin
from graph_updater.recovery import SNAPSHOT_KIND
from graph_updater.snapshots import Snapshots
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from runtime.clock import ManualClock
from runtime.snapshots import SnapshotStore

ORIGIN = Origin("model-1", "cluster-1", ("interactions", "items"))


@pytest.fixture
def clock():
    """A clock that waits to be moved."""
    return ManualClock()


@pytest.fixture
def metrics():
    """Of one updater."""
    return UpdaterMetrics()


def store_in(folder):
    """A store of at most three snapshots."""
    return SnapshotStore(folder, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION, keep=3)


def capture(users=1):
    """A copy of a state of so many users."""
    driver = engine()
    driver.absorb(records([click(f"u{n}", "i1", n) for n in range(users)]))
    driver.collect()
    return driver.capture()


@contextlib.asynccontextmanager
async def running(snapshots):
    """Its task, with an owner."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(snapshots.run())
        yield task
        task.cancel()


async def test_snapshots_are_made_on_a_clock_when_something_is_new(clock, metrics, tmp_path):
    """Neither too early, nor while one is being written, nor of a state that is saved already."""
    of = Snapshots(store_in(tmp_path), ORIGIN, 10.0, clock, metrics)
    async with running(of):
        assert not of.is_due({CLICKS: 1})
        clock.advance(10)
        assert of.is_due({CLICKS: 1})

        of.write_beside(capture())
        clock.advance(10)
        assert not of.is_due({CLICKS: 2})
        await of.settled()
        clock.advance(10)
        assert of.is_due({CLICKS: 2})
        assert not of.is_due({CLICKS: 1})

        of.write_beside(capture())
        await of.settled()
        clock.advance(9)
        assert not of.is_due({CLICKS: 2})
        clock.advance(1)
        assert of.is_due({CLICKS: 2})


async def test_a_vanished_folder_is_made_again_and_anything_else_in_its_place_is_told_once(clock, metrics, tmp_path):
    """The reason is logged when it begins, each failure is counted, and the next attempt may succeed."""
    folder = tmp_path / "snapshots"
    of = Snapshots(store_in(folder), ORIGIN, 10.0, clock, metrics)
    folder.rmdir()
    folder.write_text("not a folder any more")

    with capture_logs() as logs:
        assert not await of.write(capture())
        assert not await of.write(capture())
        folder.unlink()
        assert await of.write(capture())

    assert [line["event"].split(",")[0] for line in logs] == ["no snapshot was written", "snapshot written"]
    assert str(folder) in logs[0]["cause"]
    assert metrics.value("exitstream_updater_snapshot_failures_total") == 2
    assert metrics.value("exitstream_updater_snapshots_total") == 1


async def test_after_a_failure_the_same_state_is_tried_again(clock, metrics, tmp_path):
    """Nothing is saved yet, so it is due although nothing new has come."""
    folder = tmp_path / "snapshots"
    of = Snapshots(store_in(folder), ORIGIN, 10.0, clock, metrics)
    folder.rmdir()
    folder.write_text("")
    async with running(of):
        of.write_beside(capture())
        await of.settled()
        clock.advance(10)
        assert of.is_due({CLICKS: 1})


async def test_a_full_disk_leaves_the_snapshots_before_untouched(clock, metrics, small_disk):
    """On a file system of one megabyte: told once, nothing piles up, and a smaller state is written again."""
    store = store_in(small_disk)
    of = Snapshots(store, ORIGIN, 10.0, clock, metrics)
    assert await of.write(capture(users=10))
    with capture_logs() as logs:
        assert not await of.write(capture(users=12_000))
        assert not await of.write(capture(users=12_000))

    assert [line["log_level"] for line in logs] == ["warning"]
    assert str(small_disk) in logs[0]["cause"]
    assert sorted(path.name for path in small_disk.iterdir()) == ["snapshot-000000000001.exs"]
    assert store.load_latest_now().metadata["offsets"] == [["interactions", 0, 10]]
    assert await of.write(capture(users=20))


async def test_an_error_of_the_writer_reaches_its_owner(clock, metrics, tmp_path):
    """A bug in it is not lost with a forgotten task."""
    of = Snapshots(store_in(tmp_path), ORIGIN, 10.0, clock, metrics)
    broken = capture()
    broken.copy.metadata["landmark_ms"] = object()

    of.write_beside(broken)

    with pytest.raises(TypeError):
        await of.run()


async def test_a_disk_that_hangs_does_not_keep_the_program_from_ending(clock, metrics, tmp_path):
    """Waiting for a snapshot in progress has a limit, and its thread dies with the program."""
    of = Snapshots(store_in(tmp_path), ORIGIN, 10.0, clock, metrics)
    released = threading.Event()

    class Hanging:
        metadata = {}  # noqa: RUF012 - never changed

        def merge(self):
            released.wait()
            return capture().copy.merge()

    hanging = capture()
    object.__setattr__(hanging, "copy", Hanging())
    with capture_logs() as logs:
        async with running(of):
            of.write_beside(hanging)
            await of.settled(limit_s=0.05)
            (writer,) = [thread for thread in threading.enumerate() if thread.name == "snapshot"]
            assert writer.daemon
        await of.write_last(hanging, limit_s=0.05)
        released.set()

    assert [line["event"] for line in logs] == ["a snapshot is left unfinished", "no last snapshot was written"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, or a skip that says why."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)

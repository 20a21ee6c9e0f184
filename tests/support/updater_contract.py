"""What the updater promises on any broker. Subclasses bring the fixture `broker`, a `brokers.TestBroker`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from updater_parts import click
from updater_world import UpdaterWorld

from graph_updater import pipeline
from graph_updater.recovery import SNAPSHOT_KIND
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from graph_updater.updater import Updater
from models.bundle_store import BundleStore
from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.errors import BundleError, TopicMissing
from runtime.snapshots import SnapshotStore
from schemas.messages import Item


def clicks(count, first=0):
    """Interactions of ten users and twenty-five items, five of them unknown to the bundle, now and then withdrawn."""
    return [
        click(
            f"u{n % 10}",
            f"i{(n * 7 + n // 10) % 25}",
            n,
            event_id=f"e{n}",
            kind="removal" if n % 17 == 16 else "click",
        )
        for n in range(first, first + count)
    ]


def pretend_offsets(folder, beyond):
    """Adds a snapshot that is the newest one but for its offsets, which lie further on."""
    store = SnapshotStore(folder, kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION)
    newest = store.load_latest_now()
    offsets = [[topic, partition, offset + beyond] for topic, partition, offset in newest.metadata["offsets"]]
    store.save_now(newest.arrays, {**newest.metadata, "offsets": offsets})


class UpdaterEssentials:
    """What is tested on the embedded broker as well, which takes seconds to let a member in."""

    @pytest.fixture
    async def world(self, broker, tiny_bundle, tiny_bundle_folder, tmp_path):
        """Topics of this test alone."""
        world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
        await world.create()
        yield world
        await world.published.stop()

    async def test_interactions_and_items_come_out_as_fresh_states(self, world):
        """What is published is, to rounding, what the engine alone makes of the same records."""
        async with world.running() as running:
            await world.send(Item(item_id="i22", title="title number 3"), *clicks(100))
            await world.published.until_equal()
            assert running.updater.readiness.is_ready
            await world.send(*clicks(40, first=100))
            await world.published.until_equal()
        assert running.updater.metrics.value("exitstream_updater_interactions_total") == 140
        assert running.updater.metrics.value("exitstream_updater_freshness_seconds_count") == 140

    async def test_few_bytes_a_second_make_few_states_of_many_changes(self, world):
        """Changes of one user wait and become one; at the end everything is published."""
        async with world.running(state_bytes_per_s=500):
            await world.send(click("u1", "i1", 0))
            await world.published.until(lambda: world.published.records)
            for number in range(1, 30):
                await world.send(click("u1", "i1", number))
                await asyncio.sleep(0.04)  # two publications' time
        before = world.published.records
        await world.published.until_equal()

        assert world.published.records - before <= 8

    async def test_a_restart_continues_from_the_snapshot(self, world):
        """After a drain nothing is published again, no dead letter is repeated, and what came meanwhile is taken in."""
        async with world.running():
            await world.send(*clicks(50), b"rubbish")
            await world.published.until_equal()
        await world.published.until(lambda: world.published.dead_letters)
        with capture_logs() as logs:
            async with world.running():
                assert await world.published.quiet() == 0
                await world.send(*clicks(50, first=50))
                await world.published.until_equal()

        assert any(line["event"] == "recovered from a snapshot" for line in logs)
        assert len(world.published.dead_letters) == 1

    async def test_a_bundle_of_the_same_graph_may_change_the_length_of_histories(self, world, tiny_bundle, tmp_path):
        """Without a restart and without publishing all again: what is published from then on has the new length."""
        store = BundleStore(tmp_path / "store")
        for length in (50, 3):
            limits = replace(tiny_bundle.limits, history_length=length)
            replace(tiny_bundle, limits=limits).save(tmp_path / f"{length}")
            version, _ = store.put(tmp_path / f"{length}")
            if length == 50:
                store.promote(version, "test")
        recent = {}

        def heard():
            states = world.published.states[world.topics.user_states]
            recent.update((name, [past.event_id for past in state.recent]) for name, state in states.items())
            return recent.get("u0", [])

        async with world.running(bundle=store.address, bundle_check_s=0.1) as running:
            await world.send(*(click("u0", f"i{n}", n, event_id=f"e{n}") for n in range(6)))
            await world.published.until(lambda: len(heard()) == 6)
            store.promote(version, "test")
            await world.published.until(
                lambda: running.updater.metrics.value("exitstream_updater_bundle_changes_total") == 1
            )
            assert await world.published.quiet() == 0
            await world.send(click("u0", "i6", 6, event_id="e6"))
            await world.published.until(lambda: heard() == ["e4", "e5", "e6"])

    async def test_dead_letters_are_published_before_more_is_read(self, world, monkeypatch):
        """However many records cannot be read, their letters take bounded memory, and each is sent once."""
        monkeypatch.setattr(pipeline, "MAX_LETTER_BYTES", 2_000)
        rubbish = [b"\xc1rubbish %04d" % number for number in range(1_000)]
        await world.send(*rubbish[:500], *clicks(20))

        with capture_logs() as logs:
            async with world.running(batch_records=50) as running:
                await world.send(*rubbish[500:], *clicks(20, first=20))
                await world.published.until_equal()
                await world.published.until(lambda: len(world.published.dead_letters) >= len(rubbish))
                await world.published.until(lambda: running.updater.readiness.is_ready)

        assert sorted(letter.value for letter in world.published.dead_letters) == rubbish
        assert any(line["event"].startswith("too many records were refused") for line in logs)


class UpdaterContract(UpdaterEssentials):
    """All of it."""

    async def test_what_cannot_be_read_becomes_a_dead_letter(self, world):
        """Byte for byte, with the reason; everything around it has its effect."""
        async with world.running():
            await world.send(*clicks(10), b"\xc1rubbish", *clicks(10, first=10))
            await world.published.until_equal()
            await world.published.until(lambda: world.published.dead_letters)

        (letter,) = world.published.dead_letters
        assert letter.value == b"\xc1rubbish"
        assert b"not a valid Interaction" in dict(letter.headers)["dead-letter-reason"]

    async def test_without_its_snapshots_it_continues_from_the_topics(self, world):
        """What they hold counts as published: nothing is published again, no dead letter repeated, versions go on."""
        async with world.running():
            await world.send(*clicks(50), b"rubbish")
            await world.published.until_equal()
            await world.published.until(lambda: world.published.dead_letters)
        versions = world.published.versions()

        async with world.running(snapshots=str(world.snapshots.with_name("elsewhere"))):
            assert await world.published.quiet(3.0) == 0
            await world.send(*clicks(50, first=50))
            await world.published.until_equal()

        assert len(world.published.dead_letters) == 1
        later = world.published.versions()
        assert all(later[name] >= version for name, version in versions.items())

    async def test_offsets_that_are_not_there_lead_to_a_recovery_that_says_so(self, world):
        """A snapshot beyond the end of its topic is completed from the topics; nothing counts twice."""
        async with world.running():
            await world.send(*clicks(50))
            await world.published.until_equal()
        pretend_offsets(world.snapshots, beyond=1_000)
        await world.send(*clicks(50, first=50))

        with capture_logs() as logs:
            async with world.running():
                await world.published.until_equal()

        (told,) = [line["cause"] for line in logs if line["event"] == "recovering the state anew"]
        assert world.topics.interactions in told

    async def test_a_standby_takes_over_where_the_leader_left(self, world):
        """Two run, one publishes; when it leaves, the other goes on with nothing lost and nothing repeated."""
        async with world.running() as leader:
            await world.send(*clicks(50), b"rubbish one")
            await world.published.until_equal()
            async with world.running():
                await world.send(*clicks(50, first=50), b"rubbish two")
                await world.published.until_equal()
                await leader.drain()
                await world.send(*clicks(50, first=100), b"rubbish three")
                await world.published.until_equal()
                await world.published.until(lambda: len(world.published.dead_letters) >= 3)

        assert await world.published.quiet() == 0
        values = sorted(letter.value for letter in world.published.dead_letters)
        assert values == [b"rubbish one", b"rubbish three", b"rubbish two"]

    async def test_missing_topics_are_named(self, world):
        """One line says which, and how to make them."""
        topics = TopicSettings(items="nowhere-items", user_states="nowhere-users")
        settings = world.settings().model_copy(update={"topics": topics})

        with pytest.raises(TopicMissing, match=r"nowhere-items.*exitstream topics create"):
            await Updater(settings, SystemClock()).main(asyncio.Event())

    async def test_a_missing_bundle_is_named(self, world, tmp_path):
        """One line says where it was looked for, and how to make one."""
        settings = world.settings(bundle=str(tmp_path / "nothing"))

        with pytest.raises(BundleError, match=r"nothing.*exitstream train"):
            await Updater(settings, SystemClock()).main(asyncio.Event())

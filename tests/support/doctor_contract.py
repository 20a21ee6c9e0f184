"""What `exitstream doctor` finds on any broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from brokers import Hooks, read
from worker_lab import PATIENCE_S, WorkerLab, requests

from cli.doctor import facts
from cli.doctor.command import check_kafka
from graph_updater.settings import UpdaterSection, UpdaterSettings
from runtime.clock import SystemClock
from runtime.dead_letters import DeadLetters
from runtime.kafka import RecordSink, RecordSource
from runtime.records import Record


class DoctorContract:
    """`broker` and `tiny_bundle_folder` are fixtures."""

    @pytest.fixture
    async def lab(self, broker, tiny_bundle_folder):
        """Topics with states, and a bundle."""
        lab = WorkerLab(broker, tiny_bundle_folder)
        await lab.prepare()
        return lab

    async def examine(self, lab, **worker):
        """The findings about Kafka by what they are about, and the settings they were made with."""
        settings = lab.settings(**worker)
        updater = UpdaterSettings(
            kafka=settings.kafka, topics=lab.topics, updater=UpdaterSection(group_id=f"{lab.broker.test}-updaters")
        )
        cluster = await facts.cluster(settings, updater)
        waiting = await facts.waiting_letters(settings.kafka, settings.topics, cluster)
        return cluster, {finding.about: finding for finding in check_kafka(cluster, waiting, settings, updater)}

    async def test_topics_and_states_are_found(self, lab):
        """Every topic with its partitions, and as many records as were written."""
        cluster, findings = await self.examine(lab)
        assert set(cluster.topics) == {spec.name for spec in lab.topics.specs()}
        assert {topic.partitions for topic in cluster.topics.values()} <= {1, 4}
        assert cluster.topics[lab.topics.user_states].records == 10
        assert cluster.topics[lab.topics.interactions].records == 0
        assert findings[f"records of {lab.topics.user_states}"].level == "ok"
        async with asyncio.timeout(PATIENCE_S):  # of a topic just made a busy broker shows no copy in step for a moment
            while any(found.level == "problem" for about, found in findings.items() if about.startswith("topic ")):
                _, findings = await self.examine(lab)

    async def test_missing_topics_are_a_problem_each(self, broker, tiny_bundle_folder):
        """Before `topics create`; looking does not make them."""
        lab = WorkerLab(broker, tiny_bundle_folder)
        for _ in range(2):
            cluster, findings = await self.examine(lab)
            assert not cluster.topics
            problems = [finding for finding in findings.values() if finding.level == "problem"]
            missing = [finding.about for finding in problems if "topics create" in finding.advice]
            needed = [spec.name for spec in lab.topics.specs() if spec.name != lab.topics.item_parts]
            assert sorted(missing) == sorted(f"topic {name}" for name in needed)  # one updater needs no parts

    async def test_requests_that_nobody_answered_are_the_groups_lag(self, lab):
        """Counted without joining the group: from the beginning where nothing was committed."""
        settings = lab.settings()
        await lab.ask(*requests(7))
        cluster, _ = await self.examine(lab, group_id=settings.worker.group_id)
        assert cluster.groups[settings.worker.group_id].lag == 7

    async def test_dead_letters_that_were_not_replayed_are_counted(self, lab):
        """Each letter that waits."""
        letters = DeadLetters("worker", lab.topics.dead_letter_suffix, SystemClock())
        source = lab.topics.impression_requests
        async with RecordSink(lab.broker.settings()) as sink:
            for offset in range(3):
                await sink.send(letters.letter(Record(source, 0, offset, b"k", b"junk", (), 1), "no good"))
            await sink.flush()
        _, findings = await self.examine(lab)
        assert findings[f"dead letters of {source}"].text == "3 waiting"

    @asynccontextmanager
    async def reading(self, lab, topic, group):
        """A member of a group that reads a topic with records in it."""
        source = RecordSource(lab.broker.settings(), [topic], group)
        await source.start(Hooks())
        try:
            await read(source, 1)
            yield
        finally:
            await source.stop()

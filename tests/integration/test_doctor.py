"""The doctor on a real broker, which tells more than the embedded one."""

from __future__ import annotations

import time

from doctor_contract import DoctorContract
from worker_lab import WorkerLab, requests

from graph_updater.publication.standby import election_group
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from runtime.topic_specs import TopicSpec


class TestKafka(DoctorContract):
    """Everything that any broker must tell, and what only Kafka does."""

    async def test_configuration_copies_and_generation_are_told(self, lab):
        """Enough for every check of a topic to say ok."""
        cluster, findings = await self.examine(lab)
        assert (cluster.generation, cluster.brokers, cluster.is_embedded) == ("Kafka 4 or newer", 1, False)
        assert cluster.topics[lab.topics.items].config["cleanup.policy"] == "compact"
        assert findings["broker"].level == findings["clocks"].level == "ok"
        assert findings[f"retention of {lab.topics.interactions}"].text == "7.0 days"

    async def test_a_table_that_is_not_compacted_is_a_problem(self, broker, tiny_bundle_folder):
        """As brokers make it that create topics by themselves."""
        lab = WorkerLab(broker, tiny_bundle_folder)
        await create_missing_topics(broker.settings(), [TopicSpec(lab.topics.items, 1)])
        _, findings = await self.examine(lab)
        assert findings[f"topic {lab.topics.items}"].text.startswith("cleanup.policy is delete")

    async def test_members_and_their_partitions_are_told(self, lab):
        """Who reads what, while they read it."""
        group = lab.broker.name("workers")
        await lab.ask(*requests(4))
        async with self.reading(lab, lab.topics.impression_requests, group):
            cluster, findings = await self.examine(lab, group_id=group)
        [member] = cluster.groups[group].members
        assert {partition.topic for partition in member.partitions} == {lab.topics.impression_requests}
        assert len(member.partitions) == 4
        assert findings[f"workers ({group})"].text.startswith("1 running, 4 requests")

    async def test_the_leader_is_told_while_it_leads(self, lab):
        """Known by its partition in the group of the election."""
        await lab.broker.fill(lab.topics.interactions, 4)
        async with self.reading(lab, lab.topics.interactions, election_group(f"{lab.broker.test}-updaters")):
            _, findings = await self.examine(lab)
        [found] = [finding for about, finding in findings.items() if about.startswith("updater")]
        assert found.level == "ok"
        assert "leads, 0 standing by, 4 interactions not published yet" in found.text

    async def test_without_an_updater_states_grow_old(self, lab):
        """A group without members is a problem for the updater, a warning for the workers."""
        _, findings = await self.examine(lab)
        levels = {about.split(" (")[0]: finding.level for about, finding in findings.items()}
        assert (levels["updater"], levels["workers"]) == ("problem", "warning")

    async def test_records_dated_ahead_are_found(self, lab):
        """By as much as the worst of them."""
        ahead_ms = 1_800_000
        async with RecordSink(lab.broker.settings()) as sink:
            stamp = int(time.time() * 1000) + ahead_ms
            await sink.send(OutRecord(lab.topics.interactions, b"u", b"x", timestamp_ms=stamp))
            await sink.flush()
        cluster, findings = await self.examine(lab)
        assert ahead_ms - 600_000 < cluster.topics[lab.topics.interactions].ahead_ms <= ahead_ms
        assert findings["clocks"].level == "warning"

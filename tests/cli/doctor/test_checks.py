"""What the doctor says of facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.doctor import cluster_checks as cluster
from cli.doctor import machine_checks as machine
from cli.doctor.machine_checks import BundleFacts
from graph_updater.settings import UpdaterSettings
from programs.topics import TopicSettings
from runtime.kafka import ClusterFacts, GroupFacts, Member, TopicFacts
from runtime.records import TopicPartition

TOPICS = TopicSettings()
SPECS = {spec.name: spec for spec in TOPICS.specs()}
LOG = TopicFacts(4, config={"cleanup.policy": "delete", "retention.ms": "604800000", "min.insync.replicas": "1"})
TABLE = TopicFacts(4, config={"cleanup.policy": "compact"}, records=9)
HEALTHY = ClusterFacts(1, "Kafka 4 or newer", is_embedded=False, topics={}, groups={})
BUNDLE = BundleFacts("bundle", "", "v1", 5_000_000, 64, 800_000_000)


def member(name, *partitions):
    """A member of a group that reads these partitions of the interactions."""
    return Member(name, "/10.0.0.7", frozenset(TopicPartition("interactions", number) for number in partitions))


@pytest.mark.parametrize(
    ("topic", "facts", "brokers", "level", "words"),
    [
        ("interactions", LOG, 1, "ok", "4 partitions, one copy, delete"),
        ("items", TABLE, 1, "ok", "compact"),
        ("items", None, 1, "problem", "exitstream topics create"),
        ("items", LOG, 1, "problem", "cleanup.policy is delete, not compact: states and titles are deleted by age"),
        ("interactions", TABLE, 1, "problem", "not delete: all but the newest per key is lost"),
        ("interactions", replace(LOG, config=None), 1, "ok", "4 partitions"),
        ("interactions", LOG, 3, "warning", "one copy on 3 brokers"),
        ("interactions", replace(LOG, replicas=3, in_sync=2), 3, "warning", "1 of 3 copies not in step"),
        ("interactions", replace(LOG, replicas=3, in_sync=0), 3, "problem", "nothing can be written"),
    ],
)
def test_a_topic_is_told_by_the_worst_that_is_wrong_with_it(topic, facts, brokers, level, words):
    """Missing, wrongly kept, not writable, or with too few copies."""
    finding = cluster.check_topic(SPECS[topic], facts, brokers)
    assert finding.level == level
    assert words in str(finding)


@pytest.mark.parametrize(
    ("retention", "level"), [("-1", "ok"), ("604800000", "ok"), ("3600000", "warning"), ("60000", "problem")]
)
def test_interactions_must_be_kept_for_longer_than_an_updater_is_away(retention, level):
    """Shorter than the snapshots reach back is a problem, shorter than a day a warning."""
    facts = replace(LOG, config={"retention.ms": retention})
    assert cluster.check_retention("interactions", facts, UpdaterSettings()).level == level


def test_records_from_the_future_tell_of_a_wrong_clock():
    """Within what workers tolerate nothing is said; beyond, the worst topic is named."""
    near, far = replace(LOG, ahead_ms=900), replace(LOG, ahead_ms=61_000)
    assert cluster.check_clock({"a": near}, 1_000).level == "ok"
    finding = cluster.check_clock({"a": near, "b": far}, 1_000)
    assert (finding.level, "b are dated 61 s ahead" in finding.text) == ("warning", True)


def test_what_is_keyed_by_user_should_be_divided_alike():
    """Requests, interactions and user states; other topics may differ."""
    alike = {
        "impression-requests": LOG,
        "interactions": LOG,
        "user-states": TABLE,
        "items": replace(TABLE, partitions=1),
    }
    assert cluster.check_partitions(TOPICS, alike).level == "ok"
    finding = cluster.check_partitions(TOPICS, alike | {"interactions": replace(LOG, partitions=8)})
    assert finding.level == "warning"
    assert "interactions has 8" in finding.text


def test_the_updater_that_reads_partition_0_leads():
    """The others stand by; without one states grow old."""
    election = GroupFacts([member("second", 1, 2), member("first", 0)], {0: 99})
    finding = cluster.check_updaters("g", election, GroupFacts([], {0: 1, 3: 2}), "interactions")
    assert finding.level == "ok"
    assert "first on 10.0.0.7 leads, 1 standing by, 3 interactions" in finding.text
    assert cluster.check_updaters("g", GroupFacts([]), None, "interactions").level == "problem"
    assert "none leads" in cluster.check_updaters("g", GroupFacts([member("x")]), None, "interactions").text


def test_workers_are_counted_against_the_partitions():
    """None is a warning, and so are more than can have work; a broker that does not tell is no fault."""
    assert cluster.check_workers("g", GroupFacts([], {0: 7}), LOG).level == "warning"
    assert "7 requests wait" in cluster.check_workers("g", GroupFacts([], {0: 7}), LOG).text
    assert cluster.check_workers("g", GroupFacts([member("a")] * 4), LOG).level == "ok"
    assert "1 idle" in cluster.check_workers("g", GroupFacts([member("a")] * 5), LOG).text
    assert cluster.check_workers("g", GroupFacts(None), LOG).level == "ok"


def test_without_states_a_worker_starts_with_no_users():
    """Each empty table is named with what to do."""
    facts = {"items": TABLE, "user-states": replace(TABLE, records=0), "item-states": TABLE}
    findings = list(cluster.check_states(TOPICS, facts))
    assert [finding.level for finding in findings] == ["ok", "warning", "ok"]
    assert "0 users" in findings[1].text
    assert "exitstream load" in findings[1].advice


def test_dead_letters_that_wait_are_a_warning():
    """With the command that shows them."""
    assert cluster.check_dead_letters("items", 0).level == "ok"
    assert "dead-letters list --topic items" in str(cluster.check_dead_letters("items", 2))


def test_the_embedded_broker_is_for_trying_out():
    """A warning; a real one is told with its size."""
    assert cluster.check_broker(replace(HEALTHY, is_embedded=True), "localhost:9092").level == "warning"
    assert "3 brokers, Kafka 4" in cluster.check_broker(replace(HEALTHY, brokers=3), "k:9092").text


def test_bundles_must_load_and_agree():
    """The error is passed on; two versions are a problem, as states are made with one and read with the other."""
    broken = BundleFacts("b", "bundle.json is missing")
    assert machine.check_bundle("worker", BUNDLE).level == "ok"
    assert machine.check_bundle("updater", broken).level == "problem"
    assert "updater.bundle" in machine.check_bundle("updater", broken).advice
    assert machine.check_versions(BUNDLE, BUNDLE).level == "ok"
    assert machine.check_versions(BUNDLE, replace(BUNDLE, version="v2")).level == "problem"


def test_memory_is_held_against_model_and_tables():
    """Rows of users and items come on top of what the bundle takes."""
    assert machine.check_memory(BUNDLE, 0, 1_100_000_000).level == "ok"
    assert machine.check_memory(BUNDLE, 1_000_000, 1_100_000_000).level == "problem"
    assert machine.check_memory(BUNDLE, 0, None).level == "ok"


def test_threads_need_cpus():
    """More threads than CPUs, or less than one CPU, are warnings."""
    assert machine.check_cpus(2.0, None).level == "ok"
    assert machine.check_cpus(2.0, 4).level == "warning"
    assert machine.check_cpus(0.5, None).level == "warning"

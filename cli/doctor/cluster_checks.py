"""Checks of brokers, topics and consumer groups. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cli.doctor.findings import Finding
from graph_updater.graph.shard import WHOLE, Shard
from graph_updater.settings import UpdaterSettings
from programs.topics import TopicSettings
from runtime.kafka import ClusterFacts, GroupFacts, TopicFacts
from runtime.records import TopicPartition
from runtime.topic_specs import TopicSpec

_DAY_MS = 86_400_000


def check_broker(facts: ClusterFacts, address: str) -> Finding:
    """That it answers, and what it is."""
    if facts.is_embedded:
        return Finding(
            "warning", "broker", f"{address} is the embedded one", "It keeps 5 MB per partition: use Kafka for more"
        )
    what = f"{address} answers; {facts.brokers} broker{'s' if facts.brokers > 1 else ''}"
    return Finding("ok", "broker", what + (f", {facts.generation}" if facts.generation else ""))


def check_topic(spec: TopicSpec, facts: TopicFacts | None, brokers: int) -> Finding:
    """One topic: the worst that is wrong with it."""
    about = f"topic {spec.name}"
    if facts is None:
        return Finding("problem", about, "missing, or not shown to this user", "Run `exitstream topics create`")
    config = facts.config or {}
    needed = int(config.get("min.insync.replicas", 1))
    if facts.in_sync < needed:
        text = f"{facts.in_sync} copies in step, {needed} needed: nothing can be written"
        return Finding("problem", about, text, "Look for a broker that is down")
    wanted, policy = spec.config["cleanup.policy"], config.get("cleanup.policy")
    if policy is not None and ("compact" in policy) != (wanted == "compact"):
        loses = "states and titles are deleted by age" if wanted == "compact" else "all but the newest per key is lost"
        advice = (
            f"Set it with Kafka's `kafka-configs.sh --alter --topic {spec.name} --add-config cleanup.policy={wanted}`"
        )
        return Finding("problem", about, f"cleanup.policy is {policy}, not {wanted}: {loses}", advice)
    if facts.in_sync < facts.replicas:
        text = f"{facts.replicas - facts.in_sync} of {facts.replicas} copies not in step"
        return Finding("warning", about, text, "Look for a broker that is down or slow")
    if brokers > 1 and facts.replicas == 1:
        advice = (
            "Add copies with Kafka's `kafka-reassign-partitions.sh`; topics.replication_factor counts for new topics"
        )
        return Finding("warning", about, f"one copy on {brokers} brokers: lost with its broker", advice)
    return Finding("ok", about, f"{_partitions(facts)}, {wanted}")


def check_retention(topic: str, facts: TopicFacts, settings: UpdaterSettings) -> Finding:
    """That interactions are kept for longer than an updater may be away."""
    about = f"retention of {topic}"
    told = (facts.config or {}).get("retention.ms")
    if told is None:
        return Finding("ok", about, "not told by this broker")
    retention_ms = int(told)
    needed_ms = settings.updater.snapshot_interval_s * 1_000 * settings.updater.snapshots_kept
    advice = "Raise retention.ms: an updater reads from its last snapshot on, and without one everything that is kept"
    if 0 <= retention_ms < needed_ms:
        text = f"{retention_ms / 1000:.0f} s, less than the {needed_ms / 1000:.0f} s between the kept snapshots"
        return Finding("problem", about, text, advice)
    if 0 <= retention_ms < _DAY_MS:
        text = f"{retention_ms / 3_600_000:.1f} h: an updater that is away for longer loses events"
        return Finding("warning", about, text, advice)
    return Finding("ok", about, "forever" if retention_ms < 0 else f"{retention_ms / _DAY_MS:.1f} days")


def check_clock(topics: Mapping[str, TopicFacts], tolerated_ms: float) -> Finding:
    """That no record is dated ahead of this machine's clock."""
    ahead = {name: facts.ahead_ms for name, facts in topics.items() if facts.ahead_ms > tolerated_ms}
    if not ahead:
        return Finding("ok", "clocks", "no record is dated ahead of this machine")
    worst = max(ahead, key=lambda name: ahead[name])
    text = f"records of {worst} are dated {ahead[worst] / 1000:.0f} s ahead of this machine"
    return Finding("warning", "clocks", text, "Set this machine, the brokers and the producers by NTP")


def check_partitions(topics: TopicSettings, facts: Mapping[str, TopicFacts]) -> Finding:
    """That what is keyed by user is divided alike."""
    names = (topics.impression_requests, topics.interactions, topics.user_states)
    counts = {name: facts[name].partitions for name in names if name in facts}
    if len(set(counts.values())) <= 1:
        return Finding("ok", "partitions", "the topics keyed by user have the same number")
    text = ", ".join(f"{name} has {count}" for name, count in counts.items())
    return Finding(
        "warning", "partitions", text, "Give them the same number, so that a user's records stay in the same partition"
    )


def check_workers(group: str, facts: GroupFacts | None, requests: TopicFacts | None) -> Finding:
    """That workers run, are not more than there are partitions, and keep up."""
    about = f"workers ({group})"
    if facts is None or facts.members is None or requests is None:
        return Finding("ok", about, "nothing told of the group")
    count = len(facts.members)
    if not count:
        return Finding("warning", about, f"none is running; {facts.lag:,} requests wait", "Start `exitstream worker`")
    text = f"{count} running, {facts.lag:,} requests not answered yet"
    if count > requests.partitions:
        idle = count - requests.partitions
        return Finding(
            "warning", about, f"{text}; {idle} idle", "Add partitions to the requests, or stop the idle ones"
        )
    return Finding("ok", about, text)


def check_updaters(
    group: str, election: GroupFacts | None, publishing: GroupFacts | None, interactions: str, shard: Shard = WHOLE
) -> Finding:
    """That an updater leads.

    Args:
        group: of the updaters.
        election: its members are the updaters.
        publishing: its offsets are what has been published.
        interactions: the topic whose partition 0 makes its reader the leader.
        shard: whose users they have.
    """
    about = f"updater ({group})"
    if election is None or election.members is None:
        return Finding("ok", about, "nothing told of the group")
    leading = TopicPartition(interactions, 0)
    leader = next((member for member in election.members if leading in member.partitions), None)
    if leader is None:
        found = "none is running" if not election.members else "none leads yet"
        return Finding("problem", about, f"{found}: states grow old", "Start `exitstream updater`, or look at its log")
    lags = {} if publishing is None else publishing.lags
    left = sum(lag for partition, lag in lags.items() if shard.owns(partition))
    text = f"{leader} leads, {len(election.members) - 1} standing by, {left:,} interactions not published yet"
    if len(election.members) == 1:
        return Finding("ok", about, text, "A second one would take over within seconds")
    return Finding("ok", about, text)


def check_states(topics: TopicSettings, facts: Mapping[str, TopicFacts]) -> Iterator[Finding]:
    """That a worker would start with users and items."""
    for name, what in ((topics.items, "titles"), (topics.user_states, "users"), (topics.item_states, "items")):
        if name not in facts:
            continue
        about = f"records of {name}"
        if facts[name].records:
            yield Finding("ok", about, f"at most {facts[name].records:,} to load")
        else:
            advice = "Run `exitstream load --data DIR` while an updater runs"
            yield Finding("warning", about, f"none: a worker would start with 0 {what}", advice)


def check_dead_letters(source: str, waiting: int) -> Finding:
    """That nothing refused waits for somebody."""
    about = f"dead letters of {source}"
    if not waiting:
        return Finding("ok", about, "none waiting")
    advice = f"Look at `exitstream dead-letters list --topic {source}`; replay them once the cause is mended"
    return Finding("warning", about, f"{waiting:,} waiting", advice)


def _partitions(facts: TopicFacts) -> str:
    copies = "one copy" if facts.replicas == 1 else f"{facts.replicas} copies"
    return f"{facts.partitions} partition{'s' if facts.partitions > 1 else ''}, {copies}"

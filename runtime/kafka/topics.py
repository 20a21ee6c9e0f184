"""Creates missing topics and reports how the others differ. Never deletes or changes a topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, TopicAlreadyExistsError, for_code

from runtime.errors import TopicMissing, TopicsNotCreated
from runtime.kafka.connection import connection_arguments, probe
from runtime.kafka.translation import translated
from runtime.settings import KafkaSettings
from runtime.topic_specs import TopicSpec

_APPEARS_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What `create_missing_topics` found and did.

    Attributes:
        created: names of the topics made now.
        present: names of those that were there.
        differences: one line for each deviation from the specification; none was changed.
    """

    created: tuple[str, ...]
    present: tuple[str, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and the topics asked for.

    Attributes:
        id: the cluster's own; offsets count only there. Empty where a broker does not tell.
        partitions: how many each topic has.
        is_embedded: whether it is librdkafka's mock cluster, which differs from Kafka in more than size.
    """

    id: str
    partitions: dict[str, int]
    is_embedded: bool


async def create_missing_topics(settings: KafkaSettings, specs: Sequence[TopicSpec]) -> TopicReport:
    """Creates the missing topics and reports how the existing ones differ.

    The embedded broker has no such request; it creates every topic that is asked about, with its own settings, which
    the differences show.

    Raises:
        BrokerUnreachable: if there is no connection.
        TopicsNotCreated: if the broker refuses; those before in the list may have been made.
    """
    await probe(settings)
    async with admin_client(settings) as admin:
        before = await _partition_counts(admin)
        missing = [spec for spec in specs if spec.name not in before]
        if is_embedded_broker(admin):
            await _partition_counts(admin, [spec.name for spec in missing])
        else:
            await _create(admin, missing)
        counts = await _wait_for(admin, [spec.name for spec in specs])
        differences = await _differences(admin, specs, counts)
    created = {spec.name for spec in missing}
    return TopicReport(
        created=tuple(spec.name for spec in missing),
        present=tuple(spec.name for spec in specs if spec.name not in created),
        differences=tuple(differences),
    )


async def require_topics(settings: KafkaSettings, topics: Sequence[str]) -> Cluster:
    """Checks that the topics exist.

    All topics are listed instead of asking for these: asking makes many brokers create what is missing, with one
    partition and without compaction.

    Raises:
        TopicMissing: names all that are missing.
        BrokerUnreachable: if there is no connection.
    """
    await probe(settings)
    async with admin_client(settings) as admin:
        counts = await _partition_counts(admin)
        cluster_id = (await admin.describe_cluster())["cluster_id"] or ""
        is_embedded = is_embedded_broker(admin)
    missing = [name for name in topics if name not in counts]
    if missing:
        raise TopicMissing(
            f"{settings.bootstrap_servers} has no topic {', '.join(missing)}, or does not show it to this user; "
            "make it with `exitstream topics create`, or grant Describe on it"
        )
    return Cluster(cluster_id, {name: counts[name] for name in topics}, is_embedded)


@asynccontextmanager
async def admin_client(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. What it raises leaves as a `BrokerError`."""
    admin = AIOKafkaAdminClient(**connection_arguments(settings))
    try:
        with translated(f"looking at the topics of {settings.bootstrap_servers}"):
            await admin.start()
            yield admin
    finally:
        await asyncio.wait_for(admin.close(), settings.stop_timeout_s)


def is_embedded_broker(admin: AIOKafkaAdminClient) -> bool:
    """Librdkafka's mock cluster names no controller, which is the one to ask for new topics; Kafka always does."""
    return admin._client.cluster.controller is None  # noqa: SLF001 - aiokafka offers no other way to learn it


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str] | None = None) -> dict[str, int]:
    described = await admin.describe_topics(names)
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[TopicSpec]) -> None:
    if not missing:
        return
    wanted = [
        NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.config))
        for spec in missing
    ]
    response = await admin.create_topics(wanted)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise TopicsNotCreated(f"{name}: {message[0] if message and message[0] else error.__name__}")


async def _wait_for(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Partition counts once every topic has appeared: brokers learn of new topics a moment after their creation."""
    give_up_at = asyncio.get_running_loop().time() + _APPEARS_WITHIN_S
    while True:
        counts = await _partition_counts(admin)
        missing = [name for name in names if not counts.get(name)]
        if not missing:
            return counts
        if asyncio.get_running_loop().time() > give_up_at:
            raise TopicsNotCreated(f"{', '.join(missing)} did not appear within {_APPEARS_WITHIN_S:.0f} s")
        await asyncio.sleep(0.05)


async def _differences(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], counts: dict[str, int]) -> list[str]:
    configs = await topic_configs(admin, [spec.name for spec in specs])
    found = []
    for spec in specs:
        if counts[spec.name] != spec.partitions:
            found.append(f"{spec.name}: {counts[spec.name]} partitions, not {spec.partitions}")
        if configs is None:
            continue
        actual = configs[spec.name]
        found.extend(
            f"{spec.name}: {key} is {actual.get(key)}, not {value}"
            for key, value in spec.config.items()
            if actual.get(key) != value
        )
    if configs is None:
        found.append("this broker tells nothing of retention or compaction")
    return found


async def topic_configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]] | None:
    """The broker's configuration per topic, or None if it knows no request for it."""
    try:
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    except IncompatibleBrokerVersion:
        return None
    resources: list[Any] = [resource for response in responses for resource in response.resources]
    return {resource[3]: {entry[0]: entry[1] for entry in resource[4]} for resource in resources}

"""Gathers what the checks need. Nothing is written and no group is joined."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

from cli.dead_letters.reading import DeadLetterTopic, Stranger
from cli.doctor.machine_checks import BundleFacts
from graph_updater.publication.standby import election_group
from graph_updater.settings import UpdaterSettings
from models.bundle import Bundle
from models.bundle_files import GraphPart
from models.bundle_store import resolve
from models.golden_check import check_golden
from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.errors import BundleError
from runtime.kafka import ClusterFacts, survey
from runtime.process.memory import resident_memory
from runtime.settings import KafkaSettings
from worker.settings import WorkerSettings


def worker_bundle(address: str) -> BundleFacts:
    """The bundle, found, loaded and checked as a worker does it."""
    try:
        folder = resolve(address)
        bundle = Bundle.load(folder)
        check_golden(bundle)
    except BundleError as error:
        return BundleFacts(address, str(error))
    return BundleFacts(
        address,
        version=bundle.version,
        bytes=_size(folder),
        embedding_dim=bundle.graph.dim,
        resident_bytes=resident_memory(),
        history_length=bundle.limits.history_length,
    )


def updater_bundle(address: str) -> BundleFacts:
    """The part of the bundle that an updater loads."""
    try:
        folder = resolve(address)
        part = GraphPart.load(folder)
    except BundleError as error:
        return BundleFacts(address, str(error))
    return BundleFacts(address, "", part.version, _size(folder), part.graph.dim)


async def cluster(worker: WorkerSettings, updater: UpdaterSettings) -> ClusterFacts:
    """Brokers, topics, and the groups of workers and updaters.

    Raises:
        BrokerError: there is no connection, or this user may not ask.
    """
    topics = worker.topics
    groups = {
        worker.group: topics.impression_requests,
        **dict.fromkeys(updater.updater.groups, topics.interactions),
        **dict.fromkeys(map(election_group, updater.updater.groups), topics.interactions),
    }
    return await survey(worker.kafka, {spec.name for spec in topics.specs()}, groups, SystemClock())


async def waiting_letters(kafka: KafkaSettings, topics: TopicSettings, facts: ClusterFacts) -> Mapping[str, int]:
    """Per input, the dead letters that were not replayed.

    Raises:
        BrokerError: the topics cannot be read.
    """
    waiting = {}
    for source in topics.inputs:
        name = topics.dead_letter(source)
        if name in facts.topics:
            topic = DeadLetterTopic(kafka, name, source)
            waiting[source] = await _waiting(topic) if facts.topics[name].records else 0
    return waiting


async def _waiting(topic: DeadLetterTopic) -> int:
    replayed, count = await topic.replayed(), 0
    async with aclosing(topic.letters()) as letters:
        async for letter in letters:
            count += isinstance(letter, Stranger) or letter.origin not in replayed
    return count


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

"""The report of `exitstream doctor`: a line for each check, or JSON; an error if there is a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from cli.dead_letters.describing import escaped
from cli.doctor import cluster_checks, facts, machine_checks
from cli.doctor.findings import Finding
from graph_updater.publication.standby import election_group
from graph_updater.settings import UpdaterSettings
from graph_updater.settings import load as load_updater
from runtime.errors import BrokerError, ExitstreamError
from runtime.kafka import ClusterFacts
from runtime.observability.telemetry import configure_logging
from runtime.process.cpus import available_cpus
from runtime.process.memory import available_memory
from runtime.settings import TelemetrySettings
from worker.settings import WorkerSettings
from worker.settings import load as load_worker


class ProblemsFound(ExitstreamError):
    """Something keeps the installation from working; the report says what."""


def run(config: Path | None, *, as_json: bool) -> None:
    """Look at everything, print what was found.

    Raises:
        ProblemsFound: there is at least one problem.
        SettingsError: the settings themselves cannot be read.
    """
    configure_logging(TelemetrySettings(log_level="error"), "doctor")
    worker, updater = load_worker(config), load_updater(config)
    findings = examine(worker, updater)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(escaped(str(finding)))
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        raise ProblemsFound(f"{problems} problem{'s' if problems > 1 else ''} found")


def examine(worker: WorkerSettings, updater: UpdaterSettings) -> list[Finding]:
    """Everything that the doctor looks at. A broker that does not answer leaves the rest to be looked at."""
    serving, updating = facts.worker_bundle(worker.worker.bundle), facts.updater_bundle(updater.updater.bundle)
    findings, states = asyncio.run(_kafka(worker, updater))
    return [
        *findings,
        machine_checks.check_bundle("worker", serving),
        machine_checks.check_bundle("updater", updating),
        machine_checks.check_versions(serving, updating),
        machine_checks.check_memory(serving, states, available_memory()),
        machine_checks.check_cpus(available_cpus(), worker.worker.threads),
    ]


async def _kafka(worker: WorkerSettings, updater: UpdaterSettings) -> tuple[Sequence[Finding], int]:
    """The findings about Kafka, and how many states a worker would load."""
    try:
        cluster = await facts.cluster(worker, updater)
        waiting = await facts.waiting_letters(worker.kafka, worker.topics, cluster)
    except BrokerError as error:
        return [Finding("problem", "broker", str(error), "Nothing else about Kafka could be looked at")], 0
    names = (worker.topics.user_states, worker.topics.item_states)
    states = sum(cluster.topics[name].records for name in names if name in cluster.topics)
    return list(check_kafka(cluster, waiting, worker, updater)), states


def check_kafka(
    cluster: ClusterFacts, waiting: Mapping[str, int], worker: WorkerSettings, updater: UpdaterSettings
) -> Iterator[Finding]:
    """All checks of Kafka, in the order in which one would mend what they find."""
    topics, found = worker.topics, cluster.topics
    yield cluster_checks.check_broker(cluster, worker.kafka.bootstrap_servers)
    yield cluster_checks.check_clock(found, worker.worker.max_clock_skew_ms)
    for spec in topics.specs():
        if spec.name == topics.item_parts and spec.name not in found and updater.updater.shards == 1:
            continue  # made by a release that knew no shards; nobody needs it
        yield cluster_checks.check_topic(spec, found.get(spec.name), cluster.brokers)
    if topics.interactions in found:
        yield cluster_checks.check_retention(topics.interactions, found[topics.interactions], updater)
    yield cluster_checks.check_partitions(topics, found)
    yield from cluster_checks.check_states(topics, found)
    for group, shard in updater.updater.groups.items():
        election, publishing = cluster.groups.get(election_group(group)), cluster.groups.get(group)
        yield cluster_checks.check_updaters(group, election, publishing, topics.interactions, shard)
    group = worker.group
    requests = found.get(topics.impression_requests)
    yield cluster_checks.check_workers(group, cluster.groups.get(group), requests)
    for source, count in waiting.items():
        yield cluster_checks.check_dead_letters(source, count)

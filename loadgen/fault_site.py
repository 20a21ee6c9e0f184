"""Where faults are put in: brokers, and programs with time-outs so short that a fault of seconds exceeds all of them.

Two groups of workers read the same requests: one delivers at least once, the other exactly once, each to an output of
its own. So every fault and every request tries both modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadgen.kafka_cluster import KafkaCluster
from loadgen.processes import Program
from loadgen.traffic import Destination
from programs.topics import TopicSettings
from runtime.delivery.exactly_once import LOST_TRANSACTIONS
from runtime.kafka import create_missing_topics
from runtime.settings import DeliveryMode, KafkaSettings

MODES: Final[tuple[DeliveryMode, ...]] = ("at_least_once", "exactly_once")
SESSION_TIMEOUT_MS: Final = 6_000
LONGER_THAN_ANY_TIMEOUT_S: Final = 10.0
"""Longer than a running program waits for anything; one that starts waits a minute for its broker."""
_QUICK: Final[Mapping[str, str]] = {
    "EXITSTREAM_KAFKA__SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
    "EXITSTREAM_KAFKA__REQUEST_TIMEOUT_MS": "4000",
    "EXITSTREAM_KAFKA__CONNECT_TIMEOUT_S": "60",
    "EXITSTREAM_KAFKA__TRANSACTION_TIMEOUT_MS": "8000",
    "EXITSTREAM_KAFKA__COMMIT_INTERVAL_MS": "100",
    "EXITSTREAM_KAFKA__REVOCATION_LIMIT_S": "2",
    "EXITSTREAM_KAFKA__FETCH_MAX_WAIT_MS": "50",
    "EXITSTREAM_KAFKA__STOP_TIMEOUT_S": "3",
    "EXITSTREAM_TELEMETRY__DRAIN_LIMIT_S": "10",
    "EXITSTREAM_WORKER__THREADS": "1",
    "EXITSTREAM_WORKER__REQUEST_LOG": "off",
}


def transactions_lost(logs: Path) -> int:
    """How often a worker has said that a broker took back what it had confirmed (docs/decisions/exactly-once-lanes.md).
    Parts of such a transaction may have stayed: the answers in it may come twice, also exactly once.

    Args:
        logs: folder of the programs' logs.
    """
    return sum(log.read_text(errors="replace").count(LOST_TRANSACTIONS) for log in logs.glob("exactly_once-*"))


@dataclass(frozen=True)
class FaultSite:
    """One installation to be disturbed.

    Attributes:
        cluster: its brokers.
        bundle: folder of the model.
        folder: for snapshots.
        topics: the names of the topics, as the mode `at_least_once` uses them.
        more: further settings of the programs, as environment variables.
    """

    cluster: KafkaCluster
    bundle: Path
    folder: Path
    topics: TopicSettings
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def kafka(self) -> KafkaSettings:
        """How those reach Kafka who measure: directly."""
        return KafkaSettings(
            bootstrap_servers=self.cluster.bootstrap_servers, connect_timeout_s=30.0, fetch_max_wait_ms=50
        )

    @property
    def destination(self) -> Destination:
        """Where load goes and where its answers are read."""
        return Destination(self.kafka, self.topics, {mode: self.topics_of(mode).ctr_scores for mode in MODES})

    def topics_of(self, mode: DeliveryMode) -> TopicSettings:
        """The names of the topics of one mode's workers: they share the inputs, not what they write."""
        if mode == "at_least_once":
            return self.topics
        return self.topics.model_copy(
            update={
                "ctr_scores": f"{self.topics.ctr_scores}-once",
                "dead_letter_suffix": f"{self.topics.dead_letter_suffix}-once",
            }
        )

    async def create_topics(self) -> None:
        """Make the topics of both modes."""
        specs = {spec.name: spec for mode in MODES for spec in self.topics_of(mode).specs()}
        await create_missing_topics(self.kafka, list(specs.values()))

    def worker(self, mode: DeliveryMode, name: str) -> Program:
        """One of a mode's workers."""
        environment = {
            "EXITSTREAM_KAFKA__DELIVERY": mode,
            "EXITSTREAM_WORKER__BUNDLE": str(self.bundle),
            "EXITSTREAM_WORKER__GROUP_ID": f"{self.topics.impression_requests}-{mode}",
        }
        return Program(name, ["worker"], self._environment(self.topics_of(mode)) | environment)

    def updater(self, name: str) -> Program:
        """One of the updaters; each keeps snapshots of its own."""
        environment = {
            "EXITSTREAM_UPDATER__BUNDLE": str(self.bundle),
            "EXITSTREAM_UPDATER__GROUP_ID": f"{self.topics.interactions}-updater",
            "EXITSTREAM_UPDATER__SNAPSHOTS": str(self.folder / f"snapshots-{name}"),
        }
        return Program(name, ["updater"], self._environment(self.topics) | environment)

    def _environment(self, topics: TopicSettings) -> dict[str, str]:
        return {
            **_QUICK,
            "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.cluster.proxied_servers,
            "EXITSTREAM_TOPICS": topics.model_dump_json(),
            **self.more,
        }

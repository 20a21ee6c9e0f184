"""Apache Kafka in a container, for demos, benchmarks and tests: one broker, removed at the end of its block.

testcontainers' own Kafka class runs another distribution's scripts; this one only sets the image's variables.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Final, Self

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from loadgen.processes import free_port
from runtime.errors import ExitstreamError
from runtime.kafka import probe
from runtime.settings import KafkaSettings

DEFAULT_IMAGE: Final = "apache/kafka:4.3.1"
START_LIMIT_S: Final = 60.0
_PUBLISHED: Final = 9092


class NoDocker(ExitstreamError):
    """No Docker engine answers, or the image is not available."""


class KafkaContainer:
    """A broker on a loopback port that is chosen before the start, because the advertised listener has to name it.

    The broker also connects to itself (for transactions), so it has a second listener inside the container.

    Args:
        image: by default that of the variable KAFKA_IMAGE, else the official one.
        settings: further `KAFKA_*` variables.
        port: published port; None takes a free one. Clients find a restarted broker again at the same port.
        cpus: the processors it may use, as Docker writes them ("0-3", "1"); None for all.
    """

    def __init__(
        self,
        image: str | None = None,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        cpus: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self._image = image or os.environ.get("KAFKA_IMAGE", DEFAULT_IMAGE)
        self._settings = {**broker_settings(self.port), **(settings or {})}
        self._cpus = cpus
        self._container: DockerContainer | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients on this machine find it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
            NoDocker: there is no engine or no such image.
            BrokerUnreachable: it does not answer in time.
        """
        try:
            self._container = DockerContainer(self._image).with_envs(**self._settings)
            # Not with_bind_ports, which publishes on every address of the machine.
            self._container.ports[f"{_PUBLISHED}/tcp"] = ("127.0.0.1", self.port)
            if self._cpus is not None:
                self._container.with_kwargs(cpuset_cpus=self._cpus)
            self._container.start()
        except DockerException as error:
            raise NoDocker(f"{self._image} cannot be started: {error}; is Docker running here?") from error
        asyncio.run(probe(KafkaSettings(bootstrap_servers=self.bootstrap_servers, connect_timeout_s=START_LIMIT_S)))

    def stop(self) -> None:
        """Remove it."""
        if self._container is not None:
            container, self._container = self._container, None
            container.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def broker_settings(port: int) -> dict[str, str]:
    """Broker and controller in one. Setting any variable disables the image's defaults, so all needed ones are here."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "EXT://:9092,INT://:9094,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"EXT://127.0.0.1:{port},INT://localhost:9094",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "EXT:PLAINTEXT,INT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }

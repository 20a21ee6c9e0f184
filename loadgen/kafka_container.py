"""Apache Kafka in a container, for demos, benchmarks and tests: one broker, removed at the end of its block. While it
runs it can be paused, restarted or killed, to see what that does to its clients.

testcontainers' own Kafka class runs another distribution's scripts; this one only sets the image's variables.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping
from typing import Any, Final, Self

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


class ToolFailed(ExitstreamError):
    """One of Kafka's own commands failed. The message holds what it said."""


class KafkaContainer:
    """A broker on a loopback port that is chosen before the start, because the advertised listener has to name it.

    The broker also connects to itself (for transactions), so it has a second listener inside the container.

    Args:
        image: by default that of the variable KAFKA_IMAGE, else the official one.
        settings: further `KAFKA_*` variables.
        port: published port; None takes a free one. Clients find a restarted broker again at the same port.
        cpus: the processors it may use, as Docker writes them ("0-3", "1"); None for all.
        published: further ports, inside to published on loopback.
        network: a Docker network to join, where other brokers find it.
        name: the container's name, also in that network; None lets Docker choose one.
    """

    def __init__(
        self,
        image: str | None = None,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        cpus: str | None = None,
        published: Mapping[int, int] | None = None,
        network: str | None = None,
        name: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self._published = {_PUBLISHED: self.port, **(published or {})}
        self._docker = {"cpuset_cpus": cpus, "network": network}
        self._name = name
        self._image = image or os.environ.get("KAFKA_IMAGE", DEFAULT_IMAGE)
        self._settings = {**broker_settings(self.port), **(settings or {})}
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
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start it without waiting: one of several brokers answers only once the others run too.

        Raises:
            NoDocker: there is no engine or no such image.
        """
        try:
            self._container = DockerContainer(self._image).with_envs(**self._settings)
            # Not with_bind_ports, which publishes on every address of the machine.
            for inside, port in self._published.items():
                self._container.ports[f"{inside}/tcp"] = ("127.0.0.1", port)
            if self._name is not None:
                self._container.with_name(self._name)
            self._container.with_kwargs(**{key: value for key, value in self._docker.items() if value is not None})
            self._container.start()
        except DockerException as error:
            raise NoDocker(f"{self._image} cannot be started: {error}; is Docker running here?") from error

    def wait_until_it_answers(self) -> None:
        """Return once clients get an answer.

        Raises:
            BrokerUnreachable: it does not answer in time.
        """
        asyncio.run(probe(KafkaSettings(bootstrap_servers=self.bootstrap_servers, connect_timeout_s=START_LIMIT_S)))

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._running.pause()

    def resume(self) -> None:
        """Let a paused one go on."""
        self._running.unpause()

    def kill(self) -> None:
        """End it as a crash would; its data stays."""
        self._running.kill()

    def restart(self) -> None:
        """Stop it in order if it runs, start it again with its data, and return once it answers."""
        self._running.restart(timeout=10)
        self.wait_until_it_answers()

    def run_tool(self, name: str, *arguments: str, file: str = "") -> str:
        """One of Kafka's own commands, such as `kafka-topics`, against this broker; what it printed.

        Args:
            name: of the command, without `.sh`.
            arguments: its arguments.
            file: content of `/tmp/arguments`, for what a command wants to read from a file.

        Raises:
            ToolFailed: it ended with another status than 0.
        """
        words = [f"/opt/kafka/bin/{name}.sh", "--bootstrap-server", "localhost:9094", *arguments]
        command = ["sh", "-c", f"echo {shlex.quote(file)} >/tmp/arguments && exec {shlex.join(words)}"]
        status, output = self._running.exec_run(command)
        if status:
            raise ToolFailed(f"{name} {' '.join(arguments)}: {output.decode(errors='replace').strip()}")
        return str(output.decode())

    @property
    def _running(self) -> Any:  # noqa: ANN401 - the docker package has no types
        if self._container is None:
            raise NoDocker("the broker has not been started")
        return self._container.get_wrapped_container()

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
        # Few partitions of the inner topics: a restarted broker opens all of them before it answers.
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }

"""Brokers to be disturbed: one or three of them, with a network to the programs that can be cut.

Each broker has two published listeners. Whoever measures uses `bootstrap_servers`, a direct way. The programs that are
put to the test use `proxied_servers`, and their way leads through proxies.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final, Self

import docker
from docker.errors import DockerException

from loadgen.kafka_container import KafkaContainer, NoDocker
from loadgen.processes import free_port
from loadgen.tcp_proxy import TcpProxy

_PROXIED: Final = 9095
_CLUSTER_ID: Final = "ZmF1bHRzLW9uLXB1cnBvcw"


class KafkaCluster:
    """Brokers in containers on a network of their own, removed at the end of the block.

    With three brokers every topic that asks for three replicas survives the loss of one.

    Args:
        size: number of brokers.

    Attributes:
        brokers: their containers, to be paused, killed or restarted.
    """

    def __init__(self, size: int = 1) -> None:
        self._network = f"exitstream-{free_port()}"
        self._proxies = [TcpProxy(free_port()) for _ in range(size)]
        self.brokers = [self._broker(number, size) for number in range(1, size + 1)]
        self._stack = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        """The direct way to all brokers."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    @property
    def proxied_servers(self) -> str:
        """The way that can be cut."""
        return ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies)

    def cut(self) -> None:
        """Let nothing through the proxies."""
        for proxy in self._proxies:
            proxy.cut()

    def mend(self) -> None:
        """Let everything through again."""
        for proxy in self._proxies:
            proxy.mend()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                client = docker.from_env()
                stack.callback(client.close)
                network = client.networks.create(self._network)
            except DockerException as error:
                raise NoDocker(f"no network for the brokers can be made: {error}; is Docker running here?") from error
            stack.callback(network.remove)
            for broker in self.brokers:
                stack.callback(broker.stop)
                broker.launch()
            for broker in self.brokers:
                broker.wait_until_it_answers()
            for proxy in self._proxies:
                stack.enter_context(proxy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _broker(self, number: int, size: int) -> KafkaContainer:
        port, proxy = free_port(), self._proxies[number - 1]
        name = f"{self._network}-{number}"
        replicas, in_sync = str(size), str(max(1, size - 1))
        voters = ",".join(f"{other}@{self._network}-{other}:9093" for other in range(1, size + 1))
        return KafkaContainer(
            port=port,
            settings={
                "CLUSTER_ID": _CLUSTER_ID,
                "KAFKA_NODE_ID": str(number),
                "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
                "KAFKA_LISTENERS": f"EXT://:9092,INT://:9094,PROXIED://:{_PROXIED},CONTROLLER://:9093",
                "KAFKA_ADVERTISED_LISTENERS": (
                    f"EXT://127.0.0.1:{port},INT://{name}:9094,PROXIED://127.0.0.1:{proxy.port}"
                ),
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": (
                    "EXT:PLAINTEXT,INT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
                "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": replicas,
                "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": replicas,
                "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": in_sync,
                # Small segments, so that topics are compacted within a run: a restarted worker reads all that is left.
                "KAFKA_LOG_SEGMENT_BYTES": str(8 * 1_048_576),
                "KAFKA_LOG_CLEANER_BACKOFF_MS": "5000",
            },
            published={_PROXIED: proxy.target_port},
            network=self._network,
            name=name,
        )

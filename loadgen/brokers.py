"""A broker by name: one inside this process, one in a container, or one that already runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def open_broker(name: str, cpus: str | None = None) -> Iterator[str]:
    """The bootstrap address of a broker, started if it has to be, and stopped at the end of the block if so.

    Args:
        name: `embedded`, `docker`, or host:port of a running Kafka.
        cpus: the processors that a container may use, as Docker writes them ("0-3", "1"); None for all.

    Raises:
        NoDocker: a container was asked for and none can be started.
        BrokerUnreachable: the container's broker does not answer in time.
    """
    if name == "embedded":
        from runtime.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - an optional extra

        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap_servers
    elif name == "docker":
        from loadgen.kafka_container import KafkaContainer  # noqa: PLC0415 - an optional extra

        with KafkaContainer(cpus=cpus) as container:
            yield container.bootstrap_servers
    else:
        yield name

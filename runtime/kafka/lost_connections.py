"""Lets a connection that the broker has closed be lost, instead of being a fault that ends the program.

Between the end of a connection and the moment when aiokafka learns of it, aiokafka may still write to it. asyncio's own
transports then drop the bytes or raise OSError, which aiokafka expects; uvloop's raise RuntimeError, which goes through
all of aiokafka as if its code were wrong (aiokafka's issue 1038, open in version 0.14). A broker that restarts at the
wrong moment ended a worker so.

Such a write counts as one to a node that is not ready: nothing was sent, and that is the error after which every part
of aiokafka tries again. Its producer looks for a coordinator once only where a connection "is lost".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import NodeNotReadyError


def lose_closed_connections() -> None:
    """Mends every connection of this process, those of aiokafka's own clients included. Once is enough."""
    for name in ("send", "_send_sasl_token"):
        method = getattr(AIOKafkaConnection, name)
        if not hasattr(method, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _losing(method))


def _losing(write: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(write)
    def lost_if_closed(connection: AIOKafkaConnection, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - aiokafka's own
        try:
            return write(connection, *args, **more)
        except RuntimeError as error:
            if type(error) is not RuntimeError or not _has_ended(connection):  # aiokafka's own, or a fault
                raise
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise NodeNotReadyError(f"{connection.host}:{connection.port} closed the connection: {error}") from error

    return lost_if_closed


def _has_ended(connection: AIOKafkaConnection) -> bool:
    writer = connection._writer  # noqa: SLF001 - nothing public leads to the transport
    return writer is not None and writer.transport.is_closing()

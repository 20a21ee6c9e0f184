"""Ids of topics (KIP-516): a topic deleted and made again has the same name, but another id, and offsets of its own.

The client library speaks an older version of the request that tells them, so the newer one is described here.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from runtime.kafka.connection import connection_arguments
from runtime.kafka.translation import translated
from runtime.settings import KafkaSettings

_ID_BYTES = 16


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(_ID_BYTES)


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        names: list[tuple[bytes, str, dict[int, bytes]]] = [(bytes(_ID_BYTES), name, {}) for name in self._topics]
        return request_struct_class(names, False, False, {})


async def topic_ids(settings: KafkaSettings, topics: Sequence[str]) -> dict[str, str]:
    """The id of each of these topics that there is; none from a broker that does not tell (before Kafka 3.1).

    Raises:
        BrokerError: if the broker cannot be asked.
    """
    admin = AIOKafkaAdminClient(**connection_arguments(settings))
    try:
        with translated(f"asking for the ids of {', '.join(topics)}"):
            await admin.start()
            client: Any = admin._client  # noqa: SLF001 - aiokafka offers no other way to send a request of ours
            answer = await client.send(client.get_random_node(), _MetadataRequest(topics))
    except RuntimeError:  # the client library's, for a broker that does not know this version of the request
        return {}
    finally:
        await admin.close()
    return {
        topic[1]: str(uuid.UUID(bytes=topic[2])) for topic in answer.topics if topic[0] == 0 and topic[2].strip(b"\0")
    }

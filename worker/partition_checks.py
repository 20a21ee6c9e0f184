"""Whether requests and users' states lie in partitions of the same number, asked before a worker begins."""

from __future__ import annotations

from typing import Final

from programs.partition_checks import require_in_place, require_same_number
from runtime.kafka import require_topics
from runtime.records import Record
from schemas.codec import MessageDecoder
from schemas.messages import ImpressionRequest
from worker.settings import WorkerSettings

OTHERWISE: Final = 'set worker.tables.users to "all"'


async def count_partitions(settings: WorkerSettings) -> int:
    """The number of partitions of the requests, which is that of the users' states.

    Raises:
        SettingsError: the numbers differ, or most of the newest requests lie elsewhere than their users' states.
        TopicMissing: one of the topics is not there.
        BrokerError: the broker cannot be asked.
    """
    decoder = MessageDecoder(ImpressionRequest, settings.kafka.max_record_bytes)

    def user_of(record: Record) -> str:
        return decoder.decode(record.value, record.headers).user_id

    requests, states = settings.topics.impression_requests, settings.topics.user_states
    counts = (await require_topics(settings.kafka, [requests, states])).partitions
    require_same_number(counts, OTHERWISE)
    await require_in_place(settings.kafka, requests, counts[requests], user_of, OTHERWISE)
    return counts[requests]

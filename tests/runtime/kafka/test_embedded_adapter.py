"""The adapter on the embedded broker."""

from __future__ import annotations

import pytest
from adapter_contract import AdapterContract
from brokers import TestBroker

from runtime.kafka import create_missing_topics
from runtime.topic_specs import TopicSpec


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, request.node.name[:80])


class TestEmbedded(AdapterContract):
    """Everything that any broker must do."""


async def test_the_report_says_what_the_embedded_broker_cannot_tell(broker):
    """The report says that retention and compaction could not be checked."""
    spec = TopicSpec(broker.name("compacted"), 4, config={"cleanup.policy": "compact"})
    report = await create_missing_topics(broker.settings(), [spec])
    assert report.differences == ("this broker tells nothing of retention or compaction",)

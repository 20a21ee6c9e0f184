"""The in-memory broker, for every test of deliveries that asks for it."""

from __future__ import annotations

import pytest
from memory_kafka import MemoryBroker


@pytest.fixture
def broker(monkeypatch):
    """A broker in memory, in aiokafka's place."""
    memory = MemoryBroker()
    monkeypatch.setattr("runtime.kafka.sink.AIOKafkaProducer", memory.producer)
    monkeypatch.setattr("runtime.kafka.record_sink._RENEWAL_PAUSE_S", 0.01)
    return memory

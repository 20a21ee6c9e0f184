"""A broker is named in one way by every command."""

import asyncio

import pytest

from loadgen.brokers import open_broker
from runtime.errors import BrokerError
from runtime.kafka import probe
from runtime.settings import KafkaSettings


def test_a_running_broker_is_taken_as_it_is():
    """Host and port are passed on; nothing is started."""
    with open_broker("kafka-1:9092") as bootstrap:
        assert bootstrap == "kafka-1:9092"


def test_an_embedded_broker_runs_as_long_as_its_block():
    """It answers inside the block and is gone after it."""
    with open_broker("embedded") as bootstrap:
        settings = KafkaSettings(bootstrap_servers=bootstrap, connect_timeout_s=5.0)
        asyncio.run(probe(settings))
    with pytest.raises(BrokerError):
        asyncio.run(probe(settings.model_copy(update={"connect_timeout_s": 0.5})))

"""The command on the embedded broker."""

from __future__ import annotations

import re

import pytest
from brokers import TestBroker
from dead_letter_contract import DeadLetterContract


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, re.sub(r"\W", "-", request.node.name)[:60])


class TestEmbedded(DeadLetterContract):
    """Everything that any broker must allow."""

"""The whole updater on the embedded broker."""

from __future__ import annotations

import pytest
from brokers import TestBroker
from updater_contract import UpdaterEssentials


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, request.node.name[:80])


class TestEmbedded(UpdaterEssentials):
    """What needs a broker, but no more than this one."""

"""Brokers for every test that needs one. Docker is asked for by a fixture, so that its tests mark themselves."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("adapter_contract", "brokers")


def pytest_collection_modifyitems(items):
    """Marks what needs Docker, so that it can be left out with `-m "not docker"`."""
    for item in items:
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def docker_engine():
    """Docker, or a skip that says why; with REQUIRE_DOCKER=1 a failure instead."""
    docker = pytest.importorskip("docker")
    try:
        engine = docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail(f"REQUIRE_DOCKER=1, but no Docker engine answers: {error}")
        pytest.skip(f"needs a Docker engine: {error}")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def embedded_broker():
    """The mock cluster in a process of its own, for the whole session."""
    pytest.importorskip("confluent_kafka", reason="the embedded broker needs exitstream[demo]")
    from runtime.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - only where it is asked for

    with EmbeddedBroker() as broker:
        yield broker

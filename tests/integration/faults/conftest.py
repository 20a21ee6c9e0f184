"""Brokers and programs to be disturbed, shared by the tests of this folder."""

from __future__ import annotations

import pytest
import pytest_asyncio


@pytest.fixture(scope="session")
def one_broker_cluster(docker_engine):  # noqa: ARG001 - skips where there is no Docker
    """A single broker behind a line that can be cut."""
    from loadgen.kafka_cluster import KafkaCluster  # noqa: PLC0415 - needs testcontainers, which needs Docker

    with KafkaCluster(1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def three_broker_cluster(docker_engine):  # noqa: ARG001 - skips where there is no Docker
    """Three brokers that keep every record thrice."""
    from loadgen.kafka_cluster import KafkaCluster  # noqa: PLC0415 - needs testcontainers, which needs Docker

    with KafkaCluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def lab_parts(tiny_bundle, tiny_bundle_folder, tmp_path_factory):
    """What a lab needs beside its cluster."""
    return tiny_bundle, tiny_bundle_folder, tmp_path_factory


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_broker_labs(one_broker_cluster, lab_parts):
    """Labs on the single broker, one after the other."""
    from fault_lab import Labs  # noqa: PLC0415 - needs testcontainers, which needs Docker

    async with Labs(one_broker_cluster, *lab_parts) as labs:
        yield labs


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def three_broker_labs(three_broker_cluster, lab_parts):
    """Labs on three brokers, one after the other."""
    from fault_lab import Labs  # noqa: PLC0415 - needs testcontainers, which needs Docker

    async with Labs(three_broker_cluster, *lab_parts, letters="a") as labs:
        yield labs


@pytest_asyncio.fixture(loop_scope="session")
async def lab(one_broker_labs):
    """Two workers of each mode and two updaters at work on one broker, ready to be disturbed."""
    return await one_broker_labs.ready()


@pytest_asyncio.fixture(loop_scope="session")
async def replicated_lab(three_broker_labs):
    """A worker of each mode and an updater at work on three brokers, ready to be disturbed."""
    return await three_broker_labs.ready()

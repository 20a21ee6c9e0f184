"""A state that goes over to another bundle, on the embedded broker."""

from __future__ import annotations

import numpy as np
import pytest
from brokers import TestBroker
from bundle_variants import with_other_embeddings
from updater_contract import clicks
from updater_world import EXACT, UpdaterWorld

from graph_updater.assembly import Assembly
from graph_updater.beginning import Carried, begin_again
from graph_updater.engine import EngineThread
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.batch import DeadLetter, StateBatch
from graph_updater.publication.outbox import Outbox
from graph_updater.resources import find_resources, input_topics
from models.bundle_files import GraphPart
from runtime.clock import SystemClock
from runtime.kafka import TopicFollower
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.records import OutRecord, TopicPartition
from schemas.messages import Item


@pytest.fixture
async def world(embedded_broker, request, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Topics of this test alone."""
    broker = TestBroker(embedded_broker.bootstrap_servers, request.node.name[:80])
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


async def ends(world):
    """Where the input topics end now."""
    follower = TopicFollower(world.broker.settings(), input_topics(world.settings()))
    await follower.start()
    found = await follower.end_offsets()
    await follower.stop()
    return found


async def test_a_state_goes_over_to_another_bundle(world, tiny_bundle, tmp_path):
    """Offsets, histories and counts stay; embeddings are those of a state that never had another bundle, also where
    only the catalogue's texts tell them. What comes later in the catalogue is still to be read.
    """
    await world.send(Item(item_id="i22", title="title number 3"), *clicks(60))
    carried, bundle = await carried_over(world, with_other_embeddings(tiny_bundle, -2.0), tmp_path / "other")
    reference = world.reference
    later = [f"later {number}" for number in range(16)]  # some in the same partition
    await world.send(*(Item(item_id=name, title="title number 4") for name in later))

    beginning = await begun(world, carried, bundle, is_in_range=True)

    users, items = sorted(world.users), sorted(world.items - {*later})
    state = beginning.state
    np.testing.assert_allclose(state.user_embeddings(users), reference.user_embeddings(users), atol=1e-5)
    np.testing.assert_allclose(state.item_embeddings(items), reference.item_embeddings(items), atol=1e-5)
    assert state.item_embeddings(["i22"]).any()
    assert not state.item_embeddings(later).any()
    assert histories(state, users) == histories(reference, users)
    assert beginning.offsets == carried.offsets


@pytest.mark.parametrize("is_in_range", [True, False], ids=["in range", "rebuilt"])
async def test_what_waits_to_be_published_goes_over_too(world, tiny_bundle, tmp_path, is_in_range):
    """Every state is due, ids that have left need their tombstones, and dead letters are still to be sent."""
    await world.send(*clicks(60))
    carried, bundle = await carried_over(world, with_other_embeddings(tiny_bundle, -2.0), tmp_path / "other")
    letter = DeadLetter(TopicPartition(world.topics.interactions, 0), 10**6, OutRecord("dead", b"k", b"v"))
    carried.outbox.add(StateBatch(carried.offsets, users=["gone"], dead_letters=[letter]))

    beginning = await begun(world, carried, bundle, is_in_range=is_in_range)

    users = sorted(world.users)
    assert histories(beginning.state, users) == histories(world.reference, users)
    assert beginning.outbox.space == bundle.space
    assert beginning.outbox.lacks_everything
    part = beginning.outbox.next_part(1_000)
    assert part.users == ["gone"]
    assert [one.letter.value for one in part.dead_letters] == [b"v"]


async def carried_over(world, other, folder):
    """The state of everything sent so far, and another bundle, whose states are expected from now on."""
    former, outbox = world.reference, Outbox(GraphPart.load(world.bundle_folder).space)
    other.save(folder)
    bundle = GraphPart.load(folder)
    world.expect(bundle)
    return Carried(*former.snapshot_arrays(), await ends(world), outbox), bundle


async def begun(world, carried, bundle, *, is_in_range):
    """What an updater with that bundle begins with."""
    settings, clock, readiness = world.settings(), SystemClock(), Readiness()
    assembly = Assembly(settings, clock, UpdaterMetrics(), readiness, Outages(readiness, clock), None)
    resources = await find_resources(settings, bundle)
    with EngineThread() as thread:
        sources = assembly.sources(resources)
        return await begin_again(carried, resources, EXACT, sources, thread, is_in_range=is_in_range)


def histories(state, users):
    """History and counts of each user."""
    states = [state.published.user_state(user, 0) for user in users]
    return [(one.user_id, one.recent, one.impressions, one.positives) for one in states]

"""The population that `benchmarks.scale` measures with, and that its figures fit its table."""

from __future__ import annotations

import numpy as np

from benchmarks import scale_tables, scale_updater
from benchmarks.partitions import PartitionedReplay
from benchmarks.scale_population import MOST_PAST, Population
from benchmarks.scale_table import scale
from event_data.synthetic import SyntheticSize, synthetic_log
from models.features import FEATURES
from schemas.messages import ItemState, UserState
from schemas.packed_states import PACKED_HEADERS, StateDecoder
from training.replay import Replay


def test_the_states_of_a_population_are_read():
    """Distinct users with histories by a power law, of items that are there."""
    population = Population(400, 30, dim=8, space="ours")
    users = [StateDecoder(UserState).decode(value, PACKED_HEADERS) for _, value in population.user_states()]
    items = {StateDecoder(ItemState).decode(value, PACKED_HEADERS).item_id for _, value in population.item_states()}

    lengths = np.array([len(user.recent) for user in users])
    assert len({user.user_id for user in users}) == 400
    assert len(items) == 30
    assert {past.item_id for user in users for past in user.recent} <= items
    assert (lengths.min(), lengths.max()) == (1, MOST_PAST)
    assert 0.25 < (lengths == 1).mean() < 0.5
    assert {(user.embedding.dim, user.embedding.space) for user in users} == {(8, "ours")}


def test_every_figure_finds_its_place_in_the_table():
    """A small run through the product's own code."""
    figures = {
        "users": 300,
        "mean_history": 10.0,
        "start_seconds_without_states": 1.0,
        "start_seconds": 2.0,
        "restart_seconds": 3.0,
        **scale_updater.figures(1_200, 50),
        **scale_tables.figures(Population(300, 40)),
        "full_histories": scale_tables.figures(Population(100, 40, full=True)),
    }

    assert len(scale(figures).splitlines()) == 14
    assert min(value for value in figures.values() if isinstance(value, float)) > 0


def test_a_partitioned_replay_knows_users_of_the_same_partition_alone(tiny_bundle):
    """With one partition it finds what the plain replay finds."""
    log = synthetic_log(SyntheticSize(users=40, items=30, sessions=100, shown=8))
    whole, one, many = (
        Replay.for_bundle(log.items, tiny_bundle),
        PartitionedReplay(1, log.items, tiny_bundle),
        PartitionedReplay(3, log.items, tiny_bundle),
    )
    for replay in (whole, one, many):
        replay.advance(log.interactions[:200])
    user = log.interactions[10].user_id
    asked = [item.item_id for item in log.items[:20]]

    statistics = [replay.prompt(user, asked).statistics(len(FEATURES)) for replay in (one, whole)]
    np.testing.assert_array_equal(*statistics)
    found = {
        similar.user_id for candidate in many.evidence(user, asked).candidates for similar in candidate.similar_users
    }
    assert found
    assert all(many.same_partition(user, other) for other in found)
    assert sum(len(tables.users.ids) for tables in many.of_partition) == len(one.of_partition[0].users.ids)

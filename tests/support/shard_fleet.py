"""Updaters that share the users, around a topic of parts kept in memory; and one updater that has all users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from updater_parts import TOPICS, base

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.part_intake import PartIntake
from graph_updater.state.updater_state import UpdaterState
from graph_updater.telling import Telling
from runtime.clock import ManualClock
from runtime.kafka import partition_of
from runtime.records import Record
from schemas.codec import encode, headers_for

PARTITIONS = 8
USERS = [f"u{number}" for number in range(16)]
MOST_ROUNDS = 40
HEADERS = tuple(headers_for("msgpack"))


class PartsTopic:
    """Records in order, as one partition of Kafka has them."""

    def __init__(self):
        self.records = []

    def write(self, key, value):
        """Appends a record."""
        self.records.append(Record(TOPICS.item_parts, 0, len(self.records), key.encode(), value, HEADERS))

    def latest(self):
        """What compaction would leave, without tombstones: value by key."""
        kept = {}
        for record in self.records:
            kept[record.key.decode()] = record.value
        return {key: value for key, value in kept.items() if value is not None}


class Process:
    """One updater of a shard: its state, how far it has read, and the term in which it tells, if it leads."""

    def __init__(self, fleet, number, state=None, read=0, space=""):
        self.fleet, self.number, self.space = fleet, number, space
        shard = Shard(number, fleet.shards)
        self.state = state or UpdaterState(fleet.config, base(), shard)
        self.intake = PartIntake(TOPICS.item_parts, shard, space, (len(base().alphas) - 1, base().dim), 100_000)
        self.telling = Telling(self.state.shared, 0.0, ManualClock(0))
        self.term, self.read_to, self.fed_to, self.changed = None, read, 0, []
        self.all_published = False

    def feed(self):
        """Applies what its shard's log holds beyond what it has."""
        log = self.fleet.logs[self.number]
        self.state.apply(log[self.fed_to :])
        self.state.release_idle()
        self.fed_to = len(log)

    def read(self, most=None):
        """Takes in what was told since, or so many records of it."""
        end = len(self.fleet.topic.records) if most is None else self.read_to + most
        if self.state.shared is not None:
            news, refused = self.intake.read(self.fleet.topic.records[self.read_to : end])
            assert not refused
            self.state.receive_parts(news)
        self.read_to = end

    def publish(self, *, fails=False):
        """Tells what is owed; how many parts. One that fails ends the term."""
        names = self.telling.take(self.term, all_published=self.all_published)
        self.all_published = False
        self.changed = self.state.published.take_changes().items
        if fails:
            self.term = object()
            return len(names)
        self.all_published = True
        if names:
            for name, part in self.state.shared.parts(names).items():
                value = None if part is None else encode(part)
                self.fleet.topic.write(self.state.shared.shard.key_of(name), value)
        return len(names)

    def items(self):
        """Ids that it knows."""
        return self.state._nodes.ids.items


class View:
    """A leader's states, for checks."""

    def __init__(self, process):
        self._state = process.state
        self.items = process.items()

    def item_state(self, name):
        """As it would be published."""
        return self._state.published.item_state(name, 0)

    def embedding(self, name):
        """Of an item."""
        return self._state.item_embeddings([name])[0]


class Fleet:
    """A leader per shard, each with a standby that lags behind.

    Args:
        shards: how many.
        topic: of parts, if there is one already.
        config: of the graph, where not as by default.
    """

    def __init__(self, shards, topic=None, **config):
        self.shards = shards
        self.config = GraphConfig(**{"epsilon": 0.0, "embedding_dtype": "float32", **config})
        self.topic = topic or PartsTopic()
        self.logs = [[] for _ in range(shards)]
        self.alone = UpdaterState(self.config, base())
        self.entries = []
        self.leaders = [Process(self, number) for number in range(shards)]
        self.standbys = [Process(self, number) for number in range(shards)]
        for leader in self.leaders:
            leader.term = object()

    @property
    def states(self):
        """The leaders'."""
        return [View(leader) for leader in self.leaders]

    def shard_of(self, user):
        """Where a user's interactions go."""
        return partition_of(user.encode(), PARTITIONS) % self.shards

    def users_of(self, number):
        """The users of a shard."""
        return [user for user in USERS if self.shard_of(user) == number]

    def catalogue(self, items):
        """Items that all read."""
        self.entries += items
        for one in (self.alone, *(process.state for process in (*self.leaders, *self.standbys))):
            one.apply_items(items)

    def feed(self, events):
        """Interactions, each read by its user's shard at once."""
        self.alone.apply(events)
        self.alone.release_idle()
        for event in events:
            self.logs[self.shard_of(event.user_id)].append(event)
        for leader in self.leaders:
            leader.feed()

    def expire(self, number, count):
        """The first records of a shard's log are gone."""
        del self.logs[number][:count]

    def happen(self, kind, number):
        """Something happens to a shard."""
        leader = self.leaders[number]
        if kind == "publish":
            leader.publish()
        elif kind == "fail":
            leader.publish(fails=True)
        elif kind == "read":
            leader.read()
        elif kind == "take over":
            self._lead(number, self.standbys[number])
        elif kind == "other space":
            self._lead(number, self._in_other_space(leader))
        elif kind == "restart":
            self._lead(number, self._from_snapshot(leader))
        else:
            self._lead(number, self._rebuilt(number))

    def settle(self):
        """Reads and tells until nothing is owed; how many parts were told."""
        told = 0
        for _ in range(MOST_ROUNDS):
            for leader in self.leaders:
                leader.read()
            now = sum(leader.publish() for leader in self.leaders)
            told += now
            if not now:
                return told
        raise AssertionError(f"parts still move after {MOST_ROUNDS} rounds")

    def published_items(self, number):
        """The items whose states a shard publishes when everything is to be published."""
        return self.leaders[number].state.published.take_changes(force=True).items

    def check(self):
        """Users in their shards, and items in all of them, are those of the updater that has all users."""
        for number, leader in enumerate(self.leaders):
            users = [user for user in self.users_of(number) if user in self.alone._nodes.ids.users]
            _alike(leader.state.user_embeddings(users), self.alone.user_embeddings(users))
            for user in users:
                ours, theirs = (one.published.user_state(user, 0) for one in (leader.state, self.alone))
                assert (ours.recent, ours.last_event_time_ms) == (theirs.recent, theirs.last_event_time_ms)
                assert _counts(ours) == _counts(theirs)
            items = sorted(self.alone._nodes.ids.items)
            _alike(leader.state.item_embeddings(items), self.alone.item_embeddings(items))
            for item in items:
                if item not in leader.items():  # nothing is told of an item that nothing counts for
                    assert _counts(self.alone.published.item_state(item, 0)) == (0, 0, 0)
                    continue
                ours, theirs = (one.published.item_state(item, 0) for one in (leader.state, self.alone))
                assert _counts(ours) == _counts(theirs)
                # Alone, a later time is not told: of an interaction that counts nothing, as one that came before.
                assert ours.last_event_time_ms <= theirs.last_event_time_ms

    def _lead(self, number, process):
        process.feed()
        process.read()
        process.term = object()
        self.leaders[number], self.standbys[number] = process, Process(self, number)
        self.standbys[number].state.apply_items(self.entries)

    def _from_snapshot(self, leader):
        """As a program that has published everything and begins again."""
        leader.publish()
        arrays, metadata = leader.state.snapshot_arrays()
        shard = Shard(leader.number, self.shards)
        state = UpdaterState.restore(self.config, base(), arrays, metadata, shard=shard)
        process = Process(self, leader.number, state, leader.read_to)
        process.fed_to = leader.fed_to
        return process

    def _in_other_space(self, leader):
        """As a program that goes over to a bundle with the other of two spaces."""
        leader.publish()
        space = "" if leader.space else "other"
        arrays, metadata = leader.state.snapshot_arrays()
        shard, of = Shard(leader.number, self.shards), replace(base(), space=space)
        state = UpdaterState.restore(self.config, of, arrays, metadata, of_other_space=True, shard=shard)
        process = Process(self, leader.number, state, space=space)
        process.fed_to = leader.fed_to
        return process

    def _rebuilt(self, number):
        """From the topics: what was told, then the retained interactions."""
        process = Process(self, number)
        process.state.apply_items(self.entries)
        process.read()
        process.feed()
        if process.state.shared is not None:
            process.state.shared.adopt_own_counts(are_published=False)
        return process


def _counts(state):
    return state.impressions, state.positives, state.grades


def _alike(found, expected):
    np.testing.assert_allclose(found, expected, atol=3e-5)

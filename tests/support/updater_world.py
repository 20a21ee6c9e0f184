"""An updater among its topics: in this process or as one of its own, and what it has published so far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from graph_updater.graph.base_embeddings import bundled_base
from graph_updater.graph.config import GraphConfig
from graph_updater.settings import UpdaterSection, UpdaterSettings
from graph_updater.state.updater_state import UpdaterState
from graph_updater.updater import Updater
from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.kafka import RecordSink, TopicFollower, create_missing_topics
from runtime.records import OutRecord
from runtime.settings import TelemetrySettings
from schemas.codec import encode, headers_for
from schemas.embeddings import decode_embedding
from schemas.messages import Item, ItemState, UserState
from schemas.packed_states import StateDecoder

ROOT = Path(__file__).parents[2]
EXACT = GraphConfig(epsilon=0.0, embedding_dtype="float32", publish_min_cosine=1.0 - 1e-12)
"""Every change is published, but no rounding: sums in another order differ by some 1e-7, their cosine by its square."""
ROUNDING = 1e-4
"""Relative difference of float32 sums that took thousands of changes in one by one, and all at once."""
HEADERS = tuple(headers_for("msgpack"))


class UpdaterWorld:
    """Topics of one test, everything sent to them, and the engine that was told the same without any Kafka.

    Args:
        broker: a `brokers.TestBroker`.
        bundle: a loaded bundle.
        bundle_folder: the same on disk.
        folder: for snapshots.
        topics: how the topics are made, where not as by default.
    """

    def __init__(self, broker, bundle, bundle_folder, folder, **topics):
        names = (
            "interactions",
            "items",
            "impression_requests",
            "ctr_scores",
            "user_states",
            "item_states",
            "item_parts",
        )
        self.broker = broker
        self.topics = TopicSettings(**{name: broker.name(name.replace("_", "-")) for name in names}, **topics)
        self.group_id = broker.name("group")
        self.bundle_folder = bundle_folder
        self.snapshots = folder / "snapshots"
        self.log = folder / "updater.log"
        self.reference = UpdaterState(EXACT, bundled_base(bundle.graph, bundle.text))
        self.users, self.items = set(), set()
        self.told = []
        self.published = Published(self)

    def settings(self, client_id="exitstream", **changes) -> UpdaterSettings:
        """Quick and exact. Of a group's members the one whose client id comes first in the alphabet leads."""
        quick = {
            "bundle": str(self.bundle_folder),
            "group_id": self.group_id,
            "snapshots": str(self.snapshots),
            "snapshot_interval_s": 0.3,
            "flush_ms": 20,
            "graph": EXACT,
        }
        return UpdaterSettings(
            kafka=self.broker.settings(client_id=client_id),
            topics=self.topics,
            telemetry=TelemetrySettings(http_enabled=False),
            updater=UpdaterSection(**{**quick, **changes}),
        )

    async def create(self):
        """Makes the topics and begins to watch what is published."""
        await create_missing_topics(self.broker.settings(), self.topics.specs())
        await self.published.start()

    async def send(self, *messages):
        """Writes messages (or raw bytes, as interactions) to their topics and tells the reference."""
        async with RecordSink(self.broker.settings()) as sink:
            for message in messages:
                await sink.send(self.record(message))
            await sink.flush()

    def expect(self, bundle):
        """From now on the states are to be those of another bundle, made of everything sent so far."""
        self.reference = UpdaterState(EXACT, bundled_base(bundle.graph, bundle.text))
        for message in self.told:
            self._tell(message)

    def record(self, message):
        """A message (or raw bytes, as an interaction) as a record for its topic; tells the reference."""
        self.told.append(message)
        self._tell(message)
        if isinstance(message, bytes):
            return OutRecord(self.topics.interactions, b"rubbish", message)
        self.items.add(message.item_id)
        if isinstance(message, Item):
            return OutRecord(self.topics.items, message.item_id.encode(), encode(message), HEADERS)
        self.users.add(message.user_id)
        return OutRecord(self.topics.interactions, message.user_id.encode(), encode(message), HEADERS)

    def _tell(self, message):
        if isinstance(message, Item):
            self.reference.apply_items([message])
        elif not isinstance(message, bytes):
            self.reference.apply([message])

    @contextlib.asynccontextmanager
    async def running(self, client_id="exitstream", clock=None, **changes):
        """An updater in this process, drained at the end."""
        updater = RunningUpdater(Updater(self.settings(client_id, **changes), clock or SystemClock()))
        try:
            yield updater
        finally:
            await updater.drain()

    def process(self, **changes):
        """An updater in a process of its own; what it says goes to `log`."""
        settings = self.settings(**changes)
        environment = {
            **os.environ,
            "EXITSTREAM_KAFKA": settings.kafka.model_dump_json(exclude_none=True, exclude_defaults=True),
            "EXITSTREAM_TOPICS": settings.topics.model_dump_json(),
            "EXITSTREAM_TELEMETRY": settings.telemetry.model_dump_json(),
            "EXITSTREAM_UPDATER": settings.updater.model_dump_json(),
        }
        with self.log.open("ab") as log:  # not a pipe: one that nobody reads stops the program once it is full
            return UpdaterProcess(
                subprocess.Popen(
                    [sys.executable, "-m", "graph_updater"], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            )


class RunningUpdater:
    """An updater at work beside the test."""

    def __init__(self, updater):
        self.updater = updater
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(updater.main(self._stopping))

    async def drain(self):
        """Asks it to finish and waits for that; raises what ended it."""
        self._stopping.set()
        await self._task


class UpdaterProcess:
    """A child, killed at the end whatever happens."""

    def __init__(self, child):
        self.child = child

    def kill(self):
        """As a crash would: nothing is finished."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def freeze(self):
        """As a long pause of the machine would."""
        self.child.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Ends the pause."""
        self.child.send_signal(signal.SIGCONT)

    def terminate(self):
        """Asks it to drain; its exit status."""
        self.child.terminate()
        return self.child.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait()


class Published:
    """What the updater's topics hold, kept current."""

    def __init__(self, world):
        self._world = world
        topics = world.topics
        self._decoders = {topics.user_states: StateDecoder(UserState), topics.item_states: StateDecoder(ItemState)}
        self._follower = TopicFollower(
            world.broker.settings(), [*self._decoders, *map(topics.dead_letter, (topics.interactions, topics.items))]
        )
        self.states = {topic: {} for topic in self._decoders}
        self.records = 0
        self.dead_letters = []

    async def start(self):
        """Begins at the earliest."""
        await self._follower.start()

    async def stop(self):
        """Ends."""
        await self._follower.stop()

    async def until(self, condition, limit_s=60.0):
        """Reads on until something is so."""
        async with asyncio.timeout(limit_s):
            while not condition():
                await self._read()

    def versions(self):
        """Version of each published embedding."""
        return {
            (topic, name): state.embedding.version
            for topic, states in self.states.items()
            for name, state in states.items()
            if state.embedding is not None
        }

    def spaces(self):
        """Spaces of all published embeddings."""
        embeddings = [state.embedding for states in self.states.values() for state in states.values()]
        return {embedding.space for embedding in embeddings if embedding is not None}

    async def quiet(self, seconds=0.5):
        """Reads on for a while; how many states came."""
        before = self.records
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: False, seconds)
        return self.records - before

    async def until_equal(self, limit_s=60.0):
        """Reads on until every state is the reference's."""
        try:
            await self.until(self.equals_reference, limit_s)
        except TimeoutError:
            raise AssertionError(f"not as the reference after {limit_s} s: {self.differences()[:5]}") from None

    def equals_reference(self):
        """Whether every embedding, history and count is that of the engine that was told the same."""
        return not self.differences()

    def differences(self):
        """Ids whose published state is not the reference's."""
        reference, topics = self._world.reference, self._world.topics
        users, items = sorted(self._world.users), sorted(self._world.items)
        found = [
            user
            for user, z in zip(users, reference.user_embeddings(users), strict=True)
            if not _alike(self.states[topics.user_states].get(user), reference.published.user_state(user, 0), z)
        ]
        return found + [
            item
            for item, z in zip(items, reference.item_embeddings(items), strict=True)
            if not _alike(self.states[topics.item_states].get(item), reference.published.item_state(item, 0), z)
        ]

    async def _read(self):
        for record in await self._follower.poll(timeout_ms=50):
            if record.topic not in self._decoders:
                self.dead_letters.append(record)
                continue
            self.records += 1
            key, states = record.key.decode(), self.states[record.topic]
            if record.value is None:
                states.pop(key, None)
            else:
                states[key] = self._decoders[record.topic].decode(record.value, record.headers)


def _alike(state, expected, z):
    if state is None or (state.impressions, state.positives) != (expected.impressions, expected.positives):
        return False
    if getattr(state, "recent", None) != getattr(expected, "recent", None):
        return False
    vector = np.zeros_like(z) if state.embedding is None else decode_embedding(state.embedding)
    return float(np.linalg.norm(vector - z)) <= ROUNDING * float(np.linalg.norm(z))

"""What the worker's tests share: a small tokenizer, states by hand, a worker without Kafka."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.text import Text
from runtime.clock import Clock, SystemClock
from runtime.delivery import Delivery
from runtime.kafka import RecordSource
from runtime.kafka.sink import check_size
from runtime.records import OutRecord, Record
from runtime.settings import KafkaSettings
from schemas.codec import MessageDecoder, encode
from schemas.embeddings import encode_embedding
from schemas.messages import ImpressionRequest, ImpressionScores, Item, ItemState, PastInteraction, UserState
from worker.compute import ComputeThread
from worker.engine.engine import ScoringEngine
from worker.engine.queue import StageCosts
from worker.live.figures import LiveFigures
from worker.metrics import WorkerMetrics
from worker.model import ServingModel, make_controller
from worker.observers import Observers
from worker.outcomes.live import LiveOutcomes
from worker.pipeline import Pipeline
from worker.serving import Serving
from worker.settings import WorkerSection, WorkerSettings
from worker.state_store.settings import TableSettings
from worker.state_store.tables import Tables
from worker.tracing import RequestTracing
from worker.user_partitions import UserPartitions

DIM = 4


@pytest.fixture(scope="session")
def text() -> Text:
    """A byte-level tokenizer that has seen a few titles."""
    return Text.train(["red shoes", "blue shoes", "User history: Similar: Others: Candidate: Click? yes no"], 400)


@pytest.fixture
def tables(text) -> Tables:
    """Empty tables for embeddings of four numbers."""
    return Tables(text, DIM, TableSettings(title_tokens=8), history_length=6)


@pytest.fixture(scope="session")
def user_state() -> Callable[..., UserState]:
    """Makes user states: `user_state("u", [1, 0, 0, 0], ["+a", "-b"])` clicked a, then saw b without a click."""

    def make(user_id: str, vector: Sequence[float] | None, past: Sequence[str] = (), **more) -> UserState:
        recent = [
            PastInteraction(item_id=entry[1:], event_time_ms=at, positive=entry[0] == "+", event_id=f"{user_id}-{at}")
            for at, entry in enumerate(past)
        ]
        embedding = None if vector is None else encode_embedding(np.array(vector, np.float32), "float32", 1)
        counts = {"impressions": len(recent), "positives": sum(entry.positive for entry in recent)}
        times = {"last_event_time_ms": len(recent), "published_time_ms": len(recent)}
        return UserState(**({"user_id": user_id, "embedding": embedding, "recent": recent} | counts | times | more))

    return make


@pytest.fixture(scope="session")
def item_state() -> Callable[..., ItemState]:
    """Makes item states: `item_state("a", [1, 0, 0, 0], 10, 3)` was shown ten times and clicked three times."""

    def make(item_id: str, vector: Sequence[float] | None, impressions: int = 1, positives: int = 0) -> ItemState:
        embedding = None if vector is None else encode_embedding(np.array(vector, np.float32), "float32", 1)
        return ItemState(
            item_id=item_id,
            embedding=embedding,
            impressions=impressions,
            positives=positives,
            last_event_time_ms=1,
            published_time_ms=1,
        )

    return make


class MemoryDelivery(Delivery):
    """A delivery that keeps outputs in memory: what is under test is what comes to it, not Kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings, RecordSource(settings, ["impression-requests"], "group"))
        self.outputs: list[tuple[Record, list[OutRecord]]] = []
        self.refusals = 0  # by the broker, of every record's outputs

    async def finished(self, record, outputs, on_delivered=None, alternatives=()):
        for output in outputs:
            check_size(output, self._settings)
        for _, alternative in zip(range(self.refusals), alternatives, strict=False):
            outputs = alternative
        self.outputs.append((record, list(outputs)))
        self._done(record)
        if on_delivered is not None:
            on_delivered()

    async def run(self):
        """Nothing to commit."""

    async def _settle(self, partitions):  # noqa: ARG002 - as in `Delivery`
        """Nothing to commit."""
        return True

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        return None


class Desk:
    """A worker without Kafka and without a second thread: records in, outputs out, a round at a time."""

    def __init__(
        self,
        bundle: Bundle,
        model: ServingModel,
        tables: Tables,
        max_record_bytes: int = 1_000_000,
        clock: Clock | None = None,
        costs: StageCosts | None = None,
        tracing: Callable[[Desk], RequestTracing] | None = None,
        partitions: UserPartitions | None = None,
        **worker,
    ) -> None:
        kafka = KafkaSettings(max_record_bytes=max_record_bytes, batch_bytes=1_024)
        self.settings = WorkerSettings(worker=WorkerSection(**worker), kafka=kafka)
        self.clock = clock or SystemClock()
        self.tables = tables
        self.metrics = WorkerMetrics()
        self.delivery = MemoryDelivery(self.settings.kafka)
        engine = ScoringEngine(
            bundle.model,
            bundle.calibration,
            self.settings.worker.engine,
            make_controller(bundle, self.settings.worker.controller),
            copy.deepcopy(model.engine.costs) if costs is None else costs,
            self.clock.monotonic,
        )
        self.model = replace(model, engine=engine)
        self.live = LiveFigures(self.clock.monotonic())
        self.outcomes = LiveOutcomes(self.settings.worker.outcomes, self.metrics, self.clock)
        self.serving = Serving(self.model, self.clock)
        observers = Observers([self.live.note, self.outcomes.note], tracing(self) if tracing is not None else None)
        self.pipeline = Pipeline(
            self.settings, self.serving, ComputeThread(), self.delivery, self.metrics, self.clock, observers, partitions
        )
        self.offset = 0

    def use(self, model: ServingModel) -> None:
        """Goes on with another model, as if it had begun with it."""
        self.model = model
        self.pipeline._serving = self.serving = Serving(model, self.clock)

    def record(self, value: bytes | None, headers=()) -> Record:
        """A record of the request topic, the next offset."""
        self.offset += 1
        return Record("impression-requests", 0, self.offset, b"key", value, tuple(headers), 0)

    def request(self, *item_ids: str, **changes) -> ImpressionRequest:
        """A request by user u1, made now, for these items."""
        fields = {
            "request_id": f"r{self.offset}",
            "user_id": "u1",
            "candidate_item_ids": list(item_ids),
            "created_time_ms": self.clock.wall_ms(),
            "budget_ms": 60_000,
        }
        return ImpressionRequest(**fields | changes)

    async def accept(self, *records: Record) -> None:
        """Accepts records, without working on them."""
        await self.delivery.on_assigned(frozenset({records[0].source}) - set(self.delivery._tracker._partitions))
        for record in records:
            await self.pipeline.accept(record)

    async def work(self, rounds: int = 10_000) -> None:
        """Steps until nothing is left, publishing what is answered."""
        for _ in range(rounds):
            more = self.pipeline.infer()
            await self.pipeline.publish_answered()
            if not more:
                return

    async def answer(self, request: ImpressionRequest, headers=()) -> ImpressionScores:
        """The scores of one request."""
        await self.accept(self.record(encode(request), headers))
        await self.work()
        return self.scores()[-1]

    def scores(self) -> list[ImpressionScores]:
        """All scores written so far."""
        decoder = MessageDecoder(ImpressionScores)
        outputs = [output for _, written in self.delivery.outputs for output in written]
        return [decoder.decode(output.value, output.headers) for output in outputs if output.topic == "ctr-scores"]

    def letters(self) -> list[OutRecord]:
        """All dead letters written so far."""
        outputs = [output for _, written in self.delivery.outputs for output in written]
        return [output for output in outputs if output.topic.endswith(".dead-letter")]


@pytest.fixture(scope="session")
def filled_tables(tiny_bundle, user_state, item_state) -> Tables:
    """Twenty items i0..i19 with titles, ten users u0..u9 with histories; tests leave them as they are."""
    tables = Tables(tiny_bundle.text, tiny_bundle.graph.dim)
    generator = np.random.default_rng(3)
    for number in range(20):
        tables.put_item(Item(item_id=f"i{number}", title=f"title number {number}"))
        tables.put_item_state(item_state(f"i{number}", generator.normal(size=tables.embedding_dim), 10, number % 5))
    for number in range(10):
        past = [f"{'+-'[place % 2]}i{item}" for place, item in enumerate(generator.choice(20, 6, replace=False))]
        tables.put_user_state(user_state(f"u{number}", generator.normal(size=tables.embedding_dim), past))
    return tables


@pytest.fixture(scope="session")
def serving_model(tiny_bundle, filled_tables) -> ServingModel:
    """The tiny bundle, warmed up over the filled tables."""
    settings = WorkerSection(bundle=Path("unused"))
    own = replace(tiny_bundle, model=copy.deepcopy(tiny_bundle.model))
    return ServingModel.from_bundle(own, filled_tables, settings, SystemClock().monotonic)


@pytest.fixture
async def make_desk(tiny_bundle, serving_model, filled_tables) -> Callable[..., Desk]:
    """Makes workers without Kafka; arguments are those of `[worker]` and the largest record."""
    return partial(Desk, tiny_bundle, serving_model, filled_tables)


@pytest.fixture
async def desk(make_desk) -> Desk:
    """A worker without Kafka, with the settings as they are."""
    return make_desk()

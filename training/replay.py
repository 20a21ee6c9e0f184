"""Makes examples by replaying an event log, in time order, through the code that serves.

Events are applied to the updater's state, what it would publish goes into a worker's tables, and the worker's retrieval
and prompt builder make the prompts. The log advances in ticks of a few events: first the prompts of the tick are made,
one per user, then its events are applied. So a prompt contains every event before its tick, and none of its own tick or
later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.base_embeddings import BaseEmbeddings, bundled_base
from graph_updater.graph.config import GraphConfig
from graph_updater.state.updater_state import UpdaterState
from models.bundle import Bundle
from models.evidence import Evidence
from models.features import FEATURES, GRAPH_FEATURES
from models.prompt import Prompt, PromptBuilder, PromptLimits, SoftItem
from models.prompt_template import TERSE, PromptTemplate
from models.text import Text
from schemas.messages import Interaction, Item
from schemas.packed_states import ITEM_MAGIC, USER_MAGIC
from training.clicks import is_click
from worker.retrieval import Retriever
from worker.state_store.packed_batch import PackedBatch
from worker.state_store.tables import Tables

APPLIED_AT_ONCE: Final = 4_096
"""Events applied to the state in one call."""


@dataclass(frozen=True, slots=True)
class Example:
    """One past request and its outcome."""

    prompt: Prompt
    labels: NDArray[np.float32]  # (candidates,) 1 for a click
    events: NDArray[np.int64]  # (candidates,) indices into the log

    def __len__(self) -> int:
        return len(self.labels)

    def graph_features(self) -> NDArray[np.float32]:  # (candidates, len(GRAPH_FEATURES))
        """The input of the graph score: the leading columns of each candidate's statistics."""
        return self.prompt.statistics(len(GRAPH_FEATURES))


class PastRequest(NamedTuple):
    """Who was shown what, and the outcome."""

    user_id: str
    item_ids: Sequence[str]
    labels: NDArray[np.float32]  # (candidates,) 1 for a click
    events: NDArray[np.int64]  # (candidates,) indices into the log


class Replay:
    """Updater, tables, retrieval and prompt builder in one process, without Kafka between them.

    The graph has the updater's default settings, with which no interaction expires. Idle users are kept.

    Args:
        items: the catalogue, known from the start.
        base: the trained part of the graph.
        text: the tokenizer.
        limits: how much evidence goes into a prompt, and how long histories are.
        statistics: how many of the features the model reads.
        template: the words of a prompt.
    """

    def __init__(
        self,
        items: Sequence[Item],
        base: BaseEmbeddings,
        text: Text,
        limits: PromptLimits,
        statistics: int = len(FEATURES),
        template: PromptTemplate = TERSE,
    ) -> None:
        base = replace(base, history_length=limits.history_length)
        self._state = UpdaterState(GraphConfig(), base)
        self._tables = Tables(text, base.dim, history_length=limits.history_length)
        self._retriever = Retriever(self._tables, limits)
        self._builder = PromptBuilder(text, base.dim, limits, statistics, template)
        for item in items:
            self._tables.put_item(item)
        self._state.apply_items(items)
        self._publish(0)

    @classmethod
    def for_bundle(cls, items: Sequence[Item], bundle: Bundle) -> Replay:
        """A replay whose prompts are those that a trained model reads."""
        base = bundled_base(bundle.graph, bundle.text)
        return cls(items, base, bundle.text, bundle.limits, bundle.model.config.statistics, bundle.template)

    @property
    def tables(self) -> Tables:
        """The tables of a worker at this moment."""
        return self._tables

    def evidence(self, user_id: str, item_ids: Sequence[str]) -> Evidence:
        """What retrieval finds for a request at this moment."""
        return self._retriever.retrieve(user_id, item_ids)

    def prompt(self, user_id: str, item_ids: Sequence[str]) -> Prompt:
        """The prompt of a request at this moment."""
        return self.prompt_of(self.evidence(user_id, item_ids))

    def prompt_of(self, evidence: Evidence) -> Prompt:
        """The prompt that tells of this evidence."""
        return self._builder.build(evidence)

    def soft_items(self, evidence: Evidence) -> list[list[SoftItem]]:
        """What the item tokens of that prompt stand for: those of the prefix, then those of each suffix."""
        return self._builder.soft_items(evidence)

    def advance(self, interactions: Sequence[Interaction]) -> None:
        """Apply events."""
        for start in range(0, len(interactions), APPLIED_AT_ONCE):
            self._state.apply(interactions[start : start + APPLIED_AT_ONCE])
        if interactions:
            self._publish(interactions[-1].event_time_ms)

    def _publish(self, now_ms: int) -> None:
        """Copy what changed from the updater's state into the worker's tables."""
        published = self._state.published
        changes = published.take_changes()
        for names, packed, magic, put in (
            (changes.users, published.packed_users, USER_MAGIC, self._tables.put_user_states),
            (changes.items, published.packed_items, ITEM_MAGIC, self._tables.put_item_states),
        ):
            states = [state for state in packed(names, now_ms) if state is not None]
            put(PackedBatch(states, magic), [name.encode() for name in names])


def replay_examples(
    replay: Replay, interactions: Sequence[Interaction], tick_lengths: Iterator[int], first_event: int = 0
) -> Iterator[Example]:
    """The examples of events, in time order; at the end all of them are applied to the replay.

    Args:
        replay: with all earlier events applied.
        interactions: the events.
        tick_lengths: number of events per tick. With 1, every prompt is as of its event.
        first_event: index in the log of the first event.
    """
    for asked in replay_requests(replay, interactions, tick_lengths, first_event):
        yield Example(replay.prompt(asked.user_id, asked.item_ids), asked.labels, asked.events)


def replay_requests(
    replay: Replay, interactions: Sequence[Interaction], tick_lengths: Iterator[int], first_event: int = 0
) -> Iterator[PastRequest]:
    """As `replay_examples`, without prompts: each request is given while the replay is as of its time."""
    start = 0
    while start < len(interactions):
        tick = interactions[start : start + next(tick_lengths)]
        for places in _by_user(tick):
            yield PastRequest(
                user_id=tick[places[0]].user_id,
                item_ids=[tick[place].item_id for place in places],
                labels=np.array([is_click(tick[place]) for place in places], np.float32),
                events=np.array(places, np.int64) + (first_event + start),
            )
        replay.advance(tick)
        start += len(tick)


def _by_user(tick: Sequence[Interaction]) -> list[list[int]]:
    """Indices into the tick, grouped by user, each group in order of time."""
    places: dict[str, list[int]] = {}
    for place, interaction in enumerate(tick):
        places.setdefault(interaction.user_id, []).append(place)
    return list(places.values())

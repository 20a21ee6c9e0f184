"""Examples made by replaying an event log, in time order, through the very code that serves.

The updater's state machine takes the events in, what it would publish goes into a worker's tables, and the worker's
retrieval and prompt builder make a prompt of it. The log advances in ticks of a few events: first all requests of the
tick are made, one per user, then its events are applied. So a prompt knows every event before its tick and none of its
own or later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.state.updater_state import UpdaterState
from models.evidence import Evidence
from models.features import GRAPH_FEATURES
from models.prompt import Prompt, PromptBuilder, PromptLimits, SoftKind, TokenSequence
from models.text import Text
from schemas.messages import Interaction, Item
from training.clicks import is_click
from worker.retrieval import Retriever
from worker.tables import Tables

APPLIED_AT_ONCE: Final = 4_096
"""Events that are given to the state machine in one call where no request lies between them."""


@dataclass(frozen=True, slots=True)
class Example:
    """One request of the past and what came of it."""

    prompt: Prompt
    labels: NDArray[np.float32]  # (candidates,) 1 for a click
    events: NDArray[np.int64]  # (candidates,) indices into the log

    def __len__(self) -> int:
        return len(self.labels)

    def graph_features(self) -> NDArray[np.float32]:  # (candidates, len(GRAPH_FEATURES))
        """What the graph score reads: the leading columns of each candidate's statistics."""
        return np.stack([statistics_of(suffix)[: len(GRAPH_FEATURES)] for suffix in self.prompt.suffixes])


def statistics_of(suffix: TokenSequence) -> NDArray[np.float32]:
    """The numbers of a suffix's statistics token, the only one of its kind."""
    numbers: NDArray[np.float32] = suffix.soft_values[suffix.soft_kinds == SoftKind.STATISTICS][0]
    return numbers


class Replay:
    """Updater, tables, retrieval and prompt builder in one process, without Kafka between them.

    Args:
        items: the catalogue, known from the start.
        base: what the graph starts from.
        text: the tokenizer.
        limits: how much evidence a prompt shows.
        config: settings of the updater's engine.
    """

    def __init__(
        self,
        items: Sequence[Item],
        base: BaseEmbeddings,
        text: Text,
        limits: PromptLimits,
        config: GraphConfig | None = None,
    ) -> None:
        self._state = UpdaterState(config or GraphConfig(), base)
        self._tables = Tables(text, base.dim)
        self._retriever = Retriever(self._tables, limits)
        self._builder = PromptBuilder(text, base.dim, limits)
        for item in items:
            self._tables.put_item(item)
        self._state.apply_items(items)
        self._publish(0)

    @property
    def tables(self) -> Tables:
        """What a worker would know now."""
        return self._tables

    def evidence(self, user_id: str, item_ids: Sequence[str]) -> Evidence:
        """What would be found for a request of this moment."""
        return self._retriever.retrieve(user_id, item_ids)

    def prompt(self, user_id: str, item_ids: Sequence[str]) -> Prompt:
        """The prompt of a request of this moment."""
        return self._builder.build(self.evidence(user_id, item_ids))

    def advance(self, interactions: Sequence[Interaction]) -> None:
        """Let events happen."""
        for start in range(0, len(interactions), APPLIED_AT_ONCE):
            self._state.apply(interactions[start : start + APPLIED_AT_ONCE])
        if interactions:
            self._publish(interactions[-1].event_time_ms)

    def _publish(self, now_ms: int) -> None:
        """Carry what changed from the updater's state into the worker's tables."""
        changes = self._state.published.take_changes()
        for user_id in changes.users:
            self._tables.put_user_state(self._state.published.user_state(user_id, now_ms))
        for item_id in changes.items:
            self._tables.put_item_state(self._state.published.item_state(item_id, now_ms))
        for user_id in changes.expired_users:
            self._tables.remove_user(user_id)
        for item_id in changes.expired_items:
            self._tables.remove_item_state(item_id)


def replay_examples(
    replay: Replay, interactions: Sequence[Interaction], tick_lengths: Iterator[int], first_event: int = 0
) -> Iterator[Example]:
    """The examples of events, in time order; the replay has taken all of them in at the end.

    Args:
        replay: has taken in everything before them.
        interactions: the events.
        tick_lengths: how many events go by between two looks at the world. 1 makes every request as of its event.
        first_event: index in the log of the first of them.
    """
    start = 0
    while start < len(interactions):
        tick = interactions[start : start + next(tick_lengths)]
        for places in _by_user(tick):
            yield Example(
                prompt=replay.prompt(tick[places[0]].user_id, [tick[place].item_id for place in places]),
                labels=np.array([is_click(tick[place]) for place in places], np.float32),
                events=np.array(places, np.int64) + (first_event + start),
            )
        replay.advance(tick)
        start += len(tick)


def _by_user(tick: Sequence[Interaction]) -> list[list[int]]:
    """Places in the tick, grouped by user, each group in order of time."""
    places: dict[str, list[int]] = {}
    for place, interaction in enumerate(tick):
        places.setdefault(interaction.user_id, []).append(place)
    return list(places.values())

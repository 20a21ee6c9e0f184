"""Takes over what the compacted topics hold, so that a rebuilt state is never poorer than the published one.

The interactions' topic keeps some days; the states in the compacted topics know of all. So what a rebuild has made of
the retained interactions is completed by the published states:

    counts       the larger of the two
    history      interactions of both, the last K
    edges        of an interaction that only the published history knows: weight 1, if it was positive
    embeddings   the published ones count as published: only what has turned since is published again, and all of
                 another bundle's space
    versions     go on from the published ones

Approximate are edges that are older than both the retained interactions and their user's history: they are missing; and
what a published history does not tell: weights other than 1, and whether a user disliked what he did not click.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.state.identities import ITEM
from graph_updater.state.nodes import Nodes
from graph_updater.state.published import PublishedStates
from schemas.embeddings import decode_embedding
from schemas.messages import FULL_GRADE, Interaction, ItemState, UserState, grades_of

_COUNTS: Final = ("impressions", "positives", "grades", "last_event_ms")
Counts = dict[str, NDArray[np.int64]]


class Adoption:
    """One rebuild's. Nobody may take changes, release nodes or apply interactions until `finish`.

    Args:
        nodes: the tables.
        users: the nodes of users, new ones with their trained x⁽⁰⁾.
        apply: takes interactions in.
        published: knows what is to be published.
        adds_items: whether the published counts of items are to be added to those that are there, which are what
            others have counted since. Else the larger ones count.
    """

    def __init__(
        self,
        nodes: Nodes,
        users: Callable[[list[str]], NDArray[np.int32]],
        apply: Callable[[Sequence[Interaction]], None],
        published: PublishedStates,
        *,
        adds_items: bool = False,
    ) -> None:
        self._adds_items = adds_items
        self._nodes = nodes
        self._users = users
        self._apply = apply
        self._published = published
        columns = nodes.facts.columns()
        self._rebuilt: Counts = {name: columns[name].copy() for name in _COUNTS}  # type: ignore[misc]  # they are int64
        self._seen: list[tuple[int, ...]] = []  # node, counts, differs, version

    def take_users(self, states: Sequence[UserState]) -> None:
        """Takes published users over, each once."""
        nodes = self._users([state.user_id for state in states]).tolist()
        missing = []
        for node, state in zip(nodes, states, strict=True):
            ours = {entry.event_id for entry in self._nodes.histories.entries(node)}
            self._note(node, state, knows_more=bool(ours - {past.event_id for past in state.recent}))
            missing += _missing_entries(state, ours)
        self._apply(missing)

    def take_items(self, states: Sequence[ItemState]) -> None:
        """Takes published items over, each once. Of several shards one takes over an item with its counts: what is more
        than the others have counted becomes its own.
        """
        states = [state for state in states if self._nodes.shard.publishes(state.item_id)]
        nodes, _ = self._nodes.items([state.item_id for state in states])
        for node, state in zip(nodes.tolist(), states, strict=True):
            self._note(node, state, knows_more=False)

    def finish(self) -> None:
        """Settles counts and versions, and which states differ from the published ones."""
        count = len(self._nodes)
        rows = np.array(self._seen, np.int64).reshape(-1, 3 + len(_COUNTS))
        at, facts = rows[:, 0], self._nodes.facts
        differs = np.ones(count, np.bool_)
        differs[at] = rows[:, -2]
        for column, name in enumerate(_COUNTS, start=1):
            rebuilt = np.zeros(count, np.int64)
            known = min(count, self._rebuilt[name].size)
            rebuilt[:known] = self._rebuilt[name][:known]
            differs[at] |= rebuilt[at] > rows[:, column]
            both = np.maximum(rebuilt[at], rows[:, column])
            if self._adds_items and name != "last_event_ms":
                of_items = facts.kind[at] == ITEM
                both[of_items] = (rebuilt[at] + rows[:, column])[of_items]
            rebuilt[at] = both
            facts.columns()[name][:count] = rebuilt
        facts.version[at] = np.maximum(facts.version[at], rows[:, -1])
        absent = np.ones(count, np.bool_)
        absent[at] = False
        facts.published[:count][absent] = 0
        facts.changed[:count] = differs & (facts.kind[:count] > 0)
        self._published.touch(self._nodes.all_nodes())

    def _note(self, node: int, state: UserState | ItemState, *, knows_more: bool) -> None:
        embedding = state.embedding
        version = 1 if embedding is None else embedding.version
        is_foreign = embedding is not None and (
            embedding.space != self._published.space or embedding.dim != self._nodes.dim
        )
        differs = knows_more or is_foreign
        counts = (state.impressions, state.positives, grades_of(state), state.last_event_time_ms)
        self._seen.append((node, *counts, differs, version))
        if embedding is None or is_foreign:
            self._nodes.facts.published[node] = 0
        else:
            self._nodes.facts.published[node] = decode_embedding(embedding)


def _missing_entries(state: UserState, ours: set[str]) -> list[Interaction]:
    """The interactions of a published history that are not among ours."""
    return [
        Interaction(
            event_id=past.event_id,
            user_id=state.user_id,
            item_id=past.item_id,
            kind="click" if past.positive else "impression",
            event_time_ms=past.event_time_ms,
            positive=True if past.positive else None,
            grade=None if past.grade is None else past.grade / FULL_GRADE,
        )
        for past in state.recent
        if past.event_id not in ours
    ]

"""The updater's state machine: takes interactions and catalogue entries in and keeps embeddings fresh. Knows no Kafka.

The running updater and the replay that makes training examples drive the same object, so that training and serving
compute every feature with the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import WHOLE, Shard
from graph_updater.state.adoption import Adoption
from graph_updater.state.edge_feed import EdgeFeed, Waiting
from graph_updater.state.histories import (
    DROP_EDGE,
    KEEP_EDGE,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    WITHDRAWN,
    Entries,
    pack_event_ids,
)
from graph_updater.state.idle import IdleNodes, idle_limit_ms
from graph_updater.state.nodes import MemoryReport, Nodes
from graph_updater.state.published import PublishedStates
from graph_updater.state.shared_items import PartRecord, SharedItems
from graph_updater.state.snapshot import SnapshotCopy, StateCopy, in_space_of, restore_nodes
from graph_updater.state.stream_time import UNKNOWN_MS, StreamTime
from schemas.messages import FULL_GRADE, LEAST_WEIGHT, Interaction, Item

_PATIENCE_SHARE: Final = 8
"""Events later than this share of the shortest limit say that stream time may have run ahead."""


class UpdaterState:
    """Everything the updater knows, in memory.

    Args:
        config: settings of the graph.
        base: base embeddings and layer weights, from the model bundle.
        shard: whose users it knows, where several updaters share them.

    Attributes:
        published: what is to be published, and the states that are.
        shared: what it exchanges with the other shards; None without any.
    """

    def __init__(self, config: GraphConfig, base: BaseEmbeddings, shard: Shard = WHOLE) -> None:
        self._config = config
        self._base = base
        self._trained_items = frozenset(base.item_ids)
        self._trained_users = {name: row for row, name in enumerate(base.user_ids)}
        self._shard = shard
        self._nodes = Nodes(config, base.dim, base.alphas, base.history_length, shard)
        self._keep_time()
        self._copy: SnapshotCopy | None = None
        self._add_trained_items()
        self.published = PublishedStates(config, self._nodes, base.space)
        self.shared = self._shared()

    def apply(self, interactions: Sequence[Interaction]) -> None:
        """Takes interactions in, in order of arrival; repeated and late ones end in the same state."""
        if not interactions:
            return
        users = self._users([i.user_id for i in interactions])
        items, _ = self._nodes.items([i.item_id for i in interactions])
        judgements = [self._judge(i) for i in interactions]
        batch = Entries(
            item=items,
            time=np.array([i.event_time_ms for i in interactions], np.int64),
            judgement=np.array(judgements, np.uint8),
            grade=np.array(list(map(_grade, interactions, judgements)), np.uint8),
            event=pack_event_ids([i.event_id for i in interactions]),
        )
        verdicts = self._nodes.histories.record(users, batch)
        facts = self._nodes.facts
        for nodes in (users, items):
            np.add.at(facts.impressions, nodes, verdicts.counted)
            np.add.at(facts.positives, nodes, verdicts.gained)
            np.add.at(facts.grades, nodes, verdicts.graded)
            np.maximum.at(facts.last_event_ms, nodes, batch.time)
            facts.changed[nodes] = True
            self.published.touch(nodes)
        if self.shared is not None:
            self.shared.note(items)
        self._time.observe(batch.time)
        weights = np.array([i.weight for i in interactions], np.float32).clip(LEAST_WEIGHT, None)
        weights[verdicts.edge == DROP_EDGE] = 0.0
        acts = verdicts.edge != KEEP_EDGE
        self._edges.apply(EdgeOps(users[acts], items[acts], weights[acts], batch.time[acts]))

    def apply_items(self, items: Sequence[Item]) -> None:
        """Takes catalogue entries in. Items without a trained x⁽⁰⁾ get theirs from their text."""
        nodes, _ = self._nodes.items([item.item_id for item in items])
        self._nodes.facts.in_catalogue[nodes] = True
        self.published.touch(nodes)
        if self._base.text_map is None:
            return
        mapped = {
            node: self._base.text_map(item.title, item.attributes)
            for node, item in zip(nodes.tolist(), items, strict=True)
            if item.item_id not in self._trained_items
        }
        if mapped:
            self._nodes.propagation.set_base(np.array(list(mapped), np.int32), np.stack(list(mapped.values())))

    def withdraw_items(self, item_ids: Iterable[str]) -> None:
        """Takes items out of the catalogue; each expires when its interactions have."""
        table = self._nodes.ids.items
        nodes = np.array([table[name] for name in item_ids if name in table], np.int32)
        self._nodes.facts.in_catalogue[nodes] = False
        self.published.touch(nodes)

    def receive_parts(self, records: Sequence[PartRecord]) -> None:
        """Takes in what shards have told of items. Only for one of several."""
        if records and self.shared is not None:
            self.published.touch(self.shared.receive(records))

    def release_idle(self) -> None:
        """Forgets users without interactions for too long, and the items that only they kept; see `state.idle`."""
        items = self._idle.release(self.published)
        if self.shared is not None:
            self.shared.forget(items)

    def keep_histories_of(self, length: int) -> None:
        """For a bundle of the same graph that asks for histories of another length: longer ones are cut to their newest
        interactions, shorter ones grow from now on. Nothing is published for it: workers cut what they read.
        """
        self._nodes.keep_histories_of(length)

    def repair(self, count: int) -> None:
        """Recomputes the sums of the next `count` nodes; called regularly, it keeps rounding errors from adding up."""
        self._nodes.propagation.repair(count)

    def user_embeddings(self, user_ids: Sequence[str]) -> NDArray[np.float32]:
        """The users' present embeddings: (users, d); zero for unknown users."""
        return self._embeddings(self._nodes.ids.users, user_ids)

    def item_embeddings(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """The items' present embeddings: (items, d); zero for unknown items."""
        return self._embeddings(self._nodes.ids.items, item_ids)

    def memory_report(self) -> MemoryReport:
        """Bytes held, in total and per edge, node and past interaction."""
        return self._nodes.memory_report()

    def adoption(self, *, is_new_shard: bool = False) -> Adoption:
        """Begins to take over what the compacted topics hold, after a rebuild.

        Args:
            is_new_shard: whether the items that this shard publishes were last published before there were shards, or
                with another number of them: what the others have told counts on top.
        """
        return Adoption(self._nodes, self._users, self._apply_again, self.published, adds_items=is_new_shard)

    def start_snapshot(self) -> SnapshotCopy:
        """Starts a copy that is made step by step between micro-batches; it replaces one begun before."""
        self._copy = SnapshotCopy(self._nodes, self._base.alphas, self.published)
        return self._copy

    def finish_snapshot(self) -> StateCopy:
        """The present state, from the copy started last."""
        copy, self._copy = self._copy or self.start_snapshot(), None
        finished = copy.finish()
        finished.metadata.update(stream_time=self._time.to_list(), waiting=self._edges.waiting)
        return finished

    def snapshot_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The whole state as arrays and metadata, copied in one go."""
        self.start_snapshot()
        return self.finish_snapshot().merge()

    @classmethod
    def restore(
        cls,
        config: GraphConfig,
        base: BaseEmbeddings,
        arrays: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
        *,
        of_other_space: bool = False,
        shard: Shard = WHOLE,
    ) -> UpdaterState:
        """The state that a snapshot holds; embeddings are recomputed exactly from its edges.

        What had been taken for publication counts as published.

        Args:
            config: settings of the graph.
            base: from the model bundle.
            arrays: of the snapshot.
            metadata: of the snapshot.
            of_other_space: whether the snapshot was made with another bundle's base embeddings. Then everything but
                embeddings is taken from it, and nothing counts as published. The catalogue has to be read again: x⁽⁰⁾
                of items that the bundle does not know comes from their text. So have the shards' parts.
            shard: whose users they are.

        Raises:
            IncompatibleSnapshot: the snapshot was made for another model or by another version.
        """
        state = cls(config, base, shard)
        if of_other_space:
            arrays, metadata = in_space_of(base, arrays, metadata)
        state._nodes = restore_nodes(config, base, arrays, metadata, shard)
        if of_other_space:
            trained = state._trained_nodes()
            state._nodes.propagation.tables.base[trained] = base.item_vectors
            state._nodes.facts.changed[state._nodes.all_nodes()] = True
        state._nodes.propagation.recompute()
        state._keep_time(metadata.get("stream_time", ()), metadata.get("waiting", ()))
        state.published = PublishedStates(
            config,
            state._nodes,
            base.space,
            expired_users=metadata["expired_users"],
            expired_items=metadata["expired_items"],
        )
        state.shared = state._shared()
        return state

    def _shared(self) -> SharedItems | None:
        sharing = self._nodes.sharing
        return None if sharing is None else SharedItems(self._nodes, sharing, self._base.space)

    def _add_trained_items(self) -> None:
        """Gives the bundle's items their x⁽⁰⁾."""
        self._nodes.propagation.set_base(self._trained_nodes(), np.asarray(self._base.item_vectors, np.float32))

    def _trained_nodes(self) -> NDArray[np.int32]:
        """The nodes of the bundle's items, which are in the catalogue."""
        items, _ = self._nodes.items(self._base.item_ids)
        self._nodes.facts.in_catalogue[items] = True
        return items

    def _apply_again(self, interactions: Sequence[Interaction]) -> None:
        """Takes interactions of the past in without moving stream time, once it is known."""
        known = self._time.now_ms != UNKNOWN_MS
        time = self._time.to_list()
        self.apply(sorted(interactions, key=lambda interaction: interaction.event_time_ms))
        if known:
            self._time.restore(time)

    def _keep_time(self, stream_time: Sequence[int] = (), waiting: Iterable[Waiting] = ()) -> None:
        """Connects what depends on stream time to the tables."""
        self._time = StreamTime(idle_limit_ms(self._config) // _PATIENCE_SHARE)
        if stream_time:
            self._time.restore(stream_time)
        self._edges = EdgeFeed(self._config, self._nodes, self._time, waiting)
        self._idle = IdleNodes(self._config, self._nodes, self._edges, self._time)

    def _judge(self, interaction: Interaction) -> int:
        """What an interaction says about the pair. A mere impression or view does not revoke an earlier click."""
        if interaction.kind == "removal":
            return WITHDRAWN
        if interaction.positive is not None:
            return POSITIVE if interaction.positive else NEGATIVE
        if interaction.kind in self._config.positive_kinds:
            return POSITIVE
        return NEGATIVE if interaction.kind == "dislike" else NEUTRAL

    def _users(self, ids: list[str]) -> NDArray[np.int32]:
        """The users' nodes; a user with a trained x⁽⁰⁾ gets it on first appearance."""
        nodes, new = self._nodes.users(ids)
        names, vectors = self._nodes.ids.names, self._base.user_vectors
        trained = [(node, self._trained_users[names[node]]) for node in new if names[node] in self._trained_users]
        if trained and vectors is not None:
            known, rows = np.array(trained, np.int32).T
            self._nodes.propagation.set_base(known, np.asarray(vectors[rows], np.float32))
        return nodes

    def _embeddings(self, table: Mapping[str, int], ids: Sequence[str]) -> NDArray[np.float32]:
        nodes = np.array([table.get(name, -1) for name in ids], np.int32)
        z = np.zeros((nodes.size, self._base.dim), np.float32)
        z[nodes >= 0] = self._nodes.propagation.embeddings(nodes[nodes >= 0])
        return z


def _grade(interaction: Interaction, judgement: int) -> int:
    """How good an interaction was for the user, in whole numbers; a withdrawal has none."""
    if judgement == WITHDRAWN:
        return 0
    if interaction.grade is None:
        return FULL_GRADE if judgement == POSITIVE else 0
    return round(FULL_GRADE * interaction.grade)

"""Brings operations on edges into graph and propagation in step with stream time.

Before every batch, edges that have left the window are removed, and with decay the landmark follows the time. So the
distance between any edge and the landmark stays within some dozens of half-lives, and no stored weight overflows or
vanishes, whatever times the events have.

With decay an edge of the future would outweigh all others by powers of two. Operations further ahead than four
half-lives wait until stream time has come near. After a long silence this delays the first seven events until the
eighth confirms the new time.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.config import GraphConfig
from graph_updater.state.identities import USER
from graph_updater.state.nodes import Nodes
from graph_updater.state.stream_time import UNKNOWN_MS, StreamTime

_LEAD_HALF_LIVES: Final = 4

Waiting = tuple[int, int, int, int, float]
"""An operation that waits: time, number in order of arrival, user, item, weight."""


class EdgeFeed:
    """Applies operations on edges.

    Args:
        config: settings of the graph.
        nodes: the tables.
        time: stream time, kept by the caller.
        waiting: operations that waited when a snapshot was taken.
    """

    def __init__(self, config: GraphConfig, nodes: Nodes, time: StreamTime, waiting: Iterable[Waiting] = ()) -> None:
        self._nodes = nodes
        self._time = time
        self._half_life_ms = config.half_life_ms
        self._waiting = [(time_ms, number, user, item, weight) for time_ms, number, user, item, weight in waiting]
        self._arrived = max((number for _, number, *_ in self._waiting), default=0)

    @property
    def waiting(self) -> list[Waiting]:
        """Operations whose time has not come, for a snapshot."""
        return sorted(self._waiting)

    def apply(self, ops: EdgeOps) -> None:
        """Applies the operations that are due, after those that were waiting for this time."""
        now_ms = self._time.now_ms
        if now_ms == UNKNOWN_MS:
            return
        for removals in self._nodes.graph.expired(now_ms):
            self.change(removals)
        if self._half_life_ms:
            self._move_landmark(now_ms)
            if self._nodes.sharing is not None:
                self._nodes.sharing.follow_landmark()
            ops = self._due(ops, now_ms + _LEAD_HALF_LIVES * self._half_life_ms)
        self.change(ops)

    def change(self, ops: EdgeOps) -> None:
        """Applies operations as they are: removals, or insertions that are due."""
        if ops.user.size == 0:
            return
        changes = self._nodes.graph.apply(ops)
        self._nodes.propagation.apply(changes)
        self._nodes.mark(changes.user)  # a snapshot holds edges on the users' side only

    def _move_landmark(self, now_ms: int) -> None:
        nodes = self._nodes
        if nodes.graph.is_ahead(now_ms):
            self._take_back(now_ms + _LEAD_HALF_LIVES * self._half_life_ms)
        factor = nodes.graph.rescale_factor(now_ms)
        if factor != 1.0:
            nodes.graph.rescale(factor)
            nodes.propagation.rescale(factor)
            nodes.mark(nodes.all_nodes())

    def _take_back(self, limit_ms: int) -> None:
        """Time was set back by far: edges later than the limit leave the graph and wait again."""
        everybody = self._nodes.all_nodes()
        users = everybody[self._nodes.facts.kind[everybody] == USER]
        edges = self._nodes.graph.edges_of(users)
        original = self._nodes.graph.original_weight(edges.weight, edges.time)
        ahead = _rows(EdgeOps(edges.node, edges.neighbour, original, edges.time), edges.time > limit_ms)
        self._wait(ahead)
        self.change(ahead._replace(weight=np.zeros_like(ahead.weight)))

    def _due(self, ops: EdgeOps, limit_ms: int) -> EdgeOps:
        """The waiting operations up to that time, then the new ones; later ones begin to wait."""
        ahead = ops.time > limit_ms
        if ahead.any():
            self._wait(_rows(ops, ahead))
            ops = _rows(ops, ~ahead)
        due = []
        while self._waiting and self._waiting[0][0] <= limit_ms:
            due.append(heappop(self._waiting))
        if not due:
            return ops
        time, _, user, item, weight = zip(*due, strict=True)
        return EdgeOps(
            np.concatenate([np.array(user, np.int32), ops.user]),
            np.concatenate([np.array(item, np.int32), ops.item]),
            np.concatenate([np.array(weight, np.float32), ops.weight]),
            np.concatenate([np.array(time, np.int64), ops.time]),
        )

    def _wait(self, ops: EdgeOps) -> None:
        for user, item, weight, time in zip(*(column.tolist() for column in ops), strict=True):
            self._arrived += 1
            heappush(self._waiting, (time, self._arrived, user, item, weight))


def _rows(ops: EdgeOps, chosen: NDArray[np.bool_]) -> EdgeOps:
    """Some of the operations."""
    return EdgeOps(ops.user[chosen], ops.item[chosen], ops.weight[chosen], ops.time[chosen])

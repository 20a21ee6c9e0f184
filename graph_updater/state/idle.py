"""Forgets who has not been seen for long, so that memory follows the active users and not all there ever were."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.bipartite import effective_window
from graph_updater.graph.config import GraphConfig
from graph_updater.state.edge_feed import EdgeFeed
from graph_updater.state.identities import ITEM, USER
from graph_updater.state.nodes import Nodes
from graph_updater.state.published import PublishedStates
from graph_updater.state.stream_time import UNKNOWN_MS, StreamTime

_SLICES: Final = 256
_NO_SLICE: Final = -1


def idle_limit_ms(config: GraphConfig) -> int:
    """How long a user may be without interactions: the idle limit or the window, whichever is less; 0 for ever."""
    limits = [config.user_idle_ms, effective_window(config)]
    return min((limit for limit in limits if limit), default=0)


class IdleNodes:
    """Releases users without interactions for too long, then the items that only they kept.

    The limit is cut into 256 slices of stream time. Everybody is looked at once per slice and by its border, so that
    it costs little per event and the moment within the slice does not matter.

    Args:
        config: settings of the graph.
        nodes: the tables.
        edges: removes their edges.
        time: stream time.
    """

    def __init__(self, config: GraphConfig, nodes: Nodes, edges: EdgeFeed, time: StreamTime) -> None:
        self._limit_ms = idle_limit_ms(config)
        self._slice_ms = max(1, self._limit_ms // _SLICES)
        self._nodes = nodes
        self._edges = edges
        self._time = time
        self._looked_at = self._slice()

    def release(self, published: PublishedStates) -> list[str]:
        """Releases who is idle; `published` learns whose states need a tombstone. Returns the items of which this shard
        has told the others a part.
        """
        present = self._slice()
        if not self._limit_ms or present == self._looked_at:
            return []
        self._looked_at = present
        cutoff_ms = present * self._slice_ms - self._limit_ms
        users = self._nodes.idle_users(cutoff_ms)
        edges = self._nodes.graph.edges_of(users)
        self._edges.change(EdgeOps(edges.node, edges.neighbour, np.zeros(edges.node.size, np.float32), edges.time))
        published.expired_users += self._release(users, USER, published)
        items = self._nodes.idle_items(cutoff_ms)
        told = self._nodes.told_items(items)
        published.expired_items += self._release(items, ITEM, published)
        return told

    def _release(self, nodes: NDArray[np.int32], kind: int, published: PublishedStates) -> list[str]:
        published.touch(nodes)
        return self._nodes.release(nodes, kind)

    def _slice(self) -> int:
        now_ms = self._time.now_ms
        return _NO_SLICE if now_ms == UNKNOWN_MS else now_ms // self._slice_ms

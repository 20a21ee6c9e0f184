"""Compiles every kernel, or loads it from the cache on disk, before the first record is taken in."""

from __future__ import annotations

import numpy as np

from graph_updater.base_embeddings import BaseEmbeddings
from graph_updater.config import GraphConfig
from graph_updater.state import UpdaterState
from schemas.messages import Interaction, InteractionKind


def warm_up() -> None:
    """Takes a minute state through all it can do: some seconds the first time on a machine, then less than one."""
    base = BaseEmbeddings(["item"], np.ones((1, 2), np.float32), (0.5, 0.5))
    config = GraphConfig(window_ms=1000, half_life_ms=1000)
    state = UpdaterState(config, base)
    state.apply([_interaction("click", 1), _interaction("removal", 2), _interaction("click", 3)])
    state.repair(1)
    state.take_changes()
    state.advance_time(10_000)
    UpdaterState.restore(config, base, *state.snapshot_arrays())


def _interaction(kind: InteractionKind, time_ms: int) -> Interaction:
    return Interaction(
        event_id=f"{kind}-{time_ms}",
        user_id="user",
        item_id="item",
        kind=kind,
        event_time_ms=time_ms,
    )

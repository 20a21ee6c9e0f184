"""How fast and how exactly are embeddings kept fresh? `python -m benchmarks.graph --data FOLDER --out FILE [--drift]`.

The edges of a LightGCN split arrive in random order; the last 100,000 are timed in micro-batches of 256, and some of
them one by one. Both are compared with one recomputation of all embeddings by the faster of SciPy and torch-geometric,
whose normalised matrix is ready. All on one core, at the ε of the updater's default settings. Then a snapshot of the
complete state machine is taken while it works, and restored; and the cost of an event is measured on synthetic graphs
of growing size.

Speeds are per second of processor time of the one working thread, also for the libraries, so that other work on the
machine does not count; snapshot and restore are timed by the clock.

Keys of the JSON file:

- `epsilon`, `events_per_second` (median of three rounds, micro-batches of `batch_events`), `min_cosine`,
  `mean_relative_error`, `max_relative_error`, `within_bound`: at the shipped ε; `by_epsilon`: the same at others.
- `recompute_seconds`: one whole recomputation by each library; `recompute_fastest`: the faster library.
- `batch_seconds`, `batch_speedup`: one micro-batch, and one recomputation by the faster library divided by it.
- `single_event_seconds`, `single_event_speedup`: the same for a batch of one event.
- `state_events_per_second`, `bytes_per_edge`, `bytes_per_node`, `bytes_per_past_interaction`, `snapshot_ms`,
  `snapshot_pause_ms`, `restore_seconds`: the complete state machine.
- `by_size`: `edges`, `event_us`, `recompute_seconds` of synthetic graphs.

`--drift` instead sends ten million events through the graph and checks that errors do not add up: `epsilon`, `checks`
(`events`, `max_relative`, `mean_relative`, `min_cosine`, `within_bound` at each), and the last check's values.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from benchmarks.graph_plots import draw
from benchmarks.graph_workloads import ALPHAS, BATCH, Edges, Engine, power_law_edges, read_edges
from benchmarks.harness import exit_on_error, finish, parser
from benchmarks.recomputation import recompute_seconds
from graph_updater.engine import warm_up
from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from graph_updater.state.updater_state import UpdaterState
from runtime.errors import ExitstreamError
from runtime.snapshots import SnapshotStore
from schemas.messages import Interaction

TIMED: Final = 100_000
LOAD_BATCH: Final = 8192
SINGLE_EVENTS: Final = 5_000
"""So many of the timed events are sent one by one."""
EPSILON: Final = GraphConfig().epsilon
"""What ships."""
OTHER_EPSILONS: Final = (0.03, 0.15, 0.3)
ROUNDS: Final = 3
DRIFT_EVENTS: Final = 10_000_000
REPAIRED_PER_BATCH: Final = 16


def main() -> None:
    """Measure, draw, print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--drift", action="store_true", help="ten million events instead, errors on the way")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    try:
        edges = power_law_edges(15_000, 10_000, 300_000) if options.data is None else read_edges(options.data)
    except ExitstreamError as error:
        exit_on_error(error)
    warm_up()
    figures = measure_drift(edges.shuffled()) if options.drift else measure(edges.shuffled(), options.out)
    finish(figures, options.out)


def measure(edges: Edges, out: Path) -> dict[str, Any]:
    """All figures but drift; plots beside `out`."""
    rounds = [_run(edges, EPSILON) for _ in range(ROUNDS)]
    events_per_second = median(row["events_per_second"] for row in rounds)
    shipped = rounds[0] | {"events_per_second": events_per_second}
    by_epsilon = sorted(
        [shipped, *(_run(edges, epsilon) for epsilon in OTHER_EPSILONS)], key=lambda row: row["epsilon"]
    )
    by_size = [_cost_at(scale, EPSILON) for scale in (1, 4, 16)]
    draw(by_epsilon, by_size, out)
    return {
        **shipped,
        **_against_recomputation(edges, BATCH / events_per_second),
        **_measure_state(edges, EPSILON),
        "by_epsilon": by_epsilon,
        "by_size": by_size,
    }


def measure_drift(edges: Edges) -> dict[str, Any]:
    """Errors while ten million insertions and removals go through the graph."""
    random, engine = np.random.default_rng(1), Engine(edges, EPSILON)
    engine.feed(edges, 0, edges.user.size, LOAD_BATCH)
    present = np.ones(edges.user.size, np.bool_)
    checks, sent, clock = [_drift_row(engine, 0)], 0, edges.user.size
    while sent < DRIFT_EVENTS:
        chosen = random.choice(edges.user.size, BATCH, replace=False)
        present[chosen] ^= True
        times = np.full(BATCH, clock + sent)
        engine.change(EdgeOps(edges.user[chosen], edges.item[chosen], present[chosen].astype(np.float32), times))
        engine.propagation.repair(REPAIRED_PER_BATCH)
        sent += BATCH
        if sent // 1_000_000 > checks[-1]["events"] // 1_000_000:
            checks.append(_drift_row(engine, sent))
    return {"epsilon": EPSILON, **checks[-1], "checks": checks}


def _run(edges: Edges, epsilon: float) -> dict[str, Any]:
    """Load, time the last events, compare with the exact embeddings."""
    engine, first = Engine(edges, epsilon), edges.user.size - TIMED
    engine.feed(edges, 0, first, LOAD_BATCH)
    seconds = engine.feed(edges, first, edges.user.size)
    errors = engine.errors()
    row = {
        "events_per_second": TIMED / seconds,
        "epsilon": epsilon,
        "max_relative_error": errors.max_relative,
        "mean_relative_error": errors.mean_relative,
        "min_cosine": errors.min_cosine,
        "within_bound": errors.within_bound,
    }
    _say(" ".join(f"{name}={value:.5g}" for name, value in row.items()))
    return row


def _against_recomputation(edges: Edges, batch_seconds: float) -> dict[str, Any]:
    """One micro-batch, and one event alone, against one recomputation by the faster library."""
    engine, first = Engine(edges, EPSILON), edges.user.size - SINGLE_EVENTS
    engine.feed(edges, 0, first, LOAD_BATCH)
    single_seconds = engine.feed(edges, first, edges.user.size, batch=1) / SINGLE_EVENTS
    seconds = recompute_seconds(engine)
    fastest = min(seconds, key=lambda library: seconds[library])
    row = {
        "recompute_seconds": seconds,
        "recompute_fastest": fastest,
        "batch_events": BATCH,
        "batch_seconds": batch_seconds,
        "batch_speedup": seconds[fastest] / batch_seconds,
        "single_event_seconds": single_seconds,
        "single_event_speedup": seconds[fastest] / single_seconds,
    }
    _say(str(row))
    return row


def _cost_at(scale: int, epsilon: float) -> dict[str, Any]:
    """Microseconds per event in a synthetic graph `scale` times the smallest, after as many events to warm up."""
    edges = power_law_edges(15_000 * scale, 10_000 * scale, 300_000 * scale, seed=scale)
    engine, count = Engine(edges, epsilon), edges.user.size
    engine.fill(edges, count - 2 * TIMED)
    engine.feed(edges, count - 2 * TIMED, count - TIMED)
    seconds = engine.feed(edges, count - TIMED, count)
    row = {
        "edges": count,
        "event_us": 1e6 * seconds / TIMED,
        "recompute_seconds": min(recompute_seconds(engine).values()),
    }
    _say(" ".join(f"{name}={value:.5g}" for name, value in row.items()))
    return row


def _measure_state(edges: Edges, epsilon: float) -> dict[str, Any]:
    """The complete state machine: speed, memory, a snapshot taken while it works, and restoring it."""
    users = int(edges.user.max()) + 1
    names = [f"item-{node}" for node in range(users, edges.base.shape[0])]
    base = BaseEmbeddings(names, edges.base[users:], ALPHAS)
    config = GraphConfig(epsilon=epsilon, degree_cap=0)
    state, first = UpdaterState(config, base), edges.user.size - TIMED
    _feed(state, edges, 0, first, LOAD_BATCH)
    state.published.take_changes()
    started = time.thread_time()
    half = first + TIMED // 2
    _feed(state, edges, first, half, BATCH)
    events_per_second = (half - first) / (time.thread_time() - started)
    memory = state.memory_report()
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(folder, kind="graph", version=SNAPSHOT_VERSION)
        snapshot = _measure_snapshot(state, edges, half, store)
        started = time.perf_counter()
        saved = store.load_latest_now()
        assert saved is not None
        UpdaterState.restore(config, base, saved.arrays, saved.metadata)
        restore_seconds = time.perf_counter() - started
    return {
        "state_events_per_second": events_per_second,
        "bytes_per_edge": memory.per_edge,
        "bytes_per_node": memory.per_node,
        "bytes_per_past_interaction": memory.per_past_interaction,
        **snapshot,
        "restore_seconds": restore_seconds,
    }


def _measure_snapshot(state: UpdaterState, edges: Edges, at: int, store: SnapshotStore) -> dict[str, float]:
    """Copy the state step by step between micro-batches, then write it: the longest pause, and the whole time."""
    copy = state.start_snapshot()
    pauses, done = [], False
    while not done:
        started = time.perf_counter()
        done = copy.step()
        pauses.append(time.perf_counter() - started)
        _feed(state, edges, at, at + BATCH, BATCH)
        at += BATCH
    started = time.perf_counter()
    cut = state.finish_snapshot()
    pauses.append(time.perf_counter() - started)
    started = time.perf_counter()
    store.save_now(*cut.merge())
    writing = time.perf_counter() - started
    return {"snapshot_ms": 1e3 * (sum(pauses) + writing), "snapshot_pause_ms": 1e3 * max(pauses)}


def _feed(state: UpdaterState, edges: Edges, begin: int, end: int, batch: int) -> None:
    """Give the state clicks for these edges. Making the messages is part of the time, as decoding would be."""
    for at in range(begin, end, batch):
        part = slice(at, min(end, at + batch))
        pairs = zip(edges.user[part].tolist(), edges.item[part].tolist(), strict=True)
        state.apply(
            [
                Interaction(
                    event_id=f"event-{number}",
                    user_id=f"user-{user}",
                    item_id=f"item-{item}",
                    kind="click",
                    event_time_ms=number,
                )
                for number, (user, item) in enumerate(pairs, start=at)
            ]
        )


def _drift_row(engine: Engine, events: int) -> dict[str, Any]:
    errors = engine.errors()
    row = {"events": events, **vars(errors)}
    _say(" ".join(f"{name}={value:.5g}" for name, value in row.items()))
    return row


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()

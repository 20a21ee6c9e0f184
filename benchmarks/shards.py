"""What do shards of the graph tell each other, and how far are their embeddings from one graph's?

    python -m benchmarks.shards --data ../shared/datasets/gowalla --out out/shards.json

Shards in one process, without Kafka: half of the edges are there at the beginning, the rest comes in rounds, and after
each round every shard tells what it owes and reads what the others have told. Without `--data` a synthetic graph whose
degrees follow a power law. Times are processor times of each shard's work.

Keys of the JSON file, lists by number of `shards`:

- `users`, `items`, `edges`, `epsilon`, `events_per_round`: what is fed.
- `max_relative_error`, `mean_relative_error`: of all embeddings of all shards against LightGCN over the whole graph,
  once nothing is owed; `max_relative_error_in_flight`: at the end of the last round, before.
- `parts_per_event`: parts told per event; `told_share`: of the items that a shard's own events touch in a round; above
  1 where parts of further items, which other users' embeddings have moved, are told, too.
- `bytes_per_part`: degree, count, landmark and sums, without key and headers.
- `wait_rounds`: in how many rounds parts are told once that embeddings of users have moved; those of items whose edges
  have changed are told in every round.
- `events_per_second`: of all shards together if each has a core of its own; the busiest one counts.
- `exchange_share`: of its time that the busiest shard spends on telling and adding up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from benchmarks.graph_workloads import ALPHAS, DIM, MIN_COSINE, Edges, Engine, power_law_edges, read_edges
from benchmarks.harness import exit_on_error, finish, parser
from graph_updater.graph.adjacency import EdgeOps
from graph_updater.graph.propagation import Propagation
from graph_updater.graph.shard import Shard
from graph_updater.graph.sharing import Sharing, Told
from models.lightgcn import both_directions, propagate
from runtime.errors import ExitstreamError

SHARDS: Final = (1, 2, 4)
EPSILON: Final = 0.08
_USERS, _ITEMS, _EDGES = 20_000, 5_000, 400_000
_BATCH: Final = 256
_PART_HEADER_BYTES: Final = 8 + 8 + 8
_REST_ROUNDS: Final = 40


def main() -> None:
    """Measure with 1, 2 and 4 shards."""
    arguments = parser(__doc__)
    arguments.add_argument("--events-per-round", type=int, default=1_000, help="over all shards")
    arguments.add_argument("--wait-rounds", type=int, default=1, help="tell parts without changed edges every so often")
    arguments.add_argument("--rounds", type=int, default=100, help="most rounds that are fed")
    given = arguments.parse_args()
    try:
        edges = read_edges(given.data).shuffled() if given.data else synthetic()
        finish(figures(edges, given.events_per_round, given.rounds, given.wait_rounds), given.out)
    except ExitstreamError as error:
        exit_on_error(error)


def synthetic() -> Edges:
    """A graph whose degrees follow a power law, in random order."""
    return power_law_edges(_USERS, _ITEMS, _EDGES).shuffled()


def figures(edges: Edges, events_per_round: int, rounds: int, wait_rounds: int = 1) -> dict[str, Any]:
    """All figures, lists by number of shards."""
    users = int(edges.user.max()) + 1
    begin = edges.user.size // 2
    end = min(edges.user.size, begin + rounds * events_per_round)
    exact = _exact(edges, end)
    plan = _Plan(users, begin, end, events_per_round, wait_rounds)
    found = [_run(edges, plan, count, exact) for count in SHARDS]
    return {
        "users": users,
        "items": edges.base.shape[0] - users,
        "edges": end,
        "epsilon": EPSILON,
        "events_per_round": events_per_round,
        "wait_rounds": wait_rounds,
        "bytes_per_part": _PART_HEADER_BYTES + (len(ALPHAS) - 1) * DIM * 4,
        "shards": list(SHARDS),
        **{name: [one[name] for one in found] for name in found[0]},
    }


class ShardEngine(Engine):
    """One shard's graph.

    Args:
        edges: the nodes and their x⁽⁰⁾.
        users: how many of the nodes are users.
        shards: how many shards there are.
        shard: which one this is.
    """

    def __init__(self, edges: Edges, users: int, shards: int, shard: int) -> None:
        super().__init__(edges, EPSILON)
        nodes = edges.base.shape[0]
        self.shard = shard
        self.seconds = self.exchange_seconds = 0.0
        self.propagation = Propagation(
            self.graph, DIM, ALPHAS, epsilon=EPSILON, min_cosine=MIN_COSINE, one_of_several=shards > 1
        )
        self.propagation.add_nodes(nodes)
        self.propagation.set_base(np.arange(nodes, dtype=np.int32), edges.base)
        self.sharing = Sharing(self.graph, self.propagation, Shard(shard, shards)) if shards > 1 else None
        if self.sharing is not None:
            self.sharing.add_items(np.arange(users, nodes, dtype=np.int32))

    def tell(self, *, of_own_edges: bool) -> list[Told]:
        """The parts owed; nothing where there is one shard."""
        if self.sharing is None:
            return []
        started = time.thread_time()
        nodes = self.sharing.take_owed(of_own_edges=of_own_edges)
        told = Told(self.shard, nodes, self.sharing.told(nodes))
        self._add_exchange(started)
        return [told]

    def hear(self, told: list[Told]) -> None:
        """Takes other shards' parts in."""
        if self.sharing is not None:
            started = time.thread_time()
            self.sharing.receive([one for one in told if one.shard != self.shard])
            self._add_exchange(started)

    def _add_exchange(self, started: float) -> None:
        spent = time.thread_time() - started
        self.seconds += spent
        self.exchange_seconds += spent


@dataclass(frozen=True)
class _Plan:
    """Which edges are fed, and how."""

    users: int
    begin: int
    end: int
    events_per_round: int
    wait_rounds: int


@dataclass
class _Counts:
    told: int = 0
    touched: int = 0


def _run(edges: Edges, plan: _Plan, count: int, exact: np.ndarray) -> dict[str, float]:
    """One number of shards."""
    users, begin, end = plan.users, plan.begin, plan.end
    shards = [ShardEngine(edges, users, count, number) for number in range(count)]
    for shard in shards:
        mine = edges.user[:begin] % count == shard.shard
        shard.fill(Edges(edges.user[:begin][mine], edges.item[:begin][mine], edges.base), int(mine.sum()))
    _rest(shards)
    for shard in shards:
        shard.seconds = shard.exchange_seconds = 0.0
    counts = _Counts()
    for number, at in enumerate(range(begin, end, plan.events_per_round), start=1):
        _feed(shards, edges, at, min(end, at + plan.events_per_round), counts)
        counts.told += _exchange(shards, of_own_edges=number % plan.wait_rounds > 0)
    in_flight = _errors(shards, users, exact)
    busiest = max(shards, key=lambda shard: shard.seconds)
    seconds, exchange_seconds = busiest.seconds, busiest.exchange_seconds
    _rest(shards)
    errors = _errors(shards, users, exact)
    return {
        "max_relative_error": float(errors.max()),
        "mean_relative_error": float(errors.mean()),
        "max_relative_error_in_flight": float(in_flight.max()),
        "parts_per_event": counts.told / (end - begin),
        "told_share": counts.told / max(1, counts.touched),
        "events_per_second": (end - begin) / seconds,
        "exchange_share": exchange_seconds / seconds,
    }


def _feed(shards: list[ShardEngine], edges: Edges, begin: int, end: int, counts: _Counts) -> None:
    for shard in shards:
        mine = begin + np.flatnonzero(edges.user[begin:end] % len(shards) == shard.shard)
        counts.touched += np.unique(edges.item[mine]).size
        started = time.thread_time()
        for at in range(0, mine.size, _BATCH):
            chosen = mine[at : at + _BATCH]
            ones = np.ones(chosen.size, np.float32)
            shard.change(EdgeOps(edges.user[chosen], edges.item[chosen], ones, chosen.astype(np.int64)))
        shard.seconds += time.thread_time() - started


def _exchange(shards: list[ShardEngine], *, of_own_edges: bool = False) -> int:
    """Every shard tells what it owes, then reads what the others have told. Returns how many parts."""
    told = [one for shard in shards for one in shard.tell(of_own_edges=of_own_edges)]
    for shard in shards:
        shard.hear(told)
    return sum(one.nodes.size for one in told)


def _rest(shards: list[ShardEngine]) -> None:
    """Exchanges parts until nothing is owed."""
    for _ in range(_REST_ROUNDS):
        if not _exchange(shards):
            return
    raise RuntimeError("parts do not come to rest")


def _exact(edges: Edges, end: int) -> np.ndarray:
    """LightGCN's embeddings in double precision over the first edges: (nodes, d)."""
    both = both_directions(torch.from_numpy(edges.user[:end]).long(), torch.from_numpy(edges.item[:end]).long())
    return np.asarray(propagate(torch.from_numpy(edges.base).double(), both, None, ALPHAS).numpy())


def _errors(shards: list[ShardEngine], users: int, exact: np.ndarray) -> np.ndarray:
    """Relative errors of users in their own shard and of items in every shard."""
    found = []
    for shard in shards:
        relative = np.linalg.norm(shard.embeddings() - exact, axis=1) / np.linalg.norm(exact, axis=1)
        found += [relative[:users][np.arange(users) % len(shards) == shard.shard], relative[users:]]
    return np.concatenate(found)


if __name__ == "__main__":
    main()

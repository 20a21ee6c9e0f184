"""What does a million users take?

    python -m benchmarks.scale --users 1000000 --items 200000 --out out/scale.json

Synthetic users whose activity follows a power law (`benchmarks.scale_population`), the product's own code, real
processes and real Kafka. Times of code are processor times of its thread, which other programs on the machine do not
lengthen; those of starts are by the clock.

Keys of the JSON file:

- `users`, `items`, `dim`, `mean_history`: the population; `full_histories` repeats the figures of the tables for users
  whose histories are all full.
- `bytes_per_user`, of which `bytes_per_user_without_index`: memory that a worker's process grows by.
- `fill_states_per_second`, `fill_item_states_per_second`: as a worker that starts applies states;
  `fill_states_per_second_msgpack`: where an updater writes MessagePack.
- `update_states_per_second`, `stall_ms_p50`, `stall_ms_p99`: states of known users, in slices as a worker applies them
  that serves; the times of one slice.
- `index_training_s`: of the search index over all users.
- `restart_seconds`: from starting a worker until it is ready, with saved tables; `start_seconds` without them,
  `start_seconds_without_states` beside empty topics.
- `states_per_second_encoded`: user states with full histories that an updater writes; `…_msgpack` the same as
  MessagePack. `updater_events_per_second_without_broker`: events of distinct users, decoded, applied, states written.
- `updater_events_per_second`, `parts_told_per_event`, by `shards_measured`: of updaters that share the users, all
  together, each with a core; see `benchmarks.scale_shards`.
- `max_relative_error_by_shards`, by `shards`: of the embeddings of shards of the graph in one process; see
  `benchmarks.shards`.
- `retrieval_ms_p99`, `recall`, by `retrieval_users`: see `benchmarks.retrieval`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import retrieval, scale_restart, scale_shards, scale_tables, scale_updater, shards
from benchmarks.harness import add_broker, add_bundle, bundle_folder, exit_on_error, finish, parser
from benchmarks.scale_population import Population
from event_data.load import load_log
from loadgen.brokers import open_broker
from models.bundle import Bundle
from runtime.errors import ExitstreamError

UPDATER_USERS: Final = 20_000
UPDATER_ITEMS: Final = 5_000
SHARDS: Final = (1, 2)
_SAMPLE: Final = 100_000
_EVENTS_PER_ROUND: Final = 1_000
_ROUNDS: Final = 20
"""Of shards of the graph that exchange what has changed."""


def main() -> None:
    """Measure everything that is not left out."""
    arguments = parser(__doc__)
    add_bundle(arguments)
    add_broker(arguments)
    arguments.add_argument("--users", type=int, default=1_000_000)
    arguments.add_argument("--items", type=int, default=200_000)
    arguments.add_argument("--searches", type=int, default=5_000, help="timed searches for nearest users")
    given = arguments.parse_args()
    try:
        bundle = bundle_folder(given.bundle, load_log(given.data))
        finish(_figures(bundle, given.users, given.items, given.searches, given.broker), given.out)
    except ExitstreamError as error:
        exit_on_error(error)


def _figures(bundle: Path, users: int, items: int, searches: int, broker: str) -> dict[str, Any]:
    population = Population(users, items)
    counts = [count for count in (10_000, 100_000, 1_000_000) if count <= users]
    found = retrieval.figures(counts, searches)
    loaded = Bundle.load(bundle)
    published = replace(population, dim=min(population.dim, loaded.graph.dim), space=loaded.space)
    del loaded
    with open_broker(broker) as bootstrap, tempfile.TemporaryDirectory() as folder:
        restarts = scale_restart.figures(published, bundle, bootstrap, Path(folder))
    shared = shards.figures(shards.synthetic(), _EVENTS_PER_ROUND, _ROUNDS)
    return {
        "users": users,
        "items": items,
        "dim": population.dim,
        "mean_history": float(np.mean(population.history_lengths(_SAMPLE))),
        **restarts,
        **scale_updater.figures(min(users, UPDATER_USERS), min(items, UPDATER_ITEMS)),
        "shards_measured": SHARDS,
        **scale_shards.figures(min(users, UPDATER_USERS), min(items, UPDATER_ITEMS), SHARDS),
        "shards": shared["shards"],
        "max_relative_error_by_shards": shared["max_relative_error"],
        "retrieval_users": counts,
        "retrieval_ms_p99": found["retrieval_ms_p99"],
        "recall": found["recall"],
        **scale_tables.figures(population),
        "full_histories": scale_tables.figures(replace(population, users=max(1, users // 4), full=True)),
    }


if __name__ == "__main__":
    main()

"""What a fleet's parts cost: measured figures that `benchmarks.fleet` computes and simulates with.

Some are kept in docs/figures since other benchmarks measured them; the rest is measured on the spot by
`benchmarks.fleet_calibration`. A file given by `--measured` stands above both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from runtime.errors import ExitstreamError

P99: Final = 2.326
"""Standard deviations of the normal distribution below its 99th percentile."""
_MIB: Final = 2**20
_FIGURES: Final = ("engine", "overload", "graph", "soak")
_NODES_OF_GOWALLA: Final = 70_839
"""Nodes of the graph whose restore docs/figures/graph.json times."""
_CANDIDATES_MEASURED: Final = 20
"""Of a request in the engine and overload benchmarks."""


class FleetError(ExitstreamError):
    """Something that the fleet's model cannot be made of."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core and bytes, per unit of work."""

    # A worker.
    score_s: float
    """One candidate, exits at the base threshold."""
    score_cv: float
    """Standard deviation of a request's scoring time ÷ its mean."""
    search_s_per_user: float
    """Comparing one user's vector in a search for similar users."""
    train_s_per_flop: float
    """Training the users' search index."""
    worker_base_bytes: float
    """A process without users and items: libraries, model."""
    worker_user_bytes: float
    worker_item_bytes: float
    user_state_apply_s: float
    """One user state decoded, stored and written to the search index."""
    item_state_apply_s: float
    # The updater.
    event_s: float
    """One interaction decoded, applied to graph and history, and its changes selected for publication."""
    user_state_encode_s: float
    item_state_encode_s: float
    updater_base_bytes: float
    updater_node_bytes: float
    """A user or an item, its id included."""
    updater_edge_bytes: float
    updater_past_bytes: float
    """A past interaction of a user."""
    restore_s_per_node: float
    turned_users_per_event: float
    """User states published because an embedding turned, though no event of the batch was theirs."""
    turned_items_per_event: float
    # Records.
    user_state_bytes: float
    item_state_bytes: float

    def to_json(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


NAMES: Final = frozenset(field.name for field in fields(Costs))


def gathered(*sources: Mapping[str, float]) -> Costs:
    """The costs from several sources, of which the later ones stand above the earlier ones.

    Raises:
        FleetError: a name is unknown, a value is not a positive number, or a cost is missing.
    """
    costs: dict[str, float] = {}
    for source in sources:
        for name, value in source.items():
            if name not in NAMES:
                raise FleetError(f"no cost is named {name!r}; there are {', '.join(sorted(NAMES))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise FleetError(f"the cost {name} is {value!r}; give a number that is not negative")
            costs[name] = float(value)
    if missing := NAMES - costs.keys():
        raise FleetError(f"costs are missing: {', '.join(sorted(missing))}; measure them without --measured")
    return Costs(**costs)


def given(file: Path) -> dict[str, float]:
    """The costs in a file: an object by name, or the `costs` of an earlier run's figures.

    Raises:
        FleetError: it is no such file.
    """
    try:
        read = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise FleetError(f"{file} cannot be read as JSON: {error}") from error
    costs = read.get("costs", read) if isinstance(read, dict) else read
    if not isinstance(costs, dict):
        raise FleetError(f"{file} holds no object of costs by name")
    return costs


def kept(folder: Path) -> dict[str, float]:
    """The costs that docs/figures tells.

    Time per candidate: the full-depth capacity of a running worker on one core (`overload`), times the share of the
    time that exits at the base threshold take (`engine`).

    Raises:
        FleetError: a file is missing.
    """
    engine, overload, graph, soak = (_read(folder / f"{name}.json") for name in _FIGURES)
    request_s = 1 / overload["capacity_requests_per_second"]
    exits = engine["full_depth_candidates_per_second"] / engine["exit_candidates_per_second"]
    spread = math.log(engine["p99_ms"] / engine["p50_ms"]) / P99
    return {
        "score_s": request_s * exits / _CANDIDATES_MEASURED,
        "score_cv": math.sqrt(math.expm1(spread**2)),
        "worker_base_bytes": overload["idle_rss_mb"] * _MIB,
        "updater_base_bytes": soak["rss_mb"]["updater-steady"] * _MIB,
        "updater_node_bytes": graph["bytes_per_node"] + 200,  # of the id and its dictionaries, see `MemoryReport`
        "updater_edge_bytes": graph["bytes_per_edge"],
        "updater_past_bytes": graph["bytes_per_past_interaction"],
        "restore_s_per_node": graph["restore_seconds"] / _NODES_OF_GOWALLA,
    }


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise FleetError(f"{file} is missing: run `python -m benchmarks.{file.stem}`, then benchmarks.fill_docs")
    figures: dict[str, Any] = json.loads(file.read_text())
    return figures

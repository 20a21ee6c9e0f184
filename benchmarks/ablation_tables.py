"""The tables of `benchmarks.ablations` and `benchmarks.learning_curve`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from benchmarks.ablation_evidence import CHOICES
from benchmarks.ablation_models import INPUTS
from benchmarks.markdown import Figures, difference, measured, percent, table
from benchmarks.retrieval_times import CANDIDATES, SOURCES
from evaluation.left_out import NOTHING

FASTER_GOAL: Final = "10 ×"
_GRAPH: Final = {"mean": "mean over LightGCN's layers (as shipped)", "last": "each node's last layer"}
_JOINT: Final = {
    "apart": "trained before the heads (as shipped)",
    "soft_tokens": "moved with the heads, in soft tokens",
    "later_apart": "trained before the heads; later half of the examples",
    "later_everywhere": "moved by the earlier examples, in retrieval and statistics too; later half",
}
_CRITERIA: Final = {"calibrated": "calibrated criterion", "ratio": "plain criterion (ratio)"}
_COMPARED: Final = {
    "graph_both_minus_latest": "AUC: GCN history and similar users, minus last K",
    "graph_both_minus_text": "AUC: GCN history and similar users, minus text similarity",
    "graph_history_minus_text": "AUC: GCN history minus text similarity, both with the graph's embeddings",
}


def ablations(figures: Figures) -> str:
    """Every variant, one below the other."""
    layers = figures["exit_layers"]
    head = (
        "variant",
        *(f"AUC after layer {layer}" for layer in layers),
        "full depth minus that of the reference, 95 % interval",
    )
    groups = (
        ("evidence", {name: choice.words for name, choice in CHOICES.items()}, "latest"),
        ("inputs", {name: inputs.words for name, inputs in INPUTS.items()}, "all"),
        ("graph", _GRAPH, "mean"),
    )
    rows: list[tuple[str, ...]] = []
    for group, names, reference in groups:
        rows.append((f"**{group}**",))
        rows += list(_rows(figures[group], names, reference))
    limit = figures.get("limit_auc")
    known = "" if limit is None else f" The limit of this world is an AUC of {limit:.4f}."
    conditions = (
        f"{figures['dataset']}: {figures['trained_on']:,} candidates to train each variant on, the latest "
        f"{figures['scored']:,} of the last tenth to score.{known}"
    )
    return f"{conditions}\n\n" + table(head, rows)


def _rows(group: Figures, names: Mapping[str, str], reference: str) -> Iterator[tuple[str, ...]]:
    for name, words in names.items():
        told = group[name]
        against = "reference" if name == reference else difference(told["minus_reference"])
        yield (words, *(f"{value:.4f}" for value in told["auc"]), against)


def start(figures: Figures) -> str:
    """Pre-trained weights beside random ones in the same layers, by `benchmarks.pretrained_start`."""
    head = ("start", *(f"AUC after layer {layer}" for layer in figures["layers"]))
    rows = [
        (f"{words} weights", *(f"{value:.4f}" for value in figures[name]["auc"]))
        for name, words in (("random", "random"), ("pretrained", "pre-trained"))
    ]
    gained = f"Pre-trained minus random after the last layer: {difference(figures['pretrained_minus_random'])}."
    return f"{figures['dataset']}, {figures['backbone']}:\n\n{table(head, rows)}\n\n{gained}"


def graph_evidence(figures: Figures) -> str:
    """The graph's evidence beside other sources: what it gains, and how much faster it is found."""
    rows = [(words, difference(figures["graph_evidence"][name]), "above 0") for name, words in _COMPARED.items()]
    times = figures["retrieval_us"]
    base = times["graph_history"]
    for name, words in SOURCES.items():
        ratio = "" if name == "graph_history" else f", {times[name] / base:.1f} × as long"
        goal = FASTER_GOAL if name.startswith("text") else ""
        rows.append((f"{words}; a request of {CANDIDATES} candidates", f"{times[name]:,.0f} µs{ratio}", goal))
    return measured(*rows)


def criteria(figures: Figures) -> str:
    """Both exit criteria, each at the threshold that keeps the same promise."""
    rows = [
        (
            f"{_CRITERIA[criterion]}; {INPUTS[name].words}",
            f"{told['auc']:.4f}",
            f"{told['log_loss']:.4f}",
            percent(told["token_layer_share"]),
            difference(told["minus_full_depth"]),
        )
        for name, both in figures["exits"].items()
        for criterion, told in both.items()
    ]
    return table(("criterion; inputs", "AUC as served", "log loss", "token-layers", "AUC minus full depth's"), rows)


def left_out(synthetic: Figures, movielens: Figures) -> str:
    """What trained bundles lose when a kind of evidence is kept from them; evaluations with `--leave-out` know."""
    if not (synthetic.get("left_out") and movielens.get("left_out")):
        return "*Not measured: it takes evaluations with `--leave-out`.*"
    both = zip(synthetic["left_out"], movielens["left_out"], strict=True)
    rows = [(one["left_out"], *_lost(one), *_lost(other)) for one, other in both]
    return table(("left out", "built-in world: AUC", "change", "MovieLens 100K: AUC", "change"), rows)


def _lost(point: Figures) -> tuple[str, str]:
    return f"{point['auc']:.4f}", "" if point["left_out"] == NOTHING else difference(point["difference"])


def joint_embeddings(*worlds: Figures) -> str:
    """Embeddings that the heads' loss moves beside those that it does not, by data set."""
    layers = worlds[0]["exit_layers"]
    rows = []
    for world in worlds:
        for name, words in _JOINT.items():
            way = world["ways"][name]
            rows.append((f"{world['dataset']}: {words}", *(f"{value:.4f}" for value in way["auc"]), _gain(way)))
    return table(
        ("embeddings", *(f"AUC after layer {layer}" for layer in layers), "gain over the row above, 95 % interval"),
        rows,
    )


def _gain(way: Figures) -> str:
    return difference(way["gain"]) if "gain" in way else ""


def learning_curve(figures: Figures) -> str:
    """Each size of the synthetic world, by start, and from where on layers pay."""
    parts = [_curve(name, told) for name, told in figures["starts"].items()]
    return "\n\n".join(parts)


def _curve(name: str, told: Mapping[str, Any]) -> str:
    layers = told["rows"][0]["exit_layers"]
    head = (
        f"examples, {name} start",
        "running means",
        *(f"AUC after layer {layer}" for layer in layers),
        *(f"layer {layer} gains" for layer in layers[1:]),
        "limit",
    )
    rows = [
        (
            f"{row['trained_on']:,}",
            f"{row['running_means_auc']:.4f}",
            *(f"{value:.4f}" for value in row["auc"]),
            *(difference(gain) for gain in row["gain"]),
            f"{row['limit_auc']:.4f}",
        )
        for row in told["rows"]
    ]
    pays = ", ".join(
        f"layer {layer} {'does not pay at any of these sizes' if size is None else f'pays from {size:,} examples on'}"
        for layer, size in told["pays_from"].items()
    )
    return f"{table(head, rows)}\n\nFrom a {name} start {pays}."

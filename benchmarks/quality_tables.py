"""The tables of `benchmarks.quality`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.markdown import Figures, difference, percent, table

OURS: Final = {
    "early_exit": "exitstream, as served",
    "full_depth": "exitstream, full depth",
    "graph": "exitstream, graph score alone",
}
PEERS: Final = {
    "running_means": "running user mean + item mean",
    "rates_logistic": "user and item rates, logistic regression",
    "rates_trees": "user and item rates, boosted trees",
    "rates_attributes_logistic": "these and attribute rates, logistic regression",
    "rates_attributes_trees": "these and attribute rates, boosted trees",
    "statistics_logistic": "our statistics, logistic regression",
    "statistics_trees": "our statistics, boosted trees",
    "statistics_attributes_logistic": "our statistics and all rates, logistic regression",
    "statistics_attributes_trees": "our statistics and all rates, boosted trees",
    "light_gcn_logistic": "LightGCN's score and all rates, logistic regression",
    "sentences_logistic": "sentence encoder's similarities and all rates, logistic regression",
    "sentences_trees": "sentence encoder's similarities and all rates, boosted trees",
    "sentences_statistics_logistic": "sentence encoder's similarities and our statistics, logistic regression",
    "sentences_statistics_trees": "sentence encoder's similarities and our statistics, boosted trees",
    "dcn_v2": "DCN V2",
    "din": "DIN",
    "sim": "SIM, hard search",
}


def peers(figures: Figures) -> str:
    """Ours, where measured, and the peers, on one data set."""
    conditions = (
        f"{figures['dataset']}: the last {figures['tested']:,} of {figures['events']:,} events, "
        f"{percent(figures['click_rate'])} of them clicks."
    )
    return f"{conditions}\n\n" + table(_head(figures), _rows(figures))


def exits(figures: Figures) -> str:
    """Each head of ours, and what leaving early costs and saves."""
    heads = [(f"head {place}", *_cells(told)) for place, told in enumerate(figures["heads"], start=1)]
    served = ("as served", *_cells(figures["early_exit"]))
    told = (
        f"{figures['dataset']}: as served, {percent(figures['token_layer_share'])} of the token-layers of full depth "
        f"are executed, and {percent(figures['time_saved'])} of its time is saved."
    )
    return f"{told}\n\n" + table(("scored by", "AUC", "log loss", "calibration error"), [*heads, served])


def graph(figures: Figures) -> str:
    """LightGCN as we train it, beside the authors' best figures for the same split."""
    told = (
        f"{figures['steps']:,} steps, {figures['train_cpu_minutes']:.1f} minutes of one core "
        f"({figures['train_minutes']:.0f} by the clock, shared with other programs)."
    )
    ours = (f"{figures['gowalla_recall_at_20']:.4f}", f"{figures['gowalla_ndcg_at_20']:.4f}")
    rows = [
        ("ours, items alone have base embeddings", *ours),
        ("LightGCN as published, 1,000 epochs", "0.1830", "0.1554"),
    ]
    return f"{told}\n\n" + table(("Gowalla, 64 dimensions", "Recall@20", "NDCG@20"), iter(rows))


def _head(figures: Figures) -> tuple[str, ...]:
    head = ("scored by", "AUC", "log loss", "calibration error")
    return (*head, "AUC of exitstream minus it, 95 % interval") if "early_exit" in figures else head


def _rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name, words in OURS.items():
        if name in figures:
            yield (words, *_cells(figures[name]))
    for name, words in PEERS.items():
        told = figures["peers"].get(name, {"skipped": "not measured"})
        if "skipped" in told:
            yield words, told["skipped"]
            continue
        yield (words, *_cells(told), *([difference(told["ours_minus"])] if "ours_minus" in told else []))
    if figures["limit_auc"] is not None:
        yield ("limit: the world's own probabilities", f"{figures['limit_auc']:.4f}")


def _cells(quality: Figures) -> tuple[str, str, str]:
    return f"{quality['auc']:.4f}", f"{quality['log_loss']:.4f}", f"{quality['ece']:.3f}"

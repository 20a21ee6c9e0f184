"""Facts about bundles as lines and tables. Names of data and items come from outside and are escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.bundles.difference import Difference
from cli.bundles.inspection import Inspection
from cli.dead_letters.describing import escaped, when
from models.bundle_store import StoredVersion
from models.bundle_store.promotions import Promotion
from models.calibration import FrontierPoint

_ITEMS_SHOWN: Final = 5
_LATEST_PROMOTIONS: Final = 5
_NAME_LIMIT: Final = 40
_POINTS_SHOWN: Final = 10


def tell_versions(versions: Sequence[StoredVersion], promotions: Sequence[Promotion], console: Console) -> None:
    """A table of versions, then the latest promotions."""
    table = Table("", "version", "saved", "size", "training data", "AUC", "log loss", title="* current")
    table.title_justify = "left"
    for column in table.columns:
        column.no_wrap = column.header != "training data"
    troubles = []
    for one in versions:
        mark = "*" if one.is_current else ""
        if one.manifest is None:
            table.add_row(mark, one.version, "damaged")
            troubles.append(one.trouble)
            continue
        figures = (_figure(one.manifest.metrics.get(name)) for name in ("auc", "log_loss"))
        table.add_row(
            mark,
            one.version,
            _saved(one.manifest.created_time_ms),
            _size(one.manifest.bytes),
            Text(escaped(one.manifest.dataset, _NAME_LIMIT)),
            *figures,
        )
    console.print(table)
    for trouble in troubles:
        _say(console, trouble)
    for promotion in promotions[-_LATEST_PROMOTIONS:]:
        _say(console, f"{when(promotion.time_ms)}  {promotion.kind} of {promotion.version} by {promotion.by}")


def tell_bundle(facts: Inspection, console: Console) -> None:
    """Everything about one bundle."""
    for line in _lines(facts):
        _say(console, line)
    heads = Table("head after layer", "share of the layers", "AUC alone")
    for head in facts.heads:
        heads.add_row(str(head.layer), f"{head.layer_share:.0%}", _figure(head.auc))
    console.print(heads)
    frontier = Table("threshold", "token-layers computed", "log loss against full depth")
    for point in _some(facts.exits.frontier):
        frontier.add_row(f"{point.threshold:.3f}", f"{point.token_layer_share:.1%}", f"{point.metric_loss:+.2%}")
    console.print(frontier)
    files = Table("file", "size", "")
    for name, size in facts.files.items():
        files.add_row(name, _size(size), "hash ok")
    console.print(files)
    if not facts.golden_requests:
        _say(console, "golden scores: none, as it was trained by an earlier release")
    elif not facts.golden_trouble:
        _say(console, f"golden scores: ok, {facts.golden_requests} requests score here as when it was saved")


def _lines(facts: Inspection) -> Iterator[str]:
    backbone, graph, exits = facts.backbone, facts.graph, facts.exits
    yield f"bundle {facts.version}, format {facts.format_version}, {_size(facts.bytes)}, in {facts.folder}"
    yield f"saved {_saved(facts.created_time_ms)}, trained on {facts.dataset or 'data without a name'}"
    yield (
        f"backbone: {backbone.family}, {backbone.layers} layers of {backbone.hidden}, {backbone.vocabulary} tokens, "
        f"{backbone.parameters / 1e6:.2f} million parameters with heads"
    )
    yield (
        f"graph: {graph.items} items with trained embeddings of {graph.embedding_dim}, "
        f"{graph.propagation_layers} propagation layers"
    )
    yield f"prompt: {facts.prompt_template}, " + ", ".join(
        f"{name} {limit}" for name, limit in sorted(facts.prompt_limits.items())
    )
    yield (
        f"exits: {exits.criterion} confidence, threshold {exits.base_threshold:.3f} without load, never below "
        f"{exits.floor_threshold:.3f}; answers within {exits.tolerance:g} in log-odds count as the same"
    )
    if facts.metrics:
        figures = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in facts.metrics.items())
        yield "last tenth of its data: " + ", ".join(figures)


def tell_difference(found: Difference, console: Console) -> None:
    """What changed, item by item; then the graph part, the items and the golden scores."""
    if found.before == found.after:
        _say(console, f"both are version {found.before}: the same scores")
    table = Table("", found.before, found.after)
    for change in found.changes:
        table.add_row(*(Text(escaped(part)) for part in (change.what, change.before, change.after)))
    if found.changes:
        console.print(table)
    _say(
        console,
        "graph part: the same, so states of one serve the other"
        if found.same_graph_part
        else "graph part: not the same, so restart the updaters first, then the workers",
    )
    for what, items in (("added", found.items_added), ("gone", found.items_gone)):
        shown = ", ".join(items[:_ITEMS_SHOWN]) + (", …" if len(items) > _ITEMS_SHOWN else "")
        _say(console, f"items {what}: {len(items)}" + (f" ({shown})" if items else ""))
    if not found.golden:
        _say(console, f"golden scores: {found.before} has none to compare")
        return
    scores = Table(f"golden requests of {found.before}, scored by", "mean difference", "largest", title_justify="left")
    for moved in found.golden:
        scores.add_row(moved.scored_by, f"{moved.mean:.4f}", f"{moved.largest:.4f}")
    console.print(scores)


def _some(frontier: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """At most `_POINTS_SHOWN` points, evenly chosen, the first and the last among them; `--json` has all."""
    last = len(frontier) - 1
    places = (
        range(last + 1) if last < _POINTS_SHOWN else (last * n // (_POINTS_SHOWN - 1) for n in range(_POINTS_SHOWN))
    )
    return [frontier[place] for place in places]


def _say(console: Console, line: str) -> None:
    console.print(Text(escaped(line)), soft_wrap=True)


def _saved(time_ms: int) -> str:
    return when(time_ms)[:16] if time_ms else "not told"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

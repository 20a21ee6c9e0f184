"""Puts measured figures into README.md and docs/*.md: `python -m benchmarks.fill_docs [FILE.json …]`.

The files given are copied to docs/figures, where all measured figures are kept; then every block

    <!-- figures: NAME -->
    …
    <!-- end of figures -->

is rewritten from them. A block whose figures have not been measured says so.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import ablation_tables, engine_table, fleet_tables, overload_tables, quality_tables, tables
from benchmarks.harness import exit_on_error
from benchmarks.promise import promise_table
from benchmarks.retrieval_table import retrieval
from benchmarks.scale_table import partitions, scale, takeover
from benchmarks.sessions_table import sessions_table
from benchmarks.startup_table import startup, startup_stages
from runtime.errors import ExitstreamError

ROOT: Final = Path(__file__).parents[1]
FIGURES: Final = ROOT / "docs" / "figures"
SOURCES: Final = {
    "demo": "`make demo`, then its `report.json`",
    "evaluate-ml-100k": "`exitstream evaluate --leave-out --data … --out …`",
    "evaluate-synthetic": "`exitstream evaluate --leave-out --refresh --out …`",
    "quality-ml-100k": "`benchmarks.quality --data … --peers-only`",
    "quality-synthetic": "`benchmarks.quality --seeds 3`",
    "quality-book-crossing": "`benchmarks.quality --data … --click-at 8 --peers-only`",
    "quality-book-crossing-ours": "`benchmarks.quality --data … --click-at 8 --seeds 3 --no-peers`",
    "ablations-synthetic": "`benchmarks.ablations`",
    "ablations-ml-100k": "`benchmarks.ablations --data … --examples 20000`",
    "start-synthetic": "`benchmarks.pretrained_start --backbone smollm2 --layers 4 --seed 1`",
    "start-ml-100k": "`benchmarks.pretrained_start --backbone smollm2 --layers 4 --data … --examples 30000`",
    "learning-curve": "`benchmarks.learning_curve`",
    "joint-embeddings": "`benchmarks.joint_embeddings`",
    "promise": "`benchmarks.promise`",
    "graph": "`benchmarks.graph`",
    "graph-quality": "`benchmarks.graph_quality --data …`",
    "graph-drift": "`benchmarks.graph --drift`",
    "freshness": "`benchmarks.freshness`",
    "engine": "`benchmarks.engine`",
    "engine-smollm2": "`benchmarks.engine --data … --backbone smollm2`",
    "engine-smollm2-trained": "`benchmarks.engine --data … --bundle …`, of a bundle trained on SmolLM2",
    "engine-memory": "`benchmarks.engine_memory`",
    "sessions": "`benchmarks.sessions --data …`",
    "sessions-smollm2": "`benchmarks.sessions --data … --backbone smollm2 --layers 12`",
    "startup": "`benchmarks.startup`",
    "startup-smollm2": "`benchmarks.startup --backbone smollm2`",
    "overload": "`benchmarks.overload`",
    "overload-smollm2": "`benchmarks.overload --bundle … --budget-ms 6000 --precision bfloat16 …`",
    "soak": "`benchmarks.soak`",
    "pipeline": "`benchmarks.pipeline`",
    "release": "`benchmarks.release`",
    "retrieval": "`benchmarks.retrieval`",
    "tracing": "`benchmarks.tracing`",
    "scale": "`benchmarks.scale`",
    "partitions": "`benchmarks.partitions --data …`",
    "takeover": "`benchmarks.takeover`",
    "fleet": "`benchmarks.fleet`",
}
"""What writes each file of figures, by the file's name without `.json`."""
BLOCKS: Final[dict[str, tuple[Callable[..., str], tuple[str, ...]]]] = {
    "demo": (tables.demo, ("demo",)),
    "quality": (tables.quality, ("evaluate-ml-100k", "evaluate-synthetic")),
    "exits": (tables.exits, ("evaluate-ml-100k", "evaluate-synthetic")),
    "quality_short": (tables.quality_short, ("evaluate-ml-100k",)),
    "peers_ml_100k": (quality_tables.peers, ("quality-ml-100k",)),
    "peers_synthetic": (quality_tables.peers, ("quality-synthetic",)),
    "exits_synthetic": (quality_tables.exits, ("quality-synthetic",)),
    "peers_book_crossing": (quality_tables.peers, ("quality-book-crossing",)),
    "exits_book_crossing": (quality_tables.exits, ("quality-book-crossing-ours",)),
    "graph_quality": (quality_tables.graph, ("graph-quality",)),
    "ablations_synthetic": (ablation_tables.ablations, ("ablations-synthetic",)),
    "graph_evidence_synthetic": (ablation_tables.graph_evidence, ("ablations-synthetic",)),
    "criteria_synthetic": (ablation_tables.criteria, ("ablations-synthetic",)),
    "start_synthetic": (ablation_tables.start, ("start-synthetic",)),
    "start_ml_100k": (ablation_tables.start, ("start-ml-100k",)),
    "ablations_ml_100k": (ablation_tables.ablations, ("ablations-ml-100k",)),
    "graph_evidence_ml_100k": (ablation_tables.graph_evidence, ("ablations-ml-100k",)),
    "criteria_ml_100k": (ablation_tables.criteria, ("ablations-ml-100k",)),
    "left_out": (ablation_tables.left_out, ("evaluate-synthetic", "evaluate-ml-100k")),
    "learning_curve": (ablation_tables.learning_curve, ("learning-curve",)),
    "joint_embeddings": (ablation_tables.joint_embeddings, ("joint-embeddings",)),
    "promise": (promise_table, ("promise",)),
    "graph": (tables.graph, ("graph",)),
    "graph_drift": (tables.graph_drift, ("graph-drift",)),
    "freshness": (tables.freshness, ("freshness",)),
    "engine": (tables.engine, ("engine",)),
    "engine_frontier": (tables.engine_frontier, ("engine",)),
    "engine_contestants": (engine_table.contestants, ("engine-smollm2",)),
    "engine_checkpoint": (engine_table.checkpoint, ("engine-smollm2",)),
    "engine_trained_contestants": (engine_table.contestants, ("engine-smollm2-trained",)),
    "engine_trained": (engine_table.checkpoint, ("engine-smollm2-trained",)),
    "engine_memory": (tables.engine_memory, ("engine-memory",)),
    "sessions": (sessions_table, ("sessions",)),
    "sessions_smollm2": (sessions_table, ("sessions-smollm2",)),
    "startup": (startup, ("startup", "startup-smollm2")),
    "startup_stages": (startup_stages, ("startup", "startup-smollm2")),
    "pipeline": (tables.pipeline, ("pipeline",)),
    "release": (tables.release, ("release",)),
    "retrieval": (retrieval, ("retrieval",)),
    "scale": (scale, ("scale",)),
    "partitions": (partitions, ("partitions",)),
    "takeover": (takeover, ("takeover",)),
    "tracing": (tables.tracing, ("tracing", "overload")),
    "overload_short": (overload_tables.short, ("overload",)),
    "overload_shipped": (overload_tables.shipped, ("overload",)),
    "overload_deep": (overload_tables.deep, ("overload",)),
    "overload_more": (overload_tables.more, ("overload",)),
    "overload_smollm2": (overload_tables.beside_full_depth, ("overload-smollm2",)),
    "soak": (tables.soak, ("soak",)),
    "fleet_costs": (fleet_tables.costs, ("fleet",)),
    "fleet_sizes": (fleet_tables.sizes, ("fleet",)),
    "fleet_limits": (fleet_tables.limits, ("fleet",)),
    "fleet_simulated": (fleet_tables.simulated, ("fleet",)),
}
"""For each block its table and the files of figures that the table is made from."""
_BLOCK: Final = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


class UnknownFigures(ExitstreamError):
    """A file of figures or a block has a name that nothing here knows."""


def main() -> None:
    """Keep the given figures, then rewrite all pages."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="*", type=Path, help=f"named {', '.join(SOURCES)} (.json)")
    try:
        for file in arguments.parse_args().files:
            keep(file, FIGURES)
        for page in pages():
            page.write_text(filled(page.read_text(), FIGURES))
            print(page.relative_to(ROOT))
    except ExitstreamError as error:
        exit_on_error(error)


def pages() -> list[Path]:
    """The pages that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def keep(file: Path, folder: Path) -> None:
    """Copy a file of figures, one value per line.

    Raises:
        UnknownFigures: its name is none of `SOURCES`.
    """
    if file.stem not in SOURCES:
        raise UnknownFigures(f"{file} is named like none of {', '.join(SOURCES)}; rename it to what it holds")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{file.stem}.json").write_text(json.dumps(json.loads(file.read_text()), indent=1) + "\n")


def filled(text: str, folder: Path) -> str:
    """The page with every block rewritten from the figures in the folder.

    Raises:
        UnknownFigures: the page has a block that is none of `BLOCKS`.
    """

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{_content(match[2], folder)}\n{match[3]}"

    return _BLOCK.sub(block, text)


def _content(name: str, folder: Path) -> str:
    if name not in BLOCKS:
        raise UnknownFigures(f"no table is named {name!r}; there are {', '.join(BLOCKS)}")
    table, sources = BLOCKS[name]
    read: list[Any] = []
    for source in sources:
        file = folder / f"{source}.json"
        if not file.exists():
            return f"*Not measured since the last change: {SOURCES[source]}.*"
        read.append(json.loads(file.read_text()))
    return table(*read)


if __name__ == "__main__":
    main()

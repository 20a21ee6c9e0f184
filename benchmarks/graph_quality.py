"""How good is LightGCN as we train it, on a log of clicks alone? Recall@20 and NDCG@20 in the split of its authors.

`train.txt` and `test.txt` have a user per line: the user's number, then those of the items. Base embeddings are fitted
to the training part (`training.rank_items`); then all items but the user's training items are ranked for each user.
Users have no base embedding, as everywhere here. The test part is looked at once, at the end.

`--validate` puts a random quarter of the training part in the test part's place: settings are chosen there.

    python -m benchmarks.graph_quality --data ../shared/datasets/gowalla --out out/graph-quality.json
"""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from scipy.sparse import csr_matrix

from benchmarks.harness import exit_on_error, finish, parser
from evaluation.ranking import recall_and_ndcg
from runtime.errors import ExitstreamError
from training.progress import Reporter, reporter_for
from training.rank_items import Graph, RankingOptions, fit_to_rank

HELD_OUT: Final = 0.25
"""Share of the training part that `--validate` measures on."""


class UnreadableSplit(ExitstreamError):
    """A file of the split is missing, or a line of it is no list of numbers."""


def main() -> None:
    """Fit, rank, write down."""
    arguments = _arguments()
    usual = RankingOptions()
    options = RankingOptions(
        minutes=arguments.minutes,
        steps=arguments.steps or usual.steps,
        learning_rate=arguments.learning_rate or usual.learning_rate,
        regularisation=usual.regularisation if arguments.regularisation is None else arguments.regularisation,
        seed=arguments.seed,
    )
    try:
        train, test = read_split(arguments.data)
    except ExitstreamError as error:
        exit_on_error(error)
    if arguments.validate:
        train, test = held_out(train, options.seed)
    figures = measure(train, test, options, reporter_for(Console(stderr=True)))
    finish(figures | {"validate": arguments.validate}, arguments.out)


def _arguments() -> Namespace:
    arguments = parser("Recall@20 and NDCG@20 of the graph's embeddings on LightGCN's split of Gowalla.")
    arguments.add_argument("--minutes", type=float, default=RankingOptions().minutes, help="of training, at most")
    arguments.add_argument("--steps", type=int, help="of training, at most")
    arguments.add_argument("--learning-rate", type=float)
    arguments.add_argument("--regularisation", type=float)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--validate", action="store_true", help="measure on a quarter of the training part instead")
    given = arguments.parse_args()
    if given.data is None:
        arguments.error("--data is missing: the folder of train.txt and test.txt")
    return given


def measure(train: csr_matrix, test: csr_matrix, options: RankingOptions, reporter: Reporter) -> dict[str, Any]:
    """Figures of a training: quality, time, settings."""
    started_s, cpu_started_s = time.perf_counter(), time.process_time()
    with reporter.step("graph: base embeddings", options.steps) as advance:
        fitted = fit_to_rank(train, options, advance)
    minutes = (time.perf_counter() - started_s) / 60
    cpu_minutes = (time.process_time() - cpu_started_s) / 60
    users, items = Graph(train, fitted.alphas).embeddings(fitted.base)
    recall, ndcg = recall_and_ndcg(users, items, train, test)
    return {
        "gowalla_recall_at_20": recall,
        "gowalla_ndcg_at_20": ndcg,
        "train_minutes": minutes,
        "train_cpu_minutes": cpu_minutes,
        "steps": fitted.steps,
        "epochs": fitted.steps * options.users_per_step / train.shape[0],
        "users": train.shape[0],
        "items": train.shape[1],
        "train_interactions": train.nnz,
        "test_interactions": test.nnz,
        "settings": asdict(options),
    }


def read_split(folder: Path) -> tuple[csr_matrix, csr_matrix]:
    """Training and test interactions, each (users, items) with ones.

    Raises:
        UnreadableSplit: `train.txt` or `test.txt` is missing or malformed.
    """
    train, test = _pairs(folder / "train.txt"), _pairs(folder / "test.txt")
    shape = tuple(int(size) + 1 for size in np.concatenate([train, test]).max(axis=0))
    return _matrix(train, shape), _matrix(test, shape)


def _pairs(file: Path) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(interactions, 2): user and item."""
    if not file.exists():
        raise UnreadableSplit(f"{file} does not exist; --data takes the folder of LightGCN's train.txt and test.txt")
    pairs: list[tuple[int, int]] = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            user, *items = (int(word) for word in line.split())
        except ValueError:
            raise UnreadableSplit(f"{file}, line {number}: expected a user's number and those of items") from None
        pairs.extend((user, item) for item in items)
    return np.array(pairs, np.int64).reshape(-1, 2)


def _matrix(pairs: np.ndarray[tuple[int, int], np.dtype[np.int64]], shape: tuple[int, ...]) -> csr_matrix:
    distinct = np.unique(pairs, axis=0)
    return csr_matrix((np.ones(len(distinct), np.float32), (distinct[:, 0], distinct[:, 1])), shape=shape)


def held_out(train: csr_matrix, seed: int) -> tuple[csr_matrix, csr_matrix]:
    """The training interactions without a random quarter, and that quarter."""
    pairs = np.stack(train.nonzero(), axis=1)
    out = np.random.default_rng(seed).random(len(pairs)) < HELD_OUT
    return _matrix(pairs[~out], train.shape), _matrix(pairs[out], train.shape)


if __name__ == "__main__":
    main()

"""What does a session's second page cost, once its first has left the prefix in the cache? READ FIRST: `main`.

A session is one user's pages in a row while their history stands still: the pages share their prefix and nothing else.
Every page is scored alone, by an engine that keeps prefixes and by one that does not, in turn; times are compared page
by page, and medians are over sessions. Times are the process's CPU time, which others' work on a shared machine moves
less. By number of candidates a page (`20 candidates`, ...):

    prefix_tokens, suffix_tokens    medians; a suffix is one candidate's
    first_ms, second_ms             at full depth, of the engine that keeps prefixes
    second_by_first                 second page ÷ first of the same session
    later_by_plain                  pages from the second on ÷ the same pages without a cache
    unknown_by_plain                pages whose prefix nobody has asked for ÷ the same without: what keeping costs
    exits_second_by_first           as above where candidates leave at the bundle's base threshold
    largest_difference              between a rate with and without the cache
    megabytes_per_user              in the cache, at full depth

    python -m benchmarks.sessions --data ../shared/datasets/ml-100k --out out/sessions.json
    python -m benchmarks.sessions --data … --backbone smollm2 --layers 12 --out out/sessions-smollm2.json
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import msgspec
import numpy as np
import torch

from benchmarks.engine_contestants import FULL_DEPTH
from benchmarks.engine_inputs import Floats
from benchmarks.engine_shapes import neutral_calibration
from benchmarks.harness import add_backbone, add_bundle, bundle_folder, exit_on_error, finish, parser
from event_data.event_log import EventLog
from event_data.load import load_log
from graph_updater.graph.base_embeddings import bundled_base
from models.bundle import Bundle
from models.calibration import ExitCalibration
from models.checkpoint import open_checkpoint
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from models.prompt import Prompt
from runtime.errors import ExitstreamError
from runtime.process.allocator import keep_freed_memory
from training.presets import PRETRAINED
from training.replay import Replay
from worker.budget.controller import FixedThreshold
from worker.engine.engine import ScoringEngine
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings, Precision

Engine = ScoringEngine[ScoringJob]
Session = list[Prompt]
CACHE_BYTES: Final = 4 << 30
"""Ample: nothing is evicted while it measures."""
RECENT: Final = 16
"""Items of a history that fills the prompts of both presets."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the users who ask it."""

    model: ExitModel
    calibration: ExitCalibration
    exit_threshold: float | None
    """None: its heads are not trained."""
    replay: Replay


def main() -> None:
    """Sessions of one page size after the other."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    log = load_log(arguments.data)
    try:
        subject = _subject(arguments, log)
    except ExitstreamError as error:
        exit_on_error(error)
    subject.replay.advance(log.interactions[: log.split().validation_end])
    engines = [_engine(subject, arguments.precision, cache_bytes) for cache_bytes in (CACHE_BYTES, 0)]
    users = _users(log, arguments.recent or RECENT)
    words = count(1)
    figures: dict[str, Any] = {}
    for candidates in map(int, arguments.candidates.split(",")):
        # Users of their own: what others' pages left in the cache is nothing to them.
        asking = [next(users) for _ in range(arguments.sessions + 1)]
        sessions = _sessions(subject, log, asking, candidates, arguments.pages)
        figures[f"{candidates} candidates"] = _measure(subject.exit_threshold, engines, sessions, words)
    finish(figures | {"layers": subject.model.backbone.config.num_hidden_layers}, arguments.out)


def _arguments() -> argparse.Namespace:
    arguments = parser("A session's second page against its first.")
    add_bundle(arguments)
    add_backbone(arguments)
    arguments.add_argument("--candidates", default="20,10,5", help="page sizes")
    arguments.add_argument("--recent", type=int, help="items of the history in a prompt; without: the bundle's limit")
    arguments.add_argument("--sessions", type=int, default=20, help="medians are over these")
    arguments.add_argument("--pages", type=int, default=3, help="of a session")
    arguments.add_argument("--precision", choices=("float32", "int8", "bfloat16"), default="float32")
    arguments.add_argument("--threads", type=int, default=1)
    return arguments.parse_args()


def _subject(arguments: argparse.Namespace, log: EventLog) -> Subject:
    """The bundle's model or, with its graph, a checkpoint's layers under one head that nobody has trained: that changes
    scores, and no time.
    """
    bundle = Bundle.load(bundle_folder(arguments.bundle, log))
    model, calibration, threshold = bundle.model, bundle.calibration, bundle.calibration.base_threshold
    text, limits, template = bundle.text, bundle.limits, bundle.template
    if arguments.backbone is not None:
        checkpoint = open_checkpoint(arguments.backbone, arguments.layers)
        text, limits, template = checkpoint.text, PRETRAINED.limits, PRETRAINED.template
        dim, layers = bundle.graph.dim, checkpoint.model.config.num_hidden_layers
        torch.manual_seed(0)
        model = ExitModel(checkpoint.model, ExitConfig((layers,), dim, max(dim, len(FEATURES)), len(FEATURES))).eval()
        calibration = neutral_calibration()
    limits = replace(limits, recent_items=arguments.recent or limits.recent_items)
    base = bundled_base(bundle.graph, bundle.text)
    replay = Replay(log.items, base, text, limits, model.config.statistics, template)
    return Subject(model, calibration, None if arguments.backbone else threshold, replay)


def _measure(
    exit_threshold: float | None, engines: Sequence[Engine], sessions: Sequence[Session], words: Iterator[int]
) -> dict[str, Any]:
    """Figures of one page size.

    Args:
        exit_threshold: None to measure no exits.
        engines: the one that keeps prefixes and the one that does not.
        sessions: the first is for warming up.
        words: ids of tokens, each of which can begin prefixes that nobody has asked for.
    """
    _compared(engines, sessions[:1], FULL_DEPTH)  # kernels are built for these numbers of rows
    sessions = sessions[1:]
    kept = _compared(engines, sessions, FULL_DEPTH)
    strangers = [[_begun_with(page, next(words)) for page in session] for session in sessions]
    unknown = _compared(engines, strangers, FULL_DEPTH)
    figures = {
        "prefix_tokens": float(np.median([len(session[0].prefix) for session in sessions])),
        "suffix_tokens": float(np.median([page.suffix_lengths for session in sessions for page in session])),
        "first_ms": 1000 * float(np.median(kept.keeping_s[:, 0])),
        "second_ms": 1000 * float(np.median(kept.keeping_s[:, 1])),
        "second_by_first": kept.second_by_first,
        "later_by_plain": float(np.median(kept.keeping_s[:, 1:] / kept.plain_s[:, 1:])),
        "unknown_by_plain": float(np.median(unknown.keeping_s / unknown.plain_s)),
        "largest_difference": kept.largest_difference,
        "megabytes_per_user": kept.bytes / len(sessions) / 1e6,
    }
    if exit_threshold is not None:
        others = [[_begun_with(page, word) for page in session] for session, word in zip(sessions, words, strict=False)]
        exits = _compared(engines, others, exit_threshold)
        figures["exits_second_by_first"] = exits.second_by_first
    return figures


def _users(log: EventLog, least: int) -> Iterator[str]:
    """Who has so long a history before the test part, the most recently active first."""
    past = log.interactions[: log.split().validation_end]
    events = Counter(event.user_id for event in past)
    active = dict.fromkeys(event.user_id for event in reversed(past))
    return iter([user for user in active if events[user] >= least])


def _sessions(subject: Subject, log: EventLog, users: Sequence[str], candidates: int, pages: int) -> list[Session]:
    """Each user's pages of random items of the catalogue."""
    random = np.random.default_rng(0)
    sessions: list[Session] = []
    for user in users:
        chosen = random.choice(len(log.items), pages * candidates, replace=False).reshape(pages, candidates)
        sessions.append([subject.replay.prompt(user, [log.items[item].item_id for item in page]) for page in chosen])
    return sessions


def _begun_with(page: Prompt, word: int) -> Prompt:
    """The page with another first token: nothing of its prefix is known, not even the instruction."""
    token_ids = page.prefix.token_ids.copy()
    token_ids[0] = word
    return Prompt(msgspec.structs.replace(page.prefix, token_ids=token_ids), page.suffixes)


@dataclass(frozen=True, slots=True)
class _Compared:
    keeping_s: Floats  # (sessions, pages)
    plain_s: Floats  # (sessions, pages)
    largest_difference: float
    bytes: int

    @property
    def second_by_first(self) -> float:
        """Of the engine that keeps prefixes."""
        return float(np.median(self.keeping_s[:, 1] / self.keeping_s[:, 0]))


def _compared(engines: Sequence[Engine], sessions: Sequence[Session], threshold: float) -> _Compared:
    """Every page by both engines; which of them begins alternates."""
    for engine in engines:
        engine.controller = FixedThreshold(threshold)
    before = engines[0].counters.prefix_bytes
    seconds = np.zeros((2, len(sessions), len(sessions[0])))
    difference = 0.0
    for row, session in enumerate(sessions):
        for column, page in enumerate(session):
            rates = {}
            for which in (0, 1) if (row + column) % 2 else (1, 0):
                started_s = time.process_time()
                [job] = engines[which].score([page])
                seconds[which, row, column] = time.process_time() - started_s
                rates[which] = job.ctr
            difference = max(difference, float(np.abs(rates[0] - rates[1]).max()))
    return _Compared(seconds[0], seconds[1], difference, engines[0].counters.prefix_bytes - before)


def _engine(subject: Subject, precision: Precision, cache_bytes: int) -> Engine:
    engine = Engine(
        copy.deepcopy(subject.model),
        subject.calibration,
        EngineSettings(precision=precision, prefix_cache_bytes=cache_bytes, max_batch_tokens=2_048, warm_up_rounds=1),
        owns_model=True,
    )
    engine.warm_up()
    return engine


if __name__ == "__main__":
    main()

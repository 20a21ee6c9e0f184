"""Nearest vectors by cosine: exact while few, inverted lists when many.

One thread owns an index: it alone changes it and adopts newly trained lists. What takes long runs elsewhere and only
reads: training, and the comparison of a search with an exact one. While that reads (`_reading` is locked), changes wait
in a queue, so that the owner's thread never does; they are applied in slices before the searches that find it free.

Three properties of FAISS shape this: adding a known id makes a second entry (so ids are kept here), `nprobe` on an
index is shared state (so it goes with each call), and recall falls while an index grows (so it is measured, and the
lists are trained anew). A training that fails is tried again later; what there is goes on serving meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.state_store.exact_index import NO_ID, ExactIndex, Ids, Searchable, Vectors
from worker.state_store.inverted_lists import InvertedLists
from worker.state_store.retries import Retries
from worker.state_store.settings import TableSettings

__all__ = ["NO_ID", "VectorIndex"]

log = structlog.get_logger(__name__)

_SHARE_OF_NEWEST: Final = 0.1
"""Of a new measurement in the moving average of recall."""
_ROWS_AT_ONCE: Final = 400
"""Of changes that waited, applied between two searches: many more, after a long read, would make a request late."""
_HEADROOM: Final = 0.3
"""Share of what `least_recall` leaves to 1 that new lists must find beyond it, since recall falls while they grow."""


class VectorIndex:
    """Cosine search over normalised vectors with integer ids, each id at most once.

    Args:
        dim: width of the vectors.
        settings: when to change from exact search, and how good inverted lists must stay.
        executor: trains inverted lists and measures recall off the owner's thread; None does both on the spot.
        clock: monotonic seconds, for the pauses after a failed training.

    Attributes:
        training: how its attempts have gone.
        recall: moving average of the share of true neighbours found; 1 while search is exact.
    """

    def __init__(
        self,
        dim: int,
        settings: TableSettings | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or TableSettings()
        self._executor = executor or _OnTheSpot()
        self._active: Searchable = ExactIndex(dim)
        self._reading = Lock()
        self._waiting: list[tuple[Ids, Vectors | None]] = []
        self._training: Future[InvertedLists] | None = None
        self._check: Future[tuple[InvertedLists, float]] | None = None
        self._changed_in_training: set[int] = set()
        self._changes = 0
        self._changes_before_training = 0
        self._trained_for = 0
        self._searches = 0
        self._applying = Retries(clock)
        self.training = Retries(clock)
        self.recall = 1.0

    def __len__(self) -> int:
        return len(self._active)

    @property
    def exact(self) -> bool:
        """Whether every search compares with every entry."""
        return isinstance(self._active, ExactIndex)

    @property
    def is_awaited(self) -> bool:
        """Whether search is slow because lists for so many entries have not been trained yet."""
        return self.exact and len(self) > self._settings.exact_search_limit

    @property
    def is_settled(self) -> bool:
        """Whether every change has been written: what has been removed is found no more."""
        return not self._waiting

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Adds or replaces entries.

        Args:
            ids: (n,) distinct, not negative, dense: row numbers.
            vectors: (n, dim), each of length 1.
        """
        self._change(ids, vectors)
        self.maintain()

    def remove(self, ids: Ids) -> None:
        """Removes entries; unknown ids are ignored."""
        self._change(ids, None)

    def search(self, queries: Vectors, count: int) -> tuple[NDArray[np.float32], Ids]:
        """The entries nearest to each query, nearest first.

        Args:
            queries: (q, dim), each of length 1.
            count: how many to find for each.

        Returns:
            Cosines (q, count) and ids (q, count), NO_ID where there are fewer entries.
        """
        self.maintain()
        found = self._active.search(queries, count)
        self._searches += 1
        if self._searches % self._settings.recall_check_interval == 0:
            self._measure_recall(queries[:1].copy())
        return found

    def maintain(self) -> None:
        """Applies changes that waited, adopts lists that have been trained, starts training when it is due."""
        self._apply_waiting()
        if self._check is not None and self._check.done():
            self._finish_check(self._check)
        if self._training is not None:
            if self._training.done():
                self._finish_training(self._training)
            return
        due = self._trained_for * self._settings.retrain_growth
        outgrown = self.exact or len(self) > due or self._changes > due
        if len(self) > self._settings.exact_search_limit and outgrown and self.training.is_due:
            self._train()

    def _change(self, ids: Ids, vectors: Vectors | None) -> None:
        """Puts, or removes where there are no vectors: at once, or later if somebody reads."""
        if self._waiting or not self._reading.acquire(blocking=False):
            self._waiting.append((ids.copy(), None if vectors is None else vectors.copy()))
            return
        try:
            self._apply(ids, vectors)
        finally:
            self._reading.release()

    def _apply_waiting(self) -> None:
        """The next slice, in order. What fails is tried again after a pause: whoever searches must not be told."""
        if not self._waiting or not self._applying.is_due or not self._reading.acquire(blocking=False):
            return
        try:
            rows = 0
            while self._waiting and rows < _ROWS_AT_ONCE:
                self._apply(*self._waiting[0])
                rows += len(self._waiting[0][0])
                del self._waiting[0]
        except Exception as error:
            self._applying.failed()
            log.exception(
                "changes could not be written to a search index",
                waiting=len(self._waiting),
                reason=repr(error),
                attempt_again_in_s=self._applying.pause_s,
            )
        else:
            self._applying.succeeded()
        finally:
            self._reading.release()

    def _apply(self, ids: Ids, vectors: Vectors | None) -> None:
        self._changes += len(ids)
        if self._training is not None:
            self._changed_in_training.update(ids.tolist())
        if vectors is None:
            self._active.remove(ids)
        else:
            self._active.put(ids, vectors)

    def _train(self) -> None:
        least = self._settings.least_recall
        self._changed_in_training = set()
        self._changes_before_training = self._changes
        try:
            self._training = self._executor.submit(
                _trained, self._reading, self._active, least + _HEADROOM * (1 - least)
            )
        except Exception as error:  # noqa: BLE001 - search goes on with what there is
            self._note_failed_training(error)
        else:
            self.maintain()

    def _finish_training(self, training: Future[InvertedLists]) -> None:
        """Takes the result, or tries again after a pause."""
        self._training = None
        try:
            lists = training.result()
            trained_for = len(lists)
            self._adopt(lists)
        except Exception as error:  # noqa: BLE001 - search goes on with what there is
            self._note_failed_training(error)
        else:
            self.training.succeeded()
            self._trained_for = trained_for
            self._changes -= self._changes_before_training
            log.info(
                "a search index has been trained",
                entries=len(lists),
                lists=lists.list_count,
                lists_read=lists.probes,
                recall=round(lists.recall, 3),
            )
        self._changed_in_training = set()

    def _note_failed_training(self, error: BaseException) -> None:
        self.training.failed()
        log.error(
            "training a search index failed; the one before goes on serving",
            entries=len(self),
            reason=repr(error),
            attempt_again_in_s=self.training.pause_s,
        )

    def _adopt(self, lists: InvertedLists) -> None:
        """Applies to new lists what changed while they were trained, and swaps them in."""
        changed = np.fromiter(self._changed_in_training, np.int64, len(self._changed_in_training))
        there = self._active.contains(changed)
        lists.put(changed[there], self._active.vectors(changed[there]))
        lists.remove(changed[~there])
        self._active = lists
        self.recall = lists.recall

    def _measure_recall(self, query: Vectors) -> None:
        """Has one search compared with an exact one, elsewhere."""
        lists = self._active
        if self._check is not None or not isinstance(lists, InvertedLists):
            return
        try:
            self._check = self._executor.submit(_checked, self._reading, lists, query)
        except RuntimeError:  # the program ends, and the executor has already
            return
        self.maintain()

    def _finish_check(self, check: Future[tuple[InvertedLists, float]]) -> None:
        """Takes the result; if recall is too low, more lists are read from now on."""
        self._check = None
        if check.cancelled() or (error := check.exception()) is not None:
            if not check.cancelled():
                log.warning("the recall of a search index could not be measured", reason=repr(error))
            return
        lists, share_found = check.result()
        if lists is not self._active:
            return
        self.recall += _SHARE_OF_NEWEST * (share_found - self.recall)
        if self.recall < self._settings.least_recall and lists.probes < lists.list_count:
            lists.read_more()
            self.recall = 1.0


def _trained(reading: Lock, entries: Searchable, wanted_recall: float) -> InvertedLists:
    """In the executor."""
    with reading:
        ids, vectors = entries.snapshot()
    return InvertedLists.train(ids, vectors, wanted_recall)


def _checked(reading: Lock, lists: InvertedLists, query: Vectors) -> tuple[InvertedLists, float]:
    """In the executor."""
    with reading:
        return lists, lists.measured_recall(query)


class _OnTheSpot(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:  # noqa: ANN401 - as in `Executor`
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - it is the future's
            done.set_exception(error)
        return done

"""Published scores that wait for their outcome, joined with the interactions that users' states tell of.

An interaction belongs to the latest score of its user and item that was made before it. A score is judged when its wait
is over, by all of its interactions known until then: positive if one of them is, negative if there are some and none
is. Judging at once would be wrong in both directions: of what is shown and then clicked the impression comes first, and
where positives come before negatives the first minutes would hold too many of them. Without an interaction there is no
outcome: the item was not shown, and what was not shown says nothing of the score.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.messages import ImpressionRequest, PastInteraction


class Answered(Protocol):
    """What is read of an answered request; `worker.job.Job` is one."""

    request: ImpressionRequest
    item_ids: list[str]
    ctr: NDArray[np.float64]
    made_by: NDArray[np.int8]
    model_version: str

    @property
    def scored_time_ms(self) -> int:
        """When it was scored, Unix milliseconds."""


@dataclass(frozen=True)
class Judged:
    """Scores of one model with their outcome."""

    model_version: str
    ctr: NDArray[np.float64]  # (scores,) as published
    positive: NDArray[np.bool_]  # (scores,)
    made_by: NDArray[np.int8]  # (scores,) indices into `MADE_BY`
    expired: int
    """Scores of the same requests that had no interaction."""


@dataclass
class _Waiting:
    """An answered request whose candidates wait."""

    user_id: str
    scored_ms: int
    judged_at_s: float
    item_ids: Sequence[str]
    ctr: NDArray[np.float64]
    made_by: NDArray[np.int8]
    model_version: str
    outcomes: dict[int, bool] = field(default_factory=dict)
    """By place: whether one of its interactions was positive."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Made only for requests whose user does something."""
        return {item_id: place for place, item_id in enumerate(self.item_ids)}


class WaitingScores:
    """Scores that wait for their outcome.

    Args:
        wait_s: from the answer until it is judged.
        most: candidates that wait at a time; while there is no room, answers are skipped. Giving up the oldest instead
            would judge none at all under load, as each would be given up before its time.

    Attributes:
        skipped: candidates that were not followed.
    """

    def __init__(self, wait_s: float, most: int) -> None:
        self.skipped = 0
        self._wait_s = wait_s
        self._most = most
        self._candidates = 0
        self._in_order: deque[_Waiting] = deque()
        self._by_user: dict[str, deque[_Waiting]] = {}

    @property
    def candidates(self) -> int:
        """How many wait."""
        return self._candidates

    def note(self, answer: Answered, now_s: float) -> None:
        """Takes in an answered request; now_s: monotonic seconds."""
        count = len(answer.item_ids)
        if self._candidates + count > self._most:
            self.skipped += count
            return
        user_id = answer.request.user_id
        waiting = _Waiting(
            user_id,
            answer.scored_time_ms,
            now_s + self._wait_s,
            answer.item_ids,
            answer.ctr,
            answer.made_by,
            answer.model_version,
        )
        self._candidates += count
        self._in_order.append(waiting)
        self._by_user.setdefault(user_id, deque()).append(waiting)

    def awaits(self, user_id: str) -> bool:
        """Whether a score of the user waits for what became of it."""
        return user_id in self._by_user

    def learn(self, user_id: str, recent: Sequence[PastInteraction]) -> None:
        """Takes in a user's history. The same may come again, and again with more in it."""
        answers = self._by_user.get(user_id)
        if answers is None:
            return
        earliest_ms = min(answer.scored_ms for answer in answers)
        for past in recent:
            if past.event_time_ms > earliest_ms:
                _attribute(past, answers)

    @property
    def model_versions(self) -> set[str]:
        """Of the models whose scores wait."""
        return {waiting.model_version for waiting in self._in_order}

    def judge(self, now_s: float) -> list[Judged]:
        """Hands out those whose wait is over, by the model that made them; now_s: monotonic seconds."""
        due: dict[str, list[_Waiting]] = {}
        while self._in_order and self._in_order[0].judged_at_s <= now_s:
            waiting = self._in_order.popleft()
            self._forget(waiting)
            self._candidates -= len(waiting.item_ids)
            due.setdefault(waiting.model_version, []).append(waiting)
        return [_judged(version, answers) for version, answers in due.items()]

    def _forget(self, waiting: _Waiting) -> None:
        """A user's answers end in the order in which they came."""
        answers = self._by_user[waiting.user_id]
        answers.popleft()
        if not answers:
            del self._by_user[waiting.user_id]


def _judged(model_version: str, answers: Sequence[_Waiting]) -> Judged:
    """The candidates of these answers that have an outcome."""
    places = [list(waiting.outcomes) for waiting in answers]
    positive = [outcome for waiting in answers for outcome in waiting.outcomes.values()]
    ctr = [waiting.ctr[at] for waiting, at in zip(answers, places, strict=True)]
    made_by = [waiting.made_by[at] for waiting, at in zip(answers, places, strict=True)]
    return Judged(
        model_version=model_version,
        ctr=np.concatenate([np.zeros(0), *ctr]),
        positive=np.array(positive, np.bool_),
        made_by=np.concatenate([np.zeros(0, np.int8), *made_by]),
        expired=sum(len(waiting.item_ids) for waiting in answers) - len(positive),
    )


def _attribute(past: PastInteraction, answers: Sequence[_Waiting]) -> None:
    """Gives an interaction to the latest score of its item before it, if there is one."""
    before = [answer for answer in answers if answer.scored_ms < past.event_time_ms and past.item_id in answer.places]
    if before:
        latest = max(before, key=lambda answer: answer.scored_ms)
        place = latest.places[past.item_id]
        latest.outcomes[place] = latest.outcomes.get(place, False) or past.positive

"""Waiting out a broker that does not answer: not ready meanwhile, one log line a minute, and no program ends for it."""

from __future__ import annotations

from typing import Final

import structlog

from runtime.clock import Clock
from runtime.errors import (
    BrokerError,
    DeliveryFailed,
    OffsetsOutOfRange,
    RecordTooLarge,
    TopicsNotCreated,
    TransactionFailed,
)
from runtime.observability.readiness import Readiness

CONDITION: Final = "broker"
LOG_INTERVAL_S: Final = 60.0
_NOT_WAITED_OUT: Final = (OffsetsOutOfRange, RecordTooLarge, TransactionFailed, DeliveryFailed, TopicsNotCreated)
log = structlog.get_logger(__name__)


def is_outage(error: BrokerError) -> bool:
    """Whether a running program tries again until it succeeds: the broker does not answer, or a person has to mend
    something there, for example rights that were withdrawn. The other errors ask the program for something else.
    """
    return not isinstance(error, _NOT_WAITED_OUT)


class Outages:
    """Which activities a program cannot do at present because the broker does not answer. To be used in one thread.

        try:
            offsets = await source.commit(offsets)
        except BrokerUnreachable as error:
            outages.note("commits", error)     # and try again later
        else:
            outages.over("commits")

    Args:
        readiness: of the program; not ready while one activity or more waits for the broker.
        clock: monotonic time.
    """

    def __init__(self, readiness: Readiness, clock: Clock) -> None:
        self._readiness = readiness
        self._clock = clock
        self._began_s = 0.0
        self._logged_s = 0.0
        self._waiting: set[str] = set()

    @property
    def is_out(self) -> bool:
        """Whether an activity waits for the broker."""
        return bool(self._waiting)

    def note(self, activity: str, error: BrokerError) -> None:
        """Notes a failed attempt: the activity will be tried again."""
        now_s = self._clock.monotonic()
        if not self._waiting:
            self._began_s = now_s
        if not self._waiting or now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            log.warning(
                "waiting for the broker", activity=activity, cause=str(error), for_s=round(now_s - self._began_s)
            )
        self._waiting.add(activity)
        self._readiness.wait_for(CONDITION, str(error))

    def over(self, activity: str) -> None:
        """Notes that the activity succeeded; without effect if it was not waiting."""
        if activity not in self._waiting:
            return
        self._waiting.discard(activity)
        if not self._waiting:
            self._readiness.ready(CONDITION)
            log.info("the broker answers again", after_s=round(self._clock.monotonic() - self._began_s))

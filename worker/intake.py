"""From a record to a job: decoded, with its budget and its deadline."""

from __future__ import annotations

from typing import Final

from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.foreign_keys import ForeignKeys
from runtime.records import Record
from schemas.codec import MalformedRecord, MessageDecoder, WireFormat
from schemas.messages import ImpressionRequest
from worker.settings import WorkerSettings

BUDGET_HEADER: Final = "budget-ms"
"""A record's header with the budget of a request that names none itself: a topic's producers can share one."""
LARGEST_BUDGET_MS: Final = 3_600_000


class Intake:
    """Reads impression requests.

    Args:
        settings: default budget, bounds on size and clocks.
        clock: ours.
        foreign_keys: told of every request, where that is wanted.
    """

    def __init__(self, settings: WorkerSettings, clock: Clock, foreign_keys: ForeignKeys | None = None) -> None:
        self._settings = settings.worker
        self._clock = clock
        self._foreign_keys = foreign_keys
        self._decoder = MessageDecoder(ImpressionRequest, settings.kafka.max_record_bytes)

    def decode(self, record: Record) -> tuple[ImpressionRequest, WireFormat]:
        """The request in a record, and the format in which it came.

        Raises:
            MalformedRecord: there is none, or it names too many candidates; says why.
        """
        request, wire_format = self._decoder.decode_with_format(record.value, record.headers)
        candidates, most = len(request.candidate_item_ids), self._settings.max_candidates
        if candidates > most:
            raise MalformedRecord(f"{candidates} candidates; at most {most} are scored (worker.max_candidates)")
        if self._foreign_keys is not None:
            self._foreign_keys.check(record, request.user_id)
        return request, wire_format

    def deadline(self, request: ImpressionRequest, record: Record) -> tuple[Deadline, float]:
        """The request's deadline, and its budget in seconds: its own, its record's header's, or the setting's.

        Raises:
            MalformedRecord: the header holds no budget.
        """
        budget_ms = request.budget_ms
        if budget_ms is None:
            budget_ms = self._header_budget_ms(record)
        deadline = Deadline.at_intake(
            created_time_ms=request.created_time_ms,
            budget_ms=budget_ms,
            clock=self._clock,
            max_clock_skew_ms=self._settings.max_clock_skew_ms,
            max_age_ms=self._settings.max_age_ms,
        )
        return deadline, budget_ms / 1000

    def _header_budget_ms(self, record: Record) -> int:
        named = dict(record.headers).get(BUDGET_HEADER)
        if named is None:
            return self._settings.budget_ms
        # The length first: Python refuses to read numbers of thousands of digits.
        if not named.isdigit() or len(named) > len(str(LARGEST_BUDGET_MS)) or int(named) > LARGEST_BUDGET_MS:
            raise MalformedRecord(f"the header {BUDGET_HEADER} holds {named[:40]!r}, not milliseconds up to an hour")
        return int(named)

"""Records under a key that is not their user's id. They are taken all the same, but partitions follow keys: a user's
records are then neither read in order nor in one place.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from runtime.records import Record

log = structlog.get_logger(__name__)


class ForeignKeys:
    """Tells of such records: of the first one in the log, of each to a counter.

    Args:
        what: the records, for people.
        count: called for each.
    """

    def __init__(self, what: str, count: Callable[[], object]) -> None:
        self._what = what
        self._count = count
        self._is_told = False

    def check(self, record: Record, user_id: str) -> None:
        """Notes the record if its key is not the user's id."""
        if record.key == user_id.encode():
            return
        self._count()
        if not self._is_told:
            self._is_told = True
            log.warning(
                "records should have their user's id as key, so that a user's are read in order and in one place; from "
                "now on others are only counted",
                what=self._what,
                record=str(record),
            )

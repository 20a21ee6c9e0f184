"""Whether a program is ready to be sent work, and if not, why. Plain state, shown by the HTTP status."""

from __future__ import annotations

from collections.abc import Iterable


class Readiness:
    """A set of named conditions, each with the reason why it does not hold yet.

    Args:
        conditions: names of what must hold; all begin as not ready.
    """

    def __init__(self, conditions: Iterable[str] = ()) -> None:
        self._reasons: dict[str, str] = dict.fromkeys(conditions, "starting")

    def wait_for(self, condition: str, reason: str) -> None:
        """Notes that a condition does not hold, and why."""
        self._reasons[condition] = reason

    def ready(self, condition: str) -> None:
        """Notes that a condition holds."""
        self._reasons.pop(condition, None)

    @property
    def is_ready(self) -> bool:
        """Whether every condition holds."""
        return not self._reasons

    def reasons(self) -> dict[str, str]:
        """Why not, by condition."""
        return dict(self._reasons)

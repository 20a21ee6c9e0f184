"""Whose page is next: the plan's order, but no user opens two pages in quick succession."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from loadgen.plan import Impression


class Turns:
    """Hands out impressions, each user's in their order.

    Args:
        impressions: in the order of the plan.
        gap_s: least seconds between two pages of one user.
    """

    def __init__(self, impressions: Sequence[Impression], gap_s: float) -> None:
        self._waiting = deque(impressions)
        self._gap_s = gap_s
        self._free_at_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, now_s: float) -> Impression | None:
        """The first impression whose user may open a page now; None if all of them have to wait."""
        for place, impression in enumerate(self._waiting):
            if self._free_at_s.get(impression.user_id, 0.0) <= now_s:
                del self._waiting[place]
                self._free_at_s[impression.user_id] = now_s + self._gap_s
                return impression
        return None

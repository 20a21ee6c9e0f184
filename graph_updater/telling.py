"""When a shard tells the others of items: while it leads; at once what must not wait, the rest now and then."""

from __future__ import annotations

from graph_updater.state.shared_items import SharedItems
from runtime.clock import Clock


class Telling:
    """Takes the parts to be told with each batch.

    Args:
        shared: the shard's; None where one updater has all users.
        interval_s: between two times at which parts are told that only the embeddings of users have moved.
        clock: for it.
    """

    def __init__(self, shared: SharedItems | None, interval_s: float, clock: Clock) -> None:
        self._shared = shared
        self._interval_s = interval_s
        self._clock = clock
        self._term: object | None = None
        self._told_all_s = float("-inf")

    def take(self, term: object | None, *, all_published: bool = False) -> list[str]:
        """Items whose part is to be told.

        Args:
            term: of leadership; None while another updater of the shard leads, which then tells. A new one begins with
                what differs from all that the shard's former leaders have told.
            all_published: whether everything that was taken in this term so far is published.
        """
        if self._shared is None:
            return []
        if term is not self._term:
            self._shared.stop_telling()
            self._term, self._told_all_s = term, float("-inf")
        elif all_published:
            self._shared.confirm()
        if term is None:
            return []
        now_s = self._clock.monotonic()
        tells_all = now_s - self._told_all_s >= self._interval_s
        if tells_all:
            self._told_all_s = now_s
        return self._shared.take_owed(of_own_edges=not tells_all)

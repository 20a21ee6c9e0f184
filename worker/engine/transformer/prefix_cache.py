"""Keys and values of earlier prefixes, so that further pages of a user's session compute only their suffixes.

Keyed by content: a user whose history has changed has another prefix, so nothing stale can be found. It belongs to one
engine: a newer model begins with an empty one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from worker.engine.counters import EngineCounters
from worker.engine.prefix import KnownPrefix, Stretch


class PrefixCache:
    """Bounded in bytes; the least recently used stretch of a prefix is evicted first.

    Args:
        max_bytes: bound on the memory held; 0 disables the cache.

    Attributes:
        bytes: memory held.
        hits: prefixes of which all stretches were there.
        partial_hits: prefixes of which some were: mostly the words that all users share.
        misses: prefixes of which none was.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._states: OrderedDict[bytes, tuple[KnownPrefix, int]] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.partial_hits = 0
        self.misses = 0

    @property
    def enabled(self) -> bool:
        """Whether anything is cached at all."""
        return self._max_bytes > 0

    def look_up(self, stretches: Sequence[Stretch]) -> None:
        """Gives every stretch what is known of it, where that is deeper than what it has; an empty state otherwise."""
        # The shared words last: used by every prefix, they are evicted after all that build on them.
        for stretch in reversed(stretches):
            found = self.find(stretch.key)
            if found is not None and not stretch.is_known(found.stages - 1):
                stretch.known = found
            elif stretch.known is None:
                stretch.known = KnownPrefix()

    def count(self, stretches: Sequence[Stretch]) -> None:
        """Counts a prefix that was looked up, by how much of it the first stage finds."""
        known = [stretch.is_known(0) for stretch in stretches]
        if all(known):
            self.hits += 1
        elif any(known):
            self.partial_hits += 1
        else:
            self.misses += 1

    def count_into(self, counters: EngineCounters) -> None:
        """Tells the engine's counters."""
        counters.prefix_hits = self.hits
        counters.prefix_partial_hits = self.partial_hits
        counters.prefix_misses = self.misses
        counters.prefix_bytes = self.bytes

    def find(self, key: bytes) -> KnownPrefix | None:
        """The cached state of a stretch, or None."""
        if key not in self._states:
            return None
        self._states.move_to_end(key)
        return self._states[key][0]

    def keep(self, key: bytes, state: KnownPrefix) -> None:
        """Caches a stretch, or its deeper state, and evicts what no longer fits.

        One that is larger than the whole cache is not kept, and evicts nothing.
        """
        known = self._states.pop(key, None)
        if known is not None:
            self.bytes -= known[1]
            if known[0].stages > state.stages:
                state = known[0]
        size = state.bytes
        if size > self._max_bytes:
            return
        self._states[key] = (state, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, dropped) = self._states.popitem(last=False)
            self.bytes -= dropped

    def forget(self, key: bytes) -> None:
        """Drops a stretch; without effect if it is not cached."""
        known = self._states.pop(key, None)
        if known is not None:
            self.bytes -= known[1]

    def __len__(self) -> int:
        return len(self._states)

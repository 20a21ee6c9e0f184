"""Keys and values of earlier prefixes, so that further pages of a user's session compute only their suffixes.

Keyed by content: a user whose history has changed has another prefix, so nothing stale can be found.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from models.prompt import TokenSequence
from worker.engine.transformer.attention import KeyValue


@dataclass(slots=True)
class KnownPrefix:
    """One prefix: keys and values of the layers it has passed, its hidden rows before the last of them."""

    layers: list[KeyValue] = field(default_factory=list)
    hidden: Tensor | None = None  # (tokens, hidden), the input of the deepest layer
    stages: int = 0

    def extend(self, layers: Sequence[KeyValue], hidden: Tensor) -> None:
        """Add one more stage, which begins with the layer that the one before ended with."""
        self.layers[-1:] = layers
        self.hidden = hidden
        self.stages += 1

    @property
    def bytes(self) -> int:
        """Memory held."""
        held = [tensor for pair in self.layers for tensor in pair]
        if self.hidden is not None:
            held.append(self.hidden)
        return sum(tensor.nbytes for tensor in held)


class PrefixCache:
    """Bounded in bytes; the least recently used prefix is evicted first.

    Args:
        max_bytes: bound on the memory held; 0 disables the cache.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._states: OrderedDict[bytes, tuple[KnownPrefix, int]] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def enabled(self) -> bool:
        """Whether anything is cached at all."""
        return self._max_bytes > 0

    def find(self, prefix: TokenSequence) -> KnownPrefix | None:
        """The cached state of a prefix, or None."""
        key = content_key(prefix)
        if key not in self._states:
            self.misses += 1
            return None
        self.hits += 1
        self._states.move_to_end(key)
        return self._states[key][0]

    def keep(self, prefix: TokenSequence, state: KnownPrefix) -> None:
        """Caches a prefix, or its deeper state, and evicts what no longer fits."""
        key = content_key(prefix)
        known = self._states.pop(key, None)
        if known is not None:
            self.bytes -= known[1]
            if known[0].stages > state.stages:
                state = known[0]
        size = state.bytes
        self._states[key] = (state, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, dropped) = self._states.popitem(last=False)
            self.bytes -= dropped

    def forget(self, prefix: TokenSequence) -> None:
        """Drops a prefix; without effect if it is not cached."""
        known = self._states.pop(content_key(prefix), None)
        if known is not None:
            self.bytes -= known[1]

    def __len__(self) -> int:
        return len(self._states)


def content_key(prefix: TokenSequence) -> bytes:
    """Equal for equal prefixes only: every token and every soft token's numbers go in."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (prefix.token_ids, prefix.soft_positions, prefix.soft_kinds, prefix.soft_values):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.tobytes())
    return digest.digest()

"""A prompt's prefix in the stretches in which it is kept between requests, and in which a long one is computed: words
that every user shares, then the rest.

Knows neither torch nor the cache: what a stretch's tensors hold is the business of `worker.engine.transformer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from msgspec.structs import astuple

from models.token_sequence import TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from worker.engine.transformer.tree_attention import KeyValue

SHARED_TOKENS: Final = 8
"""Fewer leading words are not kept apart from the rest: attention in two pieces takes longer than they do."""
STRETCH_TOKENS: Final = 256
"""No stretch is longer: a long prefix can be computed in several steps, between which others have theirs."""


@dataclass(slots=True)
class KnownPrefix:
    """One stretch: keys and values of the layers it has passed, its hidden rows before the last of them."""

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


@dataclass(slots=True, eq=False)
class Stretch:
    """Neighbouring tokens of one part's prefix that are kept together.

    Attributes:
        sequence: the tokens.
        key: names them and all tokens before them.
        known: as the cache knows it, or will; None: the part has it for itself.
        hidden: (tokens, hidden) where the part's last stage computed it; else None.
    """

    sequence: TokenSequence
    key: bytes = b""
    known: KnownPrefix | None = None
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sequence)

    def is_known(self, stage: int) -> bool:
        """Whether its keys and values of a stage are there already."""
        return self.known is not None and self.known.stages > stage

    @property
    def rows(self) -> Tensor | None:
        """(tokens, hidden) from which the next stage goes on; None before the first."""
        if self.hidden is None and self.known is not None:
            return self.known.hidden  # the cache had the stages so far but not the next one
        return self.hidden


def unnamed_stretches(prefix: TokenSequence) -> list[Stretch]:
    """The prefix for one part alone, which nothing is kept of between requests."""
    return [Stretch(prefix.between(start, stop)) for start, stop in pairwise(_cuts(0, len(prefix)))]


def stretches_of(prefix: TokenSequence) -> list[Stretch]:
    """The words before the first soft token, which do not depend on the user, and the rest; or all in one. What is
    longer than `STRETCH_TOKENS` is cut further.

    Each attends to those before it: it is named by the whole prefix up to its end.
    """
    shared = int(prefix.soft_positions[0]) if len(prefix.soft_positions) else 0
    cuts = _cuts(0, len(prefix))
    if shared >= SHARED_TOKENS:
        cuts = _cuts(0, shared)[:-1] + _cuts(shared, len(prefix))
    return [
        Stretch(prefix.between(start, stop), content_key(prefix.between(0, stop), start))
        for start, stop in pairwise(cuts)
    ]


def _cuts(start: int, stop: int) -> list[int]:
    return [*range(start, max(stop, start + 1), STRETCH_TOKENS), stop]


def content_key(prefix: TokenSequence, start: int = 0) -> bytes:
    """Equal for equal stretches only: every token, every soft token's numbers and every added word go in.

    Args:
        prefix: all tokens up to the end of the stretch.
        start: where in them it begins.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(start.to_bytes(8, "little"))
    for part in astuple(prefix):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.tobytes())
    return digest.digest()

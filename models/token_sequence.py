"""A prompt's parts as arrays: words, soft tokens, and what is summed into a token.

A soft token is a position whose input vector is not looked up but projected from numbers: an embedding, or a
candidate's statistics. Where a template sums its lines, all words and soft tokens of a line share one position, and its
input vector is the sum of theirs.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evidence import Vector
from models.prompt_lines import SOFT, TITLE, Line, Tokens

NONE: Final = np.zeros(0, np.int32)
"""No words."""
NONE.flags.writeable = False


class SoftKind(IntEnum):
    """The projection that turns a soft token's values into an input vector."""

    USER = 0
    ITEM = 1
    STATISTICS = 2


class TokenSequence(msgspec.Struct, frozen=True, gc=False):
    """A prefix or a suffix: n tokens, s soft tokens among them, and a words that are added to tokens.

    The rows of `soft_values` are as wide as the larger of the embedding dimension and the number of statistics; the
    projection of each kind reads as many leading columns as it needs. A position may hold several soft tokens and added
    words; its input vector is their sum, and its entry of `token_ids` is not read.
    """

    token_ids: NDArray[np.int32]  # (n,), 0 where a soft token or an added word is
    soft_positions: NDArray[np.int32]  # (s,) indices into token_ids, ascending
    soft_kinds: NDArray[np.int8]  # (s,)
    soft_values: NDArray[np.float32]  # (s, width)
    added_ids: NDArray[np.int32] = NONE  # (a,)
    added_positions: NDArray[np.int32] = NONE  # (a,) indices into token_ids, ascending

    def __len__(self) -> int:
        return len(self.token_ids)

    def between(self, start: int, stop: int) -> TokenSequence:
        """Its tokens from one position up to another."""
        if (start, stop) == (0, len(self)):
            return self
        soft = (self.soft_positions >= start) & (self.soft_positions < stop)
        added = (self.added_positions >= start) & (self.added_positions < stop)
        return TokenSequence(
            self.token_ids[start:stop],
            self.soft_positions[soft] - start,
            self.soft_kinds[soft],
            self.soft_values[soft],
            self.added_ids[added],
            self.added_positions[added] - start,
        )


class SequenceBuilder:
    """Collects the token sequences of a prompt and makes arrays of all of them at once, which is fastest.

    Args:
        soft_width: columns of `soft_values`.
        sum_lines: whether a line is one token.
    """

    def __init__(self, soft_width: int, *, sum_lines: bool) -> None:
        self._soft_width = soft_width
        self._sum_lines = sum_lines
        self._token_ids: list[int] = []
        self._positions: list[int] = []  # of soft tokens, among all tokens
        self._kinds: list[int] = []
        self._values: list[Vector | None] = []
        self._added_ids: list[int] = []
        self._added_positions: list[int] = []  # among all tokens
        self._has_token = False
        """Whether the line before, where lines are summed, is not empty."""
        self._ends: list[tuple[int, int, int]] = []
        """Numbers of tokens, of soft tokens and of added words up to the end of each sequence."""

    def words(self, token_ids: Tokens) -> None:
        """Add words, a token each."""
        self._token_ids.extend(token_ids)

    def line(
        self, line: Line, kind: SoftKind, numbers: Vector | None, title: Tokens = (), *, goes_on: bool = False
    ) -> None:
        """Add a line with what its slots stand for.

        Args:
            line: of the template.
            kind: of its soft token.
            numbers: of its soft token; None, for an id without embedding, becomes zeros.
            title: tokens of its title.
            goes_on: where lines are summed, it goes into the token of the line before, if that has any.
        """
        if self._sum_lines:
            self._summed(line, kind, numbers, title, goes_on=goes_on)
            return
        for piece in line.pieces:
            if piece is SOFT:
                self._soft(kind, numbers, len(self._token_ids))
                self._token_ids.append(0)
            elif piece is TITLE:
                self._token_ids.extend(title)
            else:
                self._token_ids.extend(piece)

    def _summed(self, line: Line, kind: SoftKind, numbers: Vector | None, title: Tokens, *, goes_on: bool) -> None:
        if not (goes_on and self._has_token):
            self._has_token = bool(line.pieces)
            self._token_ids.extend([0] * self._has_token)
        position = len(self._token_ids) - 1
        for piece in line.pieces:
            if piece is SOFT:
                self._soft(kind, numbers, position)
                continue
            words = title if piece is TITLE else piece
            self._added_ids.extend(words)
            self._added_positions.extend([position] * len(words))

    def _soft(self, kind: SoftKind, numbers: Vector | None, position: int) -> None:
        self._positions.append(position)
        self._kinds.append(kind)
        self._values.append(numbers)

    def end(self) -> None:
        """End the current sequence."""
        self._ends.append((len(self._token_ids), len(self._positions), len(self._added_ids)))

    def finish(self) -> list[TokenSequence]:
        """The sequences, as views of shared arrays."""
        values = np.zeros((len(self._values), self._soft_width), np.float32)
        for row, numbers in zip(values, self._values, strict=True):
            if numbers is not None:
                row[: len(numbers)] = numbers
        token_ids, positions = np.array(self._token_ids, np.int32), np.array(self._positions, np.int32)
        kinds = np.array(self._kinds, np.int8)
        added_ids = np.array(self._added_ids, np.int32)
        added_positions = np.array(self._added_positions, np.int32)
        return [
            TokenSequence(
                token_ids[start:end],
                positions[first:last] - start,
                kinds[first:last],
                values[first:last],
                added_ids[low:high],
                added_positions[low:high] - start,
            )
            for (start, first, low), (end, last, high) in pairwise([(0, 0, 0), *self._ends])
        ]

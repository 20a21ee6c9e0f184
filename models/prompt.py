"""Builds prompts from evidence, for training and serving alike, so that there is no skew between them.

A prompt is a prefix shared by all candidates (the user and their history) and one suffix per candidate (its evidence,
the candidate itself, the question). Its words are those of a `PromptTemplate`. A soft token is a position whose input
vector is not looked up but projected from numbers: an embedding, or a candidate's statistics. The answer is read at the
last token of a suffix. The positions of a suffix continue those of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence, Evidence, ItemFacts, UserEvidence, Vector
from models.features import (
    FEATURES,
    GRADED_FEATURES,
    SHARED_FEATURES,
    crossed_features,
    evidence_features,
    graph_features,
)
from models.prompt_limits import PromptLimits
from models.prompt_lines import SOFT, TITLE, ItemLine, Line, PromptLines, Tokens
from models.prompt_selection import Selection, title_shown
from models.prompt_template import TERSE, PromptTemplate
from models.text import Text

__all__ = ["Prompt", "PromptBuilder", "PromptLimits", "SoftItem", "SoftKind", "TokenSequence"]


class SoftKind(IntEnum):
    """The projection that turns a soft token's values into an input vector."""

    USER = 0
    ITEM = 1
    STATISTICS = 2


class TokenSequence(msgspec.Struct, frozen=True, gc=False):
    """A prefix or a suffix: n tokens, s of them soft.

    The rows of `soft_values` are as wide as the larger of the embedding dimension and the number of statistics; the
    projection of each kind reads as many leading columns as it needs.
    """

    token_ids: NDArray[np.int32]  # (n,), 0 where soft
    soft_positions: NDArray[np.int32]  # (s,) indices into token_ids
    soft_kinds: NDArray[np.int8]  # (s,)
    soft_values: NDArray[np.float32]  # (s, width)

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request as input of the model."""

    prefix: TokenSequence
    suffixes: Sequence[TokenSequence]
    suffix_lengths: NDArray[np.int64] = field(init=False, repr=False, compare=False)  # (candidates,)

    def __post_init__(self) -> None:
        lengths = np.array([len(suffix.token_ids) for suffix in self.suffixes], np.int64)
        object.__setattr__(self, "suffix_lengths", lengths)

    def statistics(self, count: int) -> NDArray[np.float32]:
        """The leading statistics (candidates, count) of every suffix; zeros where one carries none."""
        told = np.zeros((len(self.suffixes), count), np.float32)
        for row, suffix in enumerate(self.suffixes):
            kinds = suffix.soft_kinds.tolist()
            if SoftKind.STATISTICS in kinds:
                told[row] = suffix.soft_values[kinds.index(SoftKind.STATISTICS), :count]
        return told

    @property
    def tokens(self) -> int:
        """Number of tokens in prefix and suffixes."""
        return len(self.prefix) + int(self.suffix_lengths.sum())


class SoftItem(NamedTuple):
    """What an item's soft token stands for, and how many tokens of its title follow at most."""

    item: ItemFacts
    title_tokens: int


class PromptBuilder:
    """Turns evidence into prompts.

    Args:
        text: the tokenizer.
        embedding_dim: dimension of users' and items' embeddings.
        limits: how much evidence goes into a prompt.
        statistics: how many of the `FEATURES` the model reads.
        template: the words around the evidence.

    Raises:
        PromptTemplateError: the limits of tokens leave no room for the template's own words and a candidate's title.
    """

    def __init__(
        self,
        text: Text,
        embedding_dim: int,
        limits: PromptLimits,
        statistics: int = len(FEATURES),
        template: PromptTemplate = TERSE,
    ) -> None:
        self.limits = limits
        self.soft_width = max(embedding_dim, statistics)
        self._embedding_dim = embedding_dim
        self.statistics = statistics
        self._empty_headings = template.empty_headings
        self._lines = PromptLines(template, text.encode, text.start_tokens)
        self._selection = Selection(template, self._lines, limits)

    def build(self, evidence: Evidence) -> Prompt:
        """The prompt of one request, with one suffix per candidate in the order of the evidence."""
        statistics = self._statistics(evidence)
        sequences = _SequenceBuilder(self.soft_width)
        self._prefix(sequences, evidence.user)
        for candidate, numbers in zip(evidence.candidates, statistics, strict=True):
            self._suffix(sequences, candidate, numbers)
        prefix, *suffixes = sequences.finish()
        return Prompt(prefix, suffixes)

    def soft_items(self, evidence: Evidence) -> list[list[SoftItem]]:
        """What the item tokens of a prompt stand for: those of the prefix, then those of each suffix."""
        lines, limits = self._lines, self.limits
        recent = self._selection.recent(evidence.user)
        told = [_soft_items([(lines.past[one.positive], one.item) for one in recent], limits.title_tokens)]
        for candidate in evidence.candidates:
            shown = self._selection.of(candidate)
            past = [(lines.similar_past[one.positive], one.item) for one in shown.past]
            near = [(lines.similar_item, one.item) for one in shown.similar_items]
            told.append(
                _soft_items([*past, *near], limits.similar_title_tokens)
                + _soft_items([(lines.candidate, candidate.item)], limits.candidate_title_tokens)
            )
        return told

    def _statistics(self, evidence: Evidence) -> NDArray[np.float32]:  # (candidates, statistics)
        items = [candidate.item for candidate in evidence.candidates]
        user = evidence.user
        embeddings = _rows([item.embedding for item in items], self._embedding_dim)
        counts = np.array([(item.impressions, item.positives) for item in items], np.float32).reshape(-1, 2)
        from_graph = graph_features(user.embedding, (user.impressions, user.positives), embeddings, counts)
        shared = _rows([candidate.shared for candidate in evidence.candidates], len(SHARED_FEATURES))
        graded = _rows([candidate.graded for candidate in evidence.candidates], len(GRADED_FEATURES))
        whole = np.concatenate([from_graph, evidence_features(evidence), shared, graded], axis=1)
        return np.concatenate([whole, crossed_features(whole)], axis=1)[:, : self.statistics]

    def _prefix(self, sequences: _SequenceBuilder, user: UserEvidence) -> None:
        lines, width = self._lines, self.limits.title_tokens
        sequences.words(lines.opening)
        sequences.line(lines.user, SoftKind.USER, user.embedding)
        recent = self._selection.recent(user)
        if recent or self._empty_headings:
            sequences.words(lines.history)
        for past in recent:
            sequences.item(lines.past[past.positive], past.item, width)
        sequences.end()

    def _suffix(
        self, sequences: _SequenceBuilder, candidate: CandidateEvidence, statistics: NDArray[np.float32]
    ) -> None:
        lines, limits = self._lines, self.limits
        shown = self._selection.of(candidate)
        if shown.past or shown.similar_items or self._empty_headings:
            sequences.words(lines.similar)
        for past in shown.past:
            sequences.item(lines.similar_past[past.positive], past.item, limits.similar_title_tokens)
        for near in shown.similar_items:
            sequences.item(lines.similar_item, near.item, limits.similar_title_tokens)
        if shown.votes or self._empty_headings:
            sequences.words(lines.others)
        for vote in shown.votes:
            sequences.words(vote)
        for attribute in shown.attributes:
            sequences.words(attribute)
        sequences.item(lines.candidate, candidate.item, limits.candidate_title_tokens)
        sequences.line(lines.question, SoftKind.STATISTICS, statistics)
        sequences.end()


def _rows(vectors: Sequence[Vector | None], width: int) -> NDArray[np.float32]:  # (vectors, width)
    """Vectors as rows of a matrix; zeros where there is none."""
    rows = np.zeros((len(vectors), width), np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        if vector is not None:
            row[:] = vector
    return rows


def _soft_items(shown: Sequence[tuple[ItemLine, ItemFacts]], title_tokens: int) -> list[SoftItem]:
    """Those of lines that have a soft token."""
    told = []
    for lines, item in shown:
        line = lines.about(title_shown(item, title_tokens))
        if SOFT in line.pieces:
            told.append(SoftItem(item, title_tokens if TITLE in line.pieces else 0))
    return told


class _SequenceBuilder:
    """Collects the token sequences of a prompt and makes arrays of all of them at once, which is fastest."""

    def __init__(self, soft_width: int) -> None:
        self._soft_width = soft_width
        self._token_ids: list[int] = []
        self._positions: list[int] = []  # of soft tokens, among all tokens
        self._kinds: list[int] = []
        self._values: list[Vector | None] = []
        self._ends: list[tuple[int, int]] = []  # numbers of tokens and of soft tokens up to the end of each sequence

    def words(self, token_ids: Tokens) -> None:
        self._token_ids.extend(token_ids)

    def item(self, lines: ItemLine, item: ItemFacts, title_tokens: int) -> None:
        """Add an item's line with as much of its title."""
        title = item.title_tokens[:title_tokens] if title_tokens else ()
        self.line(lines.with_title if title else lines.without_title, SoftKind.ITEM, item.embedding, title)

    def line(self, line: Line, kind: SoftKind, numbers: Vector | None, title: Tokens = ()) -> None:
        """Add a line with what its slots stand for."""
        for piece in line.pieces:
            if piece is SOFT:
                self.soft(kind, numbers)
            elif piece is TITLE:
                self._token_ids.extend(title)
            else:
                self._token_ids.extend(piece)

    def soft(self, kind: SoftKind, numbers: Vector | None) -> None:
        """Add a soft token; None, for an id without embedding, becomes zeros."""
        self._positions.append(len(self._token_ids))
        self._kinds.append(kind)
        self._values.append(numbers)
        self._token_ids.append(0)

    def end(self) -> None:
        """End the current sequence."""
        self._ends.append((len(self._token_ids), len(self._positions)))

    def finish(self) -> list[TokenSequence]:
        """The sequences, as views of shared arrays."""
        values = np.zeros((len(self._values), self._soft_width), np.float32)
        for row, numbers in zip(values, self._values, strict=True):
            if numbers is not None:
                row[: len(numbers)] = numbers
        token_ids, positions = np.array(self._token_ids, np.int32), np.array(self._positions, np.int32)
        kinds = np.array(self._kinds, np.int8)
        return [
            TokenSequence(token_ids[start:end], positions[first:last] - start, kinds[first:last], values[first:last])
            for (start, first), (end, last) in pairwise([(0, 0), *self._ends])
        ]

"""Builds prompts from evidence, for training and serving alike, so that there is no skew between them.

A prompt is a prefix shared by all candidates (the user and their history) and one suffix per candidate (its evidence,
the candidate itself, the question). Its words are those of a `PromptTemplate`. The answer is read at the last token of
a suffix. The positions of a suffix continue those of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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
from models.prompt_lines import SOFT, TITLE, ItemLine, PromptLines
from models.prompt_selection import Selection, title_shown
from models.prompt_template import TERSE, PromptTemplate
from models.text import Text
from models.token_sequence import SequenceBuilder, SoftKind, TokenSequence

__all__ = ["Prompt", "PromptBuilder", "PromptLimits", "SoftItem"]


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
        self._sum_lines = template.sum_lines
        self._lines = PromptLines(template, text.encode, text.start_tokens)
        self._selection = Selection(template, self._lines, limits)

    def build(self, evidence: Evidence) -> Prompt:
        """The prompt of one request, with one suffix per candidate in the order of the evidence."""
        statistics = self._statistics(evidence)
        sequences = SequenceBuilder(self.soft_width, sum_lines=self._sum_lines)
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

    def _prefix(self, sequences: SequenceBuilder, user: UserEvidence) -> None:
        lines, width = self._lines, self.limits.title_tokens
        sequences.words(lines.opening)
        sequences.line(lines.user, SoftKind.USER, user.embedding)
        recent = self._selection.recent(user)
        if recent or self._empty_headings:
            sequences.words(lines.history)
        for past in recent:
            _add_item(sequences, lines.past[past.positive], past.item, width)
        sequences.end()

    def _suffix(
        self, sequences: SequenceBuilder, candidate: CandidateEvidence, statistics: NDArray[np.float32]
    ) -> None:
        lines, limits = self._lines, self.limits
        shown = self._selection.of(candidate)
        if shown.past or shown.similar_items or self._empty_headings:
            sequences.words(lines.similar)
        for past in shown.past:
            _add_item(sequences, lines.similar_past[past.positive], past.item, limits.similar_title_tokens)
        for near in shown.similar_items:
            _add_item(sequences, lines.similar_item, near.item, limits.similar_title_tokens)
        if shown.votes or self._empty_headings:
            sequences.words(lines.others)
        for vote in shown.votes:
            sequences.words(vote)
        for attribute in shown.attributes:
            sequences.words(attribute)
        _add_item(sequences, lines.candidate, candidate.item, limits.candidate_title_tokens)
        sequences.line(lines.question, SoftKind.STATISTICS, statistics, goes_on=True)
        sequences.end()


def _rows(vectors: Sequence[Vector | None], width: int) -> NDArray[np.float32]:  # (vectors, width)
    """Vectors as rows of a matrix; zeros where there is none."""
    rows = np.zeros((len(vectors), width), np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        if vector is not None:
            row[:] = vector
    return rows


def _add_item(sequences: SequenceBuilder, lines: ItemLine, item: ItemFacts, title_tokens: int) -> None:
    """Add an item's line with as much of its title."""
    title = title_shown(item, title_tokens)
    sequences.line(lines.about(title), SoftKind.ITEM, item.embedding, title)


def _soft_items(shown: Sequence[tuple[ItemLine, ItemFacts]], title_tokens: int) -> list[SoftItem]:
    """Those of lines that have a soft token."""
    told = []
    for lines, item in shown:
        line = lines.about(title_shown(item, title_tokens))
        if SOFT in line.pieces:
            told.append(SoftItem(item, title_tokens if TITLE in line.pieces else 0))
    return told

"""The one prompt builder: evidence in, token sequences out. Training and serving both call it, so there is no skew.

A prompt is a prefix shared by all candidates (the user and what they did) and one suffix per candidate (the evidence
for it, the candidate, the question). Words come from the tokenizer; a soft token is a position whose input vector is
projected from numbers (a user's or item's embedding, a candidate's statistics) instead of looked up. The answer is read
at a suffix's last token. A suffix's positions go on where the prefix ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evidence import CandidateEvidence, Evidence, ItemFacts, PastItem, UserEvidence, Vector
from models.features import FEATURES, evidence_features, graph_features
from models.text import Text


class SoftKind(IntEnum):
    """Which projection turns a soft token's numbers into an input vector."""

    USER = 0
    ITEM = 1
    STATISTICS = 2


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How much evidence goes into a prompt: counts of entries, and of tokens per title."""

    recent_items: int = 16
    title_tokens: int = 8
    candidate_title_tokens: int = 16
    past_items: int = 12
    """Of the user's own past, per candidate; all are summed up in its statistics."""
    past_items_shown: int = 4
    """Of these, how many stand in the prompt one by one."""
    similar_users: int = 12
    similar_users_shown: int = 4
    similar_items: int = 3


class TokenSequence(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a prefix or a suffix, n of them, s of which are soft.

    `soft_values` rows are as wide as the larger of the embedding's dimension and the number of statistics; the
    projection of each kind reads the leading columns that are its own.
    """

    token_ids: NDArray[np.int32]  # (n,), 0 where soft
    soft_positions: NDArray[np.int32]  # (s,) indices into token_ids
    soft_kinds: NDArray[np.int8]  # (s,)
    soft_values: NDArray[np.float32]  # (s, width)

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request as the model reads it."""

    prefix: TokenSequence
    suffixes: Sequence[TokenSequence]
    suffix_lengths: NDArray[np.int64] = field(init=False, repr=False, compare=False)  # (candidates,)

    def __post_init__(self) -> None:
        lengths = np.array([len(suffix.token_ids) for suffix in self.suffixes], np.int64)
        object.__setattr__(self, "suffix_lengths", lengths)

    @property
    def tokens(self) -> int:
        """In prefix and suffixes together."""
        return len(self.prefix) + int(self.suffix_lengths.sum())


class PromptBuilder:
    """Lays evidence out as tokens.

    Args:
        text: the tokenizer.
        embedding_dim: width of users' and items' embeddings.
        limits: how much evidence to show.
    """

    def __init__(self, text: Text, embedding_dim: int, limits: PromptLimits) -> None:
        self.limits = limits
        self.soft_width = max(embedding_dim, len(FEATURES))
        self._embedding_dim = embedding_dim
        self._words = {phrase: text.encode(phrase) for phrase in PHRASES}
        self._start = text.start_tokens

    def build(self, evidence: Evidence) -> Prompt:
        """The prompt of one request, a suffix per candidate in the order of the evidence."""
        statistics = self._statistics(evidence)
        lines = _Lines(self.soft_width)
        self._prefix(lines, evidence.user)
        for candidate, numbers in zip(evidence.candidates, statistics, strict=True):
            self._suffix(lines, candidate, numbers)
        prefix, *suffixes = lines.finish()
        return Prompt(prefix, suffixes)

    def _statistics(self, evidence: Evidence) -> NDArray[np.float32]:  # (candidates, len(FEATURES))
        items = [candidate.item for candidate in evidence.candidates]
        user = evidence.user
        embeddings = np.zeros((len(items), self._embedding_dim), np.float32)
        for row, item in enumerate(items):
            if item.embedding is not None:
                embeddings[row] = item.embedding
        counts = np.array([(item.impressions, item.positives) for item in items], np.float32).reshape(-1, 2)
        from_graph = graph_features(user.embedding, (user.impressions, user.positives), embeddings, counts)
        return np.concatenate([from_graph, evidence_features(evidence)], axis=1)

    def _prefix(self, lines: _Lines, user: UserEvidence) -> None:
        lines.words(self._start)
        lines.words(self._words["user"])
        lines.soft(SoftKind.USER, user.embedding)
        lines.words(self._words["history"])
        for past in user.recent[-self.limits.recent_items :]:
            self._past_item(lines, past, self.limits.title_tokens)
        lines.end()

    def _suffix(self, lines: _Lines, candidate: CandidateEvidence, statistics: NDArray[np.float32]) -> None:
        lines.words(self._words["similar"])
        for past in candidate.past[: self.limits.past_items_shown]:
            self._past_item(lines, past, 0)
        for near in candidate.similar_items[: self.limits.similar_items]:
            self._item(lines, near.item, 0)
        lines.words(self._words["others"])
        for voter in candidate.similar_users[: self.limits.similar_users_shown]:
            lines.words(self._answer(voter.positive))
        lines.words(self._words["candidate"])
        self._item(lines, candidate.item, self.limits.candidate_title_tokens)
        lines.words(self._words["click"])
        # Last, where the answer is read: so the first layers' heads need not look far for the plainest evidence.
        lines.soft(SoftKind.STATISTICS, statistics)
        lines.end()

    def _past_item(self, lines: _Lines, past: PastItem, title_tokens: int) -> None:
        self._item(lines, past.item, title_tokens)
        lines.words(self._answer(past.positive))

    def _item(self, lines: _Lines, item: ItemFacts, title_tokens: int) -> None:
        lines.soft(SoftKind.ITEM, item.embedding)
        if title_tokens:
            lines.words(item.title_tokens[:title_tokens])

    def _answer(self, positive: bool) -> Sequence[int]:
        return self._words["yes"] if positive else self._words["no"]


PHRASES: Final = ("user", "history", "similar", "others", "candidate", "click", "yes", "no")
"""The prompt's own words; a tokenizer fitted to a catalogue is fitted to these too, so that each is one token."""


class _Lines:
    """Token sequences in the making, one behind the other: their numbers become arrays together, which costs least."""

    def __init__(self, soft_width: int) -> None:
        self._soft_width = soft_width
        self._token_ids: list[int] = []
        self._places: list[int] = []  # of soft tokens, among all tokens
        self._kinds: list[int] = []
        self._numbers: list[Vector | None] = []
        self._ends: list[tuple[int, int]] = []  # tokens and soft tokens up to each sequence's end

    def words(self, token_ids: Sequence[int]) -> None:
        self._token_ids.extend(token_ids)

    def soft(self, kind: SoftKind, numbers: Vector | None) -> None:
        """A soft token; None stands for an id without embedding and reads as zeros."""
        self._places.append(len(self._token_ids))
        self._kinds.append(kind)
        self._numbers.append(numbers)
        self._token_ids.append(0)

    def end(self) -> None:
        """The next word begins another sequence."""
        self._ends.append((len(self._token_ids), len(self._places)))

    def finish(self) -> list[TokenSequence]:
        """The sequences; views of the same few arrays."""
        values = np.zeros((len(self._numbers), self._soft_width), np.float32)
        for row, numbers in zip(values, self._numbers, strict=True):
            if numbers is not None:
                row[: len(numbers)] = numbers
        token_ids, places = np.array(self._token_ids, np.int32), np.array(self._places, np.int32)
        kinds = np.array(self._kinds, np.int8)
        return [
            TokenSequence(token_ids[start:end], places[first:last] - start, kinds[first:last], values[first:last])
            for (start, first), (end, last) in pairwise([(0, 0), *self._ends])
        ]


def render(prompt: TokenSequence, text: Text) -> str:
    """A sequence as a person reads it: words decoded, soft tokens as ⟨user⟩, ⟨item⟩, ⟨statistics⟩."""
    soft = {
        int(position): f"⟨{SoftKind(kind).name.lower()}⟩"
        for position, kind in zip(prompt.soft_positions, prompt.soft_kinds, strict=True)
    }
    pieces: list[str] = []
    run: list[int] = []
    for position, token in enumerate(prompt.token_ids.tolist()):
        if position in soft:
            pieces += [text.decode(run), soft[position]]
            run = []
        else:
            run.append(token)
    pieces.append(text.decode(run))
    return " ".join(piece.strip() for piece in pieces if piece.strip())

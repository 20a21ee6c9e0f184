"""Builds prompts from evidence, for training and serving alike, so that there is no skew between them.

A prompt is a prefix shared by all candidates (the user and their history) and one suffix per candidate (its evidence,
the candidate itself, the question). Words come from the tokenizer. A soft token is a position whose input vector is not
looked up but projected from numbers: an embedding, or a candidate's statistics. The answer is read at the last token of
a suffix. The positions of a suffix continue those of the prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evidence import AttributeEvidence, CandidateEvidence, Evidence, ItemFacts, PastItem, UserEvidence, Vector
from models.features import FEATURES, SHARED_FEATURES, evidence_features, graph_features
from models.text import Text

_SENTENCES_KEPT: Final = 4_096
"""Of attributes, as tokens: there are few names, and few numbers in a history."""
_NAME_CHARACTERS: Final = 24


class SoftKind(IntEnum):
    """The projection that turns a soft token's values into an input vector."""

    USER = 0
    ITEM = 1
    STATISTICS = 2


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How much evidence goes into a prompt: numbers of entries, and of tokens per title."""

    recent_items: int = 16
    title_tokens: int = 8
    candidate_title_tokens: int = 16
    past_items: int = 12
    """Past items of the user per candidate, most similar first; all count in its statistics."""
    past_items_shown: int = 4
    """How many of them appear in the prompt."""
    similar_users: int = 12
    similar_users_shown: int = 4
    similar_items: int = 3
    attributes_shown: int = 0
    """Values of the candidate's attributes that the user has met, told in words; the rarest first."""


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
    """

    def __init__(self, text: Text, embedding_dim: int, limits: PromptLimits, statistics: int = len(FEATURES)) -> None:
        self.limits = limits
        self.soft_width = max(embedding_dim, statistics)
        self._embedding_dim = embedding_dim
        self.statistics = statistics
        self._words = {phrase: text.encode(phrase) for phrase in PHRASES}
        self._start = text.start_tokens
        self._encode = lru_cache(maxsize=_SENTENCES_KEPT)(text.encode)

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
        limits = self.limits
        recent = [SoftItem(past.item, limits.title_tokens) for past in evidence.user.recent[-limits.recent_items :]]
        return [recent] + [
            [
                *(SoftItem(past.item, 0) for past in candidate.past[: limits.past_items_shown]),
                *(SoftItem(near.item, 0) for near in candidate.similar_items[: limits.similar_items]),
                SoftItem(candidate.item, limits.candidate_title_tokens),
            ]
            for candidate in evidence.candidates
        ]

    def _statistics(self, evidence: Evidence) -> NDArray[np.float32]:  # (candidates, statistics)
        items = [candidate.item for candidate in evidence.candidates]
        user = evidence.user
        embeddings = np.zeros((len(items), self._embedding_dim), np.float32)
        for row, item in enumerate(items):
            if item.embedding is not None:
                embeddings[row] = item.embedding
        counts = np.array([(item.impressions, item.positives) for item in items], np.float32).reshape(-1, 2)
        from_graph = graph_features(user.embedding, (user.impressions, user.positives), embeddings, counts)
        shared = np.zeros((len(items), len(SHARED_FEATURES)), np.float32)
        for row, candidate in enumerate(evidence.candidates):
            if candidate.shared is not None:
                shared[row] = candidate.shared
        whole = np.concatenate([from_graph, evidence_features(evidence), shared], axis=1)
        return whole[:, : self.statistics]

    def _prefix(self, sequences: _SequenceBuilder, user: UserEvidence) -> None:
        sequences.words(self._start)
        sequences.words(self._words["user"])
        sequences.soft(SoftKind.USER, user.embedding)
        sequences.words(self._words["history"])
        for past in user.recent[-self.limits.recent_items :]:
            self._past_item(sequences, past, self.limits.title_tokens)
        sequences.end()

    def _suffix(
        self, sequences: _SequenceBuilder, candidate: CandidateEvidence, statistics: NDArray[np.float32]
    ) -> None:
        sequences.words(self._words["similar"])
        for past in candidate.past[: self.limits.past_items_shown]:
            self._past_item(sequences, past, 0)
        for near in candidate.similar_items[: self.limits.similar_items]:
            self._item(sequences, near.item, 0)
        sequences.words(self._words["others"])
        for voter in candidate.similar_users[: self.limits.similar_users_shown]:
            sequences.words(self._answer(voter.positive))
        for sentence in attribute_sentences(candidate.attributes, self.limits.attributes_shown):
            sequences.words(self._encode(sentence))
        sequences.words(self._words["candidate"])
        self._item(sequences, candidate.item, self.limits.candidate_title_tokens)
        sequences.words(self._words["click"])
        # Last, where the answer is read: the heads of the first layers see the most telling evidence directly.
        sequences.soft(SoftKind.STATISTICS, statistics)
        sequences.end()

    def _past_item(self, sequences: _SequenceBuilder, past: PastItem, title_tokens: int) -> None:
        self._item(sequences, past.item, title_tokens)
        sequences.words(self._answer(past.positive))

    def _item(self, sequences: _SequenceBuilder, item: ItemFacts, title_tokens: int) -> None:
        sequences.soft(SoftKind.ITEM, item.embedding)
        if title_tokens:
            sequences.words(item.title_tokens[:title_tokens])

    def _answer(self, positive: bool) -> Sequence[int]:
        return self._words["yes"] if positive else self._words["no"]


def attribute_sentences(attributes: Sequence[AttributeEvidence], most: int) -> list[str]:
    """What the user did with the values of a candidate's attributes, a sentence each, the rarest value first."""
    met = sorted((one for one in attributes if one.user_impressions), key=lambda one: one.impressions)
    return [
        f"same {one.name[:_NAME_CHARACTERS]}: yes {one.user_positives} of {one.user_impressions}" for one in met[:most]
    ]


PHRASES: Final = ("user", "history", "similar", "others", "candidate", "click", "yes", "no")
"""The fixed words of the prompt. Tokenizers are trained on them too, so that each is one token."""


class _SequenceBuilder:
    """Collects the token sequences of a prompt and makes arrays of all of them at once, which is fastest."""

    def __init__(self, soft_width: int) -> None:
        self._soft_width = soft_width
        self._token_ids: list[int] = []
        self._positions: list[int] = []  # of soft tokens, among all tokens
        self._kinds: list[int] = []
        self._values: list[Vector | None] = []
        self._ends: list[tuple[int, int]] = []  # numbers of tokens and of soft tokens up to the end of each sequence

    def words(self, token_ids: Sequence[int]) -> None:
        self._token_ids.extend(token_ids)

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


def render(prompt: TokenSequence, text: Text, items: Sequence[SoftItem] = ()) -> str:
    """A sequence as readable text: words decoded, soft tokens in angle brackets by what they stand for.

    Args:
        prompt: a prefix or a suffix.
        text: the tokenizer.
        items: what its item tokens stand for (`PromptBuilder.soft_items`). Such a token is shown as ⟨its title⟩, or
            ⟨its id⟩ if it has none; as ⟨item⟩ where the words of the title follow, or without `items`.
    """
    names = iter(items)
    soft = {
        int(position): f"⟨{_soft_name(SoftKind(kind), names, text)}⟩"
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


def _soft_name(kind: SoftKind, items: Iterator[SoftItem], text: Text) -> str:
    shown = next(items, None) if kind is SoftKind.ITEM else None
    if shown is None or (shown.title_tokens and shown.item.title_tokens):
        return kind.name.lower()
    return title_of(shown.item, text) or shown.item.item_id


def title_of(item: ItemFacts, text: Text) -> str:
    """An item's catalogue text as far as the model may read it; empty if there is none."""
    return text.decode(item.title_tokens).strip()

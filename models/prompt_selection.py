"""Which of the evidence a prompt shows: the numbers of entries, and what fits into its tokens.

What would make a prompt too long is left out from the least relevant on. Candidate, question and statistics always
stay, and the statistics sum up all evidence, shown or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.evidence import CandidateEvidence, ItemFacts, PastItem, SimilarItem, UserEvidence
from models.prompt_limits import PromptLimits
from models.prompt_lines import ItemLine, PromptLines, Tokens
from models.prompt_template import PromptTemplate
from runtime.errors import PromptTemplateError


class Shown(NamedTuple):
    """What of a candidate's evidence is shown, each most relevant first."""

    past: Sequence[PastItem]
    similar_items: Sequence[SimilarItem]
    votes: Sequence[Tokens]
    attributes: Sequence[Tokens]


class Selection:
    """Chooses what is shown.

    Args:
        template: the words; parts that it leaves out are not shown.
        lines: the same for the tokenizer.
        limits: how much is shown.

    Raises:
        PromptTemplateError: the limits of tokens leave no room for the template's own words and a candidate's title.
    """

    def __init__(self, template: PromptTemplate, lines: PromptLines, limits: PromptLimits) -> None:
        self._lines = lines
        self._limits = limits
        self._empty_headings = template.empty_headings
        self._recent = limits.recent_items if template.past else 0
        self._past = limits.past_items_shown if template.similar_past else 0
        self._similar_items = limits.similar_items if template.similar_item else 0
        always = template.empty_headings
        prefix = len(lines.opening) + lines.user.length + always * len(lines.history)
        suffix = lines.question.length + always * (len(lines.similar) + len(lines.others))
        told = lines.candidate.with_title
        candidate = told.length + (limits.candidate_title_tokens if told.takes_titles else 0)
        self._prefix_room = _room("prefix_tokens", limits.prefix_tokens, prefix)
        self._suffix_room = _room("suffix_tokens", limits.suffix_tokens, suffix, candidate)

    def recent(self, user: UserEvidence) -> Sequence[PastItem]:
        """The user's latest items, oldest first."""
        recent = user.recent[-self._recent :] if self._recent else ()
        if self._prefix_room is None:
            return recent
        lines, width = self._lines, self._limits.title_tokens
        latest_first = [_length(lines.past[one.positive], one.item, width) for one in reversed(recent)]
        (kept,) = fitted([Section(self._heading(lines.history), [latest_first])], self._prefix_room)
        return recent[len(recent) - kept :]

    def of(self, candidate: CandidateEvidence) -> Shown:
        """What is shown for a candidate."""
        limits, lines = self._limits, self._lines
        shown = Shown(
            candidate.past[: self._past],
            candidate.similar_items[: self._similar_items],
            lines.votes(candidate.similar_users, limits.similar_users_shown),
            lines.attributes(candidate.attributes, limits.attributes_shown),
        )
        if self._suffix_room is None:
            return shown
        width = limits.similar_title_tokens
        past = [_length(lines.similar_past[one.positive], one.item, width) for one in shown.past]
        near = [_length(lines.similar_item, one.item, width) for one in shown.similar_items]
        sections = [
            Section(self._heading(lines.similar), [past, near]),
            Section(self._heading(lines.others), [[len(vote) for vote in shown.votes]]),
            Section(0, [[len(sentence) for sentence in shown.attributes]]),
        ]
        room = self._suffix_room - _length(lines.candidate, candidate.item, limits.candidate_title_tokens)
        own, alike, votes, attributes = fitted(sections, room)
        return Shown(shown.past[:own], shown.similar_items[:alike], shown.votes[:votes], shown.attributes[:attributes])

    def _heading(self, words: Tokens) -> int:
        """Tokens of a heading that goes with the last of its entries."""
        return 0 if self._empty_headings else len(words)


class Section(NamedTuple):
    """A part of a prompt that may be shortened."""

    heading: int
    """Tokens that stand before its entries, and go with the last of them."""
    groups: Sequence[Sequence[int]]
    """Tokens of each entry, the most relevant first; the groups in the order in which they are cut."""


def fitted(sections: Sequence[Section], room: int) -> list[int]:
    """How many entries of each group stay, in the order of the groups.

    While they do not fit, the last entry of the first group that still has any is left out.

    Args:
        sections: in the order in which they are cut.
        room: tokens for all of them together.
    """
    used = sum(sum(map(sum, section.groups)) + section.heading * any(section.groups) for section in sections)
    kept: list[int] = []
    for section in sections:
        left = sum(map(len, section.groups))
        for lengths in section.groups:
            count = len(lengths)
            while used > room and count:
                count, left = count - 1, left - 1
                used -= lengths[count] + (0 if left else section.heading)
            kept.append(count)
    return kept


def title_shown(item: ItemFacts, most: int) -> Tokens:
    """As much of an item's title as may be shown."""
    return item.title_tokens[:most] if most else ()


def _length(lines: ItemLine, item: ItemFacts, title_tokens: int) -> int:
    """Tokens of an item's line, which may show its title or not."""
    title = title_shown(item, title_tokens)
    line = lines.about(title)
    return line.length + (len(title) if line.takes_titles else 0)


def _room(name: str, limit: int, fixed: int, candidate: int = 0) -> int | None:
    """What a limit leaves beside the fixed words, for the candidate too; None without a limit."""
    if not limit:
        return None
    if limit < fixed + candidate:
        what = "the template's own words" + (" and the longest title of a candidate" if candidate else "")
        raise PromptTemplateError(f"{name} {limit} is too low: {what} take {fixed + candidate} tokens alone; raise it")
    return limit - fixed

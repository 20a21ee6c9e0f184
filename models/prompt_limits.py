"""How much evidence there is, and how much of it goes into a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HISTORY_LENGTH: Final = 50
"""Past interactions kept per user for bundles that do not say: those of earlier releases."""
LONGEST_HISTORY: Final = 10_000
"""The most past interactions that can be kept per user."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How much evidence goes into a prompt: numbers of entries, and of tokens per title and in all.

    Raises:
        ValueError: no history is kept at all, or too long a one.
    """

    recent_items: int = 16
    title_tokens: int = 8
    candidate_title_tokens: int = 16
    past_items: int = 12
    """Past items of the user per candidate, most similar first; all count in its statistics."""
    past_items_shown: int = 4
    """How many of them appear in the prompt."""
    similar_users: int = 12
    similar_title_tokens: int = 0
    """Of the titles of past and similar items beside a candidate, where the template shows them."""
    similar_users_shown: int = 4
    """How many of them are told one by one; a sentence that counts them counts all. 0 tells of none."""
    similar_items: int = 3
    attributes_shown: int = 0
    """Values of the candidate's attributes that the user has met, told in words; the rarest first."""
    prefix_tokens: int = 0
    """Most tokens of the part that all candidates share: the oldest of the recent items are left out. 0: no limit."""
    suffix_tokens: int = 0
    """Most tokens of each candidate's part: the past items least similar to it are left out, then the similar items,
    the similar users, the attributes. 0: no limit."""
    history_length: int = HISTORY_LENGTH
    """Past interactions kept per user, the latest: updater, workers and training all take it from here, so that the
    statistics of a history mean the same everywhere."""

    def __post_init__(self) -> None:
        if not 1 <= self.history_length <= LONGEST_HISTORY:
            raise ValueError(
                f"history_length is {self.history_length}; 1 to {LONGEST_HISTORY} past interactions can be kept"
            )

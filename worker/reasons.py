"""A score in one sentence: "0.18, because …". It tells only what is true of the candidate.

What was counted speaks for a score if it lies on the same side of the reference: above it for a score above, below it
for a score below. The reference is the user's own click rate, or the item's for a user whom nobody has seen. Counts on
the other side follow after "although": the model has read them as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from models.evidence import AttributeEvidence, CandidateEvidence, ItemFacts, UserEvidence
from models.features import PRIOR_IMPRESSIONS

MOST_TOLD: Final = 2
"""Counts told on each side, the strongest first."""
_NAME_CHARACTERS: Final = 24
_VALUE_CHARACTERS: Final = 40
_EQUAL: Final = 0.005
"""Rates that differ by less read the same with two decimals."""


def closing_sentence(ctr: float, evidence: CandidateEvidence, user: UserEvidence) -> str:
    """One candidate's score with its strongest evidence and its distance from the user's and the item's own rates.

    Args:
        ctr: the answer.
        evidence: what was found for the candidate.
        user: who asks.
    """
    counts = _counts(evidence)
    reference = _own_rate(user) if user.impressions else _own_rate(evidence.item)
    if reference is None or abs(ctr - reference) < _EQUAL:
        told = _joined(_strongest(counts, reference or 0.0))
        return f"{ctr:.2f}{': ' if told else ''}{told}; {_distances(ctr, evidence.item, user)}."
    above = ctr > reference
    same_side = [count for count in counts if count.rate != reference and (count.rate > reference) == above]
    other_side = [count for count in counts if count.rate != reference and (count.rate > reference) != above]
    because = _joined(_strongest(same_side, reference))
    although = _joined(_strongest(other_side, reference))
    parts = [f"{ctr:.2f}", f"because {because}" if because else "", f"although {although}" if although else ""]
    return f"{', '.join(part for part in parts if part)}; {_distances(ctr, evidence.item, user)}."


class _Count(NamedTuple):
    """Clicks among impressions, and the words that tell them."""

    words: str
    positives: int
    impressions: int

    @property
    def rate(self) -> float:
        return self.positives / self.impressions

    def strength(self, reference: float) -> float:
        """Its distance from the reference, less the fewer impressions there are."""
        return abs(self.rate - reference) * self.impressions / (self.impressions + PRIOR_IMPRESSIONS)


def _counts(evidence: CandidateEvidence) -> list[_Count]:
    """Everything counted about the candidate. Neighbours without similarity weigh nothing in the model either."""
    past = [near.positive for near in evidence.past if near.similarity > 0]
    voters = [near.positive for near in evidence.similar_users if near.similarity > 0]
    item, clicked = evidence.item, sum(near.item.positives for near in evidence.similar_items)
    shown = sum(near.item.impressions for near in evidence.similar_items)
    things, times = "item" if len(past) == 1 else "items", "time" if len(voters) == 1 else "times"
    counts = [
        _Count(f"the user clicked {sum(past)} of {len(past)} similar past {things}", sum(past), len(past)),
        _Count(f"similar users clicked it {sum(voters)} of {len(voters)} {times}", sum(voters), len(voters)),
        _Count(f"similar items were clicked in {_share(clicked, shown)}", clicked, shown),
        _Count(f"it was clicked in {_share(item.positives, item.impressions)}", item.positives, item.impressions),
    ]
    counts += [_with_value(value) for value in evidence.attributes]
    return [count for count in counts if count.impressions]


def _with_value(value: AttributeEvidence) -> _Count:
    name = f"{value.name[:_NAME_CHARACTERS]} {value.value[:_VALUE_CHARACTERS]}"
    told = f"the user clicked {value.user_positives} of {value.user_impressions} with {name}"
    return _Count(told, value.user_positives, value.user_impressions)


def _share(positives: int, impressions: int) -> str:
    return f"{100 * positives / impressions if impressions else 0:.0f} % of {impressions:,} impressions"


def _strongest(counts: Sequence[_Count], reference: float) -> list[str]:
    ordered = sorted(counts, key=lambda count: count.strength(reference), reverse=True)
    return [count.words for count in ordered[:MOST_TOLD]]


def _joined(words: Iterable[str]) -> str:
    return " and ".join(words)


def _own_rate(known: UserEvidence | ItemFacts) -> float | None:
    return known.positives / known.impressions if known.impressions else None


def _distances(ctr: float, item: ItemFacts, user: UserEvidence) -> str:
    """How far the score lies from the own rates, or that there is none."""
    user_rate, item_rate = _own_rate(user), _own_rate(item)
    if user_rate is None and item_rate is None:
        return "neither the user nor the item has been seen before"
    of_user = "the user has not been seen before" if user_rate is None else _distance(ctr, user_rate, "the user's")
    of_item = "the item has not been shown before" if item_rate is None else _distance(ctr, item_rate, "the item's")
    return f"{of_user} and {of_item}"


def _distance(ctr: float, rate: float, whose: str) -> str:
    if abs(ctr - rate) < _EQUAL:
        return f"equal to {whose} own rate ({rate:.2f})"
    return f"{abs(ctr - rate):.2f} {'above' if ctr > rate else 'below'} {whose} own rate ({rate:.2f})"

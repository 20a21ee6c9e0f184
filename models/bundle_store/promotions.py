"""The history of a store: which version became current when, and what rolling back leads to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from runtime.errors import BundleError

KEPT: Final = 500
"""Entries of the history that are kept, the newest."""

Version = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]


class Promotion(msgspec.Struct, frozen=True):
    """A version became the current one.

    Attributes:
        version: which.
        time_ms: when, Unix time in milliseconds.
        by: who did it, as they call themselves.
        kind: whether it was put forward, or returned to.
    """

    version: Version
    time_ms: int
    by: str
    kind: Literal["promotion", "rollback"] = "promotion"


class History(msgspec.Struct, frozen=True):
    """The content of a file of `promotions/`.

    Attributes:
        current: the version in force: that of the last promotion.
        promotions: oldest first.
    """

    current: Version
    promotions: Annotated[tuple[Promotion, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        if self.current != self.promotions[-1].version:
            raise ValueError(f"current is {self.current}, the last promotion is of {self.promotions[-1].version}")


def continued(history: History | None, promotion: Promotion) -> History:
    """The history with a further promotion, without the oldest beyond `KEPT`."""
    before = () if history is None else history.promotions
    return History(promotion.version, (*before, promotion)[-KEPT:])


def in_force(promotions: Sequence[Promotion]) -> list[str]:
    """The current version, last, and before it those that one rollback after the other leads to.

    A promotion adds a version. A rollback takes away everything after the version it returns to, so that the next one
    goes further back, and never to a version that was rolled back. A version that is not among them replaces the last.
    """
    versions: list[str] = []
    for promotion in promotions:
        if promotion.kind == "rollback" and promotion.version in versions:
            last = len(versions) - 1 - versions[::-1].index(promotion.version)
            del versions[last + 1 :]
        elif promotion.kind == "rollback":
            versions[-1:] = [promotion.version]
        elif versions[-1:] != [promotion.version]:
            versions.append(promotion.version)
    return versions


def version_before(history: History) -> str:
    """The version that a rollback leads to.

    Raises:
        BundleError: none was in force before the current one.
    """
    versions = in_force(history.promotions)
    if len(versions) < 2:
        raise BundleError(f"no version was in force before {history.current}: name one with --to")
    return versions[-2]

"""Golden requests: invented requests with the scores that a bundle gave when it was saved, as `golden.json` holds them.

They are told in words and counts, not in tokens and embeddings, so that computing them again passes through all of a
bundle and of this program: tokenizer, base embeddings, features, prompt, model and calibration. No user is in them:
their histories are drawn at random from the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from models.bundle_manifest import GOLDEN, reading
from models.features import GRADED_FEATURES, SHARED_FEATURES
from models.text import MAX_TITLE_CHARACTERS

_MAX_BYTES: Final = 4_194_304

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TITLE_CHARACTERS)]
_Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class GoldenItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item of a golden request: its id, its catalogue text and how often it was shown and clicked."""

    item_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
    text: _Text = ""
    impressions: _Count = 0
    positives: _Count = 0


class GoldenPast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the invented user's past interactions."""

    item: GoldenItem
    positive: bool


class GoldenCandidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate, what similar users did with it, and its scores."""

    item: GoldenItem
    neighbours: Annotated[tuple[bool, ...], msgspec.Meta(max_length=64)] = ()
    """Whether each similar user clicked it."""
    shared: Annotated[tuple[float, ...], msgspec.Meta(max_length=len(SHARED_FEATURES))] = ()
    """`SHARED_FEATURES`, invented; none in bundles of earlier formats."""
    graded: Annotated[tuple[float, ...], msgspec.Meta(max_length=len(GRADED_FEATURES))] = ()
    """`GRADED_FEATURES`, likewise."""
    scores: Annotated[tuple[_Score, ...], msgspec.Meta(max_length=256)] = ()
    """The graph score, then the calibrated CTR of each head by depth; empty until computed."""


class GoldenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An invented user, by their history (oldest first), and candidates."""

    history: Annotated[tuple[GoldenPast, ...], msgspec.Meta(max_length=256)]
    candidates: Annotated[tuple[GoldenCandidate, ...], msgspec.Meta(min_length=1, max_length=64)]


_Requests = Annotated[tuple[GoldenRequest, ...], msgspec.Meta(max_length=64)]


def write_golden(folder: Path, requests: Sequence[GoldenRequest]) -> None:
    """Write `golden.json`."""
    (folder / GOLDEN).write_bytes(msgspec.json.format(msgspec.json.encode(list(requests)), indent=1) + b"\n")


def read_golden(folder: Path) -> tuple[GoldenRequest, ...]:
    """Read `golden.json`.

    Raises:
        BundleError: it is malformed.
    """
    path = folder / GOLDEN
    with reading(folder, GOLDEN):
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=_Requests)

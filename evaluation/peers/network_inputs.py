"""What the networks read of each event, as of the event: who, what, the user's past, and rates.

Items are known by their id (where the training part has it), by the values of their attributes and by the words of
their title, the latter two hashed. The past comes as places of earlier events in the log: the latest ones, and those
whose items are most like the candidate by attributes (the hard search of SIM, by category).
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.peers.running_rates import values_of
from schemas.messages import Interaction, Item

BUCKETS: Final = 1 << 15
"""Hashed words and attribute values; bucket 0 is nobody's and pads."""
WORDS: Final = 8
VALUES: Final = 6
RECENT: Final = 30
"""Latest events of a user's past that are read."""
ALIKE: Final = 20
"""Events of the past that are found for a candidate."""
SEARCHED: Final = 200
"""Latest events of a user with one attribute value that are searched."""
_WORD: Final = re.compile(r"\w+")

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NetworkInputs:
    """All events of a log, and the catalogue, as tensors.

    Attributes:
        users: (events,) rows of users of the training part; 0 for all others.
        items: (events,) rows of the catalogue.
        clicked: (events,) 0 or 1. Of an event's own row only the loss reads it.
        times_s: (events,)
        rates: (events, features) standardised.
        recent: (events, RECENT) places of the user's latest events, the last one first; -1 pads.
        alike: (events, ALIKE) places of the user's events that are most like the candidate, the best first; -1 pads.
        item_ids: (catalogue,) rows of items of the training part; 0 for all others.
        values: (catalogue, VALUES) buckets of attribute values; 0 pads.
        words: (catalogue, WORDS) buckets of title words; 0 pads.
    """

    users: Tensor
    items: Tensor
    clicked: Tensor
    times_s: Tensor
    rates: Tensor
    recent: Tensor
    alike: Tensor
    item_ids: Tensor
    values: Tensor
    words: Tensor

    @property
    def user_rows(self) -> int:
        """Number of user rows, row 0 among them."""
        return int(self.users.max()) + 1

    @property
    def item_id_rows(self) -> int:
        """Number of rows for item ids, row 0 among them."""
        return int(self.item_ids.max()) + 1


def network_inputs(
    items: Sequence[Item],
    interactions: Sequence[Interaction],
    clicked: NDArray[np.bool_],
    rates: Floats,
    train: Places,
) -> NetworkInputs:
    """Inputs of all events.

    Args:
        items: the catalogue.
        interactions: all events, in time order.
        clicked: (events,)
        rates: (events, features) as of each event.
        train: places of the training part: who and what occurs there has an embedding of their own.
    """
    known = [interactions[place] for place in train]
    users = _rows(event.user_id for event in known)
    item_ids = _rows(event.item_id for event in known)
    rows = {item_id: row for row, item_id in enumerate(_catalogue(items, interactions))}
    texts = {item.item_id: item for item in items}
    mean, spread = rates[train].mean(axis=0), rates[train].std(axis=0)
    recent, alike = _pasts(items, interactions)
    return NetworkInputs(
        users=torch.tensor([users.get(event.user_id, 0) for event in interactions]),
        items=torch.tensor([rows[event.item_id] for event in interactions]),
        clicked=torch.from_numpy(clicked.astype(np.int64)),
        times_s=torch.tensor([event.event_time_ms // 1_000 for event in interactions]),
        rates=torch.from_numpy(((rates - mean) / np.maximum(spread, 1e-6)).astype(np.float32)),
        recent=torch.from_numpy(recent),
        alike=torch.from_numpy(alike),
        item_ids=torch.tensor([item_ids.get(item_id, 0) for item_id in rows]),
        values=_padded([_value_buckets(texts.get(item_id)) for item_id in rows], VALUES),
        words=_padded([_word_buckets(texts.get(item_id)) for item_id in rows], WORDS),
    )


def _rows(ids: Iterable[str]) -> dict[str, int]:
    """A row from 1 on for each distinct id."""
    rows: dict[str, int] = {}
    for each in ids:
        rows.setdefault(each, len(rows) + 1)
    return rows


def _catalogue(items: Sequence[Item], interactions: Sequence[Interaction]) -> list[str]:
    """Item ids of the catalogue, then those that occur in events alone."""
    return list(dict.fromkeys([item.item_id for item in items] + [event.item_id for event in interactions]))


def _value_buckets(item: Item | None) -> list[int]:
    return [] if item is None else [_bucket(f"{name}={value}") for name, value in values_of(item.attributes)]


def _word_buckets(item: Item | None) -> list[int]:
    title = (item.title or "") if item is not None else ""
    return [_bucket(word) for word in dict.fromkeys(_WORD.findall(title.casefold()))]


def _bucket(text: str) -> int:
    """The same in every process, unlike `hash`."""
    return 1 + zlib.crc32(text.encode()) % (BUCKETS - 1)


def _padded(lists: Sequence[Sequence[int]], length: int) -> Tensor:
    padded = np.zeros((len(lists), length), np.int64)
    for row, each in zip(padded, lists, strict=True):
        kept = each[:length]
        row[: len(kept)] = kept
    return torch.from_numpy(padded)


def _pasts(items: Sequence[Item], interactions: Sequence[Interaction]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`recent` and `alike` of all events.

    An event of the past is as much like the candidate as the attribute values that both have are rare in the
    catalogue: the same author counts more than the same publisher. Of equally like ones the latest come first.
    """
    values = {item.item_id: values_of(item.attributes) for item in items}
    count = Counter(value for each in values.values() for value in each)
    rarity = {value: math.log(1 + len(items) / count[value]) for value in count}
    recent = np.full((len(interactions), RECENT), -1, np.int32)
    alike = np.full((len(interactions), ALIKE), -1, np.int32)
    by_user: defaultdict[str, list[int]] = defaultdict(list)
    by_value: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, event in enumerate(interactions):
        latest = by_user[event.user_id][: -RECENT - 1 : -1]
        recent[place, : len(latest)] = latest
        own = values.get(event.item_id, ())
        found: defaultdict[int, float] = defaultdict(float)
        for value in own:
            for past in by_value[event.user_id, value][-SEARCHED:]:
                found[past] += rarity[value]
        best = sorted(found, key=lambda past: (-found[past], -past))[:ALIKE]
        alike[place, : len(best)] = best
        by_user[event.user_id].append(place)
        for value in own:
            by_value[event.user_id, value].append(place)
    return recent, alike

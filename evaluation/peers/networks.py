"""The networks among the peers: DIN, DCN V2 and SIM, small enough for one core.

- DIN: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv 1706.06978.
- DCN V2: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, arXiv 2008.13535.
- SIM: Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data", CIKM 2020,
  arXiv 2006.05639.

In the papers a past holds clicks alone. Here it holds what was not clicked too, so each past event carries a vector of
its outcome beside that of its item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.peers.network_inputs import BUCKETS, NetworkInputs

DIM: Final = 16
"""Of the vector of an id, of a text, of an outcome."""
ITEM_DIM: Final = 3 * DIM
PAST_DIM: Final = ITEM_DIM + DIM
HIDDEN: Final = (64, 32)
ATTENTION_HIDDEN: Final = 32
CROSS_LAYERS: Final = 2
HEADS: Final = 2
GAPS: Final = 32
"""Buckets of the time since a past event: powers of two of seconds."""
INITIAL_STD: Final = 0.05


class Past(NamedTuple):
    """Past events of each example of a batch."""

    vectors: Tensor  # (batch, length, PAST_DIM) of their items, then of their outcomes
    clicked: Tensor  # (batch, length) 0 or 1
    gaps_s: Tensor  # (batch, length) seconds until the example
    mask: Tensor  # (batch, length) whether there is one


class Dice(nn.Module):
    """DIN's activation: y = p·s + (1 - p)·α·s, where p is the logistic of s, standardised over the batch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(dim, affine=False)
        self.alpha = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, dim) to (batch, dim)."""
        passed = torch.sigmoid(self.standardise(inputs))
        return inputs * (passed + (1 - passed) * self.alpha)


class AttentionPooling(nn.Module):
    """DIN's local activation unit: a weighted sum of the past, each weight from a small network on the candidate, the
    past item, their difference and their product. As in the paper, the weights are not made to add up to one: a long
    past of the same taste says more than a short one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(4 * ITEM_DIM + DIM, ATTENTION_HIDDEN), nn.PReLU(), nn.Linear(ATTENTION_HIDDEN, 1)
        )

    def forward(self, candidate: Tensor, past: Past) -> Tensor:
        """Pooled past (batch, PAST_DIM) for candidates (batch, ITEM_DIM)."""
        items, outcomes = past.vectors[:, :, :ITEM_DIM], past.vectors[:, :, ITEM_DIM:]
        asked = candidate[:, None].expand_as(items)
        pairs = torch.cat([asked, items, asked - items, asked * items, outcomes], dim=2)
        weights = self.weigh(pairs)[:, :, 0] * past.mask  # (batch, length)
        pooled: Tensor = weights[:, None] @ past.vectors
        return pooled[:, 0]


class CrossLayer(nn.Module):
    """DCN V2's: x' = x₀ ⊙ (W x + b) + x, with a full matrix W."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, first: Tensor, inputs: Tensor) -> Tensor:
        """(batch, dim) of x₀ and x to (batch, dim)."""
        crossed: Tensor = first * self.linear(inputs)
        return crossed + inputs


class SearchAttention(nn.Module):
    """SIM's exact search unit: multi-head attention of the candidate over the events found, each with a vector of the
    time that has passed since. Nothing found gives zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gaps = nn.Embedding(GAPS, DIM)
        nn.init.normal_(self.gaps.weight, std=INITIAL_STD)
        self.found = nn.Linear(PAST_DIM + DIM, HEADS * DIM, bias=False)
        self.asked = nn.Linear(ITEM_DIM, HEADS * DIM, bias=False)

    def forward(self, candidate: Tensor, past: Past) -> Tensor:
        """(batch, HEADS · (PAST_DIM + DIM)) for candidates (batch, ITEM_DIM)."""
        bucket = (1 + past.gaps_s.clamp(min=0)).log2().long().clamp(max=GAPS - 1)
        events = torch.cat([past.vectors, self.gaps(bucket)], dim=2)  # (batch, length, d)
        keys = self.found(events).unflatten(2, (HEADS, DIM))
        query = self.asked(candidate).unflatten(1, (HEADS, DIM))
        scores = torch.einsum("bhd,blhd->bhl", query, keys) / DIM**0.5
        hidden = ~past.mask[:, None]
        weights = scores.masked_fill(hidden, -1e9).softmax(dim=2).masked_fill(hidden, 0.0)
        return (weights @ events).flatten(1)


class Network(nn.Module, ABC):
    """What all three share: vectors of users, items and outcomes.

    Args:
        inputs: all events, of which it reads those that it is asked for.
    """

    def __init__(self, inputs: NetworkInputs) -> None:
        super().__init__()
        self._inputs = inputs
        self.users = nn.Embedding(inputs.user_rows, DIM)
        self.item_ids = nn.Embedding(inputs.item_id_rows, DIM)
        self.texts = nn.Embedding(BUCKETS, DIM)
        self.outcomes = nn.Embedding(2, DIM)
        for table in (self.users, self.item_ids, self.texts, self.outcomes):
            nn.init.normal_(table.weight, std=INITIAL_STD)
        self.rates = inputs.rates.shape[1]

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch,) of events (batch,), and the mean squared length of the embeddings looked up for them: only
        those are regularised, as in DIN's mini-batch aware regularisation.
        """
        inputs = self._inputs
        users = self.users(inputs.users[places])
        pasts = [inputs.recent[places], *self.searched(places)]
        earlier = [past.clamp(min=0).long() for past in pasts]
        asked = [inputs.items[places], *(inputs.items[each].flatten() for each in earlier)]
        # An item occurs many times in a batch; its vector is made once.
        distinct, rows = torch.unique(torch.cat(asked), return_inverse=True)
        vectors = self._item_vectors(distinct)
        candidate, *of_pasts = torch.split(vectors[rows], [len(each) for each in asked])
        read = []
        for past, at, items in zip(pasts, earlier, of_pasts, strict=True):
            clicked = inputs.clicked[at]
            whole = torch.cat([items.view(*past.shape, ITEM_DIM), self.outcomes(clicked)], dim=2)
            gaps_s = inputs.times_s[places][:, None] - inputs.times_s[at]
            read.append(Past(whole, clicked, gaps_s, past >= 0))
        lengths = vectors.square().sum(1).mean() + users.square().sum(1).mean()
        return self.logits(users, candidate, inputs.rates[places], read), lengths

    def searched(self, places: Tensor) -> Sequence[Tensor]:
        """Further places of past events, beside the latest ones, (batch, length) each."""
        del places
        return ()

    @abstractmethod
    def logits(self, users: Tensor, candidate: Tensor, rates: Tensor, pasts: Sequence[Past]) -> Tensor:
        """(batch,) from users (batch, DIM), candidates (batch, ITEM_DIM), rates (batch, features), and pasts."""

    def _item_vectors(self, rows: Tensor) -> Tensor:
        """(n, ITEM_DIM) of rows (n,) of the catalogue: id, mean of attribute values, mean of words."""
        inputs = self._inputs
        texts = [self._mean_text(buckets[rows]) for buckets in (inputs.values, inputs.words)]
        return torch.cat([self.item_ids(inputs.item_ids[rows]), *texts], dim=1)

    def _mean_text(self, buckets: Tensor) -> Tensor:
        """(n, DIM) from buckets (n, length), of which 0 pads."""
        return functional.embedding_bag(buckets, self.texts.weight, mode="mean", padding_idx=0)


class Din(Network):
    """The latest past, pooled by attention to the candidate."""

    def __init__(self, inputs: NetworkInputs) -> None:
        super().__init__(inputs)
        self.pool = AttentionPooling()
        self.deep = _deep(DIM + ITEM_DIM + PAST_DIM + self.rates)

    def logits(self, users: Tensor, candidate: Tensor, rates: Tensor, pasts: Sequence[Past]) -> Tensor:
        """See `Network`."""
        pooled = self.pool(candidate, pasts[0])
        return self.deep(torch.cat([users, candidate, pooled, rates], dim=1))[:, 0]  # type: ignore[no-any-return]


class DcnV2(Network):
    """Crosses of all inputs beside a deep network; of the past the means of what was clicked and of what was not."""

    def __init__(self, inputs: NetworkInputs) -> None:
        super().__init__(inputs)
        dim = DIM + 3 * ITEM_DIM + self.rates
        self.crosses = nn.ModuleList(CrossLayer(dim) for _ in range(CROSS_LAYERS))
        self.deep = _deep(dim)
        self.crossed = nn.Linear(dim, 1, bias=False)

    def logits(self, users: Tensor, candidate: Tensor, rates: Tensor, pasts: Sequence[Past]) -> Tensor:
        """See `Network`."""
        past = pasts[0]
        means = [_mean(past, past.clicked == outcome) for outcome in (1, 0)]
        first = torch.cat([users, candidate, *means, rates], dim=1)
        crossed = first
        for layer in self.crosses:
            crossed = layer(first, crossed)
        return (self.crossed(crossed) + self.deep(first))[:, 0]  # type: ignore[no-any-return]


class Sim(Network):
    """DIN on the latest past, and attention over what a search by attributes finds in the whole past."""

    def __init__(self, inputs: NetworkInputs) -> None:
        super().__init__(inputs)
        self.pool = AttentionPooling()
        self.search = SearchAttention()
        self.deep = _deep(DIM + ITEM_DIM + PAST_DIM + HEADS * (PAST_DIM + DIM) + self.rates)

    def searched(self, places: Tensor) -> Sequence[Tensor]:
        """What the search found for each candidate."""
        return (self._inputs.alike[places],)

    def logits(self, users: Tensor, candidate: Tensor, rates: Tensor, pasts: Sequence[Past]) -> Tensor:
        """See `Network`."""
        latest, found = pasts
        read = [users, candidate, self.pool(candidate, latest), self.search(candidate, found), rates]
        return self.deep(torch.cat(read, dim=1))[:, 0]  # type: ignore[no-any-return]


NETWORKS: Final[Mapping[str, type[Network]]] = {"din": Din, "dcn_v2": DcnV2, "sim": Sim}


def _deep(dim: int) -> nn.Sequential:
    """(batch, dim) to logits (batch, 1)."""
    layers: list[nn.Module] = []
    for hidden in HIDDEN:
        layers += [nn.Linear(dim, hidden), Dice(hidden)]
        dim = hidden
    return nn.Sequential(*layers, nn.Linear(dim, 1))


def _mean(past: Past, wanted: Tensor) -> Tensor:
    """Mean item vector (batch, ITEM_DIM) of the wanted events of the past; zeros where there is none."""
    weights = (wanted & past.mask).float()
    sums = (weights[:, None] @ past.vectors[:, :, :ITEM_DIM])[:, 0]
    return sums / weights.sum(1, keepdim=True).clamp(min=1)

"""The layers of the networks against plain references, and what a network may know."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluation.peers.network_inputs import network_inputs
from evaluation.peers.networks import (
    DIM,
    HEADS,
    ITEM_DIM,
    NETWORKS,
    PAST_DIM,
    AttentionPooling,
    CrossLayer,
    Dice,
    Past,
    SearchAttention,
)
from schemas.messages import Interaction, Item

BATCH, LENGTH = 3, 5


def some_past():
    """The first example has no past, the second a short one, the third a full one."""
    mask = torch.arange(LENGTH) < torch.tensor([0, 2, LENGTH])[:, None]
    clicked = torch.randint(0, 2, (BATCH, LENGTH))
    return Past(torch.randn(BATCH, LENGTH, PAST_DIM), clicked, torch.randint(0, 10_000, (BATCH, LENGTH)), mask)


@pytest.fixture(autouse=True)
def seeded():
    """The same weights and inputs in every run."""
    torch.manual_seed(0)


@torch.no_grad()
def test_attention_pooling_is_a_weighted_sum_over_the_past():
    """Event by event: the weight comes from candidate, past item, difference, product and outcome, and is not
    normalised.
    """
    pooling, candidates, past = AttentionPooling(), torch.randn(BATCH, ITEM_DIM), some_past()
    expected = torch.zeros(BATCH, PAST_DIM)
    for example in range(BATCH):
        for event in range(int(past.mask[example].sum())):
            vector = past.vectors[example, event]
            item, outcome, asked = vector[:ITEM_DIM], vector[ITEM_DIM:], candidates[example]
            expected[example] += pooling.weigh(torch.cat([asked, item, asked - item, asked * item, outcome])) * vector
    assert torch.allclose(pooling(candidates, past), expected, atol=1e-5)


@torch.no_grad()
def test_search_attention_is_a_softmax_over_what_was_found():
    """Head by head, with the vector of the time passed; nothing found is zero."""
    search, candidates, past = SearchAttention(), torch.randn(BATCH, ITEM_DIM), some_past()
    answer = search(candidates, past)
    assert answer[0].abs().sum() == 0
    for example in (1, 2):
        length = int(past.mask[example].sum())
        gaps = [int(np.log2(1 + gap)) for gap in past.gaps_s[example, :length].tolist()]
        events = torch.cat([past.vectors[example, :length], search.gaps.weight[gaps]], dim=1)
        for head in range(HEADS):
            rows = slice(head * DIM, (head + 1) * DIM)
            query = search.asked.weight[rows] @ candidates[example]
            scores = events @ search.found.weight[rows].T @ query / DIM**0.5
            expected = functional.softmax(scores, dim=0) @ events
            width = PAST_DIM + DIM
            assert torch.allclose(answer[example, head * width : (head + 1) * width], expected, atol=1e-5)


@pytest.mark.parametrize("layer", [AttentionPooling, SearchAttention])
@torch.no_grad()
def test_padding_is_not_read(layer):
    """Whatever stands where there is no past event, the result is the same."""
    pool, candidates, past = layer(), torch.randn(BATCH, ITEM_DIM), some_past()
    other = past._replace(vectors=torch.where(past.mask[:, :, None], past.vectors, 7.0))
    assert torch.equal(pool(candidates, past), pool(candidates, other))


@torch.no_grad()
def test_a_cross_layer_multiplies_the_first_input_with_a_linear_map():
    """It is x' = x₀ ⊙ (W x + b) + x."""
    layer, first, inputs = CrossLayer(4), torch.randn(BATCH, 4), torch.randn(BATCH, 4)
    for row in range(BATCH):
        mapped = layer.linear.weight @ inputs[row] + layer.linear.bias
        assert torch.allclose(layer(first, inputs)[row], first[row] * mapped + inputs[row], atol=1e-6)


@torch.no_grad()
def test_dice_is_a_prelu_whose_step_is_where_the_batch_is():
    """Here p is the logistic of the standardised input, and α the slope on the other side."""
    dice = Dice(4)
    dice.alpha.copy_(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    inputs = 3 + 2 * torch.randn(64, 4)
    standardised = (inputs - inputs.mean(0)) / (inputs.var(0, unbiased=False) + 1e-5).sqrt()
    passed = 1 / (1 + torch.exp(-standardised))
    expected = passed * inputs + (1 - passed) * dice.alpha * inputs
    assert torch.allclose(dice(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_a_network_knows_nothing_of_the_event_or_after_it(kind):
    """Other outcomes from the 30th event on leave its logit as it is, and change that of a later one."""
    random = np.random.default_rng(0)
    events = [
        Interaction(
            event_id=str(n),
            user_id=f"u{random.integers(3)}",
            item_id=f"i{random.integers(4)}",
            kind="rating",
            event_time_ms=n,
        )
        for n in range(60)
    ]
    items = [Item(item_id=f"i{n}", title="a b", attributes={"author": f"{n % 2}"}) for n in range(4)]
    inputs = network_inputs(items, events, random.random(60) < 0.5, random.normal(size=(60, 2)), np.arange(20))
    later = torch.arange(60) >= 30
    network = kind(inputs).eval()
    one, _ = network(torch.arange(60))
    changed = kind(replace(inputs, clicked=torch.where(later, 1 - inputs.clicked, inputs.clicked))).eval()
    changed.load_state_dict(network.state_dict())
    other, _ = changed(torch.arange(60))
    assert torch.equal(one[:31], other[:31])
    assert not torch.equal(one[31:], other[31:])

"""Batches of similar length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from training.batches import batches, tokens_of
from training.replay import Example


def sequence(length):
    """A sequence of words alone."""
    return TokenSequence(
        np.zeros(length, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros((0, 4), np.float32)
    )


def example(number, length):
    """A request of one candidate whose row is so many tokens long."""
    return Example(Prompt(sequence(1), [sequence(length - 1)]), np.ones(1, np.float32), np.array([number]))


lengths = st.lists(st.integers(2, 300), min_size=1, max_size=120)


@pytest.mark.parametrize("shuffled", [False, True])
@given(lengths=lengths, limit=st.integers(50, 1_000))
@settings(max_examples=40)
def test_every_example_is_in_one_batch_and_no_batch_exceeds_its_tokens(shuffled, lengths, limit):
    """Padding counts; only a single example may exceed the limit by itself."""
    examples = [example(number, length) for number, length in enumerate(lengths)]
    random = np.random.default_rng(0) if shuffled else None
    made = list(batches(examples, limit, random))
    assert sorted(int(one.events[0]) for batch in made for one in batch) == list(range(len(examples)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(map(tokens_of, batch)) <= limit


def test_padding_is_a_small_part():
    """Among many examples of mixed lengths the rows of a batch are nearly of one length."""
    random = np.random.default_rng(3)
    examples = [example(number, int(length)) for number, length in enumerate(random.integers(20, 300, 2_000))]
    padded = sum(len(batch) * max(map(tokens_of, batch)) for batch in batches(examples, 2_000, random))
    assert padded < 1.05 * sum(map(tokens_of, examples))


def test_shuffling_differs_from_epoch_to_epoch():
    """The generator moves on: the second epoch has other batches."""
    random = np.random.default_rng(0)
    examples = [example(number, 50 + number % 7) for number in range(200)]
    first, second = ([[int(e.events[0]) for e in batch] for batch in batches(examples, 500, random)] for _ in range(2))
    assert first != second

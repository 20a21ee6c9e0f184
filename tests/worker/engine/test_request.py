"""Cutting requests into parts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt import Prompt, TokenSequence
from worker.engine.request import parts_of


def words(length: int) -> TokenSequence:
    """A sequence of one word."""
    nothing = np.zeros(0, np.int32)
    return TokenSequence(np.zeros(length, np.int32), nothing, nothing.astype(np.int8), np.zeros((0, 1), np.float32))


@settings(max_examples=60)
@given(st.integers(1, 30), st.lists(st.integers(1, 20), max_size=30), st.integers(1, 80))
def test_parts_hold_every_candidate_once_and_fit(prefix, suffixes, max_tokens):
    """Parts cover all candidates in order; each fits into a batch or holds a single candidate."""
    parts = parts_of(Prompt(words(prefix), [words(length) for length in suffixes]), max_tokens)
    assert [index for part in parts for index in part] == list(range(len(suffixes)))
    for part in parts:
        assert len(part) == 1 or prefix + sum(suffixes[index] for index in part) <= max_tokens

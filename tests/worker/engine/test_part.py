"""Which candidates and rows of a part are left as it is prepared, passes heads and is cut down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from worker.engine.part import Part
from worker.engine.prefix import KnownPrefix, Stretch
from worker.engine.scoring_job import ScoringJob


def words(length: int) -> TokenSequence:
    """A sequence of one word."""
    nothing = np.zeros(0, np.int32)
    return TokenSequence(np.zeros(length, np.int32), nothing, nothing.astype(np.int8), np.zeros((0, 1), np.float32))


def prompt_of(prefix: int, suffixes: list[int]) -> Prompt:
    """A prompt by its lengths."""
    return Prompt(words(prefix), [words(length) for length in suffixes])


def prepared(**more: object) -> Part:
    """Candidates 10 to 12 of a request, with suffixes of 2, 3 and 4 tokens behind a prefix of 5."""
    part = Part(ScoringJob(20), 10, 13, **more)
    part.take_prompt(prompt_of(5, [2, 3, 4]))
    return part


def known(stages: int, tokens: int = 5) -> KnownPrefix:
    """A stretch in the cache so many stages deep."""
    state = KnownPrefix()
    for stage in range(stages):
        state.extend([], torch.full((tokens, 1), float(stage)))
    return state


def test_a_waiting_part_has_candidates_but_no_rows():
    """Its place in the queue is by fairness, then order, then arrival."""
    part = Part(ScoringJob(20), 10, 13, 4.0, 7, bulk=True)
    assert part.urgency == (True, 4.0, 7)
    assert (len(part), part.places.tolist()) == (3, [10, 11, 12])
    assert (part.tokens, part.prefix_tokens, part.suffix_tokens, part.depth) == (0, 0, 0, 0)
    assert part.suffix_lengths.tolist() == []
    assert part.suffix_lengths.dtype == np.int64
    assert part.logits.shape == (3, 0)
    assert (part.stretches, part.suffix_hidden) == ([], None)
    assert part.hidden_rows() == []
    with pytest.raises(ValueError, match="no prompt"):
        _ = part.prefix
    with pytest.raises(ValueError, match="no prompt"):
        part.token_sequences()


def test_a_part_without_a_place_is_first():
    """Outside a queue, order, arrival and bulk mark are neutral."""
    assert Part(ScoringJob(1), 0, 1).urgency == (False, 0.0, 0)


def test_a_prompt_gives_it_rows():
    """Prefix and suffixes count; a shorter prompt leaves the part with its first candidates."""
    part = prepared()
    assert (part.prefix_tokens, part.suffix_tokens, part.tokens) == (5, 9, 14)
    assert (part.prefix_length, part.prefix_rows) == (5, 5)
    assert [len(sequence) for sequence in part.token_sequences()] == [5, 2, 3, 4]
    part.take_prompt(prompt_of(5, [2, 3]))
    assert (part.start, part.stop, part.places.tolist()) == (10, 12, [10, 11])
    assert part.logits.shape == (2, 0)
    assert part.suffix_lengths.dtype == part.candidates.dtype == np.int64


def test_a_part_of_a_prompt_alone_must_reach_the_final_head():
    """It has all of the prompt's candidates and no deadline."""
    part = Part.of(prompt_of(5, [2, 3, 4]))
    assert part.places.tolist() == [0, 1, 2]
    assert part.job.quality_floor == "final_head"
    assert len(part.job) == 3
    assert part.job.deadline_s == np.inf
    assert part.tokens == 14


def test_heads_line_up_in_columns():
    """Each head passed adds a column of logits and takes the part one stage deeper."""
    part = prepared()
    part.pass_head(np.array([1.0, 2.0, 3.0]))
    part.pass_head(np.array([4.0, 5.0, 6.0]))
    assert part.depth == 2
    assert part.logits.tolist() == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]


def test_only_those_who_stay_keep_rows():
    """Candidates, lengths and logits are cut alike, twice in a row, and the rows that stay are named."""
    part = prepared()
    part.pass_head(np.array([1.0, 2.0, 3.0]))
    assert part.keep(np.array([True, False, True])).tolist() == [0, 1, 5, 6, 7, 8]
    assert part.places.tolist() == [10, 12]
    assert part.suffix_lengths.tolist() == [2, 4]
    assert part.logits.tolist() == [[1.0], [3.0]]
    assert (part.suffix_tokens, part.tokens) == (6, 11)
    assert part.keep(np.array([False, True])).tolist() == [2, 3, 4, 5]
    assert part.places.tolist() == [12]
    assert [len(sequence) for sequence in part.token_sequences()] == [5, 4]


def test_a_known_prefix_has_no_rows_as_deep_as_the_cache_goes():
    """Where the cache ends, the prefix is computed on from the cache's hidden rows."""
    part = prepared()
    part.stretches[0].known = known(1)
    part.count_tokens()
    assert part.unknown_stretches == []
    assert (part.prefix_start, part.prefix_rows, part.tokens) == (5, 0, 9)
    assert [len(sequence) for sequence in part.token_sequences()] == [2, 3, 4]
    part.suffix_hidden = torch.ones(9, 1)
    assert part.hidden_rows() == [part.suffix_hidden]
    part.pass_head(np.zeros(3))
    assert part.unknown_stretches == part.stretches
    assert (part.prefix_start, part.prefix_rows, part.tokens) == (0, 5, 14)
    prefix, suffix = part.hidden_rows()
    assert prefix is part.stretches[0].known.hidden
    assert suffix is part.suffix_hidden


def test_hidden_rows_of_its_own_go_before_the_caches():
    """A prefix that was computed in the stage before goes on from there."""
    part = prepared()
    part.stretches[0].known = known(1)
    part.pass_head(np.zeros(3))
    part.stretches[0].hidden, part.suffix_hidden = torch.zeros(5, 1), torch.ones(9, 1)
    prefix, _ = part.hidden_rows()
    assert prefix is part.stretches[0].hidden
    part.stretches[0].known = known(2)
    assert part.hidden_rows() == [part.suffix_hidden]


def test_an_unknown_prefix_has_rows():
    """Nothing cached, or a state of no stage, changes nothing."""
    part = prepared()
    part.stretches[0].known = known(0)
    part.count_tokens()
    assert part.unknown_stretches == part.stretches
    assert part.tokens == 14


@pytest.mark.parametrize(
    ("stages", "start", "lengths"),
    [((0, 0), 0, [3, 2]), ((1, 0), 3, [2]), ((0, 1), 0, [3]), ((1, 1), 5, [])],
)
def test_only_the_stretches_that_are_not_known_have_rows(stages, start, lengths):
    """Whichever the cache has: the others' rows come before the suffixes', from their own position on."""
    part = prepared()
    part.stretches = [Stretch(words(3), known=known(stages[0], 3)), Stretch(words(2), known=known(stages[1], 2))]
    part.count_tokens()
    assert (part.prefix_start, part.prefix_tokens, part.prefix_length) == (start, sum(lengths), 5)
    assert [len(sequence) for sequence in part.token_sequences()] == [*lengths, 2, 3, 4]


def test_each_stretch_goes_on_from_its_own_rows():
    """One that the last stage computed goes on from there, one that the cache had so far from the cache's rows."""
    part = prepared()
    shared, rest = Stretch(words(3), known=known(1, 3)), Stretch(words(2), known=known(0, 2), hidden=torch.ones(2, 1))
    part.stretches, part.suffix_hidden = [shared, rest], torch.zeros(9, 1)
    part.pass_head(np.zeros(3))
    of_shared, of_rest, of_suffixes = part.hidden_rows()
    assert of_shared is shared.known.hidden
    assert of_rest is rest.hidden
    assert of_suffixes is part.suffix_hidden

"""Every request is accounted for in every output: answered once, twice, or not at all."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from loadgen.ledger import Ledger

OUTPUTS = ("first", "second")


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from(OUTPUTS), st.integers(0, 11)), max_size=40), st.data())
def test_answers_are_counted_per_request_and_output(sent, answers, data):
    """Missing requests and answers beyond the first are those of a plain count, from any number on."""
    ledger = Ledger(OUTPUTS)
    ids = [ledger.open(1_000.0 * number) for number in range(sent)]
    answers = [(output, number) for output, number in answers if number < sent]
    for output, number in answers:
        ledger.answer(output, ids[number], 0.0)
    first = data.draw(st.integers(0, sent))
    for output in OUTPUTS:
        counts = Counter(number for other, number in answers if other == output and number >= first)
        assert ledger.missing(output, first) == [number for number in range(first, sent) if not counts[number]]
        assert ledger.duplicates(output, first) == sum(count - 1 for count in counts.values())


def test_a_request_is_answered_once_every_output_has_it():
    """An answer in one output does not stand for the others."""
    ledger = Ledger(OUTPUTS)
    name = ledger.open(0.0)
    ledger.answer("first", name, 1.0)
    assert not ledger.all_answered(range(1))
    ledger.answer("second", name, 1.0)
    assert ledger.all_answered(range(1))


def test_answers_to_other_runs_do_not_count():
    """Two runs may share their topics: neither counts an answer to the other's requests."""
    ledger, other = Ledger(OUTPUTS), Ledger(OUTPUTS)
    mine, others = ledger.open(0.0), other.open(0.0)
    ledger.answer("first", others, 1.0)
    ledger.answer("first", "of quite another kind", 1.0)
    assert ledger.missing("first") == [0]
    ledger.answer("first", mine, 1.0)
    assert ledger.missing("first") == []


def test_the_first_answer_makes_the_latency():
    """Latency is counted from the creation; what comes twice does not change it, what is missing has none."""
    ledger = Ledger(["out"])
    names = [ledger.open(created) for created in (10.0, 20.0, 30.0)]
    ledger.answer("out", names[2], 35.0)
    ledger.answer("out", names[0], 14.0)
    ledger.answer("out", names[0], 99.0)
    created, latencies = ledger.latencies("out")
    assert created.tolist() == [10.0, 30.0]
    assert latencies.tolist() == [4.0, 5.0]


def test_very_many_answers_are_still_duplicates():
    """A request answered a thousand times fits into its byte."""
    ledger = Ledger(["out"])
    name = ledger.open(0.0)
    for _ in range(1_000):
        ledger.answer("out", name, 0.0)
    assert ledger.duplicates("out") == 254

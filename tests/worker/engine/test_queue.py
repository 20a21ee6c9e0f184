"""The queue: in what order requests are served, how they are cut, and which cannot be in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompt import Prompt
from models.token_sequence import TokenSequence
from worker.engine.queue import PromptSizes, RequestQueue, first_fitting
from worker.engine.scoring_job import ScoringJob
from worker.engine.settings import EngineSettings

STAGES = 3
SECONDS_PER_TOKEN = 1e-5
PREPARE_4_S = 0.001 + 4 * 0.0001
"""First guess for four candidates; their prompt is guessed at 200 tokens."""


class FlatCosts:
    """Every stage takes a millisecond per hundred tokens; there are three."""

    def seconds(self, stage, tokens):  # noqa: ARG002 - the same for every stage
        return tokens * SECONDS_PER_TOKEN

    def seconds_to_end(self, depth, tokens):
        return (STAGES - depth) * tokens * SECONDS_PER_TOKEN

    def observe(self, stage, tokens, seconds):
        """Stays as it is."""


def words(length: int) -> TokenSequence:
    """A sequence of one word."""
    nothing = np.zeros(0, np.int32)
    return TokenSequence(np.zeros(length, np.int32), nothing, nothing.astype(np.int8), np.zeros((0, 1), np.float32))


def prompt_of(prefix: int, suffixes) -> Prompt:
    """A prompt by its lengths."""
    return Prompt(words(prefix), [words(length) for length in suffixes])


def make_queue(costs=None, **changes) -> RequestQueue:
    """An empty queue with costs by hand."""
    return RequestQueue(EngineSettings(**changes), costs or FlatCosts())


def job(deadline_s: float, candidates: int = 4, **more) -> ScoringJob:
    """A request that came at time 0."""
    return ScoringJob(candidates, **{"deadline_s": deadline_s, "budget_s": max(deadline_s, 0.0)} | more)


def order(queue: RequestQueue) -> list:
    """The waiting parts in the order of service, as (deadline, first candidate)."""
    parts = []
    while (part := queue.take_next(1e9)) is not None:
        parts.append((part.job.deadline_s, part.start))
    return parts


def prepare_all(queue: RequestQueue, suffix_tokens: int = 25) -> list:
    """Prepares everything, with prompts of a hundred tokens of prefix."""
    parts = []
    while (part := queue.take_next(1e9)) is not None:
        queue.put_prepared(part, prompt_of(100, [suffix_tokens] * len(part)), 0.0014)
        parts.append(part)
    return parts


def test_the_earliest_deadline_is_served_first():
    """Whatever the order of arrival; of equal deadlines, the first that came."""
    queue = make_queue()
    first, second = job(0.1), job(0.1)
    for each in (job(0.3), first, second, job(0.2)):
        queue.enqueue(each)
    assert queue.take_next(1e9).job is first
    assert queue.take_next(1e9).job is second
    assert order(queue) == [(0.2, 0), (0.3, 0)]


def test_candidates_beyond_a_fair_share_wait_until_nobody_else_does():
    """Parts of a large request beyond the share come last, though its deadline is first."""
    queue = make_queue(part_candidates=2, fair_candidates=2)
    queue.enqueue(job(0.1, candidates=5))
    queue.enqueue(job(0.2, candidates=2))
    assert order(queue) == [(0.1, 0), (0.2, 0), (0.1, 2), (0.1, 4)]


def test_bulk_in_progress_waits_as_well():
    """A prepared part beyond the fair share does not run while another request can."""
    queue = make_queue(part_candidates=2, fair_candidates=2)
    queue.enqueue(job(9.0, candidates=3))
    prepare_all(queue)
    queue.enqueue(job(99.0, candidates=1))
    [late] = prepare_all(queue)
    batch = queue.next_batch(0.0)
    assert [part.bulk for part in batch] == [False, False, True]
    assert batch[1] is late


def test_later_parts_of_a_request_step_back_by_what_the_earlier_ones_take():
    """A request that is due a little later comes between two parts of a large one."""
    queue = make_queue(part_candidates=4)
    queue.enqueue(job(0.1, candidates=8))
    between_s = STAGES * 200 * SECONDS_PER_TOKEN / 2
    queue.enqueue(job(0.1 + between_s, candidates=1))
    assert [start for _, start in order(queue)] == [0, 0, 4]


def test_late_requests_queue_behind_those_that_can_still_be_in_time():
    """A request that came late takes its place by its budget from arrival on."""
    queue = make_queue()
    queue.enqueue(job(-5.0, due_s=0.2, quality_floor="final_head"))
    queue.enqueue(job(0.1))
    assert order(queue) == [(0.1, 0), (-5.0, 0)]


def test_nobody_is_overtaken_for_longer_than_the_patience():
    """A request with a distant deadline is served before those that come after its patience has ended."""
    queue = make_queue(patience_s=10.0)
    queue.enqueue(job(1000.0))
    queue.enqueue(ScoringJob(1, deadline_s=9.0, arrived_s=8.0))
    queue.enqueue(ScoringJob(1, deadline_s=12.0, arrived_s=11.0))
    assert [deadline_s for deadline_s, _ in order(queue)] == [9.0, 1000.0, 12.0]


@settings(max_examples=60)
@given(st.integers(0, 200), st.integers(1, 70), st.integers(1, 300))
def test_parts_cover_all_candidates_once(candidates, part_candidates, fair_candidates):
    """In order, none larger than asked for, bulk exactly from the fair share on."""
    queue = make_queue(part_candidates=part_candidates, fair_candidates=fair_candidates)
    queue.enqueue(job(1.0, candidates=candidates))
    parts = []
    while (part := queue.take_next(1e9)) is not None:
        parts.append(part)
    assert sorted(place for part in parts for place in part.places) == list(range(candidates))
    assert all(len(part) <= part_candidates for part in parts)
    assert all(part.bulk == (part.start >= fair_candidates) for part in parts)


@settings(max_examples=60)
@given(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 80))
def test_what_fits_into_a_batch_is_taken_and_no_more(prefix, suffixes, max_tokens):
    """As many first candidates as fit with the prefix; a single one even if it does not."""
    fitting = first_fitting(prompt_of(prefix, suffixes), max_tokens)
    assert fitting == 1 or prefix + sum(suffixes[:fitting]) <= max_tokens
    assert fitting == len(suffixes) or prefix + sum(suffixes[: fitting + 1]) > max_tokens


def test_what_does_not_fit_into_a_batch_waits_again():
    """The rest of a part keeps its candidates, its bulk mark and a place behind what was taken."""
    queue = make_queue(max_batch_tokens=160, part_candidates=4, fair_candidates=4)
    queue.enqueue(job(1.0, candidates=8))
    first, second = queue.take_next(1e9), queue.take_next(1e9)
    queue.put_prepared(second, prompt_of(100, [25] * 4), 0.001)
    assert (len(second), second.tokens) == (2, 150)
    rest = queue.take_next(1e9)
    assert (rest.start, rest.stop, rest.bulk) == (6, 8, True)
    assert rest.order_s == pytest.approx(second.order_s + STAGES * 150 * SECONDS_PER_TOKEN)
    assert first.bulk is False


def test_only_so_many_tokens_are_prepared_ahead():
    """Once they are reached nothing more is taken, until a part has left."""
    queue = make_queue()
    for _ in range(3):
        queue.enqueue(job(1.0, candidates=1))
    taken = queue.take_next(125)
    queue.put_prepared(taken, prompt_of(100, [25]), 0.001)
    assert queue.take_next(125) is None
    assert queue.waiting == 2
    queue.remove(taken)
    assert queue.take_next(125) is not None


# Four candidates are guessed at 200 tokens: 2 ms a stage, 1.4 ms to prepare.
FIRST_HEAD_S = PREPARE_4_S + 0.002


def test_the_unmeetable_are_taken_out():
    """Those whose first head is predicted after their deadline leave the queue; the others keep waiting."""
    queue = make_queue()
    for deadline_s in (FIRST_HEAD_S - 1e-4, FIRST_HEAD_S + 1e-4, 1.0):
        queue.enqueue(job(deadline_s))
    queue.enqueue(job(-5.0, due_s=0.2, quality_floor="first_head"))
    unmeetable = queue.take_unmeetable(0.0, floor_share=0.0)
    assert [part.job.deadline_s for part in unmeetable] == [FIRST_HEAD_S - 1e-4]
    assert queue.waiting == 3
    assert queue.take_unmeetable(0.0, floor_share=0.0) == []


def test_the_rest_keeps_its_order_when_the_unmeetable_leave():
    """Those taken out and those who stay are both most urgent first."""
    queue = make_queue()
    for deadline_s in (3.0, 0.002, 1.0, 0.001, 2.0):
        queue.enqueue(job(deadline_s))
    assert [part.job.deadline_s for part in queue.take_unmeetable(0.0, floor_share=0.0)] == [0.001, 0.002]
    assert [deadline_s for deadline_s, _ in order(queue)] == [1.0, 2.0, 3.0]


def test_an_empty_queue_has_nothing_unmeetable():
    """Nor anything to prepare, to run, or to ask for."""
    queue = make_queue()
    assert queue.take_unmeetable(0.0, floor_share=1.0) == []
    assert queue.take_next(1.0) is None
    assert queue.next_batch(0.0) == []
    assert queue.demands() == []
    assert (len(queue), queue.waiting) == (0, 0)


def test_the_queue_counts_what_waits_and_what_is_prepared():
    """A part counts until its candidates are answered."""
    queue = make_queue()
    for _ in range(3):
        queue.enqueue(job(1.0))
    part = queue.take_next(1e9)
    queue.put_prepared(part, prompt_of(100, [25] * 4), 0.001)
    assert (len(queue), queue.waiting) == (3, 2)
    queue.remove(part)
    assert (len(queue), queue.waiting) == (2, 2)


def test_those_ahead_delay_by_their_work_at_the_lowest_threshold():
    """The second in line is unmeetable if the first one's least work leaves no time: a quarter of full depth here."""
    least_s = PREPARE_4_S + 0.5 * 0.006  # half of three stages, which is more than the first head
    for second_s, expected in ((least_s + FIRST_HEAD_S - 1e-4, 1), (least_s + FIRST_HEAD_S + 1e-4, 0)):
        queue = make_queue()
        queue.enqueue(job(FIRST_HEAD_S + 1e-4))
        queue.enqueue(job(second_s))
        assert len(queue.take_unmeetable(0.0, floor_share=0.5)) == expected


def test_admission_counts_what_is_in_progress():
    """A waiting request must also wait until everything prepared has passed one more head."""
    queue = make_queue()
    queue.enqueue(job(1.0))
    prepare_all(queue)  # 200 tokens at depth 0: 2 ms
    queue.enqueue(job(0.002 + FIRST_HEAD_S - 1e-4))
    queue.enqueue(job(0.5))
    assert len(queue.take_unmeetable(0.0, floor_share=0.0)) == 1
    queue = make_queue()
    queue.enqueue(job(1.0))
    prepare_all(queue)
    queue.enqueue(job(0.002 + FIRST_HEAD_S + 1e-4))
    assert queue.take_unmeetable(0.0, floor_share=0.0) == []


def test_what_waits_demands_its_preparation_and_its_stages():
    """Until the first head whatever the threshold, beyond it as deep as the threshold says."""
    queue = make_queue()
    queue.enqueue(job(0.1, budget_s=0.2, due_s=0.15))
    [demand] = queue.demands()
    assert (demand.deadline_s, demand.budget_s) == (0.15, 0.2)
    assert demand.fixed_s == pytest.approx(FIRST_HEAD_S)
    assert demand.work_s == pytest.approx(0.004)


def test_what_is_in_progress_demands_its_next_head_and_the_stages_beyond():
    """Each with its own deadline and budget."""
    queue = make_queue()
    queue.enqueue(job(0.1, budget_s=0.2))
    queue.enqueue(job(0.3, budget_s=0.4))
    first, second = prepare_all(queue)
    first.pass_head(np.zeros(4))
    demands = {demand.deadline_s: demand for demand in queue.demands()}
    assert {deadline_s: demand.budget_s for deadline_s, demand in demands.items()} == {0.1: 0.2, 0.3: 0.4}
    assert (demands[0.1].fixed_s, demands[0.1].work_s) == pytest.approx((0.002, 0.002))
    assert (demands[0.3].fixed_s, demands[0.3].work_s) == pytest.approx((0.002, 0.004))
    assert second.depth == 0


def test_waiting_bulk_demands_nothing():
    """The threshold is not lowered for candidates beyond a fair share."""
    queue = make_queue(part_candidates=2, fair_candidates=2)
    queue.enqueue(job(0.1, candidates=10))
    assert len(queue.demands()) == 1


def test_predictions_are_doubted_by_the_safety_factor():
    """A part is out of time, and company makes late, if a stage that takes longer than predicted would end too late."""
    queue = make_queue(safety_factor=2.0)
    queue.enqueue(job(0.0039))
    queue.enqueue(job(0.0041))
    prepare_all(queue)  # 2 ms each, so 4 ms by the safety factor; together 8 ms
    assert [part.job.deadline_s for part in queue.out_of_time(0.0)] == [0.0039]
    assert len(queue.next_batch(0.0)) == 1
    assert len(make_and_prepare(1.0).next_batch(0.0)) == 2


def make_and_prepare(safety_factor: float) -> RequestQueue:
    """Two parts of 2 ms each, due after 4.5 ms."""
    queue = make_queue(safety_factor=safety_factor)
    for _ in range(2):
        queue.enqueue(job(0.0045))
    prepare_all(queue)
    return queue


def test_sizes_are_learned():
    """Predictions move to what prompts really are and to how long preparing them takes."""
    sizes = PromptSizes(prefix_tokens=10, suffix_tokens=10)
    for _ in range(200):
        sizes.observe(candidates=4, prefix_tokens=80, suffix_tokens=4 * 30, prepare_s=0.01)

    assert sizes.tokens(4) == pytest.approx(200, abs=2)
    assert sizes.tokens(8) == pytest.approx(320, abs=3)
    assert sizes.prepare_s(4) == pytest.approx(0.01, rel=0.05)


def test_before_anything_is_learned_sizes_are_guessed():
    """A hundred tokens and a millisecond for the prefix, 25 tokens and a tenth of one for each candidate."""
    sizes = PromptSizes()
    assert [sizes.tokens(candidates) for candidates in (0, 1, 4)] == [100, 125, 200]
    assert [sizes.prepare_s(candidates) for candidates in (0, 1, 20)] == pytest.approx([0.001, 0.0011, 0.003])


def test_one_preparation_counts_a_twentieth():
    """Prefix and suffixes each on their own; of the time both shares are scaled alike, quick as well as slow."""
    for factor in (3.0, 0.2):
        sizes = PromptSizes(prefix_tokens=100, suffix_tokens=20)
        sizes.observe(candidates=4, prefix_tokens=300, suffix_tokens=4 * 60, prepare_s=factor * sizes.prepare_s(4))
        assert sizes.tokens(0) == 110
        assert sizes.tokens(10) == 110 + 220
        scale = 1 + 0.05 * (factor - 1)
        assert sizes.prepare_s(0) == pytest.approx(0.001 * scale)
        assert sizes.prepare_s(1000) == pytest.approx(0.101 * scale)


def test_one_very_slow_preparation_is_no_trend():
    """A pause of the process counts as at most ten times the prediction."""
    sizes = PromptSizes()
    before = sizes.prepare_s(4)
    sizes.observe(4, 100, 100, 1000 * before)
    assert sizes.prepare_s(4) == pytest.approx(1.45 * before)


def test_the_queue_learns_from_what_it_prepares():
    """After many prompts of 400 tokens a waiting request is expected to have as many."""
    queue = make_queue()
    for _ in range(200):
        queue.enqueue(job(9.0))
        for part in prepare_all(queue, suffix_tokens=75):
            queue.remove(part)
    queue.enqueue(job(9.0))
    [demand] = queue.demands()
    assert demand.work_s == pytest.approx(0.008, rel=0.01)


arrivals = st.lists(st.tuples(st.integers(0, 20), st.floats(-50, 500), st.integers(1, 4)), min_size=1, max_size=25)


@settings(max_examples=60)
@given(arrivals)
def test_nobody_starves(requests):
    """Whatever the deadlines of those who come, every request is served, the most urgent one at every step.

    Time goes on by one second a step; requests arrive over time and pass all stages.
    """
    queue = make_queue(patience_s=10.0, max_batch_tokens=250)
    pending = sorted(requests)
    now_s, done = 0.0, 0
    while pending or len(queue):
        if pending and pending[0][0] <= now_s:
            _, slack_s, candidates = pending.pop(0)
            arrived = ScoringJob(candidates, deadline_s=now_s + slack_s, arrived_s=now_s, quality_floor="final_head")
            queue.enqueue(arrived)
        prepare_all(queue)
        batch = queue.next_batch(now_s)
        if len(queue):
            assert batch[0].urgency == min(part.urgency for part in queue._prepared)
            assert len(batch) == 1 or sum(member.tokens for member in batch) <= 250
            assert len({member.depth for member in batch}) == 1
        for member in batch:
            assert member.order_s <= member.job.arrived_s + 10.0
            member.pass_head(np.zeros(len(member)))
            if member.depth == STAGES:
                queue.remove(member)
                done += 1
        now_s += 1.0
    assert done == len(requests)


def test_a_prompt_that_just_fills_a_batch_fits():
    """A batch may have as many tokens as its bound."""
    assert [first_fitting(prompt_of(10, [5, 5, 5]), most) for most in (15, 19, 20, 25)] == [1, 1, 2, 3]


def test_each_part_steps_back_by_all_stages_of_the_one_before():
    """By what that one's own candidates take, at full depth."""
    queue = make_queue(part_candidates=4)
    queue.enqueue(job(0.1, candidates=12))
    places = [queue.take_next(1e9).order_s for _ in range(3)]
    assert places == pytest.approx([0.1, 0.106, 0.112])


class SlowFirstStage(FlatCosts):
    """The first stage takes its time, the others none."""

    def seconds(self, stage, tokens):
        return {0: 1, 1: 0, 2: 0}[stage] * super().seconds(stage, tokens)


def test_admission_counts_all_parts_in_progress_at_their_own_stages():
    """Two parts before the first stage delay by 4 ms, one beyond it by nothing."""
    for offset_s, expected in ((-1e-6, 1), (1e-6, 0)):
        queue = make_queue(SlowFirstStage())
        for _ in range(3):
            queue.enqueue(job(1.0))
        prepare_all(queue)[0].pass_head(np.zeros(4))
        queue.enqueue(job(0.004 + FIRST_HEAD_S + offset_s))
        assert len(queue.take_unmeetable(0.0, floor_share=0.0)) == expected


def test_a_step_is_bounded_in_predicted_time():
    """The largest batch is halved until a step takes no longer than it may, but not below a few hundred tokens."""
    for max_step_s, tokens in ((0.1, 8_192), (0.0819, 4_096), (0.01, 512), (0.0001, 256)):
        assert make_queue(max_step_s=max_step_s).step_tokens(0) == tokens
    assert make_queue(max_batch_tokens=100, max_step_s=0.0001).step_tokens(0) == 100


def test_a_long_prefix_does_not_cut_its_candidates_apart():
    """It is computed by itself; the part has as many candidates as fit a step without it."""
    queue = make_queue(max_batch_tokens=100)
    for prefix, fitting in ((75, 2), (76, 10)):
        queue.enqueue(job(1.0, candidates=20))
        part = queue.take_next(1e9)
        queue.put_prepared(part, prompt_of(prefix, [10] * 20), 0.001)
        assert len(part) == fitting
        queue.take_all()


def test_slow_stages_do_not_cut_candidates_into_crumbs():
    """Each part may have to compute the prefix anew: a thousand tokens stay together."""
    queue = make_queue(max_step_s=0.0001)
    queue.enqueue(job(1.0, candidates=20))
    part = queue.take_next(1e9)
    queue.put_prepared(part, prompt_of(170, [70] * 20), 0.001)
    assert len(part) == 12


def test_what_is_more_urgent_than_everything_prepared_is_prepared():
    """However much is: it would run next."""
    queue = make_queue()
    queue.enqueue(job(5.0))
    part = queue.take_next(1)
    queue.put_prepared(part, prompt_of(100, [25] * 4), 0.001)
    queue.enqueue(job(6.0))
    assert queue.take_next(1) is None
    queue.enqueue(job(4.0))
    assert queue.take_next(1).job.deadline_s == 4.0
    assert queue.take_next(1) is None


def test_a_part_steps_back_by_what_its_chunk_took():
    """Not beyond the request's patience, and never forward."""
    queue = make_queue(patience_s=5.5)
    queue.enqueue(job(5.0))
    part = queue.take_next(1)
    queue.step_back(part, 10_000)
    assert part.urgency == (False, 5.1, 1)
    for _ in range(9):
        queue.step_back(part, 10_000)
    assert part.order_s == 5.5
    part.order_s = 7.0
    queue.step_back(part, 10_000)
    assert part.order_s == 7.0

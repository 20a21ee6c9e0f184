"""Predicting how long a stage takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.cost import LARGEST_SURPRISE, CostTable, NoCosts, correct_stages, measure_stages
from worker.engine.settings import EngineSettings
from worker.engine.transformer import packing
from worker.engine.transformer.packing import pack
from worker.engine.transformer.runner import StageRunner
from worker.steps import to_its_end


@pytest.fixture
def table() -> CostTable:
    """Three sizes, two stages; one measurement of the second came out too fast."""
    return CostTable([100, 200, 400], np.array([[1.0, 2.0, 4.0], [3.0, 2.5, 6.0]]))


def test_between_measurements_the_curve_is_straight_and_beyond_proportional(table):
    """Sizes in between are interpolated, larger ones taken at the last rate, smaller ones at the least seen."""
    assert table.seconds(0, 150) == pytest.approx(1.5)
    assert table.seconds(0, 800) == pytest.approx(8.0)
    assert table.seconds(0, 1) == pytest.approx(1.0)


def test_more_tokens_never_cost_less(table):
    """A larger size that happened to be measured faster is taken for as slow as the smaller."""
    assert table.seconds(1, 200) == pytest.approx(3.0)


def test_the_rest_of_the_way_is_the_sum_of_its_stages(table):
    """From depth 0 all stages are ahead, from the last depth one, behind it none."""
    assert table.seconds_to_end(0, 400) == pytest.approx(10.0)
    assert table.seconds_to_end(1, 400) == pytest.approx(6.0)
    assert table.seconds_to_end(2, 400) == 0.0


def test_the_table_follows_a_machine_that_slows_down(table):
    """After some dozens of stages at double the time, predictions have doubled, at every size of that stage alone."""
    for _ in range(60):
        table.observe(0, 100, 2.0)
    assert table.seconds(0, 400) == pytest.approx(8.0, rel=0.02)
    assert table.seconds(1, 100) == pytest.approx(3.0)


@pytest.mark.parametrize(("slower", "scale"), [(2.0, 2**0.1), (0.5, 0.5**0.1), (4.0, 4**0.1), (0.25, 0.25**0.1)])
def test_one_stage_counts_a_tenth_in_logarithms(slower, scale):
    """Twice as slow and twice as fast weigh the same, however short the stage is."""
    for seconds in (1e-6, 1.0):
        table = CostTable([100], np.array([[seconds]]))
        table.observe(0, 100, slower * seconds)
        assert table.seconds(0, 100) == pytest.approx(scale * seconds)


@pytest.mark.parametrize(("seconds", "scale"), [(1000.0, 4**0.1), (0.0, 0.25**0.1), (0.001, 0.25**0.1)])
def test_one_stage_counts_as_at_most_four_times_slower_or_faster(table, seconds, scale):
    """One very quick stage does not wipe out a prediction, nor does a pause inflate it."""
    table.observe(0, 100, seconds)
    assert table.seconds(0, 100) == pytest.approx(scale)


def test_one_pause_is_no_trend(table):
    """A single stage that took a thousand times as long moves the prediction only a little."""
    table.observe(0, 100, 1000.0)
    assert table.seconds(0, 100) <= LARGEST_SURPRISE**0.1 + 1e-9


def test_sizes_may_begin_at_one_and_ascend_by_one():
    """Any positive ascending sizes are taken; the stages are counted."""
    table = CostTable([1, 2], np.array([[1.0, 3.0]] * 3))
    assert table.stages == 3
    assert table.seconds(2, 2) == 3.0


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_predictions_grow_with_tokens(few, many):
    """The prediction never falls with the number of tokens."""
    table = CostTable([100, 200], np.array([[1.0, 1.7]]))
    assert table.seconds(0, min(few, many)) <= table.seconds(0, max(few, many))


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [
        ([], np.zeros((1, 0))),
        ([2, 1], np.ones((1, 2))),
        ([2, 2], np.ones((1, 2))),
        ([0, 1], np.ones((1, 2))),
        ([1], np.zeros((1, 1))),
        ([1, 2], np.array([[0.0, 1.0]])),
        ([1, 2], np.ones((1, 3))),
        ([1, 2], np.ones((1, 2, 2))),
    ],
)
def test_nonsense_is_refused(sizes, seconds):
    """Sizes must ascend, times be positive, shapes match."""
    with pytest.raises(ValueError, match="sizes"):
        CostTable(sizes, seconds)


def test_before_anything_is_measured_nothing_is_predicted_to_take_time():
    """Whatever the stage and its size; what runs changes nothing."""
    costs = NoCosts()
    costs.observe(0, 100, 1.0)
    assert costs.seconds(0, 100) == 0.0
    assert costs.seconds_to_end(0, 100) == 0.0


class ScriptedClock:
    """Every second reading is as much later as the script's next number says."""

    def __init__(self, seconds):
        self._seconds = iter(seconds)
        self._now_s, self._running = 50.0, False

    def __call__(self):
        if self._running:
            self._now_s += next(self._seconds)
        self._running = not self._running
        return self._now_s

    def used_up(self):
        return next(self._seconds, None) is None


def measured(*arguments):
    """The table at the end of all steps."""
    return to_its_end(measure_stages(*arguments))


@pytest.mark.parametrize(("most_tokens", "sizes"), [(600, [128, 256, 512]), (512, [128, 256, 512]), (1, [128])])
def test_warm_up_takes_the_median_of_every_stage_at_doubling_sizes(make_model, most_tokens, sizes):
    """From 128 tokens up to the largest batch; rounds outermost, then sizes, then stages."""
    settings = EngineSettings(max_batch_tokens=most_tokens, warm_up_rounds=3)
    first = 0.001 * np.arange(1, 3 * len(sizes) + 1).reshape(len(sizes), 3)  # (sizes, stages)
    clock = ScriptedClock(np.stack([first, 100 * first, 2 * first]).ravel().tolist())
    table = measured(StageRunner(make_model(), settings), settings, clock)
    assert clock.used_up()
    assert table.stages == 3
    for row, size in enumerate(sizes):
        for stage in range(3):
            assert table.seconds(stage, size) == pytest.approx(2 * first[row, stage])
    assert table.seconds(0, 2 * sizes[-1]) == pytest.approx(4 * first[-1, 0])


class NotingRunner(StageRunner):
    """Notes the lengths of all parts that run."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lengths = []
        self.sequences = []
        self.kernels = []

    def run(self, parts):
        self.sequences += [sequence for part in parts for sequence in part.token_sequences()]
        self.lengths += [(part.depth, len(part.prefix), part.suffix_lengths.tolist()) for part in parts]
        return super().run(parts)

    def build_kernels(self, most_rows, limit_s):
        self.kernels.append((most_rows, limit_s))
        super().build_kernels(most_rows, limit_s)


@pytest.mark.parametrize(
    ("max_positions", "expected"),
    [
        (4096, [(64, [32] * 2), (128, [32] * 4), (128, [32] * 12)]),
        (160, [(64, [32] * 2), (80, [32] * 5), (80, [32] * 13)]),
        (50, [(25, [25] * 4), (25, [25] * 9), (25, [25] * 19)]),
        (2, [(1, [1] * 127), (1, [1] * 255), (1, [1] * 511)]),
    ],
)
def test_warm_up_measures_prompts_of_a_usual_shape(make_model, max_positions, expected):
    """A prefix of 128 tokens and suffixes of 32, all stages; less where the model or the size has no room for them."""
    settings = EngineSettings(max_batch_tokens=512, warm_up_rounds=1)
    runner = NotingRunner(make_model(max_position_embeddings=max_positions), settings)
    measured(runner, settings, ScriptedClock([0.1] * 9))
    assert runner.lengths == [(stage, *lengths) for lengths in expected for stage in range(3)]
    assert runner.kernels == [(512, 3.0)]


@pytest.mark.parametrize(
    ("times", "sizes", "rounds"),
    [
        ([0.1, 0.2, 0.4], 3, 3),  # 0.7 s a round
        ([0.5, 1.0, 1.4], 3, 1),  # 2.9 s: a second one would end after 5.8
        ([1.0, 1.4, 9.9], 2, 2),  # 2.4 s so far, and the next size would take 2.8
        ([4.0, 9.9, 9.9], 1, 1),
    ],
)
def test_a_slow_model_is_measured_less(make_model, times, sizes, rounds):
    """Measuring ends before it would exceed five seconds; larger sizes are then predicted in proportion."""
    settings = EngineSettings(max_batch_tokens=512, warm_up_rounds=3)
    each = np.repeat(times[:sizes], 3) / 3  # three stages
    clock = ScriptedClock(np.tile(each, rounds).tolist())
    table = measured(StageRunner(make_model(), settings), settings, clock)
    assert clock.used_up()
    for size, seconds in zip((128, 256, 512), times[:sizes], strict=False):
        assert table.seconds_to_end(0, size) == pytest.approx(seconds)
    assert table.seconds_to_end(0, 1024) == pytest.approx(times[sizes - 1] * 2 ** (4 - sizes))


def test_warm_up_prompts_have_the_number_formats_of_real_ones(make_model, make_prompt):
    """And no soft tokens, so that what is measured is what requests will take."""
    settings = EngineSettings(max_batch_tokens=128, warm_up_rounds=1)
    runner = NotingRunner(make_model(), settings)
    measured(runner, settings, ScriptedClock([0.1] * 3))
    real = make_prompt(5, []).prefix
    for sequence in runner.sequences:
        for name in sequence.__struct_fields__:
            assert getattr(sequence, name).dtype == getattr(real, name).dtype
        assert (len(sequence.soft_positions), len(sequence.soft_kinds)) == (0, 0)
        assert sequence.soft_values.shape == (0, runner.soft_width)


def test_a_stage_too_quick_for_the_clock_is_still_predicted_to_take_time(make_model):
    """Times must be positive: the least is a nanosecond."""
    settings = EngineSettings(max_batch_tokens=128, warm_up_rounds=1)
    table = measured(StageRunner(make_model(), settings), settings, lambda: 1.0)
    assert table.seconds(0, 128) == pytest.approx(1e-9)


def test_costs_measured_elsewhere_are_corrected_by_the_median_of_three_small_runs(make_model, monkeypatch):
    """Every stage by itself; the shape of the curve stays, and nothing else is needed of it."""
    settings = EngineSettings(max_batch_tokens=256, warm_up_rounds=1)
    table = CostTable([128, 256], np.array([[1.0, 3.0]] * 3))
    runner = StageRunner(make_model(), settings)
    clock = ScriptedClock([0.2, 9.0, 0.1, 0.4, 0.4, 0.4, 0.5, 0.6, 0.7])
    plans: list[object] = []
    monkeypatch.setattr(packing, "pack", lambda *batch: plans.append(batch) or pack(*batch))
    steps = list(correct_stages(runner, table, clock, rounds=3))

    assert len(plans) == 9  # as for real batches, of which each is another
    assert len(steps) == 9  # a request waits for one run at most
    assert [table.seconds(stage, 128) for stage in range(3)] == pytest.approx([0.2, 0.4, 0.6])
    assert [table.seconds(stage, 256) for stage in range(3)] == pytest.approx([0.6, 1.2, 1.8])

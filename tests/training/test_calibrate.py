"""Calibration: rates come true, and the exit threshold keeps its promise."""

import numpy as np
import pytest

from evaluation.metrics import auc, expected_calibration_error, log_loss, log_losses
from models.calibration import confidence_features, sigmoid
from models.features import FEATURES, GRAPH_FEATURES, as_unknown
from models.prompt import Prompt
from models.token_sequence import SoftKind, TokenSequence
from training.calibrate import NEVER, CalibrationOptions, HeldOut, calibrate
from training.exit_costs import TokenCosts, answers_at, confidences, exit_heads
from training.learn_then_test import betting_p_value
from training.replay import Example

LAYERS = (1, 2, 4)


def held_out(seed, count, disagreement):
    """Answers of a made-up model: the final head is right up to a scale, early heads differ from it by chance.

    Early answers to candidates of large logit are exact, so there is something for a confidence to find.
    """
    random = np.random.default_rng(seed)
    truth = random.normal(0.0, 1.2, count)
    noise = random.normal(0.0, disagreement, (count, 2)) * (np.abs(truth) < 0.8)[:, None]
    logits = np.column_stack([truth + noise[:, 0], truth + noise[:, 1] / 2, truth]) * 2.0 - 0.3
    features = np.zeros((count, len(GRAPH_FEATURES)))
    features[:, 0] = truth + random.normal(0, 0.5, count)
    return HeldOut(
        logits=logits,
        labels=(random.random(count) < sigmoid(truth)).astype(np.float64),
        graph_features=features,
        costs=TokenCosts(np.full(count, 20), np.full(count, 30), np.arange(count)),
    )


def served(calibration, data, threshold):
    """Rates of the candidates at a threshold."""
    ctrs = np.stack([calibration.ctr(head, data.logits[:, head]) for head in range(3)], axis=1)
    return answers_at(ctrs, exit_heads(confidences(calibration, data.logits), threshold))


def made(disagreement=0.5, **options):
    """A calibration and fresh data to judge it by."""
    calibration = calibrate(
        held_out(0, 4_000, disagreement), held_out(1, 4_000, disagreement), LAYERS, CalibrationOptions(**options)
    )
    return calibration, held_out(2, 30_000, disagreement)


def sequence(tokens, statistics):
    """A sequence of so many tokens whose last one is soft and holds statistics."""
    return TokenSequence(
        np.zeros(tokens, np.int32),
        np.array([tokens - 1], np.int32),
        np.array([SoftKind.STATISTICS], np.int8),
        np.asarray(statistics, np.float32)[None],
    )


def test_held_out_examples_are_rows_in_the_order_of_their_candidates():
    """Logits, labels, graph features and lengths of all candidates come one below the other, as float64."""
    numbers = np.arange(3 * len(FEATURES), dtype=np.float32).reshape(3, -1)
    prompts = [
        Prompt(sequence(9, numbers[0]), [sequence(4, numbers[0]), sequence(5, numbers[1])]),
        Prompt(sequence(7, numbers[0]), [sequence(6, numbers[2])]),
    ]
    examples = [
        Example(prompts[0], np.array([1, 0], np.float32), np.array([0, 1])),
        Example(prompts[1], np.array([1], np.float32), np.array([2])),
    ]
    logits = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    found = HeldOut.of(examples, logits)
    np.testing.assert_array_equal(found.logits, logits)
    assert found.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found.graph_features, numbers[:, : len(GRAPH_FEATURES)])
    assert {found.logits.dtype, found.labels.dtype, found.graph_features.dtype} == {np.dtype(np.float64)}
    assert found.costs.suffix_tokens.tolist() == [4, 5, 6]
    assert found.costs.prefix_tokens.tolist() == [9, 7]


def test_with_few_examples_rates_stay_cautious():
    """Of eight examples, four clicks of four count as 0.9 and one of four as 0.3: Platt's smoothed targets."""
    data = held_out(0, 8, 0.5)
    sides = np.repeat([1.0, -1.0], 4)
    few = data._replace(logits=np.column_stack([sides, sides, 2 * sides]), labels=np.array([1, 1, 1, 1, 1, 0, 0, 0.0]))
    calibration = calibrate(few, data, LAYERS, CalibrationOptions())
    for head in range(3):
        assert calibration.ctr(head, few.logits[:, head]) == pytest.approx([0.9] * 4 + [0.3] * 4, abs=1e-4)


def test_the_graph_score_is_the_most_likely_one_with_unknown_ids_among_the_examples():
    """Every tenth example also counts as of an unknown user, an unknown item and both. Features are standardised over
    all of these, a constant one is not scaled, and each squared weight costs half.
    """
    data = held_out(0, 300, 0.5)
    features = data.graph_features.copy()
    features[:, 1:] = np.random.default_rng(6).normal(2.0, 3.0, features[:, 1:].shape)
    features[:, 1] /= 10.0
    features[:, GRAPH_FEATURES.index("user_count")] = 0.0
    found = calibrate(data._replace(graph_features=features), data, LAYERS, CalibrationOptions())

    some, clicks = features[::10], data.labels[::10]
    rows = np.concatenate(
        [features, as_unknown(some, user=True), as_unknown(some, item=True), as_unknown(some, user=True, item=True)]
    )
    scale = rows.std(axis=0)
    scale[GRAPH_FEATURES.index("user_count")] = 1.0
    np.testing.assert_allclose(found.graph_mean, rows.mean(axis=0))
    np.testing.assert_allclose(found.graph_scale, scale)
    errors = found.graph_ctr(rows) - np.concatenate([data.labels, clicks, clicks, clicks])
    # Where the penalised likelihood is largest, its slope in every weight is zero.
    slope = ((rows - found.graph_mean) / scale).T @ errors + found.graph_weights
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    assert errors.sum() + found.graph_bias == pytest.approx(0.0, abs=1e-6)


def test_confidence_is_the_most_likely_one_of_an_answer_within_the_tolerance():
    """Per early head, a regression on the calibrated path so far; each squared weight costs a twentieth."""
    data = held_out(0, 300, 0.5)
    found = calibrate(data, data, LAYERS, CalibrationOptions(tolerance=0.2))
    path = np.stack([found.calibrated_logit(head, data.logits[:, head]) for head in range(3)], axis=1)
    assert found.tolerance == 0.2
    for head, weights in enumerate(found.confidence_weights):
        features = confidence_features(path[:, : head + 1])
        errors = sigmoid(features @ weights) - (np.abs(path[:, 2] - path[:, head]) <= 0.2)
        np.testing.assert_allclose(features.T @ errors + 0.1 * weights, 0.0, atol=1e-5)


def test_thresholds_have_like_many_early_confidences_between_them():
    """The thresholds tried are quantiles of the early confidences of the half that is fitted to, and both ends."""
    halves = held_out(0, 500, 0.5), held_out(1, 400, 0.5)
    calibration = calibrate(*halves, LAYERS, CalibrationOptions(thresholds=11))
    early = confidences(calibration, halves[0].logits)[:, :2]
    thresholds = [point.threshold for point in calibration.frontier]
    assert (thresholds[0], thresholds[-1]) == (0.0, NEVER)
    inner = np.quantile(early, np.linspace(0.0, 1.0, 11))
    np.testing.assert_allclose(thresholds[1:-1], np.unique(inner))


def test_thresholds_rise_strictly_where_a_confidence_is_exactly_0():
    """An extreme answer may get a confidence that float64 rounds to 0: that threshold is not tried twice."""
    data = held_out(0, 4_000, 0.0)
    logits = data.logits.copy()
    wrong = np.abs(logits[:, 2]) >= 1.5
    logits[wrong, :2] += np.where(np.arange(wrong.sum()) % 2, 3.0, -3.0)[:, None]
    logits[0] = 100.0
    extreme = data._replace(logits=logits)
    calibration = calibrate(extreme, extreme, LAYERS, CalibrationOptions(thresholds=10))
    assert confidences(calibration, logits)[0, 0] == 0.0
    thresholds = [point.threshold for point in calibration.frontier]
    assert (np.diff(thresholds) > 0).all()


def test_answers_at_the_very_limits_still_count_as_the_same():
    """Where early answers equal the final one, a tolerance of 0 and an AUC loss of 0 let everything exit at once."""
    halves = held_out(0, 2_000, 0.0), held_out(1, 2_000, 0.0)
    calibration = calibrate(*halves, LAYERS, CalibrationOptions(tolerance=0.0, auc_loss=0.0))
    assert confidences(calibration, halves[1].logits)[:, 0].min() > 0.9
    assert calibration.base_threshold == 0.0


def test_a_model_without_early_heads_always_goes_to_its_end():
    """With a single head there is nothing to exit from: two thresholds, the same cost, no loss."""
    data = held_out(0, 300, 0.5)
    single = data._replace(logits=data.logits[:, 2:])
    calibration = calibrate(single, single, (4,), CalibrationOptions())
    assert calibration.confidence_weights.shape[0] == 0
    assert [(p.threshold, p.token_layer_share, p.metric_loss) for p in calibration.frontier] == [
        (0.0, 1.0, 0.0),
        (NEVER, 1.0, 0.0),
    ]


@pytest.mark.parametrize(
    ("disagreement", "quality_loss", "auc_loss", "failure"),
    [(1.0, 0.02, 1.0, 0.05), (6.0, 0.02, 1.0, 0.05), (0.3, 0.02, 0.002, 0.2)],
)
def test_the_base_threshold_is_the_lowest_down_to_which_all_keep_the_promise(
    disagreement, quality_loss, auc_loss, failure
):
    """The search goes downwards and ends at the first threshold not shown to keep it, or with too much AUC lost."""
    tested = held_out(1, 2_000, disagreement)
    options = CalibrationOptions(quality_loss, auc_loss, failure, thresholds=30)
    calibration = calibrate(held_out(0, 2_000, 0.5), tested, LAYERS, options)
    full = served(calibration, tested, 2.0)
    full_losses = log_losses(tested.labels, full)
    expected = NEVER
    for threshold in reversed([point.threshold for point in calibration.frontier]):
        ctrs = served(calibration, tested, threshold)
        margin = np.clip(log_losses(tested.labels, ctrs) - (1 + quality_loss) * full_losses, -1.0, 1.0)
        promised = betting_p_value((1 + margin) / 2, 0.5, failure) <= failure
        if not promised or auc(tested.labels, full) - auc(tested.labels, ctrs) > auc_loss:
            break
        expected = threshold
    assert calibration.base_threshold == expected
    assert 0.0 < expected < NEVER


def test_where_the_auc_is_undefined_the_log_loss_decides_alone():
    """With no click in the tested half there is no AUC, and so none to lose."""
    fitted, tested = held_out(0, 2_000, 0.05), held_out(1, 2_000, 0.05)
    never = tested._replace(labels=np.zeros_like(tested.labels))
    assert calibrate(fitted, never, LAYERS, CalibrationOptions(quality_loss=0.1)).base_threshold == 0.0


def test_every_heads_rates_come_true():
    """Raw logits that are twice too large are brought back: no head's calibration error is large."""
    calibration, fresh = made()
    for head in range(3):
        assert expected_calibration_error(fresh.labels, calibration.ctr(head, fresh.logits[:, head])) < 0.04


def test_the_graph_score_is_calibrated_too():
    """Rates from graph features alone come true as well."""
    calibration, fresh = made()
    assert expected_calibration_error(fresh.labels, calibration.graph_ctr(fresh.graph_features)) < 0.02


def test_confidence_is_the_chance_that_the_final_head_agrees():
    """Of like confidence, about that share lies within the tolerance of the final answer; and it tells them apart."""
    calibration, fresh = made()
    confidence = confidences(calibration, fresh.logits)
    path = np.stack([calibration.calibrated_logit(head, fresh.logits[:, head]) for head in range(3)], axis=1)
    agrees = np.abs(path - path[:, 2:]) <= calibration.tolerance
    assert expected_calibration_error(agrees[:, 0], confidence[:, 0], bins=5) < 0.05
    for head in (0, 1):
        assert auc(agrees[:, head], confidence[:, head]) > 0.79
        assert confidence[:, head].mean() == pytest.approx(agrees[:, head].mean(), abs=0.02)


@pytest.mark.parametrize("criterion", ["calibrated", "ratio"])
def test_the_base_threshold_saves_layers_and_keeps_its_promise_on_fresh_data(criterion):
    """Early exits at the base threshold cost less than full depth, and the log loss rises by at most the promise."""
    calibration, fresh = made(quality_loss=0.02, auc_loss=1.0, criterion=criterion)
    full = log_loss(fresh.labels, served(calibration, fresh, 2.0))
    base = log_loss(fresh.labels, served(calibration, fresh, calibration.base_threshold))
    assert base <= 1.02 * full
    heads = exit_heads(confidences(calibration, fresh.logits), calibration.base_threshold)
    assert fresh.costs.share(LAYERS, heads) < 0.35


def test_the_promise_is_tested_on_examples_that_nothing_was_fitted_to():
    """Early answers that are right in the half that is fitted to, and wrong in the other, are not trusted."""
    agreeing, fresh, disagreeing = held_out(0, 4_000, 0.05), held_out(1, 4_000, 0.05), held_out(1, 4_000, 2.0)
    options = CalibrationOptions(auc_loss=1.0)
    assert calibrate(agreeing, fresh, LAYERS, options).base_threshold == 0.0
    assert calibrate(agreeing, disagreeing, LAYERS, options).base_threshold > 0.99


def test_early_exits_keep_the_auc_within_its_limit_too():
    """Where the promised log loss would let everything leave at once, the limit on the AUC still holds."""
    halves = held_out(0, 4_000, 0.5), held_out(1, 4_000, 0.5)

    def base_and_lost_auc(auc_loss):
        calibration = calibrate(*halves, LAYERS, CalibrationOptions(quality_loss=0.1, auc_loss=auc_loss))
        full, base = (
            auc(halves[1].labels, served(calibration, halves[1], threshold))
            for threshold in (2.0, calibration.base_threshold)
        )
        return calibration.base_threshold, full - base

    loose, lost_without_limit = base_and_lost_auc(1.0)
    strict, lost = base_and_lost_auc(0.003)
    assert loose == 0.0
    assert 0.0 < strict < NEVER
    assert lost <= 0.003 < lost_without_limit


def test_a_stricter_promise_raises_the_base_threshold():
    """Less loss allowed, or less chance to break the promise: later exits."""
    by_loss = [made(quality_loss=loss, auc_loss=1.0)[0].base_threshold for loss in (0.1, 0.02, 0.002)]
    by_failure = [
        made(quality_loss=0.02, auc_loss=1.0, failure_probability=probability)[0].base_threshold
        for probability in (0.5, 0.05, 1e-4)
    ]
    for thresholds in (by_loss, by_failure):
        assert thresholds[0] < thresholds[1] < thresholds[2]


def test_what_cannot_be_shown_is_not_promised():
    """With a handful of examples everything goes to the final head."""
    calibration = calibrate(held_out(0, 400, 0.5), held_out(1, 20, 0.5), LAYERS, CalibrationOptions())
    assert calibration.base_threshold == NEVER


def test_the_frontier_rises_from_the_floor_to_full_depth():
    """Thresholds and costs ascend together, from the first head alone to all layers."""
    calibration, _ = made()
    thresholds = [point.threshold for point in calibration.frontier]
    shares = [point.token_layer_share for point in calibration.frontier]
    assert thresholds == sorted(thresholds)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1.0)
    assert calibration.floor_threshold == thresholds[0]


def test_the_frontier_says_what_each_threshold_costs_and_loses_on_the_tested_half():
    """Costs are token-layers, losses are log loss, both as shares of full depth's."""
    halves = held_out(0, 4_000, 0.5), held_out(1, 4_000, 0.5)
    calibration = calibrate(*halves, LAYERS, CalibrationOptions(thresholds=10))
    tested = halves[1]
    full = log_loss(tested.labels, served(calibration, tested, 2.0))
    for point in calibration.frontier:
        heads = exit_heads(confidences(calibration, tested.logits), point.threshold)
        loss = log_loss(tested.labels, served(calibration, tested, point.threshold))
        assert point.token_layer_share == tested.costs.share(LAYERS, heads)
        assert point.metric_loss == pytest.approx(loss / full - 1, abs=1e-9)
    assert len(calibration.frontier) == pytest.approx(10, abs=2)


def test_the_papers_criterion_gets_a_frontier_of_its_own():
    """With the plain ratio the thresholds are given in the ratio's terms: half of them separate confident answers."""
    calibration, _ = made(criterion="ratio")
    assert calibration.criterion == "ratio"
    assert calibration.frontier[len(calibration.frontier) // 2].threshold > 0.5


def test_an_unknown_user_and_item_get_about_the_overall_rate_from_the_graph():
    """Held-out data without unknown ids does not make the graph score extrapolate for them."""
    random = np.random.default_rng(4)
    data = held_out(0, 4_000, 0.5)
    columns = {name: place for place, name in enumerate(GRAPH_FEATURES)}
    features = data.graph_features.copy()
    for name in ("user_count", "item_count"):
        features[:, columns[name]] = random.normal(4.0, 0.3, len(features))
    for name in ("user_known", "item_known"):
        features[:, columns[name]] = random.random(len(features)) < 0.999
    calibration = calibrate(data._replace(graph_features=features), data, LAYERS, CalibrationOptions())
    unknown = float(calibration.graph_ctr(np.zeros((1, len(GRAPH_FEATURES))))[0])
    assert abs(unknown - data.labels.mean()) < 0.03

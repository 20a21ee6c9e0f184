"""Training of the exit transformer."""

import copy
import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from models.exit_model import ExitModel
from models.prompt import Prompt
from models.prompt_batch import collate
from models.token_sequence import SoftKind
from training.best_epoch import labels_of, loss_of
from training.examples import make_examples
from training.progress import Silent
from training.regression import WIDE_PENALTY, Regression, begin_together
from training.train_exits import (
    _parameter_groups,
    joint_loss,
    new_model,
    predict,
    schedule,
    train_exits,
    with_dropout,
    with_dropout_by_row,
)


@pytest.fixture(scope="module")
def sets(log, graph, text, preset):
    """All examples of the log."""
    return make_examples(log, graph, text, preset, Silent())


def fresh_model(preset, text, graph):
    """An untrained model, always the same."""
    torch.manual_seed(1)
    return new_model(preset.exits, text.vocabulary_size, graph.dim)


def test_training_lowers_the_loss_of_every_head(sets, preset, text, graph):
    """After one epoch all heads answer better than before."""
    model = fresh_model(preset, text, graph)
    labels = torch.from_numpy(np.concatenate([example.labels for example in sets.train]))

    def losses():
        logits = torch.from_numpy(predict(model, sets.train))
        return [float(joint_loss(logits[:, head : head + 1], labels, 0.0)) for head in range(logits.shape[1])]

    before = losses()
    assert not train_exits(model, sets.train, sets.to_fit, preset.exits, seed=0).is_silent
    assert all(after < first for first, after in zip(before, losses(), strict=True))


def test_the_same_seed_gives_the_same_model(sets, preset, text, graph):
    """Training is reproducible."""
    answers = [
        predict(
            train_exits(fresh_model(preset, text, graph), sets.train[:40], sets.to_fit, preset.exits, 5), sets.to_fit
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_answers_come_in_the_examples_order_whatever_the_batches(sets, preset, text, graph):
    """Logits come in the order of the examples, not of the batches."""
    model = fresh_model(preset, text, graph)
    one_by_one = np.concatenate([predict(model, [example]) for example in sets.train[:30]])
    np.testing.assert_allclose(predict(model, sets.train[:30], batch_tokens=900), one_by_one, atol=1e-4)


def logistic_regression(model, examples):
    """Log-odds by scikit-learn on the same statistics."""
    statistics, labels = (
        np.concatenate([example.prompt.statistics(model.config.statistics) for example in examples]),
        np.concatenate([example.labels for example in examples]),
    )
    scaled = StandardScaler().fit(statistics)
    regression = LogisticRegression(C=1 / WIDE_PENALTY, max_iter=1_000).fit(scaled.transform(statistics), labels)
    return regression.decision_function(scaled.transform(statistics))


def test_the_regression_is_scikit_learns(sets, preset, text, graph):
    """On the standardised statistics, with the same penalty."""
    model = fresh_model(preset, text, graph)
    told = Regression.fitted(sets.train, model.config.statistics).logits(sets.train)
    np.testing.assert_allclose(told, logistic_regression(model, sets.train), atol=0.05)  # intercepts are penalised too


def test_learning_together_everything_begins_at_nothing_and_all_of_it_trains(sets, preset, text, graph):
    """The regression too: what is kept is neither the fitted one nor without heads."""
    options = replace(preset.exits, epochs=40, averaging=0.0, learning_rate=0.01)
    options = replace(options, patience=options.epochs)
    begun = fresh_model(preset, text, graph)
    fitted = Regression.fitted(sets.train, begun.config.statistics)
    begin_together(begun, seed=0)
    assert not begun.wide.weight.any()
    assert not begun.wide.bias.any()
    assert all(head.linear.weight.any() for head in begun.heads)
    kept = train_exits(fresh_model(preset, text, graph), sets.train, sets.train, options, seed=0)
    assert not kept.is_silent
    assert kept.wide.weight.any()
    assert not torch.allclose(kept.wide.weight, fitted.weight, atol=1e-2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixing_gives_the_mean_of_both_answers_at_every_head(sets, preset, text, graph, share):
    """With weights `share` and the rest, in logits; with 1 no layer counts."""
    model = fresh_model(preset, text, graph)
    begin_together(model, seed=0)
    with torch.no_grad():
        model.wide.weight.normal_(std=0.1)
    regression = Regression.fitted(sets.train, model.config.statistics)
    own, told = predict(model, sets.to_fit), regression.logits(sets.to_fit)
    regression.mix_into(model, share)
    np.testing.assert_allclose(predict(model, sets.to_fit), share * told[:, None] + (1 - share) * own, atol=1e-4)
    assert model.is_silent == (share == 1.0)


def test_what_is_kept_is_mixed_with_the_regression(sets, preset, text, graph):
    """As is best for the validation examples: nothing that could be mixed into it makes it better."""
    options = replace(preset.exits, epochs=12, averaging=0.0, learning_rate=0.003)
    options = replace(options, patience=options.epochs)
    kept = train_exits(fresh_model(preset, text, graph), sets.train, sets.to_fit, options, seed=0)
    told = Regression.fitted(sets.train, kept.config.statistics).logits(sets.to_fit)
    labels, own = labels_of(sets.to_fit), predict(kept, sets.to_fit)[:, -1]
    assert not kept.is_silent
    assert loss_of(labels, own) < loss_of(labels, told)
    for share in (-0.1, 0.1):
        assert loss_of(labels, own) <= loss_of(labels, share * told + (1 - share) * own) + 1e-4


def test_first_answers_are_as_large_whatever_a_checkpoints_norm_multiplies_by(sets, preset, text, graph):
    """The deepest head begins with the checkpoint's own norm, whose weights are not 1."""
    spreads = []
    for factor in (1.0, 3.0):
        model = fresh_model(preset, text, graph)
        with torch.no_grad():
            model.heads[-1].norm.weight.fill_(factor)
        begin_together(model, seed=0)
        spreads.append(predict(model, sets.to_fit)[:, -1].std())
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-3)
    assert 0 < spreads[0] < 2


def test_the_share_of_the_regression_is_told(sets, preset, text, graph):
    """In a line."""
    lines = []
    options = replace(preset.exits, epochs=0)
    train_exits(fresh_model(preset, text, graph), sets.train, sets.to_fit, options, 0, say=lines.append)
    assert [line.startswith("of every answer 100% is that of a regression") for line in lines] == [True]


def test_where_learning_together_is_no_better_the_regression_is_kept(sets, preset, text, graph):
    """Where clicks are what it says, nothing is mixed into it."""
    options, model = replace(preset.exits, learning_rate=0.0), fresh_model(preset, text, graph)
    fitted = Regression.fitted(sets.train, model.config.statistics)
    expected = [replace(one, labels=(fitted.logits([one]) > 0).astype(np.float32)) for one in sets.to_fit]
    kept = train_exits(model, sets.train, expected, options, 0)
    assert kept.is_silent
    assert torch.equal(kept.wide.weight, fitted.weight)


def test_the_epoch_that_did_best_on_the_validation_examples_is_kept(sets, preset, text, graph):
    """Where validation asks for the opposite of what is learned, training stops after the first epoch that is no better
    than the one before, and goes back to the weights of that one.
    """
    opposite = [replace(example, labels=1 - example.labels) for example in sets.train]
    options = replace(preset.exits, epochs=6, averaging=0.0, learning_rate=0.02)
    model, candidates_seen, after_epochs = fresh_model(preset, text, graph), [], []
    model = ExitModel(model.backbone, replace(model.config, wide=False))
    epoch = sum(len(example) for example in sets.train)

    def on_step(candidates, _):
        candidates_seen.append(candidates)
        if sum(candidates_seen) % epoch == 0:
            after_epochs.append(copy.deepcopy(model))

    kept = train_exits(model, sets.train, opposite, options, 0, on_step).state_dict()
    losses = [loss_of(labels_of(opposite), predict(one.eval(), opposite)[:, -1]) for one in after_epochs]
    best = int(np.argmin(losses))
    assert len(losses) == best + 2 < options.epochs
    assert all(torch.equal(kept[name], tensor) for name, tensor in after_epochs[best].state_dict().items())


def test_the_moving_average_of_the_weights_is_kept(sets, preset, text, graph):
    """After each step the average moves by 1 - `averaging` towards the weights, at first by more."""
    options = replace(preset.exits, averaging=0.3)
    model = fresh_model(preset, text, graph)
    model = ExitModel(model.backbone, replace(model.config, wide=False))  # so that the first epoch is kept
    begin_together(model, seed=0)  # as training does
    average, steps = model.heads[0].linear.weight.detach().clone(), itertools.count()

    def on_step(*_):
        step = next(steps)
        average.lerp_(model.heads[0].linear.weight.detach(), 1 - min(0.3, (1 + step) / (10 + step)))

    kept = train_exits(model, sets.train, sets.to_fit, options, 0, on_step)
    assert next(steps) > 6  # from the fourth on it moves by the setting
    assert torch.equal(kept.heads[0].linear.weight, average)


def test_each_layer_learns_slower_than_the_one_before(preset, text, graph):
    """The rate falls by `depth_decay` per layer, a head's with its layer's; vectors have no weight decay."""
    options = replace(preset.exits, exit_layers=(1, 3))
    model = new_model(options, text.vocabulary_size, graph.dim)
    rates, decays = {}, {}
    for group in _parameter_groups(model, options):
        for parameter in group["params"]:
            rates[parameter], decays[parameter] = group["lr"], group["weight_decay"]
    top = options.learning_rate
    assert set(rates) == set(model.parameters())
    assert rates[model.backbone.embed_tokens.weight] == rates[model.soft.user.weight] == top
    assert rates[model.backbone.layers[0].mlp.up_proj.weight] == rates[model.heads[0].linear.weight] == top
    assert rates[model.backbone.layers[1].mlp.up_proj.weight] == pytest.approx(0.85 * top)
    assert rates[model.backbone.layers[2].mlp.up_proj.weight] == pytest.approx(0.85**2 * top)
    assert rates[model.heads[1].linear.weight] == pytest.approx(0.85**2 * top)
    assert {decay for parameter, decay in decays.items() if parameter.ndim == 1} == {0.0}
    assert {decay for parameter, decay in decays.items() if parameter.ndim > 1} == {options.weight_decay}


def test_a_shallow_heads_target_is_part_label_part_the_deepest_heads_answer():
    """The loss is the mean over heads of the cross-entropy with these targets."""
    logits = torch.tensor([[0.4, 1.1]])
    shallow, deepest = 1 / (1 + math.exp(-0.4)), 1 / (1 + math.exp(-1.1))
    target = 0.75 * 1.0 + 0.25 * deepest
    expected = (-target * math.log(shallow) - (1 - target) * math.log(1 - shallow) - math.log(deepest)) / 2
    assert float(joint_loss(logits, torch.tensor([1.0]), distillation=0.25)) == pytest.approx(expected)


def test_shallow_heads_learn_from_labels_and_from_the_deepest():
    """With full distillation a shallow head that answers as the deepest has nothing to gain from the label."""
    logits = torch.tensor([[0.7, 0.7]], requires_grad=True)
    joint_loss(logits, torch.tensor([0.0]), distillation=1.0).backward()
    assert logits.grad[0, 0] == pytest.approx(0.0, abs=1e-6)
    assert logits.grad[0, 1] > 0


def test_the_teacher_learns_nothing_from_its_pupils():
    """Distillation moves shallow heads alone: the deepest head's gradient is that of its own loss."""
    labels = torch.tensor([1.0, 0.0])
    gradients = []
    for distillation in (0.0, 0.9):
        logits = torch.tensor([[2.0, 0.3], [-1.0, 0.8]], requires_grad=True)
        joint_loss(logits, labels, distillation).backward()
        gradients.append(logits.grad[:, 1])
    assert torch.equal(gradients[0], gradients[1])


def test_dropout_makes_embeddings_unknown_and_leaves_statistics_alone(sets, preset):
    """The shares asked for read as unknown; counts and rates never do."""
    batch = collate([example.prompt for example in sets.train[-200:]])
    options = preset.exits
    dropped = with_dropout(batch, options, np.random.default_rng(0))
    statistics = batch.soft_kinds == SoftKind.STATISTICS
    assert torch.equal(dropped.soft_values[statistics], batch.soft_values[statistics])
    hidden = (batch.soft_values != 0).any(dim=1) & ~(dropped.soft_values != 0).any(dim=1) & ~statistics
    embedded = (batch.soft_values != 0).any(dim=1) & ~statistics
    assert float(hidden.sum() / embedded.sum()) == pytest.approx(options.embedding_dropout, abs=0.03)
    words = batch.token_ids != 0
    assert float((words & (dropped.token_ids == 0)).sum() / words.sum()) == pytest.approx(
        options.word_dropout, abs=0.03
    )
    kept = dropped.token_ids != 0
    assert torch.equal(dropped.token_ids[kept], batch.token_ids[kept])


def compact_batch(examples):
    """Prompts of these examples' words, each of which is added to its neighbour's token."""
    prompts = [example.prompt for example in examples]
    added = [
        Prompt(_with_added_words(prompt.prefix), [_with_added_words(suffix) for suffix in prompt.suffixes])
        for prompt in prompts
    ]
    return collate(added)


def _with_added_words(part):
    places = np.arange(len(part), dtype=np.int32)
    return msgspec.structs.replace(part, added_ids=np.full(len(part), 7, np.int32), added_positions=places)


def test_words_that_are_added_are_dropped_as_others_are(sets, preset):
    """As many of them, each by itself, and not with the token that they are added to."""
    batch = compact_batch(sets.train[-200:])
    randoms = [np.random.default_rng(row) for row in range(len(batch.token_ids))]
    options = replace(preset.exits, word_dropout=0.3)
    for dropped in (
        with_dropout(batch, options, np.random.default_rng(0)),
        with_dropout_by_row(batch, options, randoms),
    ):
        gone = dropped.added_ids == 0
        assert float(gone.float().mean()) == pytest.approx(0.3, abs=0.03)
        assert set(dropped.added_ids[~gone].tolist()) == {7}
        words = batch.token_ids.flatten()[batch.added_index] != 0
        beside = dropped.token_ids.flatten()[batch.added_index] == 0
        assert float(gone[words & beside].float().mean()) == pytest.approx(0.3, abs=0.06)


def test_what_a_row_loses_of_added_words_does_not_depend_on_the_rows_beside_it(sets, preset):
    """Its own random numbers alone decide."""
    some = sets.train[-20:]
    length = max(example.prompt.tokens for example in some)
    longest = next(example for example in some if example.prompt.tokens == length)
    own = with_dropout_by_row(compact_batch([longest]), preset.exits, [np.random.default_rng(3)]).added_ids
    randoms = [np.random.default_rng(8) for _ in some]
    beside = with_dropout_by_row(
        compact_batch([*some, longest]), preset.exits, [*randoms, np.random.default_rng(3)]
    ).added_ids
    assert torch.equal(beside[-len(own) :], own)


def test_the_learning_rate_rises_then_falls():
    """Warm-up from nearly nothing, the top at its end, nearly nothing at the end."""
    rates = [schedule(step / 100, 0.1) for step in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 10
    assert math.isclose(rates[-1], 0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)

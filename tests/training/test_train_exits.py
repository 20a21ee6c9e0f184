"""Training of the heads."""

import math

import numpy as np
import pytest
import torch

from models.exit_model import collate
from models.prompt import SoftKind
from training.examples import make_examples
from training.progress import Silent
from training.train_exits import joint_loss, new_model, predict, schedule, train_exits, with_dropout


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
    train_exits(model, sets.train, sets.to_fit, preset.exits, seed=0)
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
    """Batching by length is invisible from outside."""
    model = fresh_model(preset, text, graph)
    one_by_one = np.concatenate([predict(model, [example]) for example in sets.train[:30]])
    np.testing.assert_allclose(predict(model, sets.train[:30], batch_tokens=900), one_by_one, atol=1e-4)


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
    """Cold starts are trained for; counts and rates are never hidden, nor is the token that the answer is read at."""
    batch = collate([example.prompt for example in sets.train[-20:]])
    options = preset.exits
    dropped = with_dropout(batch, options, np.random.default_rng(0))
    statistics = batch.soft_kinds == SoftKind.STATISTICS
    assert torch.equal(dropped.soft_values[statistics], batch.soft_values[statistics])
    hidden = (batch.soft_values != 0).any(dim=1) & ~(dropped.soft_values != 0).any(dim=1) & ~statistics
    embedded = (batch.soft_values != 0).any(dim=1) & ~statistics
    assert 0 < hidden.sum() / embedded.sum() < 3 * options.embedding_dropout
    answers = batch.answer_index
    assert torch.equal(dropped.token_ids.flatten()[answers], batch.token_ids.flatten()[answers])


def test_the_learning_rate_rises_then_falls():
    """Warm-up from nearly nothing, the top at its end, nearly nothing at the end."""
    rates = [schedule(step / 100, 0.1) for step in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 10
    assert math.isclose(rates[-1], 0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)

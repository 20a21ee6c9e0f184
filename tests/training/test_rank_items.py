"""Fitting to rank: propagation, the drawn items and the loss equal plain references; users' items come first."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from torch.nn import functional

from evaluation.ranking import recall_and_ndcg
from models.lightgcn import both_directions, propagate
from training.rank_items import Graph, RankingOptions, _drawn, _loss, _SampledSoftmax, fit_to_rank


def random_clicks(seed, users, items, share):
    """Clicks at random; some users and items may have none."""
    return csr_matrix(np.random.default_rng(seed).random((users, items)) < share, dtype=np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5), st.floats(0, 1))
def test_embeddings_equal_lightgcn_without_base_embeddings_of_users(seed, users, items, layers, share):
    """For any graph and number of layers, users who have clicked nothing included."""
    clicks = random_clicks(seed, users, items, share)
    random = np.random.default_rng(seed)
    alphas = random.random(layers + 1).tolist()
    base = random.normal(size=(items, 3)).astype(np.float32)
    found = Graph(clicks, alphas).embeddings(base)
    ends = torch.from_numpy(np.stack(clicks.nonzero()).astype(np.int64))
    nodes = torch.cat([torch.zeros(users, 3), torch.from_numpy(base)])
    expected = propagate(nodes, both_directions(ends[0], users + ends[1]), None, alphas).numpy()
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_products_can_be_differentiated():
    """The gradient through propagation is that of the dense matrices."""
    graph = Graph(random_clicks(0, 5, 4, 0.5), [0.4, 0.3, 0.2, 0.1])
    dense = torch.from_numpy(graph.edges.toarray())
    base = torch.randn(4, 2, requires_grad=True)
    again = base.detach().clone().requires_grad_()
    items, for_users = graph.propagate(base)
    (items.square().sum() + for_users.sin().sum()).backward()
    twice = dense.T @ dense @ again
    ((0.4 * again + 0.2 * twice).square().sum() + (0.3 * again + 0.1 * twice).sin().sum()).backward()
    torch.testing.assert_close(base.grad, again.grad)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_the_loss_and_its_gradient_equal_cross_entropy(seed, users, items):
    """The mean over all right answers of PyTorch's cross-entropy; corrections count in the denominator alone."""
    random = np.random.default_rng(seed)
    right = random.random((users, items)) < 0.4
    right[0, 0] = True
    rows, columns = (torch.from_numpy(part) for part in right.nonzero())
    correction = torch.from_numpy(random.random(items))
    shapes = [(users, 3), (items, 3), (len(rows),)]
    parts = [torch.from_numpy(random.normal(size=shape)) for shape in shapes]
    ours, plain = ([part.clone().requires_grad_() for part in parts] for _ in range(2))
    loss = _SampledSoftmax.apply(ours[0], ours[1], correction, rows, columns, ours[2])
    (3 * loss).backward()
    left_out = torch.zeros(users, items, dtype=torch.float64).index_put((rows, columns), plain[2])
    logits = plain[0] @ plain[1].T - left_out
    expected = (torch.logsumexp(logits + correction, dim=1)[rows] - logits[rows, columns]).mean()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_without_corrections_it_is_torchs_cross_entropy():
    """One right answer per row and every item drawn: nothing of ours is left."""
    users, items, columns = torch.randn(6, 3), torch.randn(4, 3), torch.randint(4, (6,))
    loss = _SampledSoftmax.apply(users, items, torch.zeros(4), torch.arange(6), columns, torch.zeros(6))
    torch.testing.assert_close(loss, functional.cross_entropy(users @ items.T, columns))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_a_click_is_no_evidence_for_itself(seed, users, items):
    """The loss equals that of plain loops, in which a click is ranked by its user's other clicks alone."""
    clicks = random_clicks(seed, users, items, 0.6)
    clicks[0, 0] = 1
    graph, options = Graph(clicks, [0.4, 0.3, 0.2]), RankingOptions(temperature=0.5)
    base = torch.from_numpy(np.random.default_rng(seed).normal(size=(items, 3)).astype(np.float32))
    found = _loss(base, graph, graph.active_users, options, np.random.default_rng(0))
    of_items, for_users = (part.numpy() for part in graph.propagate(base))
    edges, losses = graph.edges.toarray(), []
    for user in graph.active_users:
        length = options.temperature * np.linalg.norm(edges[user] @ for_users)
        others = edges[user] - np.diag(edges[user])  # a row per candidate
        logits = np.einsum("ij,jd,id->i", others, for_users, of_items) / length
        losses += [np.logaddexp.reduce(logits) - logits[item] for item in np.flatnonzero(edges[user])]
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-4)


def test_without_layers_that_reach_users_the_loss_is_a_number():
    """All users are zero vectors then, which have no direction."""
    graph = Graph(random_clicks(0, 5, 4, 0.5), [1.0])
    loss = _loss(torch.ones(4, 3), graph, graph.active_users, RankingOptions(), np.random.default_rng(0))
    assert loss.isfinite()


def test_drawn_items_stand_for_the_catalogue():
    """Each item counts 1 / probability when drawn, so 1 on average, however popular it is."""
    popularity = np.linspace(0.002, 0.3, 30)
    clicks = csr_matrix(np.random.default_rng(0).random((400, 30)) < popularity, dtype=np.float32)
    graph, options = Graph(clicks, [1.0]), RankingOptions(more_items_per_step=5)
    random = np.random.default_rng(1)
    counted = np.zeros(30)
    for _ in range(2_000):
        users = random.choice(graph.active_users, 20, replace=False)
        among, correction = _drawn(graph.edges[users], graph, options, random)
        counted[among] += np.exp(correction) / 2_000
    np.testing.assert_allclose(counted, 1, atol=0.15)


CIRCLES = csr_matrix((np.add.outer(np.arange(60), np.arange(40)) % 4 == 0), dtype=np.float32)
"""60 users, 40 items, four circles; each user has clicked the ten items of their own."""
SMALL = RankingOptions(dim=8, steps=60, users_per_step=20, more_items_per_step=10, learning_rate=0.02)


def divided(clicks, share):
    """The clicks without a random share of them, and that share."""
    hidden = csr_matrix(clicks.multiply(np.random.default_rng(1).random(clicks.shape) < share))
    known = csr_matrix(clicks - hidden)
    hidden.eliminate_zeros()
    known.eliminate_zeros()
    return known, hidden


def test_items_of_a_users_own_circle_rank_first():
    """A third of the clicks is hidden; the hidden ones are found."""
    known, hidden = divided(CIRCLES, 0.33)
    fitted = fit_to_rank(known, SMALL)
    recall, ndcg = recall_and_ndcg(*Graph(known, fitted.alphas).embeddings(fitted.base), known, hidden, k=10)
    assert min(recall, ndcg) > 0.99


def test_training_is_better_than_its_start():
    """Random clicks on popular and unpopular items: the start does not know popularity, the fitted ones do, and so find
    the clicks that were hidden.
    """
    clicks = csr_matrix(np.random.default_rng(0).random((300, 60)) < np.geomspace(0.02, 0.5, 60), dtype=np.float32)
    known, hidden = divided(clicks, 0.3)

    def found(steps):
        fitted = fit_to_rank(known, RankingOptions(dim=8, steps=steps, users_per_step=100, learning_rate=0.02))
        return recall_and_ndcg(*Graph(known, fitted.alphas).embeddings(fitted.base), known, hidden, k=10)[1]

    assert found(80) > found(1) + 0.02


def test_the_same_seed_gives_the_same_embeddings():
    """Training is reproducible, and another seed gives others."""
    first, second = (fit_to_rank(CIRCLES, SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.base, second.base)
    other = fit_to_rank(CIRCLES, RankingOptions(**{**{n: getattr(SMALL, n) for n in SMALL.__slots__}, "seed": 1}))
    assert not np.allclose(first.base, other.base)


def test_time_ends_a_training():
    """With no time left, one step is taken."""
    steps = []
    fitted = fit_to_rank(CIRCLES, RankingOptions(dim=8, minutes=1e-9, users_per_step=20), lambda: steps.append(1))
    assert fitted.steps == len(steps) == 1


@pytest.mark.parametrize("shape", [(3, 2), (2, 30)])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99))
def test_more_dimensions_than_the_log_has_are_filled(shape, seed):
    """Fewer users or items than dimensions: the rest starts near zero, and everything stays finite."""
    clicks = random_clicks(seed, *shape, 0.9)
    if clicks.nnz:
        fitted = fit_to_rank(clicks, RankingOptions(dim=8, steps=2, seed=seed))
        assert fitted.base.shape == (shape[1], 8)
        assert np.isfinite(fitted.base).all()

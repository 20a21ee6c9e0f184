"""Quality of our scores beside that of peers."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from benchmarks import quality_learned_peers
from benchmarks.quality import Options, log_figures, means_of, measure, time_figures
from benchmarks.quality_learned_peers import SENTENCES, PeerData, similarity_scores
from benchmarks.quality_peers import embeddings_alone, statistics_parts
from benchmarks.quality_tables import OURS, PEERS, exits, peers
from evaluation.baseline import running_means_auc
from evaluation.metrics import auc
from evaluation.peers import fit_networks, fitting, light_gcn
from evaluation.peers.light_gcn import LightGcnSettings
from evaluation.peers.title_similarity import NEAREST
from event_data.synthetic import SyntheticSize, synthetic_log
from models.prompt import PromptLimits
from training.presets import DEMO
from training.progress import Silent

LOG = synthetic_log(SyntheticSize(users=40, items=30, sessions=150, shown=8))
TINY = replace(
    DEMO,
    limits=PromptLimits(recent_items=6, title_tokens=0, candidate_title_tokens=4),
    graph=replace(DEMO.graph, dim=8, steps=20),
    exits=replace(
        DEMO.exits, hidden=16, intermediate=32, attention_heads=2, exit_layers=(1, 2), epochs=1, batch_tokens=2_048
    ),
    vocabulary=400,
)


def train_little(patch):
    """For speed: few trees, and of each grid one setting."""
    patch.setattr(fitting, "MOST_TREES", 10)
    patch.setattr(fit_networks, "LEARNING_RATES", (3e-3,))
    patch.setattr(fit_networks, "PENALTIES", (0.1,))
    patch.setattr(light_gcn, "STEPS", 10)
    patch.setattr(quality_learned_peers, "GRID", (LightGcnSettings(1, True),))


@pytest.fixture(autouse=True)
def little_training(monkeypatch):
    """In every test."""
    train_little(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The figures of a tiny model, trained twice, and of its peers."""
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch:
        train_little(patch)
        return measure(LOG, Options(TINY, folder, seeds=2, rounds=2), Silent()), folder


@pytest.mark.slow
def test_ours_and_every_peer_are_measured_on_the_last_tenth(measured):
    """Each has the three figures, the table finds them all, and the baseline is the one of evaluation."""
    figures, _ = measured
    start = LOG.split().validation_end
    history, tested = LOG.interactions[:start], LOG.interactions[start:]
    assert figures["tested"] == len(tested)
    assert figures["limit_auc"] == auc([event.positive for event in tested], LOG.click_probabilities[start:])
    assert set(figures["peers"]) == set(PEERS)
    scored = [quality for quality in figures["peers"].values() if "skipped" not in quality]
    for quality in (*scored, *figures["heads"], *(figures[name] for name in OURS)):
        assert 0 <= quality["auc"] <= 1
        assert quality["log_loss"] > 0
        assert 0 <= quality["ece"] <= 1
    served = figures["runs"][0]["early_exit"]["auc"]
    for quality in scored:
        assert quality["ours_minus"]["difference"] == pytest.approx(served - quality["auc"])
    assert figures["full_depth"] == figures["heads"][-1]
    assert figures["peers"]["running_means"]["auc"] == pytest.approx(running_means_auc(history, tested))
    assert len(peers(figures).splitlines()) == 2 + 2 + len(OURS) + len(PEERS) + 1


@pytest.mark.slow
def test_figures_of_several_trainings_are_their_means(measured):
    """Two seeds give two models; what is told at the top is the mean."""
    figures, _ = measured
    one, other = figures["runs"]
    assert (one["seed"], other["seed"]) == (0, 1)
    assert one["early_exit"] != other["early_exit"]
    assert figures["early_exit"]["auc"] == pytest.approx((one["early_exit"]["auc"] + other["early_exit"]["auc"]) / 2)
    assert figures["train_minutes"] > 0
    assert figures["time_saved"] < 1


@pytest.mark.slow
def test_a_given_bundle_is_measured_as_it_is(measured):
    """Nothing is trained: the figures are those of the training that made the bundle."""
    figures, folder = measured
    bundle = folder / f"{LOG.name}-quality-0"
    again = measure(LOG, Options(TINY, folder, bundle=bundle, rounds=1, sentences=False), Silent())
    assert again["train_minutes"] is None
    assert again["early_exit"] == figures["runs"][0]["early_exit"]
    for name in set(PEERS) - set(SENTENCES):
        assert again["peers"][name] == figures["peers"][name]
    for name in SENTENCES:
        assert again["peers"][name] == {"skipped": "left out of a quick run"}
        assert f"| {PEERS[name]} | left out of a quick run |" in peers(again)


@pytest.mark.parametrize("told_by", ["rates", "statistics", "similarities"])
def test_similarities_stand_beside_the_rates_or_beside_our_statistics(told_by):
    """Whoever is given what decides the clicks ranks by it; others rank at random."""
    random = np.random.default_rng(0)
    features = {"rates": random.random((900, 2)), "statistics": random.random((900, 3))}
    similarities = random.random((len(NEAREST), 900, 2))
    clicked = (features | {"similarities": similarities[1]})[told_by][:, 0] > 0.5
    parts = np.split(np.arange(900), 3)
    data = PeerData(LOG, clicked, features["rates"], 3.0, features["statistics"], *parts)
    scores = similarity_scores(data, similarities, lambda *_: None)
    assert set(scores) == set(SENTENCES)
    for name, (predicted, settings) in scores.items():
        knows = told_by in {"similarities", "statistics" if "statistics" in name else "rates"}
        value = auc(clicked[parts[2]], predicted)
        assert value > 0.95 if knows else 0.3 < value < 0.7, name
        assert ("prior_weight" in settings) is ("statistics" not in name)


def test_a_peer_that_an_older_file_lacks_is_told_as_not_measured():
    """Its row stands in the table, without figures."""
    quality = {"auc": 0.7, "log_loss": 0.5, "ece": 0.01}
    older = {name: quality for name in PEERS if name != "din"}
    figures = {"dataset": "d", "tested": 1, "events": 10, "click_rate": 0.5, "limit_auc": None, "peers": older}
    rows = peers(figures).splitlines()
    assert "| DIN | not measured | | |" in rows
    assert "| DCN V2 | 0.7000 | 0.5000 | 0.010 |" in rows


@pytest.mark.slow
def test_peers_alone_need_no_model(measured, tmp_path):
    """The same embeddings are made, so the same peers come out; the table leaves ours out."""
    figures, _ = measured
    alone = measure(LOG, Options(TINY, tmp_path, ours=False), Silent())
    for name, quality in figures["peers"].items():
        assert alone["peers"][name] == {key: value for key, value in quality.items() if key != "ours_minus"}
    assert "early_exit" not in alone
    assert "exitstream" not in peers(alone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ours_alone_need_no_peers(measured, tmp_path):
    """What exits cost and save is told of a bundle without anything beside it."""
    figures, folder = measured
    bundle = folder / f"{LOG.name}-quality-0"
    alone = measure(LOG, Options(TINY, tmp_path, bundle=bundle, rounds=1, peers=False), Silent())
    assert "peers" not in alone
    assert alone["heads"] == figures["runs"][0]["heads"]
    told = exits(alone).splitlines()
    assert len(told) == 2 + 2 + len(alone["heads"]) + 1
    assert f"{alone['early_exit']['auc']:.4f}" in told[-1]
    assert f"{100 * alone['token_layer_share']:.0f} %" in told[0]


@pytest.mark.slow
def test_peers_never_see_what_comes_after_an_event(tmp_path):
    """Other outcomes in the last tenth change no setting and no training: only the figures of that tenth."""
    start = LOG.split().validation_end
    random = np.random.default_rng(0)
    flipped = [
        msgspec.structs.replace(event, positive=bool(random.random() < 0.5)) if place >= start else event
        for place, event in enumerate(LOG.interactions)
    ]
    one, other = (
        measure(log, Options(TINY, tmp_path, ours=False), Silent())["peers"]
        for log in (LOG, replace(LOG, interactions=flipped))
    )
    for name in PEERS:
        assert one[name].get("settings") == other[name].get("settings")
        assert "skipped" in one[name] or one[name]["auc"] != other[name]["auc"]


def test_no_statistic_knows_its_own_outcome():
    """Whatever the very last outcome is, all statistics are the same; each event of the three parts has one row."""
    *history, last = LOG.interactions
    other = replace(LOG, interactions=[*history, msgspec.structs.replace(last, positive=not last.positive)])
    one, changed = (
        statistics_parts(log, *embeddings_alone(log, TINY, Silent()), TINY, Silent()) for log in (LOG, other)
    )
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(one, part).values, getattr(changed, part).values)
    events = np.concatenate([one.train.events, one.validation.events, one.test.events])
    assert sorted(events.tolist()) == list(range(len(LOG.interactions)))
    assert one.test.events.tolist() == list(range(LOG.split().validation_end, len(LOG.interactions)))


def test_a_log_without_probabilities_has_no_limit():
    """Real data does not tell what its clicks were drawn with."""
    figures = log_figures(replace(LOG, click_probabilities=()))
    assert figures["limit_auc"] is None
    assert figures["events"] == len(LOG.interactions)


def test_time_saved_compares_within_rounds():
    """The second round of a machine half as fast changes nothing."""
    figures = time_figures([4e-6, 8e-6, 4e-6], [1e-6, 2e-6, 1e-6])
    assert figures["time_saved"] == pytest.approx(0.75)
    assert figures["full_depth_us_per_candidate"] == pytest.approx(4.0)
    assert figures["early_exit_us_per_candidate"] == pytest.approx(1.0)


def test_means_go_into_lists_and_objects():
    """Every number is averaged; what was not measured stays so; the range of the AUC is kept."""
    runs = [
        {"seed": 0, "train_minutes": None, "early_exit": {"auc": 0.6}, "heads": [{"auc": 0.5}, {"auc": 0.6}]},
        {"seed": 1, "train_minutes": None, "early_exit": {"auc": 0.8}, "heads": [{"auc": 0.7}, {"auc": 0.8}]},
    ]
    means = means_of(runs)
    assert means["train_minutes"] is None
    assert means["early_exit"] == {"auc": pytest.approx(0.7)}
    assert [head["auc"] for head in means["heads"]] == pytest.approx([0.6, 0.7])
    assert means["early_exit_auc_range"] == [0.6, 0.8]
    assert "seed" not in means

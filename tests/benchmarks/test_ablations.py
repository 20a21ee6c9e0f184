"""Ablations: what is left out is left out, and nothing else."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from benchmarks.ablation_evidence import CHOICES, chosen, record
from benchmarks.ablation_models import INPUTS, Variant, prompt_maker
from benchmarks.ablation_tables import ablations, criteria, graph_evidence
from benchmarks.ablations import EVIDENCE_REFERENCE, QUICK, Options, measure
from benchmarks.quality_peers import embeddings_alone
from event_data.synthetic import SyntheticSize, synthetic_log
from models.features import EVIDENCE_FEATURES, FEATURES, GRAPH_FEATURES
from models.prompt_template import COMPACT, TERSE
from models.token_sequence import SoftKind
from training.examples import make_examples
from training.progress import Silent

LOG = synthetic_log(SyntheticSize(users=40, items=30, sessions=150, shown=8))
TINY = replace(
    QUICK,
    graph=replace(QUICK.graph, dim=8, steps=20),
    exits=replace(QUICK.exits, hidden=16, intermediate=32, attention_heads=2, epochs=1, batch_tokens=2_048),
    vocabulary=400,
    most_examples=200,
    most_held_out=60,
)


@pytest.fixture(scope="module")
def recorded():
    """All evidence, and the tokenizer."""
    graph, text = embeddings_alone(LOG, TINY, Silent())
    return record(LOG, graph, text, TINY, 50, Silent()), text


def statistics(recorded_one, name, text):
    """The statistics of a request's first candidate by name, with the evidence of a variant."""
    row = prompt_maker(Variant(CHOICES[name]), text, TINY)(recorded_one).statistics(len(FEATURES))[0]
    return dict(zip(FEATURES, row.tolist(), strict=True))


def test_the_parts_are_those_of_a_training_and_the_last_tenth(recorded):
    """The latest events of each part, each once, none of the slice that the graph is fitted to."""
    records, _ = recorded
    split = LOG.split()
    ends = {"train": split.train_end, "last_tenth": len(LOG.interactions)}
    for name, count in (("train", 200), ("last_tenth", 50)):
        events = np.concatenate([one.request.events for one in getattr(records, name)])
        assert sorted(events.tolist()) == list(range(ends[name] - count, ends[name]))
    held_out = np.concatenate([one.request.events for one in (*records.to_fit, *records.to_test)])
    assert sorted(held_out.tolist()) == list(range(split.validation_end - 60, split.validation_end))
    assert abs(len(records.to_fit) - len(records.to_test)) <= 1


def test_with_all_parts_it_is_trained_on_what_train_makes():
    """Prompts, labels and events: without embeddings in the slice that these are fitted to, with them later."""
    preset = replace(TINY, most_examples=900)
    graph, text = embeddings_alone(LOG, preset, Silent())
    records, made = record(LOG, graph, text, preset, 50, Silent()), make_examples(LOG, graph, text, preset, Silent())
    prompts = prompt_maker(Variant(), text, preset)
    for name in ("train", "to_fit", "to_test"):
        mine, theirs = getattr(records, name), getattr(made, name)
        assert len(mine) == len(theirs) > 0
        for one, other in zip(mine, theirs, strict=True):
            assert list(one.request.labels) == other.labels.tolist()
            assert list(one.request.events) == list(other.events)
            for part, expected in zip(_parts(prompts(one)), _parts(other.prompt), strict=True):
                assert part.token_ids.tolist() == expected.token_ids.tolist()
                assert part.added_ids.tolist() == expected.added_ids.tolist()
                np.testing.assert_allclose(part.soft_values, expected.soft_values, atol=1e-5)
    users = [prompts(one).prefix.soft_values[0] for one in records.train]
    assert not users[0].any()
    assert users[-1].any()


def test_no_evidence_knows_its_own_outcome(recorded):
    """Whatever the very last outcome is, the evidence of its request is the same."""
    records, text = recorded
    *history, last = LOG.interactions
    other = replace(LOG, interactions=[*history, msgspec.structs.replace(last, positive=not last.positive)])
    graph, _ = embeddings_alone(other, TINY, Silent())
    changed = record(other, graph, text, TINY, 50, Silent()).last_tenth[-1]
    mine = records.last_tenth[-1]
    assert changed.request.labels != mine.request.labels
    for name in CHOICES:
        assert statistics(mine, name, text) == statistics(changed, name, text)


def test_each_source_of_evidence_is_there_or_not_as_it_says(recorded):
    """Over all requests: embeddings, the latest items, past items, similar users and shared values."""
    records, _ = recorded
    for name, choice in CHOICES.items():
        evidence = [chosen(one, choice, TINY.limits) for one in records.last_tenth]
        candidates = [candidate for one in evidence for candidate in one.candidates]
        assert any(one.user.embedding is not None for one in evidence) == choice.embeddings
        assert any(candidate.item.embedding is not None for candidate in candidates) == choice.embeddings
        assert any(one.user.recent for one in evidence) == (name not in {"nothing", "embeddings"})
        assert any(candidate.past for candidate in candidates) == (choice.past != "none")
        assert any(candidate.similar_users for candidate in candidates) == choice.users
        assert any(candidate.shared is not None for candidate in candidates) == choice.shared
        # Rates and counts are in all of them.
        assert any(one.user.impressions for one in evidence)
        assert any(candidate.item.impressions for candidate in candidates)


def test_past_items_come_from_where_a_variant_says(recorded):
    """The latest ones backwards with like weights; in words as found; by embedding as the worker found them."""
    records, _ = recorded
    one = max(records.last_tenth, key=lambda one: len(one.evidence.user.recent))
    found = {name: chosen(one, CHOICES[name], TINY.limits).candidates[0].past for name in ("latest", "text_embeddings")}
    recent = one.evidence.user.recent[::-1][: TINY.limits.past_items]
    assert [past.item.item_id for past in found["latest"]] == [past.item.item_id for past in recent]
    assert {past.similarity for past in found["latest"]} == {1.0}
    assert found["text_embeddings"] == one.by_text[0]
    assert chosen(one, CHOICES["shipped"], TINY.limits) == one.evidence


def test_without_retrieval_only_the_graphs_statistics_are_told(recorded):
    """And without the graph neither affinity nor cosine."""
    records, text = recorded
    told = statistics(records.last_tenth[-1], "embeddings", text)
    assert any(told[name] for name in GRAPH_FEATURES)
    assert not any(told[name] for name in EVIDENCE_FEATURES)
    blind = statistics(records.last_tenth[-1], "nothing", text)
    assert blind["affinity"] == blind["cosine"] == 0
    assert {**told, "affinity": 0.0, "cosine": 0.0} == blind


@pytest.mark.parametrize("template", [TERSE, COMPACT], ids=["a token a word", "summed lines"])
def test_inputs_are_left_out_of_the_prompt_one_by_one(recorded, template):
    """Words without soft tokens, soft tokens without titles, statistics alone; the answer is always read last."""
    records, text = recorded
    one = max(records.last_tenth, key=lambda one: len(one.evidence.user.recent))
    preset = replace(TINY, template=template)
    prompts = {name: prompt_maker(Variant(inputs=inputs), text, preset)(one) for name, inputs in INPUTS.items()}
    whole = prompts["all"]
    kinds = {
        name: {*prompt.prefix.soft_kinds.tolist(), *prompt.suffixes[0].soft_kinds.tolist()}
        for name, prompt in prompts.items()
    }
    assert kinds["all"] == kinds["soft"] == {SoftKind.USER, SoftKind.ITEM, SoftKind.STATISTICS}
    assert kinds["words"] == kinds["statistics"] == {SoftKind.STATISTICS}
    for name in ("words", "soft"):
        assert not prompts[name].statistics(len(FEATURES)).any()
        assert prompts[name].tokens < whole.tokens or template is COMPACT
    assert (prompts["statistics"].statistics(len(FEATURES)) == whole.statistics(len(FEATURES))).all()
    assert prompts["statistics"].tokens == 2
    assert _words(prompts["words"]) == _words(whole)
    assert len(_words(prompts["soft"])) < len(_words(whole))
    assert not any(len(part.added_ids) for part in _parts(prompts["statistics"]))
    for prompt in prompts.values():
        suffix = prompt.suffixes[0]
        assert suffix.soft_positions[-1] == len(suffix) - 1
        assert suffix.soft_kinds[-1] == SoftKind.STATISTICS


def _parts(prompt):
    return (prompt.prefix, *prompt.suffixes)


def _words(prompt):
    """Word ids of a prompt, those that are summed into a token included, without where they stand."""
    told = []
    for part in _parts(prompt):
        summed = {*part.soft_positions.tolist(), *part.added_positions.tolist()}
        told += [int(word) for place, word in enumerate(part.token_ids) if place not in summed]
        told += part.added_ids.tolist()
    return told


@pytest.mark.slow
def test_every_variant_is_measured_and_told():
    """Each has an AUC per head; a reference differs from itself by nothing."""
    figures = measure(LOG, Options(TINY, most_tested=50, rounds=1, requests=3), Silent())
    assert set(figures["evidence"]) == set(CHOICES)
    assert set(figures["inputs"]) == set(INPUTS)
    for group in ("evidence", "inputs", "graph"):
        for row in figures[group].values():
            assert len(row["auc"]) == len(TINY.exits.exit_layers)
    assert figures["evidence"][EVIDENCE_REFERENCE]["minus_reference"]["difference"] == 0
    told = ablations(figures)
    assert all(choice.words in told for choice in CHOICES.values())
    assert "10 ×" in graph_evidence(figures)
    assert len(criteria(figures).splitlines()) == 2 + 4

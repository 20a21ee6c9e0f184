"""Training from pre-trained weights: what trains, what stays, and going on after being killed."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from tiny_checkpoint import write_checkpoint

from models.bundle import TRAINING, Bundle
from models.checkpoint import open_checkpoint
from models.exit_model import ExitModel
from models.golden_check import check_golden
from models.prompt import Prompt
from models.prompt_batch import collate
from models.text import item_text
from runtime.errors import CheckpointError
from training.best_epoch import labels_of, loss_of
from training.examples import make_examples
from training.fine_tune import Job
from training.fine_tune import fine_tune as fine_tune_in
from training.interrupted import StateFile, identity_of
from training.presets import PRETRAINED
from training.pretrained import PretrainedModel, PretrainedOptions
from training.processes import Processes
from training.progress import Silent
from training.regression import Regression
from training.train import train
from training.train_exits import predict
from training.train_graph import train_graph

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def folder(log, tmp_path_factory):
    """A checkpoint of three layers that knows the log's titles in pieces."""
    titles = [item_text(item.title, item.attributes) for item in log.items]
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), titles)


@pytest.fixture(scope="module")
def small(preset):
    """The preset of pre-trained weights, with the small graph."""
    exits = replace(PRETRAINED.exits, epochs=2, batch_tokens=4_096)
    return replace(PRETRAINED, graph=preset.graph, exits=exits, most_examples=64, most_held_out=40)


@pytest.fixture(scope="module")
def examples(log, folder, small):
    """A few examples in the checkpoint's own tokens."""
    text = open_checkpoint(str(folder)).text
    torch.manual_seed(0)
    graph = train_graph(log.interactions[:200], log.items, text, small.graph)
    return make_examples(log, graph, text, small, Silent())


def new_model(folder, **options):
    """A model ready to train; the same at every call."""
    usual = {"lora": 2, "dtype": "float32"}
    wanted = PretrainedOptions(str(folder), layers=2, **(usual | options))
    torch.manual_seed(5)
    dtype = wanted.compute_dtype(CPU)
    return PretrainedModel(open_checkpoint(wanted.where, wanted.layers, wanted.weights_dtype(dtype)), wanted, 8, dtype)


def fine_tune(pretrained, job, kept, reporter, after_step=lambda _step: None):
    """The trained model, of this process alone."""
    return fine_tune_in(pretrained, job, kept, reporter, Processes(), after_step)


def job_of(examples, small, save_every_s=0.0):
    """Two epochs of about three steps each; the state is written after every step."""
    return Job(examples.train, examples.to_fit, replace(small.exits, batch_tokens=2_048), 1, save_every_s)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_training_killed_after_any_step_ends_with_the_same_weights(folder, examples, small, tmp_path, lora):
    """Killed after each step in turn, a continued training gives exactly the weights of one that was left alone."""
    job, steps = job_of(examples, small), []
    whole = fine_tune(new_model(folder, lora=lora), job, StateFile(tmp_path / "whole", "x"), Silent(), steps.append)
    assert len(steps) >= 4
    for last in steps:

        def kill(step, last=last):
            if step == last:
                raise Killed

        kept = StateFile(tmp_path / f"killed-{last}", "x")
        with pytest.raises(Killed):
            fine_tune(new_model(folder, lora=lora), job, kept, Silent(), kill)
        done = []
        resumed = fine_tune(new_model(folder, lora=lora), job, kept, Silent(), done.append)
        assert len(done) < len(steps) or last == 1
        for name, weight in whole.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), (last, name)


def test_a_step_takes_about_as_many_candidates_as_asked_for(examples, small):
    """Rows are whole, and padding counts. There are never more tokens than the preset allows."""
    job = replace(job_of(examples, small), step_candidates=8)
    counts = [job.candidates_of(batch) for batch in job.epoch(0)]
    assert 4 <= np.mean(counts) <= 8
    assert job.step_tokens == math.ceil(8 * job.tokens / job.candidates)
    assert replace(job, step_candidates=100_000).step_tokens == job.options.batch_tokens
    assert job_of(examples, small).step_tokens == job.options.batch_tokens


def test_a_continued_training_remembers_the_epochs_before(folder, examples, small, tmp_path):
    """Where a later epoch is worse, because validation asks for the opposite of what is learned: what is best, and how
    long nothing has improved, is as if it had not been killed.
    """
    job = job_of(examples, small)
    opposite = [replace(example, labels=1 - example.labels) for example in examples.train]
    job = replace(job, validation=opposite, options=replace(job.options, epochs=4, patience=4))
    left_alone, killed, steps = StateFile(tmp_path / "whole", "x"), StateFile(tmp_path / "killed", "x"), []
    fine_tune(new_model(folder, rate_of_new=0.02), job, left_alone, Silent(), steps.append)

    def kill(step):
        if step == len(steps):
            raise Killed

    with pytest.raises(Killed):
        fine_tune(new_model(folder, rate_of_new=0.02), job, killed, Silent(), kill)
    fine_tune(new_model(folder, rate_of_new=0.02), job, killed, Silent())
    told = left_alone.read().epochs
    assert told["waited"] > 0
    assert killed.read().epochs == told


def test_weights_that_have_run_away_are_not_kept(folder, examples, small, tmp_path):
    """Their loss is no number: the regression stands."""
    runaway, job = new_model(folder, rate_of_new=float("inf")), job_of(examples, small)
    model = fine_tune(runaway, job, StateFile(tmp_path / "state", "x"), Silent())
    told = Regression.fitted(job.train, model.config.statistics).logits(job.validation)
    for answers in predict(model, job.validation).T:
        np.testing.assert_allclose(answers, told, atol=1e-4)


def test_what_is_kept_is_mixed_with_the_regression(folder, examples, small, tmp_path):
    """As is best for the validation examples: with more of it the answers are no better."""
    job = job_of(examples, small, 600)
    job = replace(job, options=replace(job.options, epochs=6, patience=6))
    model = fine_tune(new_model(folder), job, StateFile(tmp_path / "state", "x"), Silent())
    assert not model.is_silent
    told = Regression.fitted(job.train, model.config.statistics).logits(job.validation)
    labels, own = labels_of(job.validation), predict(model, job.validation)[:, -1]
    assert loss_of(labels, own) <= loss_of(labels, told)
    for share in (-0.1, 0.1):
        assert loss_of(labels, own) <= loss_of(labels, share * told + (1 - share) * own) + 1e-4


def test_how_many_events_are_tested_is_no_part_of_a_training(examples, small):
    """A training that was killed may go on with another number; with other held-out examples it is another one."""
    told = identity_of(small, examples.train)
    assert identity_of(replace(small, most_tested=3), examples.train) == told
    assert identity_of(replace(small, most_held_out=30), examples.train) != told


def test_other_words_that_are_summed_into_a_token_make_another_training(examples, small):
    """They are not among the token ids."""
    some = examples.train[0]
    one, other = (
        replace(some, prompt=Prompt(msgspec.structs.replace(some.prompt.prefix, **words), some.prompt.suffixes))
        for words in (
            {"added_ids": np.array([word], np.int32), "added_positions": np.zeros(1, np.int32)} for word in (5, 6)
        )
    )
    assert identity_of(small, [one]) != identity_of(small, [other])


def test_merged_adapters_give_the_answers_of_separate_ones(folder, examples):
    """Merging changes no answer, leaves no adapter behind, and everything is float32."""
    pretrained = new_model(folder)
    with torch.no_grad():
        for parameter in pretrained.trained().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    batch = collate([example.prompt for example in examples.to_fit[:4]])
    with torch.inference_mode():
        separate = pretrained.model.eval()(batch)
        merged = pretrained.finished()
        np.testing.assert_allclose(merged(batch), separate, atol=1e-4)
    assert not [name for name in merged.state_dict() if "lora" in name]
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


@pytest.mark.parametrize("options", [{"checkpointing": True}, {"lora": 0}, {"lora": 0, "checkpointing": True}, {}])
def test_everything_that_is_asked_for_trains(folder, examples, small, tmp_path, options):
    """Layers, soft tokens and heads are not what they were; words are, beside adapters. Without these the words of the
    prompts have changed, and no others.
    """
    before = new_model(folder, **dict(options)).model.state_dict()
    words = open_checkpoint(str(folder)).model.embed_tokens.weight
    job = job_of(examples, small, 600)
    model = fine_tune(new_model(folder, **dict(options)), job, StateFile(tmp_path, "x"), Silent())
    after = model.state_dict()
    changed = (after["backbone.embed_tokens.weight"] != words).any(dim=1).nonzero().flatten().tolist()
    assert set(changed) == (set() if options.get("lora", 2) else words_of(examples.train))
    assert not torch.equal(after["soft.user.weight"], before["soft.user.weight"])
    assert {"wide.weight", "heads.0.linear.weight"} <= new_model(folder, **dict(options)).trained().keys()
    name = "backbone.layers.0.mlp.up_proj.weight"
    assert not torch.equal(after[name], open_checkpoint(str(folder)).model.layers[0].mlp.up_proj.weight), name


@pytest.mark.parametrize("lora", [0, 2])
def test_parts_learn_at_rates_of_their_own(folder, lora):
    """What is new, words, adapters, or pre-trained layers; of layers and what is new, matrices alone decay."""
    rates = {"rate_of_new": 0.1, "rate_of_words": 0.2, "rate_of_lora": 0.3, "rate_of_full": 0.4}
    pretrained = new_model(folder, lora=lora, **rates)
    names = {id(part): name for name, part in pretrained.trained().items()}
    told = {
        names[id(part)]: (group["lr"], group["weight_decay"])
        for group in pretrained.parameter_groups(0.5)
        for part in group["params"]
    }
    assert told.keys() == set(names.values())
    assert told.pop("backbone.embed_tokens.weight", None) == (None if lora else (0.2, 0.0))
    for name, (rate, decay) in told.items():
        layers = 0.3 if lora else 0.4
        assert rate == (layers if name.startswith("backbone.") else 0.1), name
        assert decay == (0.5 if pretrained.trained()[name].ndim > 1 else 0.0), name


def test_the_size_of_a_step_and_the_format_to_compute_in_reach_the_training(log, folder, small, tmp_path):
    """Each makes another model than the usual one does."""
    usual = PretrainedOptions(str(folder), layers=2, dtype="float32", step_candidates=None)
    ways = (usual, replace(usual, step_candidates=8), replace(usual, dtype="bfloat16"))
    bundles = [train(log, tmp_path / str(place), small, pretrained=way) for place, way in enumerate(ways)]
    layer = "backbone.layers.0.mlp.up_proj.weight"
    weights = [bundle.model.state_dict()[layer] for bundle in bundles]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def words_of(examples):
    """All words that examples look up; where soft tokens or summed words stand, nothing of the table is used."""
    told = set()
    for example in examples:
        batch = collate([example.prompt])
        places = torch.cat([batch.soft_index, batch.added_index])
        looked_up = batch.token_ids.flatten().index_fill(0, places, -1)
        told |= {*looked_up.tolist(), *batch.added_ids.tolist()} - {-1}
    return told


@pytest.mark.parametrize(("dtype", "mixed"), [("bfloat16", True), ("float32", False)])
def test_weights_that_all_train_are_multiplied_in_the_format_asked_for(folder, examples, dtype, mixed):
    """In bfloat16 answers are near those of float32 without being them; the finished model is in float32 all the same,
    and weights, gradients and answers always are.
    """
    pretrained = new_model(folder, lora=0, dtype=dtype)
    batch = collate([example.prompt for example in examples.to_fit[:4]])
    answers = pretrained.model(batch)
    answers.sum().backward()
    trained = list(pretrained.trained().values())
    assert {part.dtype for part in [answers, *trained, *(part.grad for part in trained)]} == {torch.float32}
    exact = new_model(folder, lora=0).model(batch).detach()
    assert torch.equal(answers, exact) is not mixed
    torch.testing.assert_close(answers.detach(), exact, atol=0.05, rtol=0.05)
    assert torch.equal(pretrained.finished()(batch), exact)


def test_gradient_checkpointing_changes_no_weight(folder, examples, small, tmp_path):
    """Activations computed again are the same ones."""
    job = job_of(examples, small, 600)
    one, other = (
        fine_tune(new_model(folder, checkpointing=on), job, StateFile(tmp_path / str(on), "x"), Silent())
        for on in (True, False)
    )
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("on", "training", "computed"), [(False, True, 1), (True, True, 2), (True, False, 1)])
def test_gradient_checkpointing_computes_layers_again_in_training(folder, examples, on, training, computed):
    """Twice in a training step, once when nothing is learned, and once without it."""
    model, calls = new_model(folder, checkpointing=on).model.train(training), []
    model.backbone.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model(collate([example.prompt for example in examples.to_fit[:2]])).sum().backward()
    assert len(calls) == computed


@pytest.mark.filterwarnings("error::FutureWarning")
def test_nothing_deprecated_is_used(folder, examples, small, tmp_path):
    """What libraries will take away would fail here before it does at a user's."""
    fine_tune(new_model(folder, checkpointing=True), job_of(examples, small, 600), StateFile(tmp_path, "x"), Silent())


def test_frozen_weights_may_be_bfloat16(folder, examples, small, tmp_path):
    """What trains is float32 beside them, and so is the result."""
    options = PretrainedOptions(str(folder), layers=2, lora=2, dtype="bfloat16")
    pretrained = PretrainedModel(open_checkpoint(options.where, 2, torch.bfloat16), options, 8, torch.bfloat16)
    assert {part.dtype for part in pretrained.trained().values()} == {torch.float32}
    assert pretrained.model.backbone.embed_tokens.weight.dtype == torch.bfloat16
    model = fine_tune(pretrained, job_of(examples, small, 600), StateFile(tmp_path, "x"), Silent())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_bundle_may_hold_bfloat16(folder, tmp_path):
    """The finished model has the very numbers that are loaded from half as large a file; positions lose no digit."""
    sizes = {}
    for saved_as in ("float32", "bfloat16"):
        model = new_model(folder, saved_as=saved_as).finished()
        model.save(tmp_path / saved_as)
        sizes[saved_as] = (tmp_path / saved_as / "backbone" / "model.safetensors").stat().st_size
        loaded = ExitModel.load(tmp_path / saved_as)
        assert all(torch.equal(part, loaded.state_dict()[name]) for name, part in model.state_dict().items())
        assert {part.dtype for part in loaded.parameters()} == {torch.float32}
        assert torch.equal(model.backbone.rotary_emb.inv_freq, loaded.backbone.rotary_emb.inv_freq)
    assert sizes["bfloat16"] < 0.6 * sizes["float32"]


def test_an_unknown_format_is_told_before_anything_is_read():
    """Of frozen weights, and of those that are saved."""
    for options, name in (({"dtype": "int4"}, "--dtype int4"), ({"saved_as": "int4"}, "--save-as int4")):
        with pytest.raises(CheckpointError, match=f"{name} is unknown"):
            PretrainedOptions("x", **options).compute_dtype(CPU)


def test_soft_tokens_start_at_the_scale_of_words(folder):
    """Projections are as wide as the word embeddings are, whatever `initializer_range` says."""
    checkpoint = open_checkpoint(str(folder))
    with torch.no_grad():
        checkpoint.model.embed_tokens.weight.mul_(20)
    soft = PretrainedModel(checkpoint, PretrainedOptions(str(folder), lora=2), 8, torch.float32).model.soft
    words = float(checkpoint.model.embed_tokens.weight.std())
    assert float(soft.item.weight.detach().std()) == pytest.approx(words, rel=0.3)
    statistics = soft.statistics(torch.randn(500, soft.statistics[0].in_features))
    assert float(statistics.std()) == pytest.approx(words, rel=0.3)


def test_a_state_of_other_options_is_refused(folder, examples, small, tmp_path):
    """The line says that there is one, and what to do."""
    fine_tune(new_model(folder), job_of(examples, small), StateFile(tmp_path, "these"), Silent())
    with pytest.raises(CheckpointError, match=r"other options or data, .*; give those again .* or delete"):
        StateFile(tmp_path, "those").read()


def test_a_bundle_on_pre_trained_weights_loads_with_its_scores(log, folder, small, tmp_path):
    """Trained over the state of an unfinished one's folder, it loads, gives its golden scores, and no state is left."""
    out = tmp_path / "bundle"
    (out / TRAINING).mkdir(parents=True)
    options = PretrainedOptions(str(folder), layers=2, exit_after=(1, 2), lora=2)
    bundle = train(log, out, small, pretrained=options)
    loaded = Bundle.load(out)
    assert check_golden(loaded, tolerance=1e-4) > 1
    assert loaded.version == bundle.version
    assert loaded.model.config.exit_layers == (1, 2)
    assert loaded.text.start_tokens == [1]
    assert not (out / TRAINING).exists()

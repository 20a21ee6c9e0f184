"""The reference model: what a suffix attends to, what is saved, which checkpoints load."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from models.decoder_config import UnsupportedBackbone
from models.exit_model import ExitConfig, ExitModel
from models.features import FEATURES
from models.prompt import Prompt
from models.prompt_batch import collate
from models.token_sequence import SoftKind, TokenSequence

WIDTH = len(FEATURES)
CONFIG = ExitConfig((1, 2), 6, WIDTH, WIDTH)


def decoder(**changes: object) -> PretrainedConfig:
    """A small Llama."""
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    return LlamaConfig(**(sizes | changes))


@pytest.fixture
def model() -> ExitModel:
    """Two layers, a head behind each."""
    torch.manual_seed(1)
    return ExitModel.from_config(decoder(), CONFIG).eval()


def sequence(random: np.random.Generator, length: int) -> TokenSequence:
    """Random words behind one soft token of a random kind."""
    token_ids = random.integers(1, 50, length).astype(np.int32)
    token_ids[0] = 0
    return TokenSequence(
        token_ids,
        np.zeros(1, np.int32),
        np.array([random.choice(list(SoftKind))], np.int8),
        random.standard_normal((1, WIDTH)).astype(np.float32),
    )


def prompt(random: np.random.Generator, prefix: int, suffixes: list[int]) -> Prompt:
    """A random prompt, by length of its parts."""
    return Prompt(sequence(random, prefix), [sequence(random, length) for length in suffixes])


@pytest.fixture
def prompts() -> list[Prompt]:
    """Three prompts of different shapes."""
    random = np.random.default_rng(4)
    return [prompt(random, 7, [3, 5, 1]), prompt(random, 2, [4]), prompt(random, 11, [2, 2])]


@torch.inference_mode()
def test_batching_and_sharing_change_nothing(model, prompts):
    """Every candidate scores as it does alone behind its own copy of the prefix."""
    together = model(collate(prompts))
    alone = [model(collate([Prompt(each.prefix, [suffix])])) for each in prompts for suffix in each.suffixes]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_position_with_several_words_and_soft_tokens_is_their_sum(model):
    """Whatever its own token id says; where nothing is added, a word is looked up."""
    random = np.random.default_rng(5)
    values = random.standard_normal((3, WIDTH)).astype(np.float32)
    part = TokenSequence(
        np.array([9, 0, 5], np.int32),
        np.array([0, 1, 1], np.int32),
        np.array([SoftKind.USER, SoftKind.ITEM, SoftKind.STATISTICS], np.int8),
        values,
        np.array([7, 8, 8], np.int32),
        np.array([0, 1, 1], np.int32),
    )
    batch = collate([Prompt(sequence(random, 2), [part])])
    words = model.backbone.embed_tokens.weight
    soft = model.soft(batch.soft_kinds[1:], batch.soft_values[1:])
    expected = torch.stack([soft[0] + words[7], soft[1] + soft[2] + 2 * words[8], words[5]])
    torch.testing.assert_close(model.embed(*batch.inputs)[2:], expected)


@torch.inference_mode()
def test_soft_tokens_of_one_position_are_summed_without_words_too(model):
    """Whether another candidate of the batch has words makes no difference."""
    values = np.random.default_rng(6).standard_normal((2, WIDTH)).astype(np.float32)
    kinds = np.array([SoftKind.ITEM, SoftKind.STATISTICS], np.int8)
    part = TokenSequence(np.zeros(1, np.int32), np.zeros(2, np.int32), kinds, values)
    batch = collate([Prompt(sequence(np.random.default_rng(5), 2), [part])])
    soft = model.soft(batch.soft_kinds[1:], batch.soft_values[1:])
    torch.testing.assert_close(model.embed(*batch.inputs)[2], soft.sum(dim=0))


@torch.inference_mode()
def test_the_deepest_head_reads_what_transformers_computes(model, prompts):
    """One prefix with one suffix is a plain causal sequence: the backbone's own forward agrees."""
    batch = collate([Prompt(prompts[0].prefix, prompts[0].suffixes[:1])])
    vectors = model.embed(*batch.inputs)
    hidden = model.backbone(inputs_embeds=vectors[None]).last_hidden_state[0, -1]
    # A fresh final head starts with the backbone's own norm, which that forward has applied already.
    torch.testing.assert_close(model(batch)[0, -1], model.heads[-1].linear(hidden)[0], atol=1e-5, rtol=1e-5)


def test_saved_heads_come_back_bit_for_bit(model, prompts, tmp_path):
    """What was saved and loaded computes the very same logits."""
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"backbone", "exits.json", "exits.safetensors"}
    loaded = ExitModel.load(tmp_path)
    for name, saved in model.state_dict().items():
        assert torch.equal(saved, loaded.state_dict()[name]), name
    with torch.inference_mode():
        assert torch.equal(model(collate(prompts)), loaded(collate(prompts)))


def test_heads_of_other_sizes_are_refused(model, tmp_path):
    """Soft tokens saved for other widths, as by another version of the statistics, are named, not half loaded."""
    model.save(tmp_path)
    path = tmp_path / "exits.safetensors"
    parts = load_file(path)
    parts["soft.statistics.0.weight"] = parts["soft.statistics.0.weight"][:, 1:].contiguous()
    save_file(parts, path)
    with pytest.raises(UnsupportedBackbone, match=r"soft\.statistics\.0\.weight"):
        ExitModel.load(tmp_path)


def test_every_part_learns(model, prompts):
    """A loss over all heads reaches the words, every layer, the soft tokens and the heads."""
    model(collate(prompts)).square().sum().backward()
    unmoved = {name for name, part in model.named_parameters() if part.grad is None or not part.grad.any()}
    assert unmoved == {"backbone.norm.weight"}


def test_a_checkpoint_with_tied_embeddings_loads(tmp_path):
    """A causal language model's checkpoint, its word embeddings tied to its output, gives the backbone."""
    config = Qwen2Config(**decoder().to_diff_dict() | {"tie_word_embeddings": True, "model_type": "qwen2"})
    whole = AutoModelForCausalLM.from_config(config)
    whole.save_pretrained(tmp_path)
    model = ExitModel.from_pretrained(str(tmp_path), CONFIG)
    assert torch.equal(model.backbone.embed_tokens.weight, whole.lm_head.weight)
    assert torch.equal(model.backbone.layers[1].mlp.up_proj.weight, whole.model.layers[1].mlp.up_proj.weight)


@torch.inference_mode()
def test_a_lora_adapter_is_merged_at_load(tmp_path):
    """The merged weights compute what backbone and adapter compute together."""
    whole = AutoModelForCausalLM.from_config(decoder()).eval()
    whole.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(
        whole, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    ).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    model = ExitModel.from_pretrained(str(tmp_path / "base"), CONFIG, lora=str(tmp_path / "adapter"))
    tokens = torch.arange(1, 9)[None]
    expected = adapted.base_model.model.model(tokens).last_hidden_state
    torch.testing.assert_close(model.backbone(tokens).last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_another_family_is_refused(tmp_path):
    """A checkpoint of a family that the engine cannot compute is refused before its weights are read."""
    GPT2Config(n_layer=2).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedBackbone, match="gpt2"):
        ExitModel.from_pretrained(str(tmp_path), CONFIG)


def test_the_last_exit_must_be_the_last_layer():
    """Layers after the last head would have no effect."""
    with pytest.raises(UnsupportedBackbone, match="exit_layers"):
        ExitModel.from_config(decoder(num_hidden_layers=3), CONFIG)


@pytest.mark.parametrize("layers", [(), (0, 2), (2, 1), (1, 1)])
def test_exit_layers_must_ascend(layers):
    """Exit layers are positive and strictly ascending."""
    with pytest.raises(ValueError, match="ascending"):
        ExitConfig(layers, 6, WIDTH)


def test_soft_tokens_must_fit_their_columns():
    """Too few columns for the embedding or the statistics is an error at once, not a shape error later."""
    with pytest.raises(ValueError, match="soft_width"):
        ExitConfig((1, 2), WIDTH + 1, WIDTH)

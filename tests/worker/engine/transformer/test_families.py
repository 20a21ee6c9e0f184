"""The engine's layers against transformers' own, family by family."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from models.decoder_config import UnsupportedBackbone
from models.exit_model import ExitModel
from models.prompt import Prompt
from models.prompt_batch import collate
from tests.support.rope_scalings import LLAMA3_ROPE, YARN_ROPE
from worker.engine.engine import ScoringEngine
from worker.engine.part import Part
from worker.engine.settings import EngineSettings

FAMILIES = {
    "llama": (LlamaConfig, {}),
    "llama with biases and one kv head": (
        LlamaConfig,
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    ),
    "llama with rope scaling": (LlamaConfig, {"max_position_embeddings": 128, "rope_parameters": LLAMA3_ROPE}),
    "llama with yarn": (LlamaConfig, {"max_position_embeddings": 64, "rope_parameters": YARN_ROPE}),
    "mistral with wide heads": (MistralConfig, {"head_dim": 16, "sliding_window": None}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    "qwen3 with as many kv heads as heads": (Qwen3Config, {"num_key_value_heads": 4, "head_dim": 8}),
}


@pytest.fixture(params=FAMILIES)
def family(request, make_model) -> ExitModel:
    """A model of each family."""
    config, changes = FAMILIES[request.param]
    return make_model(config, **changes)


@torch.inference_mode()
def test_full_depth_equals_transformers(family, calibration, make_prompt):
    """Every head of every candidate agrees with transformers' layers over the tree-masked batch."""
    prompts = [make_prompt(9, [4, 6, 1]), make_prompt(1, [5]), make_prompt(17, [3, 3])]
    expected = family(collate(prompts)).double()
    engine = ScoringEngine(family, calibration, EngineSettings())
    got = torch.cat([torch.from_numpy(engine.trace(prompt).logits) for prompt in prompts])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_coarser_numbers_stay_close_to_transformers(family, calibration, make_prompt, precision):
    """In each family, norms of heads and biases included: errors are small against the logits' spread."""
    prompts = [make_prompt(9, [4, 6, 1]), make_prompt(1, [5]), make_prompt(17, [3, 3])]
    expected = family(collate(prompts)).numpy()
    engine = ScoringEngine(family, calibration, EngineSettings(precision=precision))
    got = np.concatenate([engine.trace(prompt).logits for prompt in prompts])
    assert np.abs(got - expected).max() < 0.15 * expected.std()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_an_engine_that_owns_its_model_holds_the_layers_once(make_model, calibration, make_prompt, precision):
    """The model's own copies are gone, and the answers are the same to the last digit."""
    model, prompt = make_model(), make_prompt(9, [4, 6, 1])
    kept, given = copy.deepcopy(model), copy.deepcopy(model)
    settings = EngineSettings(precision=precision)
    expected = ScoringEngine(kept, calibration, settings).trace(prompt).logits
    engine = ScoringEngine(given, calibration, settings, owns_model=True)
    assert sum(parameter.numel() for parameter in given.backbone.layers.parameters()) == 0
    assert all(parameter.numel() for parameter in kept.backbone.layers.parameters())
    np.testing.assert_array_equal(engine.trace(prompt).logits, expected)


@torch.inference_mode()
def test_hidden_states_equal_transformers_without_sharing(family, calibration, make_prompt):
    """Behind two layers, a suffix's rows are what transformers computes for prefix and suffix as one text."""
    prompt = make_prompt(8, [5, 3])
    expected = [_hidden_of_suffix(family, prompt, candidate, depth=2) for candidate in range(2)]
    engine = ScoringEngine(family, calibration, EngineSettings())
    part = Part.of(prompt)
    for _ in range(2):
        part.pass_head(engine._runner.run([part])[0])
    torch.testing.assert_close(part.suffix_hidden, torch.cat(expected), atol=1e-4, rtol=1e-4)


def _hidden_of_suffix(model: ExitModel, prompt: Prompt, candidate: int, depth: int) -> torch.Tensor:
    """Hidden rows of one suffix after some layers of the backbone's own causal forward."""
    batch = collate([Prompt(prompt.prefix, [prompt.suffixes[candidate]])])
    vectors = model.embed(*batch.inputs)
    seen = []
    hook = model.backbone.layers[depth - 1].register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    model.backbone(inputs_embeds=vectors[None])
    hook.remove()
    return seen[0][0, len(prompt.prefix) :]


def test_an_unknown_activation_is_refused(make_model, calibration):
    """A backbone whose MLP is not SwiGLU is refused, not computed wrongly."""
    with pytest.raises(UnsupportedBackbone, match="gelu"):
        ScoringEngine(make_model(hidden_act="gelu"), calibration, EngineSettings())


def test_a_sliding_window_bounds_the_prompt(make_model, calibration, make_prompt):
    """Where layers see only a window, longer prompts are refused, since the engine lets every token see all before."""
    model = make_model(MistralConfig, sliding_window=8)
    engine = ScoringEngine(model, calibration, EngineSettings())
    assert engine.trace(make_prompt(5, [3])).logits.shape == (1, 3)
    with pytest.raises(ValueError, match="at most 8"):
        engine.trace(make_prompt(6, [3]))

"""A bundle's own decoder against transformers' classes, family by family, and what its configuration means."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
import torch
from transformers import AutoConfig, AutoModel, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from models.backbone import as_transformers
from models.decoder import Decoder
from models.decoder_config import DecoderConfig, UnsupportedBackbone, read_decoder_config
from models.saved_backbone import load_saved_backbone
from tests.support.rope_scalings import LLAMA3_ROPE, YARN_ROPE

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "llama, biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    "llama, wide heads": (LlamaConfig, {"head_dim": 16, "rms_norm_eps": 1e-3}),
    "llama, other base": (LlamaConfig, {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}),
    "llama, llama3 positions": (LlamaConfig, {"max_position_embeddings": 128, "rope_parameters": LLAMA3_ROPE}),
    "llama, yarn": (LlamaConfig, {"max_position_embeddings": 64, "rope_parameters": YARN_ROPE}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "mistral, window": (MistralConfig, {"sliding_window": 12}),
    "qwen2": (Qwen2Config, {}),
    "qwen2, windows": (Qwen2Config, {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    "qwen3, biases": (Qwen3Config, {"head_dim": 8, "attention_bias": True}),
}


@pytest.fixture(params=CONFIGS)
def saved(request, tmp_path):
    """Random weights of each family in transformers' own class, and the folder that it was saved to."""
    config, changes = CONFIGS[request.param]
    torch.manual_seed(3)
    model = AutoModel.from_config(config(**SIZES | changes), attn_implementation="sdpa").eval()
    with torch.no_grad():
        for part in model.parameters():
            if part.ndim == 1:  # biases start at 0, norms at 1
                part.add_(torch.randn_like(part) * 0.1)
    model.save_pretrained(tmp_path)
    return model, tmp_path


def behind_each_layer(model: Any, vectors: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states of a causal text, as `ExitModel.forward` calls the layers."""
    length = vectors.shape[1]
    positions = torch.arange(length)[None]
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    rotation = model.rotary_emb(vectors, position_ids=positions)
    hidden, states = vectors, []
    for layer in model.layers:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotation)
        states.append(hidden)
    return states


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_layer_equals_transformers_to_the_last_bit(saved, dtype):
    """The weights come back, and the layers compute the same numbers from them."""
    _, folder = saved
    decoder = load_saved_backbone(folder, read_decoder_config(folder), dtype)
    model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    assert decoder.state_dict().keys() == model.state_dict().keys()
    vectors = model.embed_tokens(torch.arange(20)[None])
    assert torch.equal(decoder.embed_tokens(torch.arange(20)[None]), vectors)
    for expected, got in zip(behind_each_layer(model, vectors), behind_each_layer(decoder, vectors), strict=True):
        assert torch.equal(got, expected)


def test_the_configuration_means_what_it_means_to_transformers(saved):
    """Everything that the engine asks for, defaults included."""
    model, folder = saved
    config, expected = read_decoder_config(folder), model.config
    for name in ("num_key_value_heads", "max_position_embeddings", "sliding_window", "rms_norm_eps"):
        assert getattr(config, name) == getattr(expected, name, None), name
    assert config.head_dim == model.layers[0].self_attn.head_dim
    assert config.rope["rope_theta"] == expected.rope_parameters["rope_theta"]
    if config.sliding_window is not None:
        assert config.layer_types == getattr(expected, "layer_types", None)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_a_file_leaves_out_is_what_transformers_takes(family):
    """A file with sizes alone, as a hand may write it."""
    config = msgspec.convert({"model_type": family, **SIZES, "head_dim": 8}, DecoderConfig)
    expected = AutoConfig.for_model(family, **SIZES, head_dim=8)
    for name in ("max_position_embeddings", "rms_norm_eps", "hidden_act"):
        assert getattr(config, name) == getattr(expected, name), name
    assert config.rope == expected.rope_parameters


def test_files_from_before_transformers_5_tell_the_base_apart():
    """`rope_theta` beside `rope_scaling`, whose kind is called `type`."""
    old = msgspec.convert(
        {"model_type": "llama", **SIZES, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        DecoderConfig,
    )
    new = LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0})
    model = AutoModel.from_config(new)
    assert torch.equal(Decoder(old).rotary_emb.inv_freq, model.rotary_emb.inv_freq)


@torch.inference_mode()
def test_a_bundles_decoder_can_be_had_as_transformers_own(saved):
    """For comparisons: one memory, the same forward."""
    model, folder = saved
    decoder = load_saved_backbone(folder, read_decoder_config(folder), torch.float32)
    theirs = as_transformers(decoder)
    tokens = torch.arange(9)[None]
    assert torch.equal(theirs(tokens).last_hidden_state, model(tokens).last_hidden_state)
    assert theirs.embed_tokens.weight.data_ptr() == decoder.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"rope_parameters": {"rope_type": "os.system"}}, "rope_type 'os.system'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "a"}}, "rope_theta is 'a'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -1.0}}, "rope_theta is -1.0"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, said):
    """Before any weight is read."""
    with pytest.raises((UnsupportedBackbone, ValueError), match=said):
        Decoder(msgspec.convert({"model_type": "llama", **SIZES, **changes}, DecoderConfig))


def test_a_worker_does_not_import_transformers():
    """Its import takes seconds and more than 100 MB, which a worker would hold for good."""
    code = "import sys, worker.service; print(*{'transformers', 'torch._dynamo', 'sympy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

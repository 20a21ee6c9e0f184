"""Everybody who competes in `benchmarks.engine` scores the same: otherwise times would say nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from benchmarks.engine_contestants import FULL_DEPTH, Naive, OnnxInt8, Ours, export_int8
from benchmarks.engine_inputs import vectors_of, without_layers
from benchmarks.engine_llama import FORMATS, LlamaCpp, LlamaCppFailed, in_format, is_installed, write_gguf
from benchmarks.engine_shapes import neutral_calibration
from models.exit_model import ExitConfig, ExitModel
from models.prompt import Prompt
from models.prompt_batch import collate
from models.token_sequence import SoftKind
from tests.worker.engine.conftest import EMBEDDING_DIM, SMALL, VOCABULARY, WIDTH, random_sequence
from worker.engine.settings import EngineSettings

CLOSE = 1e-5
ROUNDED = 0.03
"""Of rates in bfloat16: of random models their errors are 0.007 on average, transformers' and this engine's alike, and
up to three times that among ten.
"""
LEAST_CORRELATION = {"bf16": 0.999, "q8_0": 0.98, "q4_0": 0.5}
"""Four bits are few for random weights."""


@pytest.fixture
def model(tmp_path) -> ExitModel:
    """Small and random, as it comes from a bundle; its widths are whole blocks of llama.cpp's formats."""
    torch.manual_seed(5)
    made = ExitModel.from_config(
        LlamaConfig(**SMALL | {"hidden_size": 64, "intermediate_size": 96}),
        ExitConfig((2, SMALL["num_hidden_layers"]), EMBEDDING_DIM, WIDTH, WIDTH),
    )
    with torch.no_grad():
        for head in made.heads:
            head.norm.weight.add_(torch.rand(64))
    made.save(tmp_path / "model")
    return ExitModel.load(tmp_path / "model")


@pytest.fixture
def prompts() -> list[Prompt]:
    """Pages of different sizes, the longer one first and last."""
    random = np.random.default_rng(2)

    def page(prefix: int, suffixes: list[int]) -> Prompt:
        return Prompt(
            random_sequence(random, prefix, SoftKind.USER),
            [random_sequence(random, length, SoftKind.STATISTICS) for length in suffixes],
        )

    return [page(20, [5, 9, 2, 7]), page(7, [3]), page(12, [4, 4, 8, 2, 6])]


@pytest.fixture
def expected(model, prompts) -> np.ndarray:
    """Rates of the reference."""
    with torch.inference_mode():
        logits = model(collate(prompts)).double().numpy()[:, -1]
    return 1 / (1 + np.exp(-logits))


def test_transformers_and_this_engine_score_what_the_reference_scores(model, prompts, expected):
    """In float32 to the last digits, in bfloat16 within its rounding."""
    calibration = neutral_calibration(2)
    for dtype, precision, tolerance in (
        (torch.float32, "float32", CLOSE),
        (torch.bfloat16, "bfloat16", ROUNDED),
    ):
        naive = Naive(copy.deepcopy(model), calibration, dtype)
        np.testing.assert_allclose(naive.score(prompts), expected, atol=tolerance)
        ours = Ours(
            copy.deepcopy(model),
            calibration,
            EngineSettings(precision=precision, max_batch_tokens=128, warm_up_rounds=1),
            FULL_DEPTH,
        )
        np.testing.assert_allclose(ours.score(prompts), expected, atol=tolerance)


@pytest.mark.slow
def test_onnx_runtime_scores_the_same_as_far_as_eight_bits_tell(model, prompts, expected, tmp_path):
    """The layers and the final head are those of the file."""
    pytest.importorskip("onnxruntime")
    contestant = OnnxInt8(model, neutral_calibration(2), export_int8(model, tmp_path), threads=1)
    assert np.corrcoef(contestant.score(prompts), expected)[0, 1] > 0.95


@pytest.mark.skipif(not is_installed(), reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("name", FORMATS)
def test_llama_cpp_scores_the_same_as_far_as_its_format_tells(model, prompts, expected, tmp_path, name):
    """Words, soft tokens, positions, rotations and the shared prefix are as in the reference."""
    write_gguf(model, tmp_path / "whole.gguf")
    in_format(tmp_path / "whole.gguf", tmp_path / "small.gguf", name)
    scored = LlamaCpp(model, neutral_calibration(2), tmp_path / "small.gguf", 1).score(prompts)
    assert np.corrcoef(scored, expected)[0, 1] > LEAST_CORRELATION[name]


def test_a_gguf_file_holds_the_layers_as_llama_cpp_rotates_them(model, tmp_path):
    """Of each head's query and key rows the two of a rotary pair lie side by side; everything else is as it was."""
    gguf = pytest.importorskip("gguf")
    write_gguf(model, tmp_path / "whole.gguf")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors}
    assert len(tensors) == 3 + 9 * SMALL["num_hidden_layers"]
    attention = model.backbone.layers[1].self_attn
    rows = attention.q_proj.weight.detach().numpy().reshape(4, 2, 8, 64)  # heads, halves, pairs
    kept = tensors["blk.1.attn_q.weight"].reshape(4, 8, 2, 64)
    np.testing.assert_array_equal(kept, rows.swapaxes(1, 2))
    np.testing.assert_array_equal(tensors["blk.1.attn_v.weight"], attention.v_proj.weight.detach().numpy())
    np.testing.assert_array_equal(tensors["output.weight"][0], model.heads[-1].linear.weight.detach().numpy()[0])


def test_other_families_are_not_handed_to_llama_cpp(model, tmp_path):
    """They would be computed as a plain Llama."""
    pytest.importorskip("gguf")
    model.backbone.rotary_emb.rope_type = "yarn"
    with pytest.raises(LlamaCppFailed, match="rope scaling"):
        write_gguf(model, tmp_path / "whole.gguf")


def test_a_model_without_its_layers_still_embeds(model, prompts):
    """And the one that it was taken from keeps them."""
    outside = without_layers(model)
    assert not len(outside.backbone.layers)
    assert len(model.backbone.layers) == SMALL["num_hidden_layers"]
    assert model.backbone.config.vocab_size == VOCABULARY
    with torch.inference_mode():
        torch.testing.assert_close(vectors_of(outside, prompts[0]), vectors_of(model, prompts[0]))

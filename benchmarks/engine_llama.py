"""llama.cpp as a contestant of `benchmarks.engine`: the bundle's own layers as GGUF, quantised by llama.cpp itself.

It reads the same input vectors, soft tokens included, and its "vocabulary" is the final head's one logit, so that it
spends no time on the words of a language model. A page's prefix is computed once: its keys and values belong to every
candidate's sequence, and the candidates' parts follow as sequences side by side, which is llama.cpp's own way of
sharing a prompt. One candidate after the other, each going on from the kept prefix, was no quicker.

Needs `pip install llama-cpp-python` (built from its source distribution for the processor it is to run on) and `gguf`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine_inputs import Floats, vectors_of, wide, without_layers
from models.calibration import ExitCalibration
from models.exit_model import ExitHead, ExitModel
from models.prompt import Prompt
from runtime.errors import ExitstreamError

INSTALL: Final = "pip install llama-cpp-python gguf"
FORMATS: Final = {"q4_0": 2, "q8_0": 7, "bf16": 32}
"""llama.cpp's numbers of the formats (`enum llama_ftype`). Of the ones in four bits it multiplies q4_0 fastest."""
GGML_TYPE_F32: Final = 0
HEAD_ROW: Final = 0
VOCABULARY: Final = 32
"""Rows of the matrix behind the last layer: the head's, and as many more as the formats' blocks ask for."""
CONTEXT_TOKENS: Final = 4_096
BATCH_TOKENS: Final = 512
"""Tokens that pass the layers together, llama.cpp's default."""


class LlamaCppFailed(ExitstreamError):
    """llama.cpp refuses a model or a batch, or the model is none that can be handed to it."""


def is_installed() -> bool:
    """Whether llama.cpp can be a contestant on this machine."""
    return all(importlib.util.find_spec(name) is not None for name in ("llama_cpp", "gguf"))


class LlamaCpp:
    """The layers as llama.cpp computes them.

    Args:
        model: embeds prompts; its layers are not used.
        calibration: what its logits mean.
        file: layers and final head, as `in_format` writes them.
        threads: of the computation.

    Raises:
        LlamaCppFailed: the file cannot be loaded.
    """

    def __init__(self, model: ExitModel, calibration: ExitCalibration, file: Path, threads: int) -> None:
        import llama_cpp  # noqa: PLC0415 - optional, see INSTALL

        self._cpp = llama_cpp
        self._outside = without_layers(model)
        self._calibration = calibration
        _quiet(llama_cpp)
        options = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
        if not self._model:
            raise LlamaCppFailed(f"llama.cpp cannot load {file}; its version may be too old: {INSTALL}")
        self._threads = threads
        self._context: Any = None
        self._batch: Any = None
        self._sequences = 0

    def score(self, prompts: Sequence[Prompt]) -> Floats:
        """See `benchmarks.engine_contestants.Contestant`.

        Raises:
            LlamaCppFailed: a prompt is too long.
        """
        logits = np.concatenate([self._request(prompt) + wide(self._outside, prompt) for prompt in prompts])
        return self._calibration.ctr(self._calibration.heads - 1, logits)

    @torch.inference_mode()
    def _request(self, prompt: Prompt) -> NDArray[np.float32]:  # (candidates,)
        self._make_room(len(prompt.suffixes))
        self._cpp.llama_memory_clear(self._cpp.llama_get_memory(self._context), False)
        everybody = range(len(prompt.suffixes))
        vectors = vectors_of(self._outside, prompt).float().numpy()
        prefix = len(prompt.prefix)
        self._decode(vectors[:prefix], np.arange(prefix), [everybody] * prefix, [])
        lengths = prompt.suffix_lengths
        places = np.concatenate([prefix + np.arange(length) for length in lengths])
        owners = np.repeat(np.arange(len(lengths)), lengths)
        answers = np.cumsum(lengths) - 1
        self._decode(vectors[prefix:], places, [(int(owner),) for owner in owners], answers)
        logits = [self._cpp.llama_get_logits_ith(self._context, int(answer))[HEAD_ROW] for answer in answers]
        return np.array(logits, np.float32) + float(_head(self._outside).linear.bias)

    def _make_room(self, sequences: int) -> None:
        """A context and a batch for pages of so many candidates, at least."""
        if sequences <= self._sequences:
            return
        cpp = self._cpp
        self._free()
        options = cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = CONTEXT_TOKENS
        options.n_ubatch = BATCH_TOKENS
        options.n_seq_max = sequences
        options.n_threads = options.n_threads_batch = self._threads
        options.n_outputs_max = sequences
        options.kv_unified = True  # one buffer, in which sequences share the prefix
        self._context = cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise LlamaCppFailed(f"llama.cpp refuses a context for {sequences} sequences")
        self._batch = cpp.llama_batch_init(CONTEXT_TOKENS, cpp.llama_model_n_embd(self._model), sequences)
        self._sequences = sequences

    def _decode(
        self,
        vectors: NDArray[np.float32],
        places: NDArray[np.int64],
        owners: Sequence[Sequence[int]],
        answers: Sequence[int] | NDArray[np.int64],
    ) -> None:
        """Runs tokens through all layers.

        Args:
            vectors: (tokens, hidden).
            places: (tokens,) positions in their sequences.
            owners: of each token the sequences that see it.
            answers: the tokens whose logit is wanted.
        """
        batch, count = self._batch, len(vectors)
        if count > CONTEXT_TOKENS:
            raise LlamaCppFailed(f"a page of {count} tokens where {CONTEXT_TOKENS} have room; ask for fewer candidates")
        vectors = np.ascontiguousarray(vectors, np.float32)
        ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
        np.ctypeslib.as_array(batch.pos, (count,))[:] = places
        for token, sequences in enumerate(owners):
            batch.n_seq_id[token] = len(sequences)
            for number, sequence in enumerate(sequences):
                batch.seq_id[token][number] = sequence
        wanted = np.ctypeslib.as_array(batch.logits, (count,))
        wanted[:] = 0
        wanted[list(answers)] = 1
        batch.n_tokens = count
        if self._cpp.llama_decode(self._context, batch):
            raise LlamaCppFailed(f"llama.cpp cannot run a batch of {count} tokens")

    def _free(self) -> None:
        if self._context:
            self._cpp.llama_batch_free(self._batch)
            self._cpp.llama_free(self._context)


def write_gguf(model: ExitModel, file: Path) -> None:
    """The model's layers and its final head as a GGUF file in float32.

    Raises:
        LlamaCppFailed: the model is no plain Llama.
    """
    import gguf  # noqa: PLC0415 - optional, see INSTALL

    config = model.backbone.config
    if config.model_type != "llama" or model.backbone.rotary_emb.rope_type != "default":
        raise LlamaCppFailed("only models of the family llama, without rope scaling, are handed to llama.cpp here")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(model.backbone.layers[0].self_attn.head_dim)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    for name, weight in _tensors(model):
        writer.add_tensor(name, weight.detach().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_format(whole: Path, small: Path, name: str) -> None:
    """Writes the weights of one GGUF file as another, in one of `FORMATS`, as llama.cpp's own tool does.

    Raises:
        LlamaCppFailed: llama.cpp cannot.
    """
    import llama_cpp  # noqa: PLC0415 - optional, see INSTALL

    _quiet(llama_cpp)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = FORMATS[name]
    # The head is not to be rounded; this engine's is not either.
    options.output_tensor_type = options.token_embedding_type = GGML_TYPE_F32
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(small).encode(), ctypes.byref(options)):
        raise LlamaCppFailed(f"llama.cpp cannot write {whole.name} as {name}")


def _tensors(model: ExitModel) -> list[tuple[str, torch.Tensor]]:
    """Every weight under llama.cpp's name for it."""
    head, nothing = _head(model), torch.zeros(VOCABULARY, model.backbone.config.hidden_size)
    output = nothing.clone()
    output[HEAD_ROW] = head.linear.weight[0]
    tensors = [
        ("token_embd.weight", nothing),  # prompts come as vectors
        ("output_norm.weight", head.norm.weight),
        ("output.weight", output),
    ]
    for number, layer in enumerate(model.backbone.layers):
        attention, mlp = layer.self_attn, layer.mlp
        named = {
            "attn_norm": layer.input_layernorm.weight,
            "attn_q": _paired(attention.q_proj.weight, attention.head_dim),
            "attn_k": _paired(attention.k_proj.weight, attention.head_dim),
            "attn_v": attention.v_proj.weight,
            "attn_output": attention.o_proj.weight,
            "ffn_norm": layer.post_attention_layernorm.weight,
            "ffn_gate": mlp.gate_proj.weight,
            "ffn_up": mlp.up_proj.weight,
            "ffn_down": mlp.down_proj.weight,
        }
        tensors += [(f"blk.{number}.{name}.weight", weight) for name, weight in named.items()]
    return tensors


def _head(model: ExitModel) -> ExitHead:
    head = model.heads[-1]
    assert isinstance(head, ExitHead)
    return head


def _paired(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of a projection with each rotary pair side by side, as llama.cpp rotates a Llama's."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _quiet(llama_cpp: ModuleType) -> None:
    """llama.cpp tells everything it does on stderr unless it is given somebody to tell."""
    llama_cpp.llama_log_set(_SILENCE, None)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _SILENCE(level: int, text: bytes, data: object) -> None:  # noqa: N802 - a constant of a C type
    """Says nothing. Kept by the module: llama.cpp keeps its address."""

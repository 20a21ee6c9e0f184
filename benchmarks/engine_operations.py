"""How much there is to compute for a prompt: what a model's floating-point utilisation is measured by."""

from __future__ import annotations

from models.exit_model import ExitModel
from models.prompt import Prompt


def operations(model: ExitModel, prompt: Prompt) -> float:
    """Floating-point operations that full depth needs, the prefix once, the last layer for the answers alone."""
    decoder = model.backbone.config
    attention = model.backbone.layers[0].self_attn
    hidden, queries = decoder.hidden_size, decoder.num_attention_heads * attention.head_dim
    keys_values = 2 * decoder.num_key_value_heads * attention.head_dim
    prefix, suffixes = len(prompt.prefix), prompt.suffix_lengths
    tokens, answers = prompt.tokens, len(suffixes)
    per_answer = 2 * (2 * hidden * queries + 3 * hidden * decoder.intermediate_size)
    pairs = prefix**2 / 2 + (suffixes * prefix + suffixes**2 / 2).sum()
    last_pairs = (prefix + suffixes).sum()
    layer = tokens * (per_answer + 2 * hidden * keys_values) + 4 * queries * pairs
    last = tokens * 2 * hidden * keys_values + answers * per_answer + 4 * queries * last_pairs
    return float((decoder.num_hidden_layers - 1) * layer + last)

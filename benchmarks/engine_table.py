"""The tables of `benchmarks.engine` on a checkpoint: everybody on the same pages, and this engine beside them."""

from __future__ import annotations

from typing import Final

from benchmarks.markdown import Figures, measured, percent, table

_NAMES: Final = {
    "naive": "transformers, padded, float32",
    "naive_bfloat16": "transformers, padded, bfloat16",
    "onnx": "ONNX Runtime, padded, int8",
    "llama_q4_0": "llama.cpp, Q4_0",
    "llama_q8_0": "llama.cpp, Q8_0",
    "llama_bf16": "llama.cpp, BF16",
    "full_depth": "this engine, float32",
    "full_depth_int8": "this engine, int8",
    "full_depth_bfloat16": "this engine, bfloat16",
    "exit": "this engine, float32, exits",
    "exit_int8": "this engine, int8, exits",
    "exit_bfloat16": "this engine, bfloat16, exits",
}


def contestants(figures: Figures) -> str:
    """A row for everybody who competed; AUC where the heads are trained."""
    is_trained = "auc_naive" in figures
    rows = [
        (
            name,
            f"{figures[f'{key}_candidates_per_second']:.1f}",
            f"{figures[f'{key}_candidates_per_second'] / figures['naive_candidates_per_second']:.1f} ×",
            _memory(figures, key),
            f"{figures[f'correlation_{key}']:.3f}",
            *([f"{figures[f'auc_{key}']:.4f}"] if is_trained else []),
        )
        for key, name in _NAMES.items()
        if f"correlation_{key}" in figures
    ]
    head = f"{figures['layers']} layers", "candidates/s", "× transformers", "memory", "correlation of rates"
    return table((*head, *(["AUC"] if is_trained else [])), rows)


def _memory(figures: Figures, key: str) -> str:
    """When ready and behind the first page; with exits it is that of full depth."""
    of = key.replace("exit", "full_depth")
    return f"{figures['memory_mb'][of]:.0f} / {figures['memory_scoring_mb'][of]:.0f} MB"


def checkpoint(figures: Figures) -> str:
    """The goals of this engine on a checkpoint."""
    llama = figures["best_speedup_llama_cpp"]
    times_weights = figures["memory_by_weights"]
    return measured(
        ("full depth, float32, against transformers in float32", f"{figures['full_depth_speedup']:.1f} ×", "3 ×"),
        (
            "full depth, bfloat16, against transformers in bfloat16",
            f"{figures['full_depth_bfloat16_speedup_over_bfloat16']:.1f} ×",
        ),
        (
            f"best (`{figures['best']}`) against transformers in float32",
            f"{figures['best_speedup']:.1f} ×",
            "10 × with exits",
        ),
        ("best against ONNX Runtime int8", f"{figures['best_speedup_over_onnx']:.1f} ×", "4 ×"),
        (
            "best against the fastest of llama.cpp",
            "not installed" if llama is None else f"{llama:.1f} × (`{figures['llama_cpp']}`)",
            "3 ×",
        ),
        (
            "`mfu`, full depth, float32 / bfloat16",
            f"{figures['mfu']:.2f} / {figures['mfu_bfloat16']:.2f}",
            "0.6",
        ),
        ("share of time outside the model, bfloat16", percent(figures["outside_model_share_bfloat16"]), "5 %"),
        (
            "memory when warm ÷ weights, float32 / bfloat16 / int8",
            " / ".join(f"{times_weights[name]:.2f} ×" for name in ("float32", "bfloat16", "int8")),
            "1.2 ×",
        ),
        *_exits(figures),
    )


def _exits(figures: Figures) -> list[tuple[str, ...]]:
    """What exits save."""
    shares = ", ".join(f"{layer}: {percent(share)}" for layer, share in figures["exit_layer_shares"].items())
    alone = " / ".join(f"{figures[f'{depth}p50_ms']:,.0f}" for depth in ("full_depth_", ""))
    saved = figures["time_saved_per_token_layers_saved"]
    return [
        ("candidates that leave after each layer", shares),
        ("token-layers executed with exits", percent(figures["token_layers_share"])),
        ("time saved ÷ token-layers saved", "none saved" if saved is None else f"{saved:.2f}", "0.85"),
        ("one page alone, float32, full depth / exits: p50", f"{alone} ms"),
    ]

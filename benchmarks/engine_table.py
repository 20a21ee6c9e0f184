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
}


def contestants(figures: Figures) -> str:
    """A row for everybody who competed."""
    rows = [
        (
            name,
            f"{figures[f'{key}_candidates_per_second']:.1f}",
            f"{figures[f'{key}_candidates_per_second'] / figures['naive_candidates_per_second']:.1f} ×",
            f"{figures['memory_mb'][key]:.0f} / {figures['memory_scoring_mb'][key]:.0f} MB",
            f"{figures[f'correlation_{key}']:.3f}",
        )
        for key, name in _NAMES.items()
        if key in figures["memory_mb"]
    ]
    head = f"{figures['layers']} layers, full depth", "candidates/s", "× transformers", "memory", "correlation of rates"
    return table(head, rows)


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
    )

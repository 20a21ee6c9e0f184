"""The memory that one contestant of `benchmarks.engine` takes, in a process of its own.

Resident memory is taken when the libraries are imported, when the contestant is ready, and when it has scored a page of
20 made-up candidates. Words' vectors count where a contestant holds them: ONNX Runtime's file has none, so that they
are counted beside it; llama.cpp's file has them, so that those which feed it here are not counted again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine_field import competing
from benchmarks.engine_inputs import without_layers
from benchmarks.engine_memory import resident_mb
from benchmarks.engine_requests import CANDIDATES
from benchmarks.engine_shapes import neutral_calibration
from models.exit_model import ExitModel
from models.prompt import Prompt
from models.token_sequence import TokenSequence
from runtime.process.allocator import keep_freed_memory, return_freed_memory

PREFIX_TOKENS, SUFFIX_TOKENS = 170, 70


def memory_of(name: str, bundle: Path, exported: Path, threads: int) -> dict[str, float]:
    """`loaded_mb` and `scoring_mb` of a contestant, from a process of its own.

    Args:
        name: one of `benchmarks.engine_field.competing`.
        bundle: its folder.
        exported: what `benchmarks.engine_field.export` has written.
        threads: of the computation.
    """
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine_contestant_memory", name, str(bundle), str(exported), str(threads)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """The figures of one contestant in this process."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name")
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("exported", type=Path)
    arguments.add_argument("threads", type=int)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    make = competing(given.exported, given.threads, exits=1.0)[given.name]
    _import_libraries(given.name)
    dtype = torch.bfloat16 if given.name.endswith("bfloat16") else torch.float32
    if given.name.startswith("llama"):
        model = without_layers(ExitModel.load(given.bundle, dtype))
        return_freed_memory()
        before_mb = resident_mb()
    else:
        before_mb = resident_mb()
        model = ExitModel.load(given.bundle, dtype)
    page = _page(model.config.soft_width)
    contestant = make(model, neutral_calibration(len(model.config.exit_layers)))
    del model
    return_freed_memory()
    loaded_mb = resident_mb() - before_mb
    contestant.score([page])
    print(json.dumps({"loaded_mb": loaded_mb, "scoring_mb": resident_mb() - before_mb}))


def _import_libraries(name: str) -> None:
    """What is imported when the first model is made is no part of the model."""
    if name.startswith("naive"):
        from transformers import LlamaForCausalLM  # noqa: F401, PLC0415 - see above
    if name == "onnx":
        import onnxruntime  # noqa: F401, PLC0415 - see above
    if name.startswith("llama"):
        import llama_cpp  # noqa: F401, PLC0415 - see above


def _page(soft_width: int) -> Prompt:
    """20 candidates in as many words as the prompts of the preset for pre-trained weights have."""

    def words(length: int) -> TokenSequence:
        nothing = np.zeros(0, np.int32)
        return TokenSequence(
            np.ones(length, np.int32), nothing, nothing.astype(np.int8), np.zeros((0, soft_width), np.float32)
        )

    return Prompt(words(PREFIX_TOKENS), [words(SUFFIX_TOKENS)] * CANDIDATES)


if __name__ == "__main__":
    main()

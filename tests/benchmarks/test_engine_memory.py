"""The memory of a model is measured in processes of their own, one for each number format."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path

import pytest

from benchmarks import engine_memory

pytestmark = pytest.mark.slow


def test_every_number_format_is_measured(tmp_path, monkeypatch, capsys):
    """A quarter of the bytes in int8, half in bfloat16, for what lies in the layers; each is loaded and resident."""
    out = tmp_path / "memory.json"
    monkeypatch.setattr(sys, "argv", ["engine_memory", "--shape", "tiny", "--out", str(out)])
    engine_memory.main()
    figures = json.loads(out.read_text())
    weights = {name: figures[name]["weights_mb"] for name in ("float32", "bfloat16", "int8")}
    assert weights["bfloat16"] < weights["int8"] < weights["float32"]  # the table of words outweighs tiny layers
    assert all(figures[name]["model_mb"] > 0 for name in weights)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures


def test_libraries_own_files_are_not_counted():
    """Everything else that is resident is, as soon as it has been written to."""
    before_mb = engine_memory.resident_mb()
    with mmap.mmap(-1, 64 * 2**20) as held:  # never what the heap has kept
        held.write(b"x" * len(held))
        assert engine_memory.resident_mb() - before_mb > 60
    whole_mb = int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 2**20
    assert whole_mb - engine_memory.resident_mb() > 20

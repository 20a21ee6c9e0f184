"""Memory of the machine and of the container."""

from __future__ import annotations

import pytest

from runtime.process.memory import available_memory, resident_memory


@pytest.fixture
def proc(tmp_path):
    """A kernel with 2 MiB free and a process of no pages."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("0 0 0")
    (tmp_path / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable:    2048 kB\n")
    return tmp_path


def test_a_containers_limit_bounds_the_machines(tmp_path, proc):
    """Of either version; without a limit the machine's memory counts."""
    none, second, first = tmp_path / "none", tmp_path / "v2", tmp_path / "v1"
    for folder in (none, second, first / "memory"):
        folder.mkdir(parents=True)
    (none / "memory.max").write_text("max\n")
    (second / "memory.max").write_text("1048576\n")
    (first / "memory" / "memory.limit_in_bytes").write_text("1000000\n")
    assert available_memory(none, proc) == 2 << 20
    assert available_memory(second, proc) == 1 << 20
    assert available_memory(first, proc) == 1_000_000


def test_a_huge_limit_is_none(tmp_path, proc):
    """Version 1 writes the largest number of pages."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert available_memory(tmp_path, proc) == 2 << 20
    (proc / "meminfo").unlink()
    assert available_memory(tmp_path, proc) is None


def test_nothing_is_told_where_nothing_is_known(tmp_path):
    """Other systems have neither files."""
    assert available_memory(tmp_path, tmp_path) is None
    assert resident_memory(tmp_path) == 0


def test_this_process_holds_something():
    """More than a mebibyte, wherever there is a /proc."""
    assert resident_memory() > 1 << 20

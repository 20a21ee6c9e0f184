"""What is read off a program's start."""

from __future__ import annotations

import os
import resource

from benchmarks.startup import logged_stages, memory_mb, processor_seconds
from benchmarks.startup_table import startup, startup_stages

LOG = """
{"event": "status", "program": "worker"}
{"event": "stage done", "stage": "libraries", "seconds": 1.5, "resident_mb": 276}
a library's own words
{"event": "stage done", "stage": "bundle", "seconds": 0.25, "resident_mb": 285}
"""
PROGRAM = {
    "ready_s": 3.21,
    "ready_cpu_s": 2.5,
    "resident_mb": 401.3,
    "unique_mb": 300.0,
    "highest_mb": 402.0,
    "stages": {"libraries": 1.5, "bundle": 0.25},
}
FIGURES = {
    "precision": "float32",
    "layers": 4,
    "weights_mb": 0.81,
    "times_weights": 19.0,
    "worker": PROGRAM,
    "updater": PROGRAM,
}


def test_stages_are_read_from_the_programs_own_log():
    """In their order; whatever else it holds is left out."""
    seconds, memory = logged_stages(LOG)
    assert list(seconds.items()) == [("libraries", 1.5), ("bundle", 0.25)]
    assert memory == {"libraries": 276, "bundle": 285}


def test_memory_is_the_kernels_own_figure():
    """What only this process holds is part of what is resident, and that of the most there was."""
    memory = memory_mb(os.getpid())
    assert 10 < memory["unique_mb"] <= memory["resident_mb"] <= memory["highest_mb"]
    assert memory["proportional_mb"] <= memory["resident_mb"]


def test_processor_time_is_that_of_all_threads():
    """As the process itself is told."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = processor_seconds(os.getpid())
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert before.ru_utime + before.ru_stime - 0.05 <= seconds <= after.ru_utime + after.ru_stime + 0.05


def test_the_tables_name_the_goals_and_an_earlier_version_where_there_is_one():
    """The former version's rows come only with its figures."""
    assert "| ready after | 3.2 s (≤ 10) | 3.2 s (≤ 20) | 3.2 s |" in startup(FIGURES, FIGURES)
    assert "before" not in startup(FIGURES, FIGURES)
    compared = PROGRAM | {"before": PROGRAM | {"ready_s": 15.0}}
    with_former = FIGURES | {"worker": compared, "updater": compared}
    assert "| ready after, version before | 15.0 s | 15.0 s | 15.0 s |" in startup(with_former, with_former)
    assert "| bundle | 0.25 s | 0.25 s |" in startup_stages(FIGURES, FIGURES)

"""How long the stages of a start take, told in the log: `stage done`, with seconds and the memory behind the stage."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from runtime.clock import Clock
from runtime.process.memory import resident_memory

STAGE_DONE: Final = "stage done"
_IMPORTED_S: Final = time.monotonic()
_STARTED_AT_TICK: Final = 19
"""Which word of /proc/self/stat tells when the process started, counted behind its name."""
log = structlog.get_logger(__name__)


@contextmanager
def stage(name: str, clock: Clock) -> Iterator[None]:
    """Tells how long the block took, unless it raises.

    Args:
        name: of the stage.
        clock: measures it.
    """
    began_s = clock.monotonic()
    yield
    note_stage(name, clock.monotonic() - began_s)


def note_stage(name: str, seconds: float) -> None:
    """Tells of a stage that has been measured, and how much memory the process holds now."""
    log.info(STAGE_DONE, stage=name, seconds=round(seconds, 3), resident_mb=round(resident_memory() / 2**20))


def process_age_s() -> float:
    """Seconds since this process began; where the system does not tell, since this module was imported."""
    if sys.platform != "linux":
        return time.monotonic() - _IMPORTED_S
    words = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(words[_STARTED_AT_TICK]) / os.sysconf("SC_CLK_TCK")

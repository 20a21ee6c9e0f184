"""How much memory this process holds and may still take: the machine's, bounded by the container's limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")
_UNLIMITED: Final = 1 << 60
"""Control groups of version 1 write a number beyond this where there is no limit."""


def available_memory(cgroup: Path = _CGROUP, proc: Path = _PROC) -> int | None:
    """Bytes that one process may hold here, this one's own included; None where the system does not tell.

    Args:
        cgroup: where the control groups are mounted.
        proc: where the kernel tells of processes and memory.
    """
    free = _machine(proc)
    limits = [_number(cgroup / "memory.max"), _number(cgroup / "memory" / "memory.limit_in_bytes")]
    known = [limit for limit in (free, *limits) if limit is not None and limit < _UNLIMITED]
    return min(known, default=None)


def resident_memory(proc: Path = _PROC) -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        pages = int((proc / "self" / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine(proc: Path) -> int | None:
    """What the kernel could give without swapping, and what this process has already."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        [kibibytes] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        return None
    return int(kibibytes) * 1_024 + resident_memory(proc)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" where there is no limit
        return None

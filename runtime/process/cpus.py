"""How many CPUs this process may use; sets the numeric libraries' thread counts before they are imported.

In a container the machine's CPU count is misleading: a library that starts 64 threads under a quota of 2 CPUs is
throttled most of the time. And OpenMP's threads wait for each other in a busy loop, for milliseconds, unless they are
told not to: where another process wants the same CPU, such a thread keeps it from the very thread that it waits for.
One busy neighbour on two CPUs made a small batch take twenty times as long; sleeping costs some microseconds each time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, MutableMapping
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_WAITING: Final = "OMP_WAIT_POLICY"
_READ_AT_IMPORT: Final = ("torch", "faiss", "numba")


def available_cpus(cgroup: Path = _CGROUP) -> float:
    """CPUs that this process may use: its affinity, bounded by the container's quota (cgroup v2 or v1).

    Args:
        cgroup: where the control groups are mounted.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return min(float(allowed), quota) if quota else float(allowed)


def set_thread_counts(
    threads: int | None = None,
    environ: MutableMapping[str, str] = os.environ,
    imported: Collection[str] = sys.modules.keys(),
) -> int:
    """Sets the thread counts of OpenMP, BLAS and numba, and how OpenMP's threads wait for each other; returns the count
    for torch's own setting.

    Variables that the user has set stay as they are.

    Args:
        threads: how many; None: as many as CPUs are available, at least one.
        environ: where to set them.
        imported: names of the modules imported so far.

    Raises:
        RuntimeError: if a library that reads them at import is imported already: a mistake in our own start-up order.
    """
    too_early = sorted(set(_READ_AT_IMPORT) & set(imported))
    if too_early:
        raise RuntimeError(f"thread counts must be set before {', '.join(too_early)} is imported")
    count = threads if threads is not None else max(1, int(available_cpus()))
    for variable in _VARIABLES:
        environ.setdefault(variable, str(count))
    environ.setdefault(_WAITING, "passive")
    return count


def _quota_v2(cgroup: Path) -> float | None:
    words = _words(cgroup / "cpu.max")
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(cgroup: Path) -> float | None:
    quota, period = _words(cgroup / "cpu" / "cpu.cfs_quota_us"), _words(cgroup / "cpu" / "cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []

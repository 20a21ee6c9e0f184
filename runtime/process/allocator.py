"""Makes glibc keep the memory that tensors free instead of returning it to the kernel.

A pass through a model allocates and frees the same few megabytes over and over. By default glibc returns blocks of
that size to the kernel, which zeroes every page when they are allocated again: up to a third of a small model's time.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1 << 28
"""Freed memory at the heap's end that is kept, and the size from which a block is mapped on its own."""


def keep_freed_memory() -> bool:
    """Sets glibc's limits for this process; returns whether it could. Other C libraries are left alone."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES))


def return_freed_memory() -> bool:
    """Gives the kernel what is free at this moment; returns whether there was any.

    For after large things were freed for good, such as weights that now lie in another layout.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))

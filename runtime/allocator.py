"""Lets glibc keep the memory that tensors free, instead of returning it to the kernel only to ask for it again.

A pass through a model allocates and frees the same few megabytes over and over. By default glibc hands blocks of that
size back each time, and the kernel clears every page anew: up to a third of the time of small models.
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
    """Sets glibc's limits for this process; tells whether it could. Other C libraries stay as they are."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES))

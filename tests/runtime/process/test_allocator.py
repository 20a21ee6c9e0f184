"""glibc's limits."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FREED_TWICE = """
import ctypes, resource, sys
from runtime.process.allocator import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [libc.malloc(2 << 20) for _ in range(10)]
    for block in blocks:
        ctypes.memset(block, 1, 2 << 20)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_is_freed_and_wanted_again_is_not_fetched_from_the_kernel_again():
    """The same blocks 20 times over: their pages are faulted in once instead of each time."""
    faults = {
        way: int(subprocess.run([sys.executable, "-c", FREED_TWICE, way], check=True, capture_output=True).stdout)
        for way in ("keep", "default")
    }
    assert faults["keep"] * 3 < faults["default"]


RETURNED = """
import ctypes
from runtime.process.allocator import keep_freed_memory, return_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1])
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
keep_freed_memory()
blocks = [libc.malloc(2 << 20) for _ in range(50)]
for block in blocks:
    ctypes.memset(block, 1, 2 << 20)
for block in blocks[:-1]:  # the last one stays: what is free lies in the middle
    libc.free(block)
kept = resident()
assert return_freed_memory()
print(kept, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_returned_when_asked():
    """A hundred megabytes that are kept by default go back to the kernel."""
    told = subprocess.run([sys.executable, "-c", RETURNED], check=True, capture_output=True, text=True).stdout
    kept, left = map(int, told.split())
    assert left < kept - 20_000  # pages of 4 KB: more than 80 MB

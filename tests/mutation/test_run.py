"""The mutation run's own parts: its list of modules, and the form in which mutmut gets them."""

from __future__ import annotations

import runpy
from pathlib import Path

RUN = runpy.run_path(str(Path(__file__).with_name("run.py")))

SOURCE = """
from numba import njit

@njit(cache=True, nogil=True)
def double(x):
    return 2 * x

class Box:
    def __init__(self, content):
        self.content = content

    @property
    def inside(self):
        return self.content

    @classmethod
    def empty(cls):
        return cls(0)
"""


def test_every_listed_path_exists():
    """What `make mutants` lists is there: whoever moves a module or its tests changes the list too."""
    assert RUN["listed_modules"]()


def test_no_decorator_stands_before_a_function_that_mutmut_would_leave_alone():
    """Kernels become plain Python; other decorators stay in effect, as assignments behind their functions."""
    changed = RUN["without_decorators"](SOURCE)
    names = {}
    exec(changed, names)

    assert "@njit" not in changed
    assert "@property" not in changed
    assert names["double"](3) == 6
    assert names["Box"](5).inside == 5
    assert names["Box"].empty().inside == 0


def test_a_known_equivalent_is_recognised_by_its_changed_line():
    """A mutant of equivalent.toml does not count as a survivor; the same change elsewhere does."""
    diff = (
        "--- a\n+++ a\n@@ -1 +1 @@\n def f():\n-    self._finished[offset] = False\n+    self._finished[offset] = None"
    )

    assert RUN["is_equivalent"]("runtime/offsets.py", diff)
    assert not RUN["is_equivalent"]("worker/budget.py", diff)
    assert RUN["is_equivalent"]("worker/budget.py", "-\n+\n@\n-zip(a, b, strict=True)\n+zip(a, b, )")

"""A pytest plugin for mutation runs: quick and repeatable property tests, numba's kernels as plain Python."""

from __future__ import annotations

import os

from hypothesis import Phase, settings

MOST_EXAMPLES = int(os.environ.get("MUTANTS_EXAMPLES", "30"))
"""Property tests draw at most this many: a mutant that survives pays for all of them."""

settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=MOST_EXAMPLES,
    phases=(Phase.explicit, Phase.generate),  # a mutant is killed by any failure: no need to shrink it
    print_blob=False,
)
settings.load_profile("mutants")

if os.environ.get("NUMBA_DISABLE_JIT") == "1":
    from numba.core.extending import _Intrinsic

    _Intrinsic.__call__ = lambda *_: None  # `prefetch` is only a hint to the processor and has no Python form


def pytest_collection_modifyitems(items):
    """Caps the examples of tests that ask for a number of their own."""
    for item in items:
        test = getattr(item, "obj", None)
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if own is not None and own.max_examples > MOST_EXAMPLES:
            test._hypothesis_internal_use_settings = settings(own, max_examples=MOST_EXAMPLES)

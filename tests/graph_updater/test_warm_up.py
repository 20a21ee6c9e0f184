"""Compilation before the first record."""

from __future__ import annotations

from graph_updater import adjacency, histories, push
from graph_updater.warm_up import warm_up


def test_every_kernel_is_compiled_by_the_warm_up():
    """No kernel that Python calls is left to be compiled while records wait."""
    warm_up()
    kernels = (
        adjacency.apply_ops,
        push.apply_changes,
        push.look_and_push,
        push.embed,
        push.resum,
        push.recompute,
        histories._record,
        histories._clear,
    )
    assert all(kernel.signatures for kernel in kernels)

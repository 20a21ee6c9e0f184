"""What a soak does when."""

from __future__ import annotations

import random

from benchmarks.soak import one_fault, shuffled
from benchmarks.soak_faults import FAULTS, LONG_FAULTS


def test_every_kind_of_fault_comes_once_before_any_comes_again():
    """The long ones only where they are asked for."""
    assert sorted(shuffled(random.Random(1), with_long=False)) == sorted(FAULTS)
    assert sorted(shuffled(random.Random(1), with_long=True)) == sorted([*FAULTS, *LONG_FAULTS])


async def test_every_kind_of_fault_can_be_put_in():
    """A fault that cannot be found would end the run; one that fails is only told."""
    for kind in shuffled(random.Random(1), with_long=True):
        fault = await one_fault(_NoGround(), kind)
        assert (fault.kind, fault.recovery_s) == (kind, None)


class _NoGround:
    """A soak without an installation: every fault fails to reach it in time."""

    @property
    def ground(self):
        raise TimeoutError

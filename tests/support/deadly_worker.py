"""`python deadly_worker.py USER`: a worker whose process is killed whenever it builds a prompt for one user, as the
operating system does to one that runs out of memory.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from models.prompt import PromptBuilder

_USER = sys.argv.pop(1)
_build = PromptBuilder.build


def _deadly(builder, evidence):
    if evidence.user.user_id == _USER:
        os.kill(os.getpid(), signal.SIGKILL)
    return _build(builder, evidence)


PromptBuilder.build = _deadly
runpy.run_module("worker", run_name="__main__")

"""`python -m worker [CONFIG]` is `exitstream worker --config CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

from runtime.errors import ExitstreamError
from runtime.process.ending import ending_before_its_threads
from worker.app import run
from worker.settings import load

with ending_before_its_threads():
    try:
        run(load(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
    except ExitstreamError as error:
        sys.exit(f"exitstream: {error}")

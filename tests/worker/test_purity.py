"""What decides is free of what executes."""

import subprocess
import sys

PURE = (
    "budget.admission",
    "budget.controller",
    "engine.cost",
    "engine.part",
    "engine.queue",
    "engine.scheduler",
    "engine.scoring_job",
)


def test_deciding_needs_no_torch():
    """Queue, scheduler, cost table, controller and admission are imported without torch."""
    imports = "; ".join(f"import worker.{name}" for name in (*PURE,)) + "; import models.calibration"
    program = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

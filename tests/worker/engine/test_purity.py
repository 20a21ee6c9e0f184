"""What decides is free of what executes."""

import subprocess
import sys

PURE = ("scheduler", "cost", "exits", "records", "request")


def test_deciding_needs_no_torch():
    """Scheduler, cost table, exit rule and the records around them are imported without torch."""
    imports = "; ".join(f"import worker.engine.{name}" for name in (*PURE,)) + "; import models.calibration"
    program = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

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


SLOW_TO_IMPORT = (
    *("transformers", "torch._dynamo", "torch._inductor", "sympy", "scipy", "sklearn", "numba", "pandas", "pyarrow"),
    *("torch_geometric", "onnxruntime", "opentelemetry", "matplotlib"),
)
STARTED = """
import sys
from pathlib import Path
import worker.app, worker.service
from models.bundle import Bundle
from models.golden_check import check_golden
from worker.engine.engine import ScoringEngine
from worker.engine.settings import EngineSettings
bundle = Bundle.load(Path(sys.argv[1]))
check_golden(bundle)
settings = EngineSettings(max_batch_tokens=256, warm_up_rounds=1)
ScoringEngine(bundle.model, bundle.calibration, settings, owns_model=True).warm_up()
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def test_a_start_imports_what_serving_needs_and_nothing_else(tiny_bundle_folder):
    """Libraries of training, and torch's compiler, would cost seconds and 80 MB and more. They come in unseen: random
    numbers for a tensor without memory were enough to import the compiler.
    """
    command = [sys.executable, "-c", STARTED, str(tiny_bundle_folder), *SLOW_TO_IMPORT]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout.split() == []

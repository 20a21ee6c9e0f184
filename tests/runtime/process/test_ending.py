"""A program ends in order, and with its own status, although threads of it are still inside torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime.process.ending import INTERRUPTED

PROGRAM = """
import asyncio, atexit, sys
import torch
from runtime.process.daemon_thread import in_daemon_thread
from runtime.process.ending import ending_before_its_threads

def work():
    matrix = torch.zeros(300, 300)
    while not {work_ends}:
        matrix = torch.tanh(matrix @ matrix)

async def main():
    working = asyncio.create_task(in_daemon_thread(work, "busy"))
    await asyncio.sleep(0.3)
    working.cancel()

atexit.register(print, "exit functions ran")
with ending_before_its_threads():
    asyncio.run(main())
    print("done")
    {end}
"""


def ended(end: str, *, work_ends: bool) -> subprocess.CompletedProcess[str]:
    """What comes of a program with this last line."""
    program = PROGRAM.format(end=end, work_ends=work_ends)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def as_shells_tell(returncode: int) -> int:
    """A process that ended by a signal has 128 and its number."""
    return 128 - returncode if returncode < 0 else returncode


@pytest.mark.parametrize("work_ends", [False, True], ids=["a thread in torch", "no thread"])
@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('one line')", 1, "one line\n"),
        ("raise KeyError('key')", 1, "KeyError: 'key'\n"),
        ("raise KeyboardInterrupt", INTERRUPTED, "KeyboardInterrupt\n"),
    ],
    ids=["its end", "no status", "a status", "an error", "a fault", "Ctrl-C"],
)
def test_the_status_is_the_programs_own(work_ends, end, status, told):
    """As is what it printed, and what it had asked to be done at its end is done, whatever its threads do."""
    program = ended(end, work_ends=work_ends)
    assert as_shells_tell(program.returncode) == status
    assert program.stdout == "done\nexit functions ran\n"
    assert program.stderr.endswith(told)
    assert bool(told) == bool(program.stderr)


def test_an_end_that_cannot_tell_its_last_words_still_has_its_status():
    """Whoever read what it writes may be gone by then."""
    assert ended("sys.stderr.close(); sys.exit('one line')", work_ends=False).returncode == 1


ENTRY = """
import asyncio, runpy, sys
import torch
from runtime.process.daemon_thread import in_daemon_thread

def work():
    matrix = torch.zeros(300, 300)
    while True:
        matrix = torch.tanh(matrix @ matrix)

async def main():
    working = asyncio.create_task(in_daemon_thread(work, "busy"))
    await asyncio.sleep(0.3)
    working.cancel()

def program(*_):
    asyncio.run(main())

{replaced}
sys.argv = ["program"]
runpy.run_module("{module}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "replaced"),
    [
        ("worker", "import worker.app, worker.settings; worker.app.run, worker.settings.load = program, print"),
        (
            "graph_updater",
            "from graph_updater import app, settings; app.run, settings.load = program, print",
        ),
        ("cli", "import cli.main; cli.main.app = program"),
    ],
)
def test_every_program_ends_before_its_threads(module, replaced):
    """Whichever way it is started."""
    program = ENTRY.format(module=module, replaced=replaced)
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0

"""Child processes: started with the commands of production, watched, and always stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runtime.errors import ExitstreamError

STOP_PATIENCE_S: Final = 15.0
"""How long a process may drain before it is killed."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessFailed(ExitstreamError):
    """A child process ended or did not become ready. The message names its log."""


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Program:
    """One `exitstream` subcommand to run as a child process.

    Attributes:
        name: used in messages and for the log file.
        arguments: of the `exitstream` command.
        environment: settings of this program alone.
        cpus: the processors it may run on; None for all.
        http_port: where it serves /readyz and /metrics.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: Collection[int] | None = None
    http_port: int = field(default_factory=free_port)


class Processes:
    """Starts programs and stops all of them on exit; on Linux they also end if this process is killed.

    Args:
        environment: added to this process's environment for every child.
        log_folder: each child's output goes to `<name>.log` there.
    """

    def __init__(self, environment: Mapping[str, str], log_folder: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._log_folder = log_folder
        self._running: dict[str, tuple[Program, subprocess.Popen[bytes]]] = {}
        self._started: set[str] = set()
        self._starting = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._starting:  # a thread may be starting one, on behalf of a task that was cancelled
            self._closed = True
        self.stop()

    def start(self, program: Program) -> None:
        """Run the program in the background, its output in its log; started again, it goes on in the same log.

        Raises:
            ProcessFailed: the block has ended.
        """
        with self._starting:
            if self._closed:
                raise ProcessFailed(f"{program.name} is not started: all programs have been stopped")
            self._running[program.name] = (program, self._spawn(program))
            self._started.add(program.name)

    def wait_ready(self, patience_s: float) -> None:
        """Return when every program's /readyz answers 200.

        Raises:
            ProcessFailed: a program ended, or was not ready in time.
        """
        give_up = time.monotonic() + patience_s
        for program, _ in list(self._running.values()):
            while not self._is_ready(program):
                self.check()
                if program.name not in self._running:
                    raise ProcessFailed(f"{program.name} was stopped before it was ready")
                if time.monotonic() > give_up:
                    raise ProcessFailed(
                        f"{program.name} is not ready after {patience_s:.0f} s; see {self._log(program.name)}"
                    )
                time.sleep(0.1)

    def check(self) -> None:
        """Raise ProcessFailed if any program has ended."""
        for ended in self.ended().values():
            raise ProcessFailed(ended)

    def ended(self) -> dict[str, str]:
        """The programs that ended without having been asked to: with which status, and the last line of the log."""
        return {
            name: f"{name} ended with status {process.returncode}: {self._last_line(name)} (log: {self._log(name)})"
            for name, (_, process) in list(self._running.items())  # another thread may be starting or ending one
            if process.poll() is not None
        }

    def is_running(self, name: str) -> bool:
        """Whether a program has been started and has not been ended by this object."""
        return name in self._running

    def is_ready(self, name: str) -> bool:
        """Whether a program runs and its /readyz answers 200."""
        return name in self._running and self._is_ready(self._running[name][0])

    def send(self, name: str, signal_number: signal.Signals) -> None:
        """Send a signal to a program, such as SIGSTOP or SIGCONT."""
        self._running[name][1].send_signal(signal_number)

    def kill(self, name: str) -> None:
        """End a program as a crash would, and forget it."""
        _, process = self._running.pop(name)
        process.kill()
        process.wait()

    def drain(self, name: str, patience_s: float = STOP_PATIENCE_S) -> int:
        """Ask a program to end in order and forget it; its exit status, -9 if it had to be killed."""
        _, process = self._running.pop(name)
        process.terminate()
        _wait_or_kill(process, patience_s)
        return int(process.returncode)

    def stop(self) -> None:
        """Ask all to drain, last started first; kill those that do not end in time."""
        processes = [process for _, process in reversed(self._running.values())]
        self._running.clear()
        for process in processes:
            process.send_signal(signal.SIGCONT)  # a frozen one would not hear the other signal
            process.terminate()
        for process in processes:
            _wait_or_kill(process)

    def pid(self, name: str) -> int:
        """A running program's process id."""
        return self._running[name][1].pid

    def address(self, name: str) -> str:
        """Where a program serves its status."""
        return f"http://127.0.0.1:{self._running[name][0].http_port}"

    def metrics(self, name: str) -> str:
        """The text of a program's /metrics page."""
        with urllib.request.urlopen(f"{self.address(name)}/metrics", timeout=5) as page:  # noqa: S310 - our own program
            return str(page.read().decode())

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **self._environment,
            **program.environment,
            "EXITSTREAM_TELEMETRY__HTTP_PORT": str(program.http_port),
        }
        with self._log(program.name).open("ab" if program.name in self._started else "wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "cli", *program.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C must reach only this process, which then stops the children in order.
                start_new_session=True,
                preexec_fn=lambda: _before_exec(program.cpus),  # noqa: PLW1509 - takes no lock that a thread could hold
            )

    def _log(self, name: str) -> Path:
        return self._log_folder / f"{name}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was logged"

    @staticmethod
    def _is_ready(program: Program) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{program.http_port}/readyz", timeout=2) as page:
                return bool(page.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _wait_or_kill(process: subprocess.Popen[bytes], patience_s: float = STOP_PATIENCE_S) -> None:
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _before_exec(cpus: Collection[int] | None) -> None:
    """In the child: have Linux end it when its parent ends for any reason, and pin it to its processors."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

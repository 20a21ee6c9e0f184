"""Progress of a long job: bars on a terminal, plain lines in a log file, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runtime.clock import Clock, SystemClock


class Advance(Protocol):
    """Called for each piece of work done."""

    def __call__(self, done: int = 1, note: str = "") -> None:
        """Count `done` more units; the note is shown beside the bar."""


class Reporter(Protocol):
    """Shows the steps of a job."""

    def step(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Start a step of `total` units (None: unknown); it ends with the context."""

    def say(self, line: str) -> None:
        """Print one line."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Count nothing."""
        del name, total
        yield _ignore

    def say(self, line: str) -> None:
        """Print nothing."""


def _ignore(done: int = 1, note: str = "") -> None:
    del done, note


LINE_INTERVAL_S: Final = 10.0
_TELLING_SHARE: Final = 0.02
"""Of a step: the first units of work are mostly slower than all others."""


class Lines:
    """A plain line at the start of each step, every ten seconds of it, and at its end: for log files, where bars show
    nothing until the end.

    Args:
        write: takes a line.
        clock: monotonic time.
    """

    def __init__(self, write: Callable[[str], object], clock: Clock | None = None) -> None:
        self._write = write
        self._clock = clock or SystemClock()

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Lines for this step."""
        began_s = logged_s = self._clock.monotonic()
        counted, latest = 0, ""
        self._write(f"{name}: {'started' if total is None else f'{total:,} to do'}")

        def advance(done: int = 1, note: str = "") -> None:
            nonlocal counted, latest, logged_s
            counted, latest = counted + done, note or latest
            now_s = self._clock.monotonic()
            if now_s - logged_s >= LINE_INTERVAL_S:
                logged_s = now_s
                self._write(f"{name}: {_progress(counted, total, now_s - began_s)}{f', {latest}' if latest else ''}")

        yield advance
        self._write(f"{name}: done in {self._clock.monotonic() - began_s:.0f} s{f', {latest}' if latest else ''}")

    def say(self, line: str) -> None:
        """Write the line."""
        self._write(line)


def _progress(done: int, total: int | None, elapsed_s: float) -> str:
    """How much is done, and how long the rest takes at the same speed, once enough is done to tell."""
    if not total or not done:
        return f"{done:,} done"
    if done < total * _TELLING_SHARE:
        return f"{done:,} of {total:,} ({done / total:.0%})"
    left_s = max(0.0, elapsed_s * (total - done) / done)
    return f"{done:,} of {total:,} ({done / total:.0%}), {left_s:.0f} s left"


def reporter_for(console: Console) -> Reporter:
    """Bars where the console is a terminal, lines elsewhere."""
    if console.is_terminal:
        return Bars(console)
    return Lines(lambda line: print(line, file=console.file, flush=True))


class Bars:
    """A progress bar per step, with the time it took. For terminals.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """A bar for this step; it stays when the step is done."""
        bar = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
        )
        with bar:
            task = bar.add_task(name, total=total, note="")

            def advance(done: int = 1, note: str = "") -> None:
                bar.advance(task, done)
                if note:
                    bar.update(task, note=note)

            yield advance
            bar.update(task, total=bar.tasks[task].completed)

    def say(self, line: str) -> None:
        """Print the line."""
        self._console.print(line)

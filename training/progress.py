"""Progress of a long job: bars on a terminal, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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


class Bars:
    """A progress bar per step, with the time it took; a plain line per step where the output is no terminal.

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

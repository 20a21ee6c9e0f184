"""The generated pages and where they are kept."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.reference import commands, messages, metrics


def pages(app: typer.Typer) -> dict[str, str]:
    """Every page by its file name.

    Args:
        app: the command line.
    """
    return {"metrics.md": metrics.page(), "messages.md": messages.page(), "commands.md": commands.page(app)}


def write(app: typer.Typer, folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages(app).items():
        (folder / name).write_text(page, encoding="utf-8")

"""The reference of commands, from the definitions of the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_HEAD = """# Commands

What `exitstream` can do. `--config FILE`, or `EXITSTREAM_CONFIG`, names a file of [settings](../settings.md); variables
override it. A mistake ends in one line on standard error and status 1.

`exitstream reference` writes this page.
"""


def page(app: typer.Typer) -> str:
    """The page in Markdown, of a whole command line."""
    return _HEAD + "".join(
        _section(name, command) for name, command in _commands("exitstream", typer.main.get_command(app))
    )


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's own kinds of commands
    """All commands that do something, with their full names, in the order of their definition."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for part, found in inner.items():
        yield from _commands(f"{name} {part}", found)


def _section(name: str, command: Any) -> str:  # noqa: ANN401
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    arguments = "".join(
        f" {_metavar(parameter)}" for parameter in parameters if parameter.param_type_name == "argument"
    )
    options = " [OPTIONS]" if any(parameter.param_type_name == "option" for parameter in parameters) else ""
    rows = "".join(f"| `{_names(parameter)}` | {_help(parameter)} |\n" for parameter in parameters)
    table = f"\n| argument or option | |\n| --- | --- |\n{rows}" if rows else ""
    return f"\n## `{name}`\n\n{_text(command.help)}\n\n```\n{name}{arguments}{options}\n```\n{table}"


def _names(parameter: Any) -> str:  # noqa: ANN401
    if parameter.param_type_name == "argument":
        return _metavar(parameter)
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {parameter.opts[0].lstrip('-').upper()}")


def _metavar(parameter: Any) -> str:  # noqa: ANN401
    name = str(parameter.name).upper() + ("..." if parameter.nargs < 0 else "")
    return name if parameter.required else f"[{name}]"


def _help(parameter: Any) -> str:  # noqa: ANN401
    told = _text(getattr(parameter, "help", None)).replace("|", "\\|")
    default = parameter.default
    if parameter.required:
        return f"{told} Required.".strip()
    if default is None or isinstance(default, bool | list | tuple):
        return told
    return f"{told} Default: `{default}`.".strip()


def _text(text: str | None) -> str:
    """A help text with its paragraphs, each in one line."""
    paragraphs = (text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

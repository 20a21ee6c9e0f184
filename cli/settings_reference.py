"""The reference of all settings, generated from their definitions."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from graph_updater.settings import UpdaterSettings
from runtime.settings import ProgramSettings
from runtime.settings_sources import variable_of
from worker.settings import WorkerSettings

HEAD = """# Settings

Settings come from a TOML file (`--config FILE` or `EXITSTREAM_CONFIG`); environment variables override it.
`kafka.bootstrap_servers` is `[kafka] bootstrap_servers` in the file and `EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS` in the
environment, where lists and tables are written as JSON. One file may hold the sections of all programs. Unknown keys
are errors.

`exitstream settings` prints this page.
"""
PROGRAMS: dict[str, type[ProgramSettings]] = {"updater": UpdaterSettings, "worker": WorkerSettings}


def reference() -> str:
    """The page in Markdown."""
    sections: dict[str, type[BaseModel]] = {}
    for program in PROGRAMS.values():
        sections |= dict(_sections(program, ()))
    return (
        HEAD
        + "".join(_section_table(name, section) for name, section in sections.items())
        + _former_names()
        + _removed()
    )


def _former_names() -> str:
    """The renamed keys, which one release still accepts under their old names."""
    renamed = {old: new for program in PROGRAMS.values() for old, new in program.renamed.items()}
    if not renamed:
        return ""
    rows = "".join(f"| `{old}` | `{new}` |\n" for old, new in sorted(renamed.items()))
    return (
        "\n## Former names\n\nThis release still accepts these, in the file and in the environment, with a warning.\n\n"
        f"| former name | now |\n| --- | --- |\n{rows}"
    )


def _removed() -> str:
    """The keys that are settings no longer."""
    removed = {key: reason for program in PROGRAMS.values() for key, reason in program.removed.items()}
    if not removed:
        return ""
    rows = "".join(f"| `{key}` | {reason} |\n" for key, reason in sorted(removed.items()))
    return f"\n## No settings any more\n\nThese are errors.\n\n| key | instead |\n| --- | --- |\n{rows}"


def _sections(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, type[BaseModel]]]:
    if path:
        yield ".".join(path), model
    for name, field in model.model_fields.items():
        if _is_section(field):
            yield from _sections(field.annotation, (*path, name))  # type: ignore[arg-type] # a section is a model


def _section_table(name: str, section: type[BaseModel]) -> str:
    top = name.split(".", maxsplit=1)[0]
    users = [program for program, settings in PROGRAMS.items() if top in settings.model_fields]
    rows = [_row(name, key, field) for key, field in section.model_fields.items() if not _is_section(field)]
    about = (section.__doc__ or "").strip().split("\n")[0]
    return (
        f"\n## `[{name}]`\n\n{about} Read by: {', '.join(users)}.\n\n"
        f"| key | default | allowed | meaning | in the environment |\n| --- | --- | --- | --- | --- |\n{''.join(rows)}"
    )


def _row(section: str, key: str, field: FieldInfo) -> str:
    variable = variable_of(f"{section}.{key}")
    cells = (f"`{key}`", _default(field), _allowed(field), field.description or "", f"`{variable}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, frozenset):
        return "`" + ", ".join(sorted(map(str, default))) + "`"
    if isinstance(default, Enum):
        return f"`{default.value}`"
    return f"`{default}`"


def _allowed(field: FieldInfo) -> str:
    """The type in words, and its bounds."""
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_type_in_words(field.annotation), *bounds])


def _type_in_words(annotation: Any) -> str:  # noqa: ANN401 - any annotation
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type_in_words(part) for part in get_args(annotation))
    if get_origin(annotation) is frozenset:
        return "list of " + _type_in_words(get_args(annotation)[0])
    words: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true, false"}
    words |= {Path: "path", SecretStr: "secret", type(None): "none"}
    return words.get(annotation, str(annotation))


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)

"""Reads settings: one TOML file, then the environment over it. Every mistake becomes one line that names the key.

pydantic ignores unknown names in the environment, which hides typing errors for ever: here each one is an error that
proposes the closest valid key.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from runtime.errors import SettingsError
from runtime.settings import ProgramSettings

ENV_PREFIX: Final = "EXITSTREAM_"
CONFIG_VARIABLE: Final = "EXITSTREAM_CONFIG"
DELIMITER: Final = "__"
PROGRAM_SECTIONS: Final = frozenset({"kafka", "topics", "telemetry", "worker", "updater"})
"""Sections that one shared file may hold; those that the loading program does not have are another program's."""

S = TypeVar("S", bound=ProgramSettings)
Tree = dict[str, Any]


def load_settings(
    cls: type[S], toml_path: Path | None = None, environ: Mapping[str, str] = os.environ, overrides: Tree | None = None
) -> S:
    """The settings of a program: defaults, under the file, under the environment, under the overrides.

    Args:
        cls: the program's settings.
        toml_path: the file; None takes the one that EXITSTREAM_CONFIG names, or none.
        environ: the environment.
        overrides: what the command line says, as a tree of sections.

    Raises:
        SettingsError: on anything unknown, malformed or contradictory.
    """
    path = toml_path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    from_file = _own_sections(cls, _read_toml(path)) if path else {}
    from_environment = _read_environment(cls, environ)
    for key in _unknown_keys(cls, from_file):
        raise SettingsError(f"unknown key {key} in {path}{_closest(key, cls)}")
    tree = _merged(_merged(from_file, from_environment), overrides or {})
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_in_words(error, from_environment, path)) from error


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error


def _own_sections(cls: type[ProgramSettings], tree: Tree) -> Tree:
    foreign = PROGRAM_SECTIONS - set(cls.model_fields)
    return {section: value for section, value in tree.items() if section not in foreign}


def _read_environment(cls: type[ProgramSettings], environ: Mapping[str, str]) -> Tree:
    """The tree that the environment spells. Raises SettingsError for a name that leads nowhere."""
    tree: Tree = {}
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_VARIABLE:
            continue
        path = name.removeprefix(ENV_PREFIX).lower().split(DELIMITER)
        if path[0] in PROGRAM_SECTIONS - set(cls.model_fields):
            continue
        field = _field_at(cls, path)
        if field is None:
            raise SettingsError(f"unknown variable {name} in the environment{_closest('.'.join(path), cls, env=True)}")
        _put(tree, path, _from_text(field, text, name))
    return tree


def _field_at(cls: type[BaseModel], path: list[str]) -> FieldInfo | None:
    """The field that a path leads to, or None. A table of free keys ends a path: it comes whole, as JSON."""
    field = cls.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field
    inner = _model_of(field)
    return _field_at(inner, path[1:]) if inner else None


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _from_text(field: FieldInfo, text: str, name: str) -> object:
    """Text as it stands for plain fields; JSON for lists, tables and sections; empty for None where that is allowed."""
    kinds = {_origin(kind) for kind in (field.annotation, *get_args(field.annotation))}
    if text == "" and type(None) in kinds:
        return None
    structured = _model_of(field) or kinds & {list, tuple, set, frozenset, dict}
    if not structured:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{name} in the environment must be JSON: {error}") from error


def _origin(kind: object) -> object:
    return getattr(kind, "__origin__", kind)


def _put(tree: Tree, path: list[str], value: object) -> None:
    *sections, key = path
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[key] = _merged(value, tree[key]) if isinstance(value, dict) and isinstance(tree.get(key), dict) else value


def _unknown_keys(cls: type[BaseModel], tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        field = cls.model_fields.get(key)
        if field is None:
            yield prefix + key
        elif isinstance(value, dict) and (inner := _model_of(field)):
            yield from _unknown_keys(inner, value, f"{prefix}{key}.")


def _closest(key: str, cls: type[BaseModel], *, env: bool = False) -> str:
    close = difflib.get_close_matches(key, list(_all_keys(cls)), n=1, cutoff=0.5)
    if not close:
        return f"; known sections are {', '.join(cls.model_fields)}"
    name = ENV_PREFIX + close[0].upper().replace(".", DELIMITER) if env else close[0]
    return f"; did you mean {name}?"


def _all_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in cls.model_fields.items():
        inner = _model_of(field)
        if inner:
            yield from _all_keys(inner, f"{prefix}{key}.")
        else:
            yield prefix + key


def _merged(below: Tree, above: Tree) -> Tree:
    """Both trees, the second winning key by key."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def _in_words(error: ValidationError, from_environment: Tree, path: Path | None) -> str:
    """One line for all findings: key, where it came from, what is wrong. Never a value: it might be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, finding['loc']))}{_came_from(finding['loc'], from_environment, path)}: "
        f"{finding['msg'].removeprefix('Value error, ')}"
        for finding in error.errors(include_url=False, include_input=False)
    )


def _came_from(location: tuple[int | str, ...], from_environment: Tree, path: Path | None) -> str:
    branch: object = from_environment
    for step in location:
        branch = branch.get(step) if isinstance(branch, dict) else None
    if branch is not None and not isinstance(branch, dict):
        return f" (environment variable {ENV_PREFIX}{DELIMITER.join(map(str, location)).upper()})"
    return f" ({path})" if path else ""

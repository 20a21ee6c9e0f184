"""Reads settings: one TOML file, then the environment over it. Every mistake becomes one line that names the key.

pydantic ignores unknown names in the environment, which hides typing errors for ever: here each one is an error that
proposes the closest valid key.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
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
    from_file = _with_new_names(cls, _own_sections(cls, _read_toml(path)), str(path)) if path else {}
    from_environment = _read_environment(cls, _with_new_variables(cls, environ))
    from_environment = _with_new_names(cls, from_environment, "the environment")
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


def _with_new_names(cls: type[ProgramSettings], tree: Tree, source: str) -> Tree:
    """The tree with renamed keys where they stand now. One that stands under both names is an error."""
    tree = _merged({}, tree)
    for old, new in cls.renamed.items():
        value = _take(tree, old.split("."))
        if value is None:
            continue
        if _at(tree, new.split(".")) is not None:
            raise SettingsError(f"{old} is the former name of {new}, and {source} has both: remove {old}")
        _warn_of_former_name(old, new, source)
        _put(tree, new.split("."), value)
    return tree


def _with_new_variables(cls: type[ProgramSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with renamed variables under their new names. One that is set under both is an error."""
    variables = dict(environ)
    for name in environ:
        for old, new in cls.renamed.items():
            former, current = _variable(old), _variable(new)
            if name.upper() != former and not name.upper().startswith(former + DELIMITER):
                continue
            renamed = current + name[len(former) :]
            if renamed in variables:
                raise SettingsError(f"{name} is the former name of {renamed}, and both are set: remove {name}")
            _warn_of_former_name(name, renamed, "the environment")
            variables[renamed] = variables.pop(name)
    return variables


def _warn_of_former_name(old: str, new: str, source: str) -> None:
    # Settings are read before structlog is configured; the standard library then warns on standard error.
    logging.getLogger(__name__).warning("%s in %s is now %s; the next release forgets the old name", old, source, new)


def _take(tree: Tree, path: list[str]) -> object:
    """Removes a value, and the sections that it leaves empty. None where there is none."""
    key, *rest = path
    if not rest:
        return tree.pop(key, None)
    inner = tree.get(key)
    if not isinstance(inner, dict):
        return None
    value = _take(inner, rest)
    if value is not None and not inner:
        del tree[key]
    return value


def _at(tree: object, path: Iterable[int | str]) -> object:
    """The value at a path, or None."""
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _variable(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", DELIMITER)


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
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # pydantic says that a section is needed there
        tree = inner
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
    name = _variable(close[0]) if env else close[0]
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
    both = {key: _merged({}, value) if isinstance(value, dict) else value for key, value in below.items()}
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
    value = _at(from_environment, location)
    if value is not None and not isinstance(value, dict):
        return f" (environment variable {_variable('.'.join(map(str, location)))})"
    return f" ({path})" if path else ""

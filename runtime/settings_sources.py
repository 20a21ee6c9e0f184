"""Reads settings: one TOML file, then the environment over it. Every mistake becomes one line that names the key.

pydantic-settings reads the environment. It ignores unknown names there, so a typing error would go unnoticed: here
each one is an error that proposes the closest valid key.
"""

from __future__ import annotations

import difflib
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from runtime.errors import SettingsError
from runtime.settings import ProgramSettings

ENV_PREFIX: Final = "EXITSTREAM_"
CONFIG_VARIABLE: Final = "EXITSTREAM_CONFIG"
DELIMITER: Final = "__"
_STRUCTURED: Final = frozenset({"list_type", "tuple_type", "set_type", "frozen_set_type", "dict_type", "model_type"})
"""pydantic's errors about text where a list, a table or a section belongs."""

S = TypeVar("S", bound=ProgramSettings)
Tree = dict[str, Any]
Location = Sequence[int | str]


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
    from_file = _with_new_names(cls, _read_toml(cls, path), str(path)) if path else {}
    variables = _with_new_variables(cls, _own_variables(cls, environ))
    from_environment = _with_new_names(cls, _Environment(cls, variables)(), "the environment")
    _check_sections(cls, variables)
    try:
        return cls.model_validate(_merged(_merged(from_file, from_environment), overrides or {}))
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False)
        sources = [(one, _variable_behind(one, from_environment, variables) or path) for one in findings]
        raise SettingsError("; ".join(_in_words(cls, one, source) for one, source in sources)) from error


def variable_of(key: str) -> str:
    """The environment variable of a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", DELIMITER)


class _Environment(EnvSettingsSource):
    """The tree that variables spell. Text as it stands for plain fields; JSON for lists, tables and sections; an empty
    text is None.
    """

    def __init__(self, cls: type[ProgramSettings], variables: Mapping[str, str]) -> None:
        # In this order a section's JSON comes before the variables of its keys, which win.
        self._variables = dict(sorted(variables.items()))
        super().__init__(
            cls,  # type: ignore[arg-type] # only its fields are looked at
            env_prefix=ENV_PREFIX,
            env_nested_delimiter=DELIMITER,
            env_parse_none_str="",
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(self._variables, parse_none_str="")

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 - the base's
        """Text that is no JSON stays text: the validation names its variable, which is unknown here."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _read_toml(cls: type[ProgramSettings], path: Path) -> Tree:
    """The file's tree without other programs' sections."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error
    return {section: value for section, value in tree.items() if section not in _foreign_sections(cls)}


def _own_variables(cls: type[ProgramSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings, without other programs' sections."""
    ours = {name: text for name, text in environ.items() if name.startswith(ENV_PREFIX) and name != CONFIG_VARIABLE}
    return {name: text for name, text in ours.items() if _path_of(name)[0] not in _foreign_sections(cls)}


def _foreign_sections(cls: type[ProgramSettings]) -> frozenset[str]:
    return cls.shared_sections - set(cls.model_fields)


def _path_of(variable: str) -> list[str]:
    return variable.removeprefix(ENV_PREFIX).lower().split(DELIMITER)


def _with_new_names(cls: type[ProgramSettings], tree: Tree, source: str) -> Tree:
    """The tree with renamed keys where they stand now. One that stands under both names is an error."""
    for old, new in cls.renamed.items():
        *sections, key = old.split(".")
        inner = _at(tree, sections)
        if not isinstance(inner, dict) or key not in inner:
            continue
        *new_sections, new_key = new.split(".")
        place = _at(tree, new_sections)
        if isinstance(place, dict) and new_key in place:
            raise SettingsError(f"{old} is the former name of {new}, and {source} has both: remove {old}")
        _warn_of_former_name(old, new, source)
        moved: Any = {new_key: inner[key]}
        for section in reversed(new_sections):
            moved = {section: moved}
        tree = _merged(moved, _without(tree, [*sections, key]))
    return tree


def _with_new_variables(cls: type[ProgramSettings], variables: Mapping[str, str]) -> dict[str, str]:
    """The variables with renamed ones under their new names. One that is set under both is an error."""
    result = dict(variables)
    for old, new in cls.renamed.items():
        for name in variables:
            former = variable_of(old)
            if name.upper() != former and not name.upper().startswith(former + DELIMITER):
                continue
            current = variable_of(new) + name[len(former) :]
            if current in variables:
                raise SettingsError(f"{name} is the former name of {current}, and both are set: remove {name}")
            _warn_of_former_name(name, current, "the environment")
            result[current] = result.pop(name)
    return result


def _warn_of_former_name(old: str, new: str, source: str) -> None:
    # Settings are read before structlog is configured; the standard library then warns on standard error.
    logging.getLogger(__name__).warning("%s in %s is now %s; the next release forgets the old name", old, source, new)


def _check_sections(cls: type[ProgramSettings], variables: Mapping[str, str]) -> None:
    """Raises SettingsError for a variable of no section: pydantic-settings would ignore it."""
    for name in variables:
        path = _path_of(name)
        if path[0] not in cls.model_fields:
            raise SettingsError(f"unknown variable {name} in the environment{_closest(cls, '.'.join(path), env=True)}")


def _in_words(cls: type[ProgramSettings], finding: ErrorDetails, source: str | Path | None) -> str:
    """One line: key, where it came from, what is wrong. Never a value: it might be a secret."""
    key, in_environment = ".".join(map(str, finding["loc"])), isinstance(source, str)
    if finding["type"] == "extra_forbidden" and key in cls.removed:
        named = f"{source} in the environment" if in_environment else f"{key} in {source}"
        return f"{named} is no setting any more: {cls.removed[key]}"
    if finding["type"] == "extra_forbidden":
        if in_environment:
            return f"unknown variable {source} in the environment{_closest(cls, key, env=True)}"
        return f"unknown key {key} in {source}{_closest(cls, key)}"
    what = finding["msg"].removeprefix("Value error, ")
    if not in_environment:
        return f"{key} ({source}): {what}" if source else f"{key}: {what}"
    if finding["type"] in _STRUCTURED:
        what = "must be JSON in the environment"
    return f"{key} (environment variable {source}): {what}"


def _variable_behind(finding: ErrorDetails, from_environment: Tree, variables: Mapping[str, str]) -> str | None:
    """The variable that a wrong value came from, or None if it did not come from one alone."""
    branch: Any = from_environment
    for step in finding["loc"]:
        if not isinstance(branch, dict):
            break
        if step not in branch:
            return None
        branch = branch[step]
    if isinstance(branch, dict) and finding["type"] == "value_error":
        return None  # a contradiction within a section
    steps = [str(step) for step in finding["loc"]]
    fitting = [name for name in variables if steps[: len(_path_of(name))] == _path_of(name)[: len(steps)]]
    return max(fitting, key=len, default=None)


def _closest(cls: type[BaseModel], key: str, *, env: bool = False) -> str:
    close = difflib.get_close_matches(key, list(_all_keys(cls)), n=1, cutoff=0.5)
    if not close:
        return f"; known sections are {', '.join(cls.model_fields)}"
    return f"; did you mean {variable_of(close[0]) if env else close[0]}?"


def _all_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in cls.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        section = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if section:
            yield from _all_keys(section, f"{prefix}{key}.")
        else:
            yield prefix + key


def _at(tree: object, path: Location) -> object:
    """The value at a path, or None."""
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _without(tree: Tree, path: Sequence[str]) -> Tree:
    """The tree without the value at a path, and without the sections that this leaves empty."""
    key, *rest = path
    inner = _without(tree[key], rest) if rest else {}
    others = {name: value for name, value in tree.items() if name != key}
    return others | {key: inner} if inner else others


def _merged(below: Tree, above: Tree) -> Tree:
    """Both trees, the second winning key by key."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both

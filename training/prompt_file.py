"""The prompt that a user asks for: one of the built-in templates, or a file with texts and limits of their own."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from models.bundle_manifest import Limit
from models.prompt_limits import PromptLimits
from models.prompt_template import BUILT_IN, PromptTemplate
from runtime.errors import PromptTemplateError
from training.presets import Preset

_MOST_NAME_CHARACTERS: Final = 60
_BASE: Final = "words"
"""The template that a file changes if it names no other."""


def with_prompt(preset: Preset, named: str) -> Preset:
    """The preset with another prompt.

    Args:
        preset: hyperparameters.
        named: a built-in template, or a file in TOML or JSON. A file holds texts of a `PromptTemplate`; those that it
            leaves out are the ones of the built-in template `based_on`. Its table `limits` holds `PromptLimits`; those
            that it leaves out stay as the preset has them.

    Raises:
        PromptTemplateError: there is no such file, or something in it is unknown or malformed; it is named.
    """
    if named in BUILT_IN:
        return replace(preset, template=BUILT_IN[named])
    path = Path(named)
    try:
        content = _content(path)
        limits = content.pop("limits", {})
        return replace(
            preset,
            template=_template(content, path.stem[:_MOST_NAME_CHARACTERS]),
            limits=_limits(limits, preset.limits),
        )
    except PromptTemplateError as error:
        raise PromptTemplateError(f"--prompt {named}: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        known = ", ".join(BUILT_IN)
        raise PromptTemplateError(
            f"{error.strerror}; give one of {known}, or a file (.toml or .json) with texts of your own"
        ) from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise PromptTemplateError(f"it is no {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise PromptTemplateError("it is a list or a single value; names of texts and the texts are expected")
    return content


def _template(texts: dict[str, Any], name: str) -> PromptTemplate:
    base = texts.pop("based_on", _BASE)
    if not isinstance(base, str) or base not in BUILT_IN:
        raise PromptTemplateError(f"based_on {base!r} is unknown; there are {', '.join(BUILT_IN)}")
    _check_names("text", texts, PromptTemplate.__struct_fields__)
    try:
        return msgspec.convert(msgspec.to_builtins(BUILT_IN[base]) | {"name": name} | texts, PromptTemplate)
    except msgspec.ValidationError as error:
        raise PromptTemplateError(str(error)) from error


def _limits(changed: Any, limits: PromptLimits) -> PromptLimits:  # noqa: ANN401 - whatever stands in the file
    try:
        numbers = msgspec.convert(changed, dict[str, Limit])
    except msgspec.ValidationError as error:
        raise PromptTemplateError(f"limits: {error}") from error
    _check_names("limit", numbers, tuple(asdict(limits)))
    return replace(limits, **numbers)


def _check_names(kind: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise PromptTemplateError(f"there is no {kind} {unknown[0]!r}; there are {', '.join(known)}")

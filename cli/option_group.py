"""Groups of options that a command takes as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints

Command = Callable[..., None]
_UNKNOWN = {"PretrainedOptions": object, "PresetChanges": object}
"""Names in annotations of commands that are imported for type checking alone."""


def with_group(parameter: str, group: Callable[..., object]) -> Callable[[Command], Command]:
    """Decorates a command: it gets the options of `group` in place of its parameter, which takes what `group` returns.

    Args:
        parameter: name of the command's parameter.
        group: a function whose parameters are annotated as options of typer.
    """

    def decorate(command: Command) -> Command:
        names = list(inspect.signature(group).parameters)

        @wraps(command)
        def with_options(**values: Any) -> None:  # noqa: ANN401 - the values of any option
            command(**{parameter: group(**{name: values.pop(name) for name in names})}, **values)

        hints: dict[str, Any] = {}
        parameters: list[inspect.Parameter] = []
        for function in (command, group):
            known = get_type_hints(function, localns=_UNKNOWN, include_extras=True)
            for name, declared in inspect.signature(function).parameters.items():
                if name != parameter:
                    hints[name] = known[name]
                    kind = inspect.Parameter.KEYWORD_ONLY
                    parameters.append(declared.replace(annotation=known[name], kind=kind))
        with_options.__annotations__ = hints | {"return": None}
        with_options.__dict__["__signature__"] = inspect.Signature(parameters)
        del with_options.__wrapped__
        return with_options

    return decorate

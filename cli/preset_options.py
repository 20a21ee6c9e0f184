"""The options of `exitstream train` that change its preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.option_group import with_group

if TYPE_CHECKING:
    from training.presets import Preset

LEAST_HELD_OUT: Final = 20
"""So that either half, one to fit and one to test, is likely to have both outcomes."""


@dataclass(frozen=True, slots=True)
class PresetChanges:
    """What is asked for in place of a preset's own; None leaves that as it is.

    Attributes:
        most_examples: candidates to train on.
        examples_in_memory: of more candidates, examples are kept in files.
        prompt: a built-in template or a file.
        history_length: past interactions kept per user.
        most_held_out: candidates of the validation part.
        most_tested: events of the test part.
    """

    most_examples: int | None = None
    examples_in_memory: int | None = None
    prompt: str | None = None
    history_length: int | None = None
    most_held_out: int | None = None
    most_tested: int | None = None

    def of(self, preset: Preset) -> Preset:
        """The preset with these changes.

        Raises:
            PromptTemplateError: the prompt is unknown, or its file malformed.
        """
        from training.prompt_file import with_prompt  # noqa: PLC0415 - torch, only when the command runs

        names = "most_examples", "examples_in_memory", "most_held_out", "most_tested"
        changed: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        preset = replace(preset, **changed)
        preset = preset if self.prompt is None else with_prompt(preset, self.prompt)
        if self.history_length is None:
            return preset
        return replace(preset, limits=replace(preset.limits, history_length=self.history_length))


def preset_options(
    most_examples: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates to train on, the latest; default: 200,000, with --backbone 50,000."),
    ] = None,
    examples_in_memory: Annotated[
        int | None,
        typer.Option(min=0, help="Of more candidates, examples are kept in Parquet files in OUT; default: 500,000."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Words of the prompt: compact, terse, words, or a .toml or .json file. Default: compact, with "
            "--backbone words."
        ),
    ] = None,
    history_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4_096,
            help="Past interactions kept per user. The bundle tells it to updaters and workers. Default: 50; 200 if "
            "events have grades.",
        ),
    ] = None,
    most_held_out: Annotated[
        int | None,
        typer.Option(
            min=LEAST_HELD_OUT,
            help="Candidates of the validation part, the latest, for early stopping and calibration; default: 20,000. "
            "Of fewer than some 2,000 no early exit can be promised to keep the quality.",
        ),
    ] = None,
    most_tested: Annotated[
        int | None,
        typer.Option(min=1, help="Events of the last tenth, the latest, to evaluate on; default: 100,000."),
    ] = None,
) -> PresetChanges:
    """What was asked for."""
    return PresetChanges(most_examples, examples_in_memory, prompt, history_length, most_held_out, most_tested)


def with_preset_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `preset_options` in place of its parameter `changes`."""
    return with_group("changes", preset_options)(command)

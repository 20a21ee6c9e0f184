"""The options of `exitstream train` that change its preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.option_group import with_group

if TYPE_CHECKING:
    from training.presets import Preset


@dataclass(frozen=True, slots=True)
class PresetChanges:
    """What is asked for in place of a preset's own; None leaves that as it is.

    Attributes:
        most_examples: candidates to train on.
        examples_in_memory: of more candidates, examples are kept in files.
        prompt: a built-in template or a file.
        history_length: past interactions kept per user.
    """

    most_examples: int | None = None
    examples_in_memory: int | None = None
    prompt: str | None = None
    history_length: int | None = None

    def of(self, preset: Preset) -> Preset:
        """The preset with these changes.

        Raises:
            PromptTemplateError: the prompt is unknown, or its file malformed.
        """
        from training.prompt_file import with_prompt  # noqa: PLC0415 - torch, only when the command runs

        changed: dict[str, Any] = {"most_examples": self.most_examples, "examples_in_memory": self.examples_in_memory}
        preset = replace(preset, **{name: value for name, value in changed.items() if value is not None})
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
            help="Words of the prompt: terse, words, or a .toml or .json file. Default: terse; words with --backbone."
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
) -> PresetChanges:
    """What was asked for."""
    return PresetChanges(most_examples, examples_in_memory, prompt, history_length)


def with_preset_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `preset_options` in place of its parameter `changes`."""
    return with_group("changes", preset_options)(command)

"""The options of `exitstream train` for pre-trained weights, as a group of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.option_group import with_group
from runtime.errors import CheckpointError

if TYPE_CHECKING:
    from training.pretrained import PretrainedOptions


def pretrained_options(
    backbone: Annotated[
        str | None,
        typer.Option(help="Pre-trained weights: a Hugging Face folder or name, a .gguf file, or smollm2."),
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Decoder layers to keep, from the first.")] = None,
    exit_after: Annotated[
        str, typer.Option(help="Layers with an exit head, such as 4,8,12; default: four, evenly spaced.")
    ] = "",
    lora: Annotated[int, typer.Option(min=0, help="Rank of LoRA adapters; 0 trains all weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="Format to compute layers in: auto, float32 or bfloat16.")] = "auto",
    save_as: Annotated[
        str, typer.Option(help="Format of layers and words in the bundle: float32, or bfloat16 for half the size.")
    ] = "float32",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for activations, more time.")
    ] = False,
) -> PretrainedOptions | None:
    """What was asked for; None without a backbone.

    Raises:
        CheckpointError: `exit_after` is no list of numbers, or options are given without a backbone.
    """
    from training.pretrained import PretrainedOptions  # noqa: PLC0415 - torch, only when the command runs

    if backbone is None:
        if layers is not None or exit_after or checkpointing or save_as != "float32":
            raise CheckpointError(
                "--layers, --exit-after, --save-as and --checkpointing are for pre-trained weights: give --backbone"
            )
        return None
    try:
        exits = tuple(int(part) for part in exit_after.split(",") if part.strip())
    except ValueError as error:
        raise CheckpointError(f"--exit-after {exit_after} is no list of layers; give for example 4,8,12") from error
    return PretrainedOptions(backbone, layers, exits, lora, dtype, save_as, checkpointing)


def with_pretrained_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `pretrained_options` in place of its parameter `pretrained`."""
    return with_group("pretrained", pretrained_options)(command)

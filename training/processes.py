"""The processes of one training: a single one, or those that `accelerate launch` or `torchrun` started together.

Each has its own GPU, or all compute on CPUs. Every process holds the whole model and takes its share of each batch
(data-parallel training); Hugging Face accelerate averages the gradients.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import nn

from runtime.errors import CheckpointError, MissingDependency

_PATIENCE: Final = timedelta(days=7)
"""How long processes wait for each other: for hours while the main one makes the examples. A launcher ends all of them
when one fails, so nobody waits for a process that is gone."""

T = TypeVar("T")


class Processes:
    """This process among those of its training.

    Attributes:
        count: how many there are.
        rank: this one's number; 0 is the main process.
        device: what it computes on: its GPU, or the CPU where PyTorch has none.

    Raises:
        MissingDependency: the package accelerate is not installed.
    """

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator  # noqa: PLC0415 - an optional extra
            from accelerate.utils import (  # noqa: PLC0415 - an optional extra
                DistributedDataParallelKwargs,
                InitProcessGroupKwargs,
            )
        except ImportError as error:
            raise MissingDependency(
                "training from pre-trained weights takes the package accelerate: pip install 'exitstream[pretrained]'"
            ) from error
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # accelerate knows more kinds of devices than this code has seen
            mixed_precision="no",  # the model does itself what --dtype asks for
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                DistributedDataParallelKwargs(broadcast_buffers=False),  # they are constants, and the same everywhere
            ],
        )
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.device: torch.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model on this process's device, moved in place. With several processes they all have the main one's
        weights from here on, and a backward pass through what is returned averages gradients over them.
        """
        prepared: nn.Module = self._accelerator.prepare_model(model)
        return prepared

    def from_main(self, value: T | None) -> T:
        """What the main process gives; the others give None and wait for it."""
        from accelerate.utils import broadcast_object_list  # noqa: PLC0415 - as above

        values: list[Any] = [value]
        if self.count > 1:
            broadcast_object_list(values)
        told: T = values[0]
        return told

    def mean(self, value: torch.Tensor) -> float:
        """The mean of all processes' values."""
        return float(self._accelerator.reduce(value, reduction="mean"))

    def end(self) -> None:
        """Leave the others: there is nothing more to exchange."""
        self._accelerator.end_training()


def require_single_process() -> None:
    """Refuse what several processes would do several times over.

    Raises:
        CheckpointError: a launcher started several processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise CheckpointError(
            "several processes train together only from pre-trained weights; give --backbone, or start one process"
        )

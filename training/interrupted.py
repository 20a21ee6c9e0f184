"""The state of a training that can go on after it was killed: one file, replaced as a whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import CheckpointError
from training.replay import Example


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Where a training is. Its random numbers depend on the seed and the step alone, so there are none to keep.

    Args:
        step: number of steps done.
        weights: the parameters that train, by name.
        optimiser: state of the optimiser.
        best: the parameters after the best epoch; those of the beginning until one is better than the regression.
        epochs: the state of `BestEpoch`.
        finished: no further epoch will improve it.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    best: Mapping[str, Tensor]
    epochs: Mapping[str, float]
    finished: bool


class StateFile:
    """Keeps the state of one training in a folder.

    Args:
        folder: for this training; made when something is written.
        identity: what the training is of: options, data. A state of another identity is refused.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def write(self, state: TrainingState) -> None:
        """Replace the state, so that a crash at any moment leaves the old one or the new one.

        Raises:
            CheckpointError: it cannot be written.
        """
        unfinished = self._folder / "state.unfinished"
        content = {name: getattr(state, name) for name in TrainingState.__dataclass_fields__}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save({"identity": self._identity, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._folder / "state.pt")
        except OSError as error:
            raise CheckpointError(f"cannot keep the state of the training in {self._folder}: {error}") from error

    def read(self) -> TrainingState | None:
        """The state that was kept; None if there is none.

        Raises:
            CheckpointError: it is of other options, data or number of processes, or cannot be read.
        """
        path = self._folder / "state.pt"
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)  # numbers only: no code is run
            identity = content.pop("identity")
            state = TrainingState(**content)
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise CheckpointError(f"{path} cannot be read; delete {self._folder} to start anew") from error
        if identity != self._identity:
            raise CheckpointError(
                f"{path} is of a training with other options or data, or another number of processes; give those again "
                f"to continue it, or delete {self._folder} to start anew"
            )
        return state


def identity_of(options: object, examples: Iterable[Example]) -> str:
    """A hash of the options of a training, and of the words and labels of its examples.

    Embeddings are left out: they differ in the last bits between numbers of threads, and follow from the rest.
    """
    digest = hashlib.sha256(repr(options).encode())
    for example in examples:
        digest.update(example.labels.tobytes())
        for part in (example.prompt.prefix, *example.prompt.suffixes):
            digest.update(part.token_ids.tobytes())
            digest.update(part.added_ids.tobytes())
    return digest.hexdigest()

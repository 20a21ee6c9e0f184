"""Trains the heads from pre-trained weights, alone or as one of several processes.

The main process does everything that is not a step of this training: graph, examples, calibration, evaluation. They
take one core and much memory, and the clock and the number of threads touch their results; done once, they are the same
for all. The other processes read its examples from the Parquet files that it writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.bundle import TRAINING
from models.checkpoint import Checkpoint, open_checkpoint
from models.exit_model import ExitModel
from runtime.errors import CheckpointError
from training.examples import ExampleSets
from training.fine_tune import Job, fine_tune
from training.interrupted import StateFile, identity_of
from training.parquet_examples import parquet_in, read_examples
from training.presets import Preset
from training.pretrained import PretrainedModel, PretrainedOptions
from training.processes import Processes
from training.progress import Reporter, Silent
from training.replay import Example
from training.shards import Keep, ShardedExamples, in_memory


@dataclass(frozen=True, eq=False)
class Start:
    """Pre-trained weights and what to do with them.

    Args:
        checkpoint: the weights, opened.
        options: how to train from them.
        processes: that train together.
        compute_dtype: in which layers compute, on all of them.
    """

    checkpoint: Checkpoint
    options: PretrainedOptions
    processes: Processes
    compute_dtype: torch.dtype

    @classmethod
    def of(cls, options: PretrainedOptions, processes: Processes) -> Start:
        """Open the weights. Options that contradict each other are refused before anything long begins.

        Raises:
            CheckpointError: an option is wrong, or the weights cannot be used.
            MissingDependency: a package that they take is not installed.
        """
        own = options.compute_dtype(processes.device)
        compute_dtype = processes.from_main(own if processes.is_main else None)  # machines may differ
        checkpoint = open_checkpoint(options.where, options.layers, options.weights_dtype(compute_dtype))
        return cls(checkpoint, options, processes, compute_dtype)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the main process tells the others: how to train, and how long its examples are."""

    preset: Preset
    embedding_dim: int
    lengths: str


def keep_for(candidates: int, preset: Preset, out: Path, processes: int) -> Keep:
    """Where so many candidates to train on are kept: in memory, or in files where other processes read them too."""
    if processes == 1 and candidates <= preset.examples_in_memory:
        return in_memory
    return parquet_in(_examples_in(out))


def train_from(
    start: Start, examples: ExampleSets, embedding_dim: int, preset: Preset, out: Path, reporter: Reporter
) -> ExitModel:
    """The trained model; the state of an interrupted training is kept in the folder. For the main process.

    Raises:
        CheckpointError: the exits do not fit the layers, or the state is of another training.
        MissingDependency: LoRA without the package peft.
    """
    identity = identity_of((start.options, preset, start.processes.count), examples.train)
    start.processes.from_main(_Told(preset, embedding_dim, lengths_of(examples.train)))
    job = _job(start.options, preset, examples.train, examples.to_fit)
    return _fine_tuned(start, job, embedding_dim, StateFile(out / TRAINING, identity), reporter)


def assist(options: PretrainedOptions, out: Path, processes: Processes) -> None:
    """Take part in the training of the main process. For the others.

    Raises:
        CheckpointError: the weights cannot be used, or the main process's examples are not in the folder.
        MissingDependency: a package is not installed.
    """
    start = Start.of(options, processes)
    told: _Told = processes.from_main(None)
    job = _job(options, told.preset, shared_examples(out, told.lengths), ())
    _fine_tuned(start, job, told.embedding_dim, StateFile(out / TRAINING, ""), Silent())


def shared_examples(out: Path, lengths: str) -> ShardedExamples:
    """The examples that the main process has written.

    Args:
        out: the bundle's folder.
        lengths: of the main process's examples, as `lengths_of` tells them.

    Raises:
        CheckpointError: they are not there.
    """
    folder = _examples_in(out)
    if not folder.exists() or lengths_of(examples := read_examples(folder)) != lengths:
        raise CheckpointError(
            f"{folder} does not hold the training examples of the main process; "
            "--out must name a folder that all machines share"
        )
    return examples


def _job(options: PretrainedOptions, preset: Preset, train: ShardedExamples, validation: Sequence[Example]) -> Job:
    """The same for all processes, but that the main one alone has validation examples."""
    every_s = options.save_every_minutes * 60
    return Job(train, validation, preset.exits, preset.seed, every_s, options.step_candidates)


def _fine_tuned(start: Start, job: Job, embedding_dim: int, state_file: StateFile, reporter: Reporter) -> ExitModel:
    pretrained = PretrainedModel(start.checkpoint, start.options, embedding_dim, start.compute_dtype)
    model = fine_tune(pretrained, job, state_file, reporter, start.processes)
    start.processes.end()
    return model


def _examples_in(out: Path) -> Path:
    return out / TRAINING / "examples"


def lengths_of(examples: ShardedExamples) -> str:
    """A hash of the examples' lengths: enough to tell other examples from the right ones."""
    digest = hashlib.sha256()
    for shard in (*examples.tokens, *examples.candidates):
        digest.update(shard.tobytes())
    return digest.hexdigest()

"""Trains soft tokens, heads and (adapters of) pre-trained weights; says the cost first, and can be continued.

The order of the examples and every random number of a step depend on the seed and the number of the step alone. So a
training that was killed and continued does the same steps as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.metrics import log_loss
from models.checkpoint import Checkpoint, open_checkpoint
from models.exit_model import ExitModel
from models.prompt_batch import collate
from training.batches import batches
from training.examples import ExampleSets
from training.interrupted import StateFile, TrainingState, identity_of
from training.presets import Preset
from training.pretrained import PretrainedModel, PretrainedOptions
from training.progress import Reporter
from training.replay import Example
from training.train_exits import ExitOptions, fit_wide, joint_loss, predict, schedule, with_dropout


@dataclass(frozen=True, eq=False)
class Start:
    """Pre-trained weights and what to do with them.

    Args:
        checkpoint: the weights, opened.
        options: how to train from them.
    """

    checkpoint: Checkpoint
    options: PretrainedOptions

    @classmethod
    def of(cls, options: PretrainedOptions) -> Start:
        """Open the weights. Options that contradict each other are refused before anything long begins.

        Raises:
            CheckpointError: an option is wrong, or the weights cannot be used.
            MissingDependency: a package that they take is not installed.
        """
        return cls(open_checkpoint(options.where, options.layers, options.number_format()), options)


def train_from(
    start: Start, examples: ExampleSets, embedding_dim: int, preset: Preset, folder: Path, reporter: Reporter
) -> ExitModel:
    """The trained model; the state of an interrupted training is kept in the folder.

    Raises:
        CheckpointError: the exits do not fit the layers, or the state is of another training.
        MissingDependency: LoRA without the package peft.
    """
    options = start.options
    job = Job(examples.train, examples.to_fit, preset.exits, preset.seed, options.save_every_minutes * 60)
    identity = identity_of((options, preset), examples.train)
    pretrained = PretrainedModel(start.checkpoint, options, embedding_dim)
    return fine_tune(pretrained, job, StateFile(folder, identity), reporter)


@dataclass(frozen=True, slots=True)
class Job:
    """What to train on, and how.

    Args:
        train: examples to train on.
        validation: for early stopping.
        options: hyperparameters; sizes are not read.
        seed: of shuffling and dropout.
        save_every_s: seconds between two writings of the state.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    options: ExitOptions
    seed: int = 0
    save_every_s: float = 600.0

    def epoch(self, number: int) -> list[list[Example]]:
        """The batches of an epoch."""
        return list(batches(self.train, self.options.batch_tokens, np.random.default_rng([self.seed, number])))


def fine_tune(
    pretrained: PretrainedModel,
    job: Job,
    state_file: StateFile,
    reporter: Reporter,
    after_step: Callable[[int], None] = lambda _step: None,
) -> ExitModel:
    """The finished model after the epoch with the lowest validation loss; stops at the first without improvement.

    Args:
        pretrained: to train; changed in place.
        job: what to train on.
        state_file: a state in it is continued.
        reporter: is told the cost first.
        after_step: called with the number of steps done.

    Raises:
        CheckpointError: the kept state is of another training, or cannot be written.
    """
    fit_wide(pretrained.model, job.train)  # the same each time: a training that is continued begins with it as well
    run = _Run(pretrained, job)
    kept = state_file.read()
    if kept is not None:
        run.continue_from(kept)
        reporter.say(f"continuing an interrupted training after step {kept.step:,}")
    _say_cost(pretrained, job, reporter)
    epochs = [job.epoch(number) for number in range(job.options.epochs)]
    total, saved_s, start = sum(len(epoch) for epoch in epochs), time.monotonic(), 0
    with reporter.step("exit heads", job.options.epochs * sum(len(example) for example in job.train)) as advance:
        for epoch in epochs:
            done_before = max(0, run.step - start)
            advance(sum(len(example) for batch in epoch[:done_before] for example in batch))
            for batch in epoch[done_before:]:
                loss = run.train_on(batch, total)
                if time.monotonic() - saved_s >= job.save_every_s and run.step < start + len(epoch):
                    state_file.write(run.state())
                    saved_s = time.monotonic()
                after_step(run.step)
                advance(sum(len(example) for example in batch), f"loss {loss:.4f}")
            start += len(epoch)
            if done_before < len(epoch):
                run.validate()
                state_file.write(run.state())
            if run.finished and run.step <= start:
                break
    return run.best_model()


class _Run:
    """The model, its optimiser and its best epoch so far."""

    def __init__(self, pretrained: PretrainedModel, job: Job) -> None:
        self._pretrained, self._job = pretrained, job
        groups = [group for group in pretrained.parameter_groups(job.options.weight_decay) if group["params"]]
        self._optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self._rates = [group["lr"] for group in self._optimiser.param_groups]
        # Heads begin with the regression on the statistics alone, which stands until an epoch is better.
        self._best = self._weights()
        self._best_loss = self._validation_loss()
        self.step = 0
        self.finished = False

    def train_on(self, batch: Sequence[Example], total: int) -> float:
        """One step; the loss before it."""
        options = self._job.options
        share = schedule(min(self.step / total, 1.0), options.warm_up)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._pretrained.model.train()
        loss = _backward(self._pretrained, batch, self._job, self.step)
        nn.utils.clip_grad_norm_(self._pretrained.trained().values(), 1.0)
        self._optimiser.step()
        self.step += 1
        return loss

    def validate(self) -> None:
        """Keep the parameters if they are the best so far; finished if not."""
        loss = self._validation_loss()
        if loss >= self._best_loss:
            self.finished = True
        else:
            self._best, self._best_loss = self._weights(), loss

    def _validation_loss(self) -> float:
        examples = self._job.validation
        labels = np.concatenate([example.labels for example in examples])
        logits = predict(self._pretrained.model, examples, self._job.options.batch_tokens)[:, -1]
        return log_loss(labels, 1 / (1 + np.exp(-logits)))

    def state(self) -> TrainingState:
        """What `continue_from` needs."""
        return TrainingState(
            self.step, self._weights(), self._optimiser.state_dict(), self._best, self._best_loss, self.finished
        )

    def continue_from(self, state: TrainingState) -> None:
        """Go on where another process stopped."""
        self._take(state.weights)
        self._optimiser.load_state_dict(dict(state.optimiser))
        self._best, self._best_loss = dict(state.best), state.best_loss
        self.step, self.finished = state.step, state.finished

    def best_model(self) -> ExitModel:
        """The finished model after its best epoch."""
        self._take(self._best)
        return self._pretrained.finished()

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._pretrained.trained().items()}

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._pretrained.trained().items():
                parameter.copy_(weights[name])


def _backward(pretrained: PretrainedModel, batch: Sequence[Example], job: Job, step: int) -> float:
    """Gradients of the loss of a batch, and the loss."""
    random = np.random.default_rng([job.seed, 1, step])
    prompts = with_dropout(collate([example.prompt for example in batch]), job.options, random)
    labels = torch.from_numpy(np.concatenate([example.labels for example in batch]))
    loss = joint_loss(pretrained.model(prompts), labels, job.options.distillation)
    pretrained.model.zero_grad()
    torch.autograd.backward(loss)
    return float(loss.detach())


def _say_cost(pretrained: PretrainedModel, job: Job, reporter: Reporter) -> None:
    """Say how large the training is and, after timing two real steps, how long it will take."""
    model = pretrained.model.train()
    parameters = sum(part.numel() for part in model.parameters())
    trained = sum(part.numel() for part in pretrained.trained().values())
    tokens = sum(example.prompt.tokens for example in job.train)
    reporter.say(
        f"pre-trained model: {parameters / 1e6:,.1f} million parameters, {trained / 1e6:,.2f} million trained; "
        f"{len(job.train):,} examples, {tokens / 1e6:,.2f} million tokens, up to {job.options.epochs} epochs"
    )
    epoch = job.epoch(0)
    timed = [epoch[len(epoch) // 2], epoch[-1]]
    began_s = time.perf_counter()
    for batch in timed:
        _backward(pretrained, batch, job, step=0)
    spent_s = time.perf_counter() - began_s
    model.zero_grad()
    share = sum(example.prompt.tokens for batch in timed for example in batch) / max(tokens, 1)
    reporter.say(f"its training will take {_duration(spent_s / share * job.options.epochs)} on this machine")


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:,.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"

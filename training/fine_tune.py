"""Trains soft tokens, heads, wide part and (adapters of) pre-trained weights; says the cost, and can be continued.

The order of the examples and every random number of a step depend on the seed and the number of the step alone. So a
training that was killed and continued does the same steps as one that was not. And several processes do the steps that
one does with as many times the batch: each takes its share of the rows, with those rows' own random numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.exit_model import ExitModel
from models.prompt_batch import collate
from training.batches import Batch, planned
from training.best_epoch import BestEpoch, labels_of
from training.interrupted import StateFile, TrainingState
from training.pretrained import PretrainedModel
from training.processes import Processes
from training.progress import Reporter
from training.regression import Regression, begin_together, share_in_words
from training.replay import Example
from training.shards import ShardedExamples
from training.train_exits import (
    ExitOptions,
    joint_loss,
    predict,
    schedule,
    with_dropout_by_row,
)
from training.words_in_use import words_in_use


@dataclass(frozen=True, slots=True)
class Job:
    """What to train on, and how.

    Args:
        train: examples to train on.
        validation: for early stopping, and for the share of the regression; only the main process needs them.
        options: hyperparameters; sizes are not read.
        seed: of shuffling and dropout.
        save_every_s: seconds between two writings of the state.
        step_candidates: of a step and process, about; None: as many as the options' `batch_tokens` hold.
    """

    train: ShardedExamples
    validation: Sequence[Example]
    options: ExitOptions
    seed: int = 0
    save_every_s: float = 600.0
    step_candidates: int | None = None

    def epoch(self, number: int, processes: int = 1) -> list[Batch]:
        """The batches of an epoch; a batch holds the shares of all processes."""
        random = np.random.default_rng([self.seed, number])
        return list(planned(self.train.tokens, self.step_tokens * processes, random))

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step and process."""
        if self.step_candidates is None:
            return self.options.batch_tokens
        return min(self.options.batch_tokens, math.ceil(self.step_candidates * self.tokens / self.candidates))

    @property
    def candidates(self) -> int:
        """Number of candidates to train on."""
        return sum(int(shard.sum()) for shard in self.train.candidates)

    def candidates_of(self, batch: Batch) -> int:
        """Number of candidates in a batch."""
        return int(self.train.candidates[batch.shard][batch.rows].sum())

    @property
    def tokens(self) -> int:
        """Number of tokens to train on."""
        return sum(int(shard.sum()) for shard in self.train.tokens)

    def tokens_of(self, batch: Batch) -> int:
        """Number of tokens in a batch, without padding."""
        return int(self.train.tokens[batch.shard][batch.rows].sum())


def fine_tune(
    pretrained: PretrainedModel,
    job: Job,
    state_file: StateFile,
    reporter: Reporter,
    processes: Processes,
    after_step: Callable[[int], None] = lambda _step: None,
) -> ExitModel:
    """The finished model after the epoch with the lowest validation loss; stops after `patience` epochs without
    improvement. With each epoch's answer that of the regression on the statistics is mixed as is best for the
    validation examples.

    Every process calls it and gets the same model. The main one alone reads `state_file` and writes it.

    Args:
        pretrained: to train; changed in place.
        job: what to train on.
        state_file: a state in it is continued.
        reporter: is told the cost first.
        processes: which share of each batch is this process's.
        after_step: called with the number of steps done.

    Raises:
        CheckpointError: the kept state is of another training, or cannot be written.
    """
    run = _Run(pretrained, job, processes)
    _continue(run, state_file, processes, reporter)
    _say_size(pretrained, job, reporter)
    _say_duration(run, job, reporter, processes)
    epochs = range(job.options.epochs)
    total = sum(len(job.epoch(number, processes.count)) for number in epochs)
    saved_s, start = time.monotonic(), 0
    with reporter.step("exit heads", job.options.epochs * job.candidates) as advance:
        for epoch in (job.epoch(number, processes.count) for number in epochs):
            done_before = max(0, run.step - start)
            advance(sum(map(job.candidates_of, epoch[:done_before])))
            for batch in epoch[done_before:]:
                loss = run.train_on(batch, total)
                if time.monotonic() - saved_s >= job.save_every_s and run.step < start + len(epoch):
                    run.save(state_file)
                    saved_s = time.monotonic()
                after_step(run.step)
                advance(job.candidates_of(batch), f"loss {loss:.4f}")
            start += len(epoch)
            if done_before < len(epoch):
                run.validate(reporter)
                run.save(state_file)
            if run.finished and run.step <= start:
                break
    reporter.say(share_in_words(run.share))
    return run.best_model()


def _continue(run: _Run, state_file: StateFile, processes: Processes, reporter: Reporter) -> None:
    """Go on from the kept state, if there is one; it takes much memory, and nothing of it stays here."""
    kept = processes.from_main(_Kept(state_file.read()) if processes.is_main else None).state
    if kept is not None:
        run.continue_from(kept)
        reporter.say(f"continuing an interrupted training after step {kept.step:,}")


@dataclass(frozen=True, slots=True)
class _Kept:
    """The state of an interrupted training, if there is one."""

    state: TrainingState | None


class _Run:
    """The model, its optimiser and its best epoch so far.

    Attributes:
        step: number of steps done.
        share: of the regression in what is kept.
        finished: whether no further epoch will improve it.
    """

    def __init__(self, pretrained: PretrainedModel, job: Job, processes: Processes) -> None:
        self._pretrained, self._job, self._processes = pretrained, job, processes
        self._regression = self._fitted()  # the same each time, also where a training is continued
        if pretrained.trains_words:
            pretrained.train_words(processes.from_main(words_in_use(job.train) if processes.is_main else None))
        begin_together(pretrained.model, job.seed)
        self._parallel = processes.parallel(pretrained.model)
        groups = pretrained.parameter_groups(job.options.weight_decay)
        self._optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self._rates = [group["lr"] for group in self._optimiser.param_groups]
        self._best, self.share = _on_cpu(self._weights()), 1.0  # the regression alone, until an epoch is better
        self._epochs = self._new_epochs() if processes.is_main else None  # others are told what it says
        self.step = 0
        self.finished = False

    def train_on(self, batch: Batch, total: int) -> float:
        """One step; the loss before it."""
        options = self._job.options
        share = schedule(min(self.step / total, 1.0), options.warm_up)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        loss = self.backward(batch)
        nn.utils.clip_grad_norm_(self._pretrained.trained().values(), 1.0)
        self._optimiser.step()
        self.step += 1
        return loss

    def backward(self, batch: Batch) -> float:
        """Gradients of the batch's loss, and the loss."""
        self._parallel.train()
        job, processes = self._job, self._processes
        places = range(processes.rank, len(batch.rows), processes.count)
        # Without a row of its own, a process goes through the first with weight 0: the others wait for its gradients.
        own = places or range(1)
        shard = job.train.shard(batch.shard)
        examples = [shard[int(batch.rows[place])] for place in own]
        randoms = [np.random.default_rng([job.seed, 1, self.step, place]) for place in own]
        prompts = with_dropout_by_row(collate([example.prompt for example in examples]), job.options, randoms)
        labels = torch.from_numpy(np.concatenate([example.labels for example in examples])).to(processes.device)
        mean = joint_loss(self._parallel(prompts.to(processes.device)), labels, job.options.distillation)
        # The average of the processes' gradients is that of all candidates' mean loss, however many each process has.
        share = len(labels) / job.candidates_of(batch) if places else 0.0
        loss = mean * (share * processes.count)
        self._pretrained.model.zero_grad()
        torch.autograd.backward(loss)
        return processes.mean(loss.detach())

    def save(self, file: StateFile) -> None:
        """Keep the state; only the main process does."""
        if self._processes.is_main:
            file.write(self.state())

    def validate(self, reporter: Reporter) -> None:
        """Keep the parameters if they are the best so far; finished if not."""
        # By the main process alone: others' last digits may differ, and all must decide the same.
        is_best, self.share, self.finished = self._processes.from_main(self._judged(reporter))
        if is_best:
            self._best = _on_cpu(self._weights())

    def _judged(self, reporter: Reporter) -> tuple[bool, float, bool] | None:
        """Whether the epoch is the best so far, the regression's share in the best, whether it was the last."""
        if self._epochs is None:
            return None
        with reporter.step("validation", len(self._job.validation)) as advance:
            logits = predict(self._pretrained.model, self._job.validation, self._job.options.batch_tokens, advance)
        is_best = self._epochs.take(logits[:, -1])
        return is_best, self._epochs.share, self._epochs.is_over

    def state(self) -> TrainingState:
        """What `continue_from` needs; of the main process."""
        epochs = {} if self._epochs is None else self._epochs.state()
        return TrainingState(
            self.step, self._weights(), self._optimiser.state_dict(), self._best, epochs, self.finished
        )

    def continue_from(self, state: TrainingState) -> None:
        """Go on where another process stopped."""
        self._take(state.weights)
        self._optimiser.load_state_dict(dict(state.optimiser))
        self._best, self.share = dict(state.best), state.epochs["share"]
        if self._epochs is not None:
            self._epochs.continue_from(state.epochs)
        self.step, self.finished = state.step, state.finished

    def best_model(self) -> ExitModel:
        """The finished model after its best epoch."""
        self._take(self._best)
        self._regression.mix_into(self._pretrained.model, self.share)
        return self._pretrained.finished()

    def _fitted(self) -> Regression:
        """The regression, as the main process fits it."""
        statistics, processes = self._pretrained.model.config.statistics, self._processes
        return processes.from_main(Regression.fitted(self._job.train, statistics) if processes.is_main else None)

    def _new_epochs(self) -> BestEpoch:
        validation = self._job.validation
        return BestEpoch(labels_of(validation), self._regression.logits(validation), self._job.options.patience)

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._pretrained.trained().items()}

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._pretrained.trained().items():
                parameter.copy_(weights[name])


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.cpu() for name, weight in weights.items()}


def _say_size(pretrained: PretrainedModel, job: Job, reporter: Reporter) -> None:
    trained = sum(part.numel() for part in pretrained.trained().values())
    reporter.say(
        f"pre-trained model: {pretrained.size / 1e6:,.1f} million parameters, {trained / 1e6:,.2f} million trained; "
        f"{len(job.train):,} examples, {job.tokens / 1e6:,.2f} million tokens, up to {job.options.epochs} epochs"
    )


def _say_duration(run: _Run, job: Job, reporter: Reporter, processes: Processes) -> None:
    """Say how long the training will take, after timing two real steps."""
    epoch = job.epoch(0, processes.count)
    timed = [epoch[len(epoch) // 2], epoch[-1]]
    if processes.device.type == "cuda":
        run.backward(timed[0])  # the first step on a GPU loads its kernels, and tells little about the next
    began_s = time.perf_counter()
    for batch in timed:
        run.backward(batch)
    spent_s = time.perf_counter() - began_s
    whole_s = spent_s * job.options.epochs * job.tokens / max(sum(map(job.tokens_of, timed)), 1)
    where = "on this machine" if processes.count == 1 else f"in {processes.count} processes"
    reporter.say(f"its training will take {_duration(whole_s)} {where}")


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:,.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"

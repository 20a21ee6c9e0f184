"""One of several processes of a training: `python training_process.py FOLDER`, with the variables of torchrun."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from event_data.synthetic import SyntheticSize, synthetic_log
from models.checkpoint import open_checkpoint
from training.fine_tune import Job, fine_tune
from training.from_pretrained import assist
from training.interrupted import StateFile
from training.parquet_examples import read_examples
from training.presets import DEMO, PRETRAINED
from training.pretrained import PretrainedModel, PretrainedOptions
from training.processes import Processes
from training.progress import Silent
from training.train import train

BATCH_TOKENS = 1_024
"""Of each process."""
STOPPED_AFTER = 2
"""Steps."""


class Stopped(Exception):
    """Stands for the end of the process."""


def log():
    """Eight hundred interactions of forty users with thirty items."""
    return synthetic_log(SyntheticSize(users=40, items=30, sessions=100, shown=8))


def preset(batch_tokens=BATCH_TOKENS):
    """The preset of pre-trained weights, with a small graph and with words left out."""
    exits = replace(PRETRAINED.exits, epochs=2, batch_tokens=batch_tokens, word_dropout=0.1)
    graph = replace(DEMO.graph, dim=8, steps=20)
    return replace(PRETRAINED, graph=graph, exits=exits, most_examples=64, most_held_out=40)


def options(folder):
    """Two layers of the checkpoint, in full, with nothing rounded; a step takes what the preset's tokens hold."""
    return PretrainedOptions(str(folder / "checkpoint"), layers=2, dtype="float32", step_candidates=None)


def new_model(folder, seed=0):
    """A model ready to train."""
    torch.manual_seed(seed)
    wanted = options(folder)
    return PretrainedModel(open_checkpoint(wanted.where, wanted.layers), wanted, 8, torch.float32)


def job(folder, batch_tokens=BATCH_TOKENS):
    """Two epochs on the examples in the folder; the state is kept after every step."""
    exits = preset(batch_tokens).exits
    return Job(read_examples(folder / "train"), list(read_examples(folder / "validation")), exits, 1, 0.0)


def stop_and_continue(folder, processes):
    """Train, stop after a few steps, and go on with new models; the main process saves the result."""

    def stop(step):
        if step == STOPPED_AFTER:
            raise Stopped

    kept = StateFile(folder / "state", "x")
    try:
        fine_tune(new_model(folder, processes.rank), job(folder), kept, Silent(), processes, stop)
    except Stopped:
        model = fine_tune(new_model(folder, 2 + processes.rank), job(folder), kept, Silent(), processes)
    if processes.is_main:
        torch.save(model.state_dict(), folder / "continued.pt")


def main(folder):
    """The process's life."""
    processes = Processes()
    stop_and_continue(folder, processes)
    if processes.is_main:
        train(log(), folder / "bundle", preset(), pretrained=options(folder))
    else:
        assist(options(folder), folder / "bundle", processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

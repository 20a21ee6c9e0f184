"""Several processes that train together."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import training_process
from tiny_checkpoint import write_checkpoint

from models.bundle import Bundle
from models.checkpoint import open_checkpoint
from models.text import item_text
from runtime.errors import CheckpointError
from training.examples import make_examples
from training.fine_tune import fine_tune
from training.from_pretrained import keep_for, lengths_of, shared_examples
from training.interrupted import StateFile
from training.parquet_examples import parquet_in, read_examples
from training.processes import Processes, require_single_process
from training.progress import Silent
from training.shards import in_memory
from training.train import train
from training.train_graph import train_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a checkpoint, and examples in its tokens."""
    folder, log, preset = tmp_path_factory.mktemp("together"), training_process.log(), training_process.preset()
    write_checkpoint(folder / "checkpoint", [item_text(item.title, item.attributes) for item in log.items])
    text = open_checkpoint(str(folder / "checkpoint")).text
    torch.manual_seed(0)
    graph = train_graph(log.interactions[:200], log.items, text, preset.graph)
    examples = make_examples(log, graph, text, preset, Silent(), parquet_in(folder / "train"))
    parquet_in(folder / "validation")(examples.to_fit, len(examples.to_fit), 0)
    return folder


@pytest.fixture(scope="module")
def together(folder):
    """Two processes over gloo have trained."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = ROOT / "tests" / "support" / "training_process.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env=os.environ | address | paths | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(told)
    return folder


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_twice_the_batch(together, tmp_path):
    """The bundle that both have trained is, but for the order of sums, what one process makes."""
    preset = training_process.preset(2 * training_process.BATCH_TOKENS)
    alone = train(training_process.log(), tmp_path / "alone", preset, pretrained=training_process.options(together))
    both = Bundle.load(together / "bundle")
    assert not alone.model.is_silent
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(both.model.state_dict()[name], weight, atol=2e-5, rtol=1e-3, msg=name)
    assert both.metrics["auc"] == pytest.approx(alone.metrics["auc"], abs=1e-3)


@pytest.mark.slow
def test_two_processes_that_were_stopped_go_on(together, tmp_path):
    """Stopped after two steps and continued with new models, they end where one process ends that never stopped."""
    job = training_process.job(together, 2 * training_process.BATCH_TOKENS)
    steps = []
    kept = StateFile(tmp_path, "x")
    whole = fine_tune(training_process.new_model(together), job, kept, Silent(), Processes(), steps.append)
    assert len(steps) > training_process.STOPPED_AFTER
    assert not whole.is_silent
    continued = torch.load(together / "continued.pt")
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(continued[name], weight, atol=2e-5, rtol=1e-3, msg=name)


def test_a_machine_that_does_not_see_the_examples_says_so(folder, tmp_path):
    """Neither an empty folder nor older examples are trained on."""
    with pytest.raises(CheckpointError, match="all machines share"):
        shared_examples(tmp_path, "x")
    kept = keep_for(10, training_process.preset(), tmp_path, processes=2)(read_examples(folder / "train"), 10, 0)
    assert len(shared_examples(tmp_path, lengths_of(kept))) == len(kept) > 0
    with pytest.raises(CheckpointError, match="all machines share"):
        shared_examples(tmp_path, lengths_of(read_examples(folder / "validation")))


def test_examples_are_kept_in_files_where_they_are_many_or_others_read_them(tmp_path):
    """Otherwise in memory."""
    preset = replace(training_process.preset(), examples_in_memory=10)
    assert keep_for(10, preset, tmp_path, processes=1) is in_memory
    assert keep_for(11, preset, tmp_path, processes=1) is not in_memory
    assert keep_for(10, preset, tmp_path, processes=2) is not in_memory


def test_several_processes_without_a_backbone_are_refused(monkeypatch):
    """Each would train a model of its own and write it over the others'."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CheckpointError, match="--backbone"):
        require_single_process()
    monkeypatch.delenv("WORLD_SIZE")
    require_single_process()

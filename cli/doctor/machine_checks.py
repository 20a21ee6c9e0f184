"""Checks of the bundle and of the machine. Pure: facts in, findings out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cli.doctor.findings import Finding

_BYTES_PER_STATE: Final = 250
"""Of ids, counts, times, and of finding a state by its id and in the index; `benchmarks.scale` measures them."""
_SPARE = 1.25
"""What is kept for the work itself, over what is held for good."""


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """A bundle as it was found.

    Attributes:
        address: where, as the settings name it.
        error: why it does not load; empty if it does.
        version: of the model.
        bytes: of all its files.
        embedding_dim: of users and items.
        resident_bytes: of this process with the bundle loaded, as a worker has it.
        history_length: past interactions kept per user.
    """

    address: str
    error: str = ""
    version: str = ""
    bytes: int = 0
    embedding_dim: int = 0
    resident_bytes: int = 0
    history_length: int = 0


def check_bundle(program: str, facts: BundleFacts) -> Finding:
    """That it loads, every file's hash included."""
    about = f"bundle of the {program}"
    if facts.error:
        return Finding("problem", about, facts.error, f"Set {program}.bundle to a trained bundle or a bundle store")
    return Finding("ok", about, f"{facts.address} loads: version {facts.version}, {facts.bytes / 1e6:.1f} MB")


def check_versions(worker: BundleFacts, updater: BundleFacts) -> Finding:
    """That states are made by the model that reads them."""
    if worker.error or updater.error or worker.version == updater.version:
        return Finding("ok", "versions", "updater and worker have the same bundle, as far as they load")
    text = f"the worker has {worker.version}, the updater {updater.version}"
    return Finding("problem", "versions", text, "Give both the same: the worker reads the updater's embeddings")


def check_memory(bundle: BundleFacts, states: int, available_bytes: int | None) -> Finding:
    """That a worker's model and tables fit.

    Args:
        bundle: the worker's.
        states: records of users and items that it would load.
        available_bytes: for one process; None where the system does not tell.
    """
    if bundle.error or available_bytes is None:
        return Finding("ok", "memory", "not known" + (" without the bundle" if bundle.error else " here"))
    # Each embedding is held twice, in its table and in the index, in half precision. A past interaction is the row of
    # an item and a grade.
    rows = states * (2 * 2 * bundle.embedding_dim + 5 * bundle.history_length + _BYTES_PER_STATE)
    needed = int((bundle.resident_bytes + rows) * _SPARE)
    text = f"a worker needs about {needed / 1e9:.1f} GB, {available_bytes / 1e9:.1f} GB are available here"
    if needed > available_bytes:
        return Finding("problem", "memory", text, "Give it more memory, or train with a smaller --history-length")
    return Finding("ok", "memory", text)


def check_cpus(available: float, threads: int | None) -> Finding:
    """That the threads asked for have CPUs."""
    if threads is not None and threads > available:
        text = f"worker.threads is {threads}, {available:g} CPUs are available here"
        return Finding(
            "warning", "CPUs", text, "Threads that wait for each other answer late: leave worker.threads unset"
        )
    if available < 1:
        text = f"{available:g} of one are available here"
        return Finding("warning", "CPUs", text, "Below one CPU a worker is halted in the middle of answers")
    return Finding("ok", "CPUs", f"{available:g} available here")

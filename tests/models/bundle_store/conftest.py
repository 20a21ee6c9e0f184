"""Stores in memory and on the disk, and two versions of a bundle."""

from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from models.bundle_store import BundleStore
from models.bundle_store.files import Files
from runtime.clock import ManualClock


@pytest.fixture(scope="session")
def two_bundles(tiny_bundle, tmp_path_factory):
    """Folders of two versions, the second a second younger."""
    place, clock = tmp_path_factory.mktemp("two"), ManualClock()
    tiny_bundle.save(place / "first", clock)
    clock.advance(1.0)
    other = replace(tiny_bundle, calibration=replace(tiny_bundle.calibration, tolerance=0.2))
    other.save(place / "second", clock)
    return place / "first", place / "second"


@pytest.fixture(params=["memory", "file", "folder"])
def address(request, tmp_path):
    """A new address, in each of three ways to write one."""
    return {
        "memory": f"memory://{uuid4().hex}/store",
        "file": f"file://{tmp_path}/store",
        "folder": str(tmp_path / "store"),
    }[request.param]


@pytest.fixture
def remote():
    """An address that is not on a disk."""
    return f"memory://{uuid4().hex}/store"


@pytest.fixture
def store(address, tmp_path):
    """A store there that holds nothing yet."""
    return BundleStore(address, tmp_path / "cache", ManualClock())


class Interrupted(Exception):
    """Stands for the moment at which a process is killed."""


@pytest.fixture
def interrupted(monkeypatch):
    """Makes a context in which a process is killed once it has copied so many files."""

    @contextmanager
    def interrupting(copying, after):
        copy, done = getattr(Files, copying), []

        def failing(self, source, target):
            if len(done) == after:
                raise Interrupted
            done.append(target)
            copy(self, source, target)

        with monkeypatch.context() as patch:
            patch.setattr(Files, copying, failing)
            with pytest.raises(Interrupted):
                yield

    return interrupting

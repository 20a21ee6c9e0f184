"""The versions of the bundle that a running updater takes over, and those that it leaves."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from bundle_variants import with_other_embeddings
from structlog.testing import capture_logs

from graph_updater.bundles import Bundles
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSection
from models.bundle_files import GraphPart
from models.bundle_store import BundleStore
from runtime.clock import ManualClock
from runtime.errors import BundleError


class Following:
    """A store with some bundles, the first one current, and an updater's view of it."""

    def __init__(self, folder, *bundles):
        self.store = BundleStore(folder / "store")
        self.versions = []
        for number, bundle in enumerate(bundles):
            bundle.save(folder / str(number))
            self.versions.append(self.store.put(folder / str(number))[0])
        self.promote(0)
        self.metrics = UpdaterMetrics()
        settings = UpdaterSection(bundle=self.store.address, bundle_check_s=0.01)
        self.bundles = Bundles(settings, ManualClock(), self.metrics)

    def promote(self, number):
        self.store.promote(self.versions[number], "test")

    @property
    def refused(self):
        return self.metrics.value("exitstream_updater_refused_bundles_total") or 0


async def until(condition):
    """Waits for something that will be so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_version_that_is_promoted_is_loaded(tiny_bundle, tmp_path):
    """With its graph; the one in use is none."""
    of = Following(tmp_path, tiny_bundle, with_other_embeddings(tiny_bundle))
    first = await of.bundles.load()
    assert first.version == of.versions[0]

    following = asyncio.create_task(of.bundles.next(first.version))
    await asyncio.sleep(0.1)
    assert not following.done()
    of.promote(1)

    second = await following
    assert second.version == of.versions[1]
    assert second.space != first.space


async def test_layer_weights_that_the_graph_cannot_use_are_refused(tiny_bundle, tmp_path):
    """A bundle whose hashes are right may still be one that no updater can begin with: one line, and the next one."""
    strange = replace(tiny_bundle, graph=replace(tiny_bundle.graph, alphas=-np.abs(tiny_bundle.graph.alphas)))
    of = Following(tmp_path, tiny_bundle, strange, with_other_embeddings(tiny_bundle))
    following = asyncio.create_task(of.bundles.next(of.versions[0]))

    with capture_logs() as logs:
        of.promote(1)
        await until(lambda: of.refused)
        of.promote(2)
        assert (await following).version == of.versions[2]

    assert of.refused == 1
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert "the layer weights are" in line["cause"]
    of.promote(1)
    with pytest.raises(BundleError, match="layer weights"):
        await of.bundles.load()


async def test_a_version_that_is_superseded_while_it_loads_is_left(tiny_bundle, tmp_path, monkeypatch):
    """However long the download would take, a promotion taken back meanwhile has no effect."""
    of = Following(tmp_path, tiny_bundle, with_other_embeddings(tiny_bundle), with_other_embeddings(tiny_bundle, 3.0))
    begun, arrived, load = threading.Event(), threading.Event(), GraphPart.load

    def slow(folder):
        begun.set()
        if folder.name == of.versions[1]:
            arrived.wait(20)
        return load(folder)

    monkeypatch.setattr(GraphPart, "load", slow)
    following = asyncio.create_task(of.bundles.next(of.versions[0]))
    of.promote(1)
    await until(begun.is_set)
    of.promote(2)

    assert (await following).version == of.versions[2]
    arrived.set()
    assert not of.refused

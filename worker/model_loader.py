"""The model of a running worker: the first one, and each newer version of its bundle, swapped in while it serves.

    load        hashes and golden requests are checked               a thread beside (`worker.beside`)
    fill        tables of its own, unless those that serve have      compute thread, a batch between two rounds
                its embeddings (the same space) and the length of
                its histories
    warm up     kernels are built, stages measured                   a thread beside
    swap        between two rounds (`worker.serving`)                compute thread

Until the swap the worker serves as if nothing happened, and goes on if any of this fails.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import torch

from models.bundle import Bundle
from models.bundle_store import BundleWatch, Superseded, current_version, resolve
from models.golden_check import check_golden
from runtime.clock import Clock
from runtime.errors import ExitstreamError
from runtime.observability.readiness import Readiness
from runtime.observability.stages import stage
from runtime.process.allocator import return_freed_memory
from runtime.process.lifecycle import unless_stopped
from worker.beside import beside, set_thread_counts
from worker.compute import ComputeThread
from worker.followed_tables import FollowedTables, TableMaker
from worker.model import ServingModel
from worker.serving import Serving
from worker.steps import between_rounds

Keep = Callable[[FollowedTables], Sequence[asyncio.Task[None]]]
log = structlog.get_logger(__name__)


class ModelLoader:
    """Loads models for a worker.

    Args:
        threads: of torch and FAISS.
        thread: the compute thread.
        tables: makes tables for a bundle.
        keep: begins tasks that watch over tables from when they serve; they end with them.
        clock: the time.
    """

    def __init__(self, threads: int, thread: ComputeThread, tables: TableMaker, keep: Keep, clock: Clock) -> None:
        settings = tables.settings
        self._settings = settings.worker
        self._threads = threads
        self._thread = thread
        self._maker = tables
        self._metrics = tables.metrics
        self._keep = keep
        self._clock = clock
        self._watch = BundleWatch(settings.worker.bundle, settings.worker.bundle_check_s, clock)
        self._tables: FollowedTables | None = None
        self._keeping: Sequence[asyncio.Task[None]] = ()

    async def first(self, readiness: Readiness, stopping: asyncio.Event) -> Serving | None:
        """The model to begin with; None if the worker is asked to stop meanwhile.

        Raises:
            ExitstreamError: it cannot be loaded, or the states cannot be read.
        """
        await self._thread.call(lambda: set_thread_counts(self._threads))
        bundle = await self._thread.call(partial(self._load, threading.Event()))
        followed = await unless_stopped(stopping, self._maker.make(bundle, readiness))
        if followed is None:
            return None
        await self._take_over(followed)
        with stage("tables", self._clock):
            await unless_stopped(stopping, followed.filled())
        if stopping.is_set():
            return None
        log.info("warming the model up", model_version=bundle.version)
        model = await self._thread.call(partial(self._first_model, bundle, followed))
        self._metrics.note_model(model.version)
        return Serving(model, self._clock)

    async def follow(self, serving: Serving, stopping: asyncio.Event) -> None:
        """Swaps newer versions in until the worker is asked to stop. One that cannot be used is told, and tried again
        after a pause.
        """
        await unless_stopped(stopping, self._follow(serving))

    async def save_tables(self) -> None:
        """Saves the tables that serve, where that is wanted, before the program ends."""
        if self._tables is not None and self._tables.saver is not None:
            await self._tables.saver.save_last()

    async def _follow(self, serving: Serving) -> None:
        while True:
            version = await self._watch.next_version(other_than=serving.model.version)
            try:
                await self._renew(serving)
            except Superseded as reason:
                log.info("the new version is not used", model_version=version, reason=str(reason))
            except Exception as error:  # whatever is wrong with a new version, the one that serves is not affected
                self._metrics.bundles_refused.inc()
                if not isinstance(error, ExitstreamError):
                    log.exception("a new version of the bundle could not be brought into use")
                self._watch.refuse(version, error)

    def _load(self, given_up: threading.Event) -> Bundle:
        """The bundle's current version, checked."""
        address = self._settings.bundle
        folder = resolve(address)
        log.info("loading the bundle", address=address, folder=str(folder), model_version=current_version(folder))
        _go_on_unless(given_up)
        # In the format in which it serves, so that no wider copy is ever made. int8 is computed from float32.
        dtype = torch.bfloat16 if self._settings.engine.precision == "bfloat16" else torch.float32
        with stage("bundle", self._clock):
            bundle = Bundle.load(folder, dtype)
            _ = bundle.space  # computed once, of everything in it: here rather than in the event loop
        _go_on_unless(given_up)
        with stage("golden requests", self._clock):
            check_golden(bundle)
        return bundle

    def _first_model(self, bundle: Bundle, followed: FollowedTables) -> ServingModel:
        """In the compute thread."""
        followed.tables.refresh_indexes()
        with stage("weights", self._clock):
            model = ServingModel.cold(bundle, followed.tables, self._settings, self._clock.monotonic)
        with stage("warm-up", self._clock):
            model.engine.warm_up()
        return_freed_memory()
        # Libraries and tables stay for good. Without `freeze` the garbage collector goes through them again and again,
        # which stops everything for most of a second.
        gc.collect()
        gc.freeze()
        return model

    async def _renew(self, serving: Serving) -> None:
        """Brings the address's current version into use.

        Raises:
            Superseded: it is the current one no longer.
            ExitstreamError: it cannot be used.
        """
        before = serving.model.version
        bundle = await beside(self._load, self._threads, "loading a bundle")
        if bundle.version == before:
            raise Superseded("the former version is current again")
        followed = self._tables
        if followed is None or not followed.serve(bundle):
            followed = await self._fill(bundle)
        try:
            model = await self._warmed_up(bundle, followed)
            if self._maker.partitions is not None and followed.held is not None and followed is not self._tables:
                await self._watch.while_current(bundle.version, self._maker.partitions.covered_by(followed.held))
            await between_rounds(self._thread, model.engine.correction_steps(), self._clock)
            await self._thread.call(partial(_swap, serving, model))
        except BaseException:
            if followed is not self._tables:
                await followed.close()
            raise
        self._metrics.note_model(model.version)
        log.info("another model serves from now on", model_version=model.version, before=before)
        if followed is not self._tables:
            await self._take_over(followed)

    async def _take_over(self, followed: FollowedTables) -> None:
        """These tables serve from now on; those before are followed no longer."""
        before, self._tables, self._keeping = self._keeping, followed, self._keep(followed)
        if self._maker.partitions is not None and followed.held is not None:
            self._maker.partitions.serve(followed.held)
        for task in before:
            task.cancel()
        # Not `wait`, which leaves a task its exception: a cycle, through which its tables would stay in memory.
        await asyncio.gather(*before, return_exceptions=True)

    async def _fill(self, bundle: Bundle) -> FollowedTables:
        """Tables of the bundle's own, filled beside those that serve."""
        log.info("filling tables for the new model beside those that serve", model_version=bundle.version)
        followed = await self._maker.make(bundle, Readiness(), beside=True)
        try:
            await self._watch.while_current(bundle.version, followed.filled())
        except BaseException:
            await followed.close()
            raise
        return followed

    async def _warmed_up(self, bundle: Bundle, followed: FollowedTables) -> ServingModel:
        """A model that is warmed up beside."""

        def warm_up(given_up: threading.Event) -> ServingModel:
            model = ServingModel.cold(bundle, followed.tables, self._settings, self._clock.monotonic)
            for _ in model.engine.warm_up_steps():
                _go_on_unless(given_up)
            return model

        log.info("warming the new model up beside the one that serves", model_version=bundle.version)
        return await beside(warm_up, self._threads, "warming a model up")


def _swap(serving: Serving, model: ServingModel) -> None:
    """In the compute thread. What has been loaded stays as long as the worker: see `ModelLoader._first_model`; a model
    and tables that retire are in no cycle and need no collector.
    """
    serving.swap(model)
    return_freed_memory()
    gc.freeze()


def _go_on_unless(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise Superseded("the worker ends")

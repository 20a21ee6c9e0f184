"""A small program around a delivery: copies every record of one topic to another, out of order."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random

from runtime.delivery import make_delivery
from runtime.kafka import RecordSource
from runtime.process.lifecycle import owned_tasks
from runtime.records import OutRecord

_CONCURRENT = 6
"""Records copied concurrently: few, so that a few hundred of them take a while."""


class Copier:
    """Copies records out of order; knows how to drain, and how to die.

    Args:
        settings: how to reach Kafka; `delivery` decides the guarantee.
        topics: the input and the output.
        group: members share the input.
        seed: of the pace.
        slowest_s: the longest that one copy takes.

    Attributes:
        joined: it has partitions, and reads them.
    """

    def __init__(self, settings, topics, group, seed=0, slowest_s=0.03):
        self._settings = settings
        self._slowest_s = slowest_s
        self._topic, self._output = topics
        self._source = RecordSource(settings, [self._topic], group)
        self._random = random.Random(seed)
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._stopping = asyncio.Event()
        self.joined = asyncio.Event()
        self.copied = 0
        self.delivered = 0

    async def run(self, drain=True):
        """Copies until asked to stop; then drains, or leaves everything as it is, as a killed process does."""
        delivery = make_delivery(self._settings, self._source)
        async with delivery:
            try:
                await self._source.start(delivery)
                self.joined.set()
                async with owned_tasks() as spawn:
                    spawn(delivery.run(), "commits")
                    async with owned_tasks() as start_copy:
                        while not self._stopping.is_set():
                            for record in await self._source.poll(timeout_ms=20):
                                if delivery.started(record):
                                    start_copy(self._copy(delivery, record), "copy")
                        if drain:
                            assert await delivery.drain(10)
            finally:
                await self._source.stop()

    def stop(self):
        """Asks it to end."""
        self._stopping.set()

    async def _copy(self, delivery, record):
        async with self._slots:
            await asyncio.sleep(self._random.random() * self._slowest_s)
        await delivery.finished(record, [OutRecord(self._output, record.key, record.value)], self._note_delivery)
        self.copied += 1

    def _note_delivery(self):
        self.delivered += 1


async def run_until(copier, condition, drain=True):
    """Runs a copier until something is so."""
    task = asyncio.create_task(copier.run(drain))
    async with asyncio.timeout(60):
        while not condition() and not task.done():
            await asyncio.sleep(0.01)
    copier.stop()
    await task


@contextlib.asynccontextmanager
async def running(copier):
    """Runs a copier beside the block, then drains it."""
    task = asyncio.create_task(copier.run())
    try:
        yield copier
    finally:
        copier.stop()
        await task


def copy_until_killed(settings, topics, group):
    """The whole program, to be run in a process of its own."""
    asyncio.run(Copier(settings, topics, group).run())


@contextlib.asynccontextmanager
async def copying_process(settings, topics, group):
    """A copier in another process, killed at the end of the block."""
    process = multiprocessing.get_context("spawn").Process(target=copy_until_killed, args=(settings, topics, group))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()

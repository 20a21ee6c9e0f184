"""The faults of a soak. Each is a coroutine that returns, with the name of its target, when the fault has ended."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loadgen.fault_site import LONGER_THAN_ANY_TIMEOUT_S, MODES, FaultSite
from loadgen.poison import poison
from loadgen.processes import Processes, Program
from loadgen.traffic import Traffic
from runtime.clock import Clock

STEADY: Final = "steady"
"""Programs of this name live through the whole run: only brokers and networks fail them. Their growth is measured."""
TARGET: Final = "target"
EXTRA: Final = "extra"
EXTRA_STAYS_S: Final = 10.0
LONG_PAUSE_S: Final = 180.0
READY_PATIENCE_S: Final = 120.0


@dataclass(frozen=True)
class Ground:
    """What faults are done to.

    Attributes:
        site: brokers and settings.
        processes: the running programs.
        traffic: the load.
        random: which target.
        clock: the time.
    """

    site: FaultSite
    processes: Processes
    traffic: Traffic
    random: random.Random
    clock: Clock

    def program(self, name: str) -> Program:
        """The program of a name `<mode>-<role>` or `updater-<role>`."""
        kind, _, _role = name.rpartition("-")
        return next((self.site.worker(mode, name) for mode in MODES if mode == kind), self.site.updater(name))

    async def start(self, name: str) -> None:
        """Start a program without waiting for it."""
        await asyncio.to_thread(self.processes.start, self.program(name))

    def worker(self, role: str) -> str:
        """A worker of a random mode."""
        return f"{self.random.choice(MODES)}-{role}"


FaultKind = Callable[[Ground], Awaitable[str]]


async def worker_killed(ground: Ground) -> str:
    """A worker ends without warning and is started again."""
    return await _kill(ground, ground.worker(TARGET))


async def updater_killed(ground: Ground) -> str:
    """An updater ends without warning and is started again."""
    return await _kill(ground, f"updater-{TARGET}")


async def worker_terminated(ground: Ground) -> str:
    """A worker is asked to end, and started again once it has."""
    return await _terminate(ground, ground.worker(TARGET))


async def updater_terminated(ground: Ground) -> str:
    """An updater is asked to end, and started again once it has."""
    return await _terminate(ground, f"updater-{TARGET}")


async def worker_frozen(ground: Ground) -> str:
    """A worker sleeps for longer than its session lasts."""
    return await _freeze(ground, ground.worker(TARGET))


async def updater_frozen(ground: Ground) -> str:
    """An updater sleeps for longer than its session lasts."""
    return await _freeze(ground, f"updater-{TARGET}")


async def worker_joins_and_leaves(ground: Ground) -> str:
    """One more worker comes, and leaves again soon."""
    name = ground.worker(EXTRA)
    await ground.start(name)
    await until_ready(ground, name)
    await asyncio.sleep(EXTRA_STAYS_S)
    await asyncio.to_thread(ground.processes.drain, name)
    return name


async def broker_paused(ground: Ground) -> str:
    """The broker keeps its connections and answers nothing."""
    return await _pause(ground, LONGER_THAN_ANY_TIMEOUT_S)


async def broker_paused_for_long(ground: Ground) -> str:
    """The same for three minutes."""
    return await _pause(ground, LONG_PAUSE_S)


async def broker_restarted(ground: Ground) -> str:
    """The broker goes and comes back."""
    await asyncio.to_thread(ground.site.cluster.brokers[0].restart)
    return "broker"


async def network_cut(ground: Ground) -> str:
    """Nothing gets through between the programs and the broker."""
    ground.site.cluster.cut()
    try:
        await asyncio.sleep(LONGER_THAN_ANY_TIMEOUT_S)
    finally:
        ground.site.cluster.mend()
    return "network"


async def poisoned(ground: Ground) -> str:
    """Records of every kind that nobody can read come among the good ones."""
    for record in poison(ground.site.topics, ground.clock.wall_ms()).values():
        await ground.traffic.send(record)
    await ground.traffic.flush()
    return "topics"


FAULTS: Final[Mapping[str, FaultKind]] = {
    "worker killed": worker_killed,
    "updater killed": updater_killed,
    "worker terminated": worker_terminated,
    "updater terminated": updater_terminated,
    "worker frozen": worker_frozen,
    "updater frozen": updater_frozen,
    "worker joins and leaves": worker_joins_and_leaves,
    "broker paused": broker_paused,
    "broker restarted": broker_restarted,
    "network cut": network_cut,
    "poison": poisoned,
}


LONG_FAULTS: Final[Mapping[str, FaultKind]] = {"broker paused for three minutes": broker_paused_for_long}


async def _pause(ground: Ground, seconds: float) -> str:
    (broker,) = ground.site.cluster.brokers
    await asyncio.to_thread(broker.pause)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(broker.resume)
    return "broker"


async def _kill(ground: Ground, name: str) -> str:
    await asyncio.to_thread(ground.processes.kill, name)
    await ground.start(name)
    return name


async def _terminate(ground: Ground, name: str) -> str:
    await asyncio.to_thread(ground.processes.drain, name)
    await ground.start(name)
    return name


async def _freeze(ground: Ground, name: str) -> str:
    ground.processes.send(name, signal.SIGSTOP)
    try:
        await asyncio.sleep(LONGER_THAN_ANY_TIMEOUT_S)
    finally:
        ground.processes.send(name, signal.SIGCONT)
    return name


async def until_ready(ground: Ground, *names: str) -> None:
    """Wait until programs are ready.

    Raises:
        TimeoutError: they are not after two minutes.
    """
    async with asyncio.timeout(READY_PATIENCE_S):
        for name in names:
            while not await asyncio.to_thread(ground.processes.is_ready, name):  # noqa: ASYNC110 - no event of ours
                await asyncio.sleep(0.2)

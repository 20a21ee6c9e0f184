"""Both delivery modes and a pair of updaters at work under load, to be disturbed and then held to their promises."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager

from brokers import TestBroker
from updater_contract import clicks
from updater_world import EXACT, UpdaterWorld

from loadgen.fault_site import MODES, FaultSite, transactions_lost
from loadgen.plan import Impression
from loadgen.processes import Processes
from loadgen.traffic import Traffic
from runtime.kafka import TopicFollower

PATIENCE_S = 90.0
RATE = 15.0
_SETTLE_S = 1.5
"""How long to listen for answers that come twice after everything has been answered once."""
_EXACT_AND_QUICK = {
    "EXITSTREAM_UPDATER__GRAPH": EXACT.model_dump_json(),
    "EXITSTREAM_UPDATER__SNAPSHOT_INTERVAL_S": "0.5",
    "EXITSTREAM_UPDATER__FLUSH_MS": "20",
    "EXITSTREAM_WORKER__ENGINE__MAX_BATCH_TOKENS": "512",
    "EXITSTREAM_WORKER__ENGINE__WARM_UP_ROUNDS": "1",
}


class FaultLab:
    """Workers of both modes and updaters on a cluster, one load for all of them, and the undisturbed reference.

    Args:
        cluster: a running `KafkaCluster`.
        bundle: a loaded bundle.
        bundle_folder: the same on disk.
        folder: for logs and snapshots.
        seed: of the moments at which faults happen.
        letters: one program of each kind is usual for each of them.
    """

    def __init__(self, cluster, bundle, bundle_folder, folder, seed=0, letters="ab"):
        size = len(cluster.brokers)
        broker = TestBroker(cluster.bootstrap_servers, f"faults-{size}-{seed}")
        self.cluster = cluster
        self.world = UpdaterWorld(
            broker, bundle, bundle_folder, folder, replication_factor=size, min_insync_replicas=max(1, size - 1)
        )
        self.site = FaultSite(cluster, bundle_folder, folder, self.world.topics, _EXACT_AND_QUICK)
        self._logs = folder / "logs"
        self.processes = Processes({}, self._logs)
        self.traffic = Traffic(self.site.destination, pages(), tell=self.world.record)
        self.ledger = self.traffic.ledger
        self.random = random.Random(seed)
        self.ended = []
        """What ended without having been asked to, and was started again."""
        self.broken = False
        """Whether a promise was not kept: what comes after would be blamed for it."""
        self.usual = [f"{kind}-{letter}" for kind in (*MODES, "updater") for letter in letters]
        """The programs that every test begins with."""
        self._programs = {name: self._program(name) for name in self.usual}
        self._first = 0
        self._lost_before = 0

    async def __aenter__(self):
        await self.site.create_topics()
        await self.world.published.start()
        await self.traffic.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await asyncio.to_thread(self.processes.stop)
        await self.traffic.__aexit__()
        await self.world.published.stop()

    async def begin(self):
        """All usual programs ready; what happened before does not count any more."""
        await self.start(*(name for name in self.usual if name not in self._alive()))
        await self.ready(*self.usual)
        self._first = self.ledger.sent
        self._lost_before = transactions_lost(self._logs)
        self.ended.clear()

    async def start(self, *names):
        """Starts programs, `<mode>-<letter>` or `updater-<letter>`, without waiting for them."""
        for name in names:
            program = self._programs.setdefault(name, self._program(name))
            await asyncio.to_thread(self.processes.start, program)

    async def ready(self, *names):
        """Waits until they are, restarting what ends meanwhile."""
        await self._until(lambda: all(self.processes.is_ready(name) for name in names), f"{names} are ready")

    async def restart(self, name):
        """Kills a program without warning and starts it again at once."""
        await asyncio.to_thread(self.processes.kill, name)
        await self.start(name)

    async def drain(self, *names):
        """Asks programs to end in order; their exit statuses."""
        return await asyncio.gather(*(asyncio.to_thread(self.processes.drain, name, PATIENCE_S) for name in names))

    @asynccontextmanager
    async def load(self, rate=RATE):
        """Requests and interactions while the block runs."""
        stopping = asyncio.Event()
        sending = asyncio.create_task(self.traffic.run(rate, stopping))
        try:
            yield
        finally:
            stopping.set()
            await sending

    async def a_moment(self, least_s=0.5, most_s=2.0):
        """Waits for a random while."""
        await self.wait(self.random.uniform(least_s, most_s))

    async def wait(self, seconds):
        """Waits, and starts again meanwhile what ends of itself."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._supervise()
            await asyncio.sleep(0.2)

    async def keeps_its_promises(self, once=("exactly_once",)):
        """Waits until every request is answered in both modes and the published states are those of an undisturbed
        run, then checks that nothing was answered twice in the modes named, and that no program ended of itself.

        Where a broker took transactions back, answers may come twice: see `transactions_lost`.
        """
        self.broken = True
        await self._until(lambda: not self._lost(), lambda: f"every request is answered; lost: {self._lost()}")
        await self.wait(_SETTLE_S)
        duplicates = {mode: self.ledger.duplicates(mode, self._first) for mode in once}
        if transactions_lost(self._logs) > self._lost_before:
            duplicates.pop("exactly_once", None)
        assert not any(duplicates.values()), f"answers that came again: {duplicates}\n{self._warnings()}"
        assert not self.ended, f"ended without having been asked to: {self.ended}"
        await self.world.published.until_equal(limit_s=PATIENCE_S)
        self.broken = False

    async def dead_letters(self, mode, topic):
        """How often each value is in a topic's dead letters, as the workers of a mode write them."""
        follower = TopicFollower(self.site.kafka, [self.site.topics_of(mode).dead_letter(topic)])
        await follower.start()
        values = Counter()
        try:
            while not follower.caught_up:
                values.update(record.value for record in await follower.poll())
        finally:
            await follower.stop()
        return values

    def tool(self, name, *arguments):
        """One of Kafka's own commands, on the first broker."""
        return self.cluster.brokers[0].run_tool(name, *arguments)

    def _program(self, name):
        kind, _, _letter = name.rpartition("-")
        return self.site.updater(name) if kind == "updater" else self.site.worker(kind, name)

    def _alive(self):
        return [name for name in self._programs if self.processes.is_running(name)]

    def _warnings(self):
        """The last lines of each program that exactly once is promised of, without what is usual."""
        unusual = {
            log.name: [line for line in log.read_text(errors="replace").splitlines() if '"level": "info"' not in line]
            for log in self._logs.glob("exactly_once-*")
        }
        return "\n".join(f"{name}: {line}" for name, lines in unusual.items() for line in lines[-10:])

    def _lost(self):
        lost = {mode: len(self.ledger.missing(mode, self._first)) for mode in MODES}
        return {mode: count for mode, count in lost.items() if count}

    async def _supervise(self):
        self.traffic.check()
        for name, how in self.processes.ended().items():
            self.ended.append(how)
            await self.start(name)

    async def _until(self, condition, what):
        give_up_at = time.monotonic() + PATIENCE_S
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < give_up_at, f"not within {PATIENCE_S} s: {what() if callable(what) else what}"
            await self.wait(0.2)


class Labs:
    """Labs on one cluster: the same one for test after test, a new one after a test whose promises were not kept.

    Args:
        cluster: a running `KafkaCluster`.
        bundle: a loaded bundle.
        bundle_folder: the same on disk.
        folders: makes folders.
        letters: see `FaultLab`.
    """

    def __init__(self, cluster, bundle, bundle_folder, folders, letters="ab"):
        self._parts = cluster, bundle, bundle_folder
        self._folders = folders
        self._letters = letters
        self._lab = None
        self._made = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        if self._lab is not None:
            await self._lab.__aexit__()

    async def ready(self):
        """A lab ready to be disturbed."""
        if self._lab is not None and self._lab.broken:
            await self._lab.__aexit__()
            self._lab = None
        if self._lab is None:
            self._made += 1
            lab = FaultLab(*self._parts, self._folders.mktemp("faults"), self._made, self._letters)
            self._lab = await lab.__aenter__()
        await self._lab.begin()
        return self._lab


def pages():
    """Pages of ten users in turn, three items each, and one of a user and items whose ids hold a zero character."""
    strange = clicks(2, first=3_000)
    strange = [
        type(event)(
            event_id=event.event_id,
            user_id="u\x00ser",
            item_id=f"i\x00{number}",
            kind="click",
            event_time_ms=event.event_time_ms,
        )
        for number, event in enumerate(strange)
    ]
    of_users = [[event for event in clicks(900) if event.user_id == f"u{user}"] for user in range(10)]
    found = [
        Impression(f"p{number}", f"u{number % 10}", of_users[number % 10][start : start + 3])
        for number, start in enumerate(3 * (step // 10) for step in range(200))
    ]
    return [*found, Impression("strange", "u\x00ser", strange)]

"""What a watch of an address tells, and when, on a clock that moves only when it sleeps."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from structlog.testing import capture_logs

from models.bundle_store import BundleStore, watch
from models.bundle_store.watch import FIRST_PAUSE_S, LONGEST_PAUSE_S, BundleWatch, Superseded
from runtime.clock import ManualClock
from runtime.errors import BundleError

INTERVAL_S = 10.0
DAMAGED = BundleError("damaged")


class Address:
    """Answers one look after the other; the last answer holds."""

    def __init__(self, *answers, interval_s=INTERVAL_S):
        self.clock = ManualClock()
        self.answers = list(answers)
        self.looks = 0
        self.watch = BundleWatch("/models", interval_s, self.clock, ask=self.ask, sleep=self.sleep)

    def ask(self, address):
        assert address == "/models"
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds):
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def next(self, other_than):
        """The next version, and after how many seconds it was told."""
        began = self.clock.monotonic()
        return await self.watch.next_version(other_than), self.clock.monotonic() - began


async def test_a_version_is_told_at_the_first_look_that_finds_it():
    """Looks are an interval apart, also the first one."""
    address = Address("a", "a", "b")

    assert await address.next("a") == ("b", 3 * INTERVAL_S)
    assert address.looks == 3


async def test_a_version_that_is_superseded_is_told_with_the_one_in_use():
    """A promotion taken back while its bundle was being loaded shows as the version before."""
    address = Address("b", "b", "a")

    assert (await address.next("a"))[0] == "b"
    assert (await address.next("b"))[0] == "a"


async def test_without_an_interval_nobody_looks():
    """The address counts at the start only."""
    address = Address("b", interval_s=0)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(address.watch.next_version("a"), 0.05)
    assert address.looks == 0


async def test_an_address_that_cannot_be_asked_is_told_once_and_asked_again():
    """One line when it begins, however long it lasts, and one when it is over; again for the next time."""
    address = Address(DAMAGED, DAMAGED, OSError("away"), "a", DAMAGED, "b")

    with capture_logs() as logs:
        assert (await address.next("a"))[0] == "b"

    assert [line["log_level"] for line in logs] == ["warning", "info", "warning", "info"]
    assert logs[0]["cause"] == "damaged"


async def test_a_refused_version_is_told_again_after_pauses_that_grow():
    """Each one twice as long as the last, up to an hour: what cannot be loaded is not loaded all the time."""
    address, pauses = Address("b"), []
    await address.next("a")

    with capture_logs() as logs:
        for _ in range(9):
            address.watch.refuse("b", DAMAGED)
            pauses.append((await address.next("a"))[1])

    assert pauses == [min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S) for number in range(9)]
    assert [line["again_in_s"] for line in logs] == pauses
    assert {(line["log_level"], line["version"], line["cause"]) for line in logs} == {("error", "b", "damaged")}


async def test_another_version_than_the_refused_one_is_told_at_once():
    """Whoever mends a release need not wait for the pause of the broken one."""
    address = Address("b", "b", "c")
    await address.next("a")
    address.watch.refuse("b", DAMAGED)

    assert await address.next("a") == ("c", 2 * INTERVAL_S)


async def test_a_refused_version_that_was_taken_back_is_told_at_once_when_it_returns():
    """It may have been mended meanwhile; its pauses begin anew."""
    address = Address("b", "a", "b")
    await address.next("a")
    for _ in range(3):
        address.watch.refuse("b", DAMAGED)

    assert await address.next("a") == ("b", 2 * INTERVAL_S)
    address.watch.refuse("b", DAMAGED)
    assert await address.next("a") == ("b", FIRST_PAUSE_S)


async def test_a_watch_that_was_given_up_can_be_asked_again():
    """Whoever has loaded what it was told stops asking whether it is superseded."""
    address = Address("b", "b", "c")
    superseded = asyncio.create_task(address.watch.next_version("b"))
    await asyncio.sleep(0)
    superseded.cancel()
    await asyncio.gather(superseded, return_exceptions=True)

    assert (await address.next("b"))[0] == "c"


async def test_a_promotion_and_a_rollback_are_told(two_bundles, tmp_path):
    """A real store, asked in a thread."""
    store, clock = BundleStore(tmp_path / "store"), ManualClock()
    first, second = (store.put(folder)[0] for folder in two_bundles)
    store.promote(first, "test")
    following = BundleWatch(store.address, 0.01, clock)
    told = asyncio.create_task(following.next_version(first))

    store.promote(second, "test")
    assert await told == second
    store.roll_back("test")
    assert await following.next_version(second) == first


async def test_a_folder_that_is_replaced_is_told_once_it_is_complete(two_bundles, tmp_path):
    """While the former bundle is gone and the next one not there yet nothing is told but that it is missing."""
    folder = shutil.copytree(two_bundles[0], tmp_path / "bundle")
    following = BundleWatch(str(folder), 0.01, ManualClock())
    versions = [watch.current_version(one) for one in two_bundles]

    with capture_logs() as logs:
        told = asyncio.create_task(following.next_version(versions[0]))
        shutil.rmtree(folder)
        while not logs:
            await asyncio.sleep(0.01)
        shutil.copytree(two_bundles[1], tmp_path / "bundle.unfinished").rename(folder)
        assert await told == versions[1]

    assert "bundle.json is missing" in logs[0]["cause"]


async def test_work_for_a_version_is_given_up_once_another_one_is_current():
    """Done before, its result counts; what it raises is raised."""
    address, given_up = Address("b", "b", "c"), asyncio.Event()

    async def wait_for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    with pytest.raises(Superseded, match="version c became the current one instead of b"):
        await address.watch.while_current("b", wait_for_ever())
    assert given_up.is_set()
    assert await Address("b").watch.while_current("b", asyncio.sleep(0, "done")) == "done"


async def test_work_that_fails_meanwhile_says_why():
    """As if nobody had looked at the address."""

    async def fail():
        raise DAMAGED

    with pytest.raises(BundleError, match="damaged"):
        await Address("b").watch.while_current("b", fail())

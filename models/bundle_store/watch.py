"""Follows an address: a running program learns of a promotion, a rollback or a folder that was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from models.bundle_store.address import current_version
from runtime.clock import Clock
from runtime.errors import BundleError
from runtime.process.daemon_thread import in_daemon_thread

FIRST_PAUSE_S: Final = 30.0
"""After which a version that could not be loaded is told again; twice as long each time."""
LONGEST_PAUSE_S: Final = 3_600.0
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Superseded(Exception):
    """Another version became the current one before work for this one was done."""


class BundleWatch:
    """Asks an address for its current version, again and again, and tells of versions that are not the one in use.

        while True:
            version = await watch.next_version(other_than=in_use)
            try:
                in_use = load(address)
            except BundleError as error:
                watch.refuse(version, error)

    What is done for a version may be superseded: see `while_current`.

    An address that cannot be asked, as a folder is for a moment while it is replaced, is told once and asked again.

    Args:
        address: as `resolve` takes it.
        interval_s: between two looks; with 0 there is none.
        clock: monotonic.
        ask: the current version of an address.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        address: str,
        interval_s: float,
        clock: Clock,
        *,
        ask: Callable[[str], str] = current_version,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._address = address
        self._interval_s = interval_s
        self._clock = clock
        self._ask = ask
        self._sleep = sleep
        self._is_asked_in_vain = False
        self._refused = ""
        self._pause_s = FIRST_PAUSE_S
        self._again_at_s = 0.0

    async def next_version(self, other_than: str) -> str:
        """Waits until the current version is another one and not refused. One caller at a time; may be cancelled."""
        while True:
            if self._interval_s <= 0:
                await asyncio.get_running_loop().create_future()
            await self._sleep(self._interval_s)
            version = await self._current()
            if version is None:
                continue
            if version != self._refused:
                self._refused = ""
            if version != other_than and not self._is_too_early():
                return version

    async def while_current(self, version: str, work: Coroutine[Any, Any, T]) -> T:
        """The result of work for a version; cancelled if another version becomes the current one before it is done.

        Args:
            version: that it is for.
            work: what to do.

        Raises:
            Superseded: another version is current.
        """
        working = asyncio.create_task(work)
        superseded = asyncio.create_task(self.next_version(other_than=version))
        try:
            await asyncio.wait([working, superseded], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Superseded(f"version {superseded.result()} became the current one instead of {version}")
            return working.result()
        finally:
            for task in (working, superseded):
                task.cancel()
            await asyncio.gather(working, superseded, return_exceptions=True)

    def refuse(self, version: str, error: Exception) -> None:
        """Notes and logs that a version cannot be used. It is told again after a pause, which grows with each refusal,
        or once another version has been current meanwhile.

        Args:
            version: as `next_version` told it.
            error: why.
        """
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if version == self._refused else FIRST_PAUSE_S
        self._refused = version
        self._again_at_s = self._clock.monotonic() + self._pause_s
        log.error(
            "the bundle's new version cannot be used, going on with the former one; promote another or mend it",
            address=self._address,
            version=version,
            cause=str(error),
            again_in_s=self._pause_s,
        )

    def _is_too_early(self) -> bool:
        return bool(self._refused) and self._clock.monotonic() < self._again_at_s

    async def _current(self) -> str | None:
        """The address's current version; None while it cannot be asked."""
        try:
            version = await in_daemon_thread(lambda: self._ask(self._address), "bundle watch")
        except (BundleError, OSError, RuntimeError) as error:  # no thread to be had, for one
            if not self._is_asked_in_vain:
                log.warning(
                    "the bundle's address cannot be asked for its current version, going on with the one in use",
                    address=self._address,
                    cause=str(error),
                )
            self._is_asked_in_vain = True
            return None
        if self._is_asked_in_vain:
            log.info("the bundle's address can be asked again", address=self._address, version=version)
        self._is_asked_in_vain = False
        return version

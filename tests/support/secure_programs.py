"""The `exitstream` commands against a secured broker, as processes, and a proxy that counts their connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from loadgen.processes import free_port
from runtime.settings import KafkaSettings

PATIENCE_S = 90.0


class Command:
    """One `exitstream` command, its output in a file; ended at the end whatever happens.

    Args:
        arguments: of `exitstream`.
        settings: how it reaches Kafka.
        folder: for its output and the updater's snapshots.
        bundle: the model.
        more: further environment variables.
    """

    def __init__(
        self, arguments: Sequence[str], settings: KafkaSettings, folder: Path, bundle: Path, **more: str
    ) -> None:
        self.port = free_port()
        self._log = folder / f"{'-'.join(arguments)}.{self.port}.log"
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                env={**os.environ, **self._environment(settings, folder, bundle), **more},
                stdout=file,
                stderr=file,
            )

    def ended(self) -> int:
        """Waits for it; its exit status."""
        return self._process.wait(PATIENCE_S)

    def terminate(self) -> int:
        """Asks it to end; its exit status."""
        self._process.terminate()
        return self.ended()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def error(self) -> str:
        """The one line in which it ended.

        Raises:
            AssertionError: there is none, or more than that.
        """
        lines = [line for line in self.output.splitlines() if line.startswith("exitstream: ")]
        if len(lines) != 1 or "Traceback" in self.output:
            raise AssertionError(f"not one line:\n{self.output[-3_000:]}")
        return lines[0]

    def page(self, name: str) -> str:
        """A page of its status port; empty while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    async def ready(self) -> None:
        """Waits until its status says so."""
        give_up_at = time.monotonic() + PATIENCE_S
        while '"ready"' not in await asyncio.to_thread(self.page, "readyz"):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"not ready:\n{self.output[-3_000:]}")
            await asyncio.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _environment(self, settings: KafkaSettings, folder: Path, bundle: Path) -> dict[str, str]:
        changed = settings.model_dump(exclude_none=True, exclude_defaults=True)
        secrets = {"sasl_password", "tls_key_password"} & set(changed)
        changed |= {name: changed[name].get_secret_value() for name in secrets}
        kafka = {f"EXITSTREAM_KAFKA__{name.upper()}": str(value) for name, value in changed.items()}
        return {
            **kafka,
            "EXITSTREAM_TELEMETRY__HTTP_PORT": str(self.port),
            "EXITSTREAM_TELEMETRY__LOG_LEVEL": "debug",
            "EXITSTREAM_WORKER__BUNDLE": str(bundle),
            "EXITSTREAM_WORKER__THREADS": "1",
            "EXITSTREAM_WORKER__BUDGET_MS": "30000",
            "EXITSTREAM_WORKER__ENGINE__WARM_UP_ROUNDS": "1",
            "EXITSTREAM_WORKER__ENGINE__MAX_BATCH_TOKENS": "512",
            "EXITSTREAM_UPDATER__BUNDLE": str(bundle),
            "EXITSTREAM_UPDATER__SNAPSHOTS": str(folder / "snapshots"),
        }


class CountingProxy:
    """Passes connections on to a port of this machine and counts them.

    Args:
        target: the port behind it.
        tls: ends TLS here, with a certificate of the test's choice, and passes on nothing.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.port = free_port()
        self._target, self._tls = target, tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> None:
        await asyncio.start_server(self._count_and_pass, "127.0.0.1", self.port)

    async def _count_and_pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, ssl.SSLError):
            if self._tls is not None:
                await writer.start_tls(self._tls)
                writer.close()
                return
            behind = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_pass(reader, behind[1]), _pass(behind[0], writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()

"""The live page over HTTP: three files, the stream of events, and typed requests.

Nothing here may be reached through another site that is open in a viewer's browser: typed requests must be JSON, which
a foreign page cannot send, and the host must be an address, `localhost` or the setting's, which a foreign name that was
made to point here is not.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final

import msgspec
from aiohttp import web

from runtime.settings import TelemetrySettings
from worker.live.page import LivePage
from worker.live.typed import MOST_BYTES, TooBusy, TypedRequests
from worker.live.viewers import TooManyViewers

PATH: Final = "/live"
FILES: Final = {"": ("index.html", "text/html"), "/live.css": ("live.css", "text/css")} | {
    f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("live", "charts")
}
"""By the rest of their path: the file and its type."""
WRITE_LIMIT_S: Final = 10.0
"""A viewer that takes nothing for so long is gone."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LiveSite:
    """Serves a live page.

    Args:
        page: what it tells.
        settings: where it is reached.
    """

    def __init__(self, page: LivePage, settings: TelemetrySettings) -> None:
        self._page = page
        self._own_host = settings.http_host
        folder = resources.files("worker.live") / "static"
        self._files = {path: ((folder / name).read_text(), kind) for path, (name, kind) in FILES.items()}

    def add_to(self, application: web.Application) -> None:
        """Adds its routes; viewers are sent away when the application ends."""
        routes = [web.get(PATH + path, self._guarded(self._file_handler(path))) for path in FILES]
        routes.append(web.get(f"{PATH}/events", self._guarded(self._events)))
        routes.append(web.post(f"{PATH}/score", self._guarded(self._score)))
        application.add_routes(routes)
        application.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._page.viewers.close()

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not is_own_host(request.host, self._own_host):
                text = f"this page is not served under the name {request.host}: use its address or localhost\n"
                return web.Response(status=403, text=text, headers=HEADERS)
            return await handler(request)

        return guarded

    def _file_handler(self, path: str) -> Handler:
        text, kind = self._files[path]

        async def file(_: web.Request) -> web.Response:
            return web.Response(text=text, content_type=kind, headers=HEADERS)

        return file

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `start`, then `second` once a second; `start` again when another model serves."""
        start = self._page.start()
        if start is None:
            return _refusal(503, "the worker is starting: its tables are being filled or its model is loading")
        viewers = self._page.viewers
        try:
            with viewers.place():
                response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
                await response.prepare(request)
                await _send(response, "start", msgspec.json.encode(start))
                async for snapshot in viewers.snapshots():
                    if self._page.model_version != start.model_version:
                        start = self._page.start() or start
                        await _send(response, "start", msgspec.json.encode(start))
                    await _send(response, "second", snapshot)
        except TooManyViewers as error:
            return _refusal(503, str(error))
        except (ConnectionError, TimeoutError):
            if request.transport is not None:  # one that takes nothing: closing in order would wait for it as well
                request.transport.abort()
        return response

    async def _score(self, request: web.Request) -> web.Response:
        """Answers a typed request."""
        typed = self._page.typed
        if typed is None:
            return _refusal(503, "the worker is starting: it cannot score yet")
        if request.content_type != "application/json":
            return _refusal(415, "a request must be JSON")
        if request.content_length is None or request.content_length > MOST_BYTES:
            return _refusal(413, f"a request must tell its length, at most {MOST_BYTES} bytes")
        return await _answer(typed, await request.read())


async def _answer(typed: TypedRequests, body: bytes) -> web.Response:
    try:
        answer = await typed.answer(typed.decode(body))
    except msgspec.MsgspecError as error:
        return _refusal(400, str(error))
    except TooBusy as error:
        return _refusal(429, str(error))
    except ValueError as error:
        return _refusal(422, str(error))
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=HEADERS)


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=HEADERS)


async def _send(response: web.StreamResponse, event: str, data: bytes) -> None:
    async with asyncio.timeout(WRITE_LIMIT_S):
        await response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), data))


def is_own_host(host: str, own: str) -> bool:
    """Whether a Host header names this server by an address, as `localhost`, or as the setting does."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in {"localhost", own}:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True

"""The same app in a browser: textual-serve starts one `eos` a page, and this module sees to it who may look.

textual-serve has no guard of its own. Whoever reaches the port drives the runs: other users of the machine reach loopback,
and so does any web page the user opens, for websockets know no same-origin rule. So the first address holds a secret, which
becomes a cookie that other sites cannot send; without it nothing answers.
"""

import asyncio
import gc
import hmac
import importlib.util
import ipaddress
import os
import re
import secrets
import shlex
import sys
from asyncio.base_subprocess import BaseSubprocessTransport
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from engine.errors import UserError
from engine.launch import python

PORT = 8000
SHUTDOWN_SECONDS = 3.0
OUTSIDE_FONT = re.compile(r"<link[^>]*https://fonts\.[^>]*>")
"""textual-serve's page asks Google for a font."""


def command(run: str | None, options: Sequence[str]) -> str:
    """The command of one page, for a shell."""
    return shlex.join([*python(), "-m", "eos_tui", *(["attach", run] if run else []), *options])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(run: str | None, host: str = "127.0.0.1", port: int = PORT, options: Sequence[str] = (), key: str | None = None) -> int:
    """Serve until Ctrl-C. Raises UserError where textual-serve is not installed or the port is taken."""
    if importlib.util.find_spec("textual_serve") is None:
        raise UserError("eos serve needs textual-serve: `pip install 'eos-tui[web]'` brings it")
    key = key or secrets.token_urlsafe(16)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/?key={key}", flush=True)
    if not is_loopback(host):
        print(f"warning: {host} is reached from other machines, and nothing is encrypted: whoever reads this address off the "
              "network drives your runs. `ssh -L` to 127.0.0.1 is the safe way.", file=sys.stderr, flush=True)
    print("Ctrl-C ends it; engines go on.", file=sys.stderr, flush=True)
    try:
        server(command(run, options), host, port, key).serve()
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be served ({os.strerror(error.errno or 0)}); choose another --port") from None
    return 0


def server(command: str, host: str, port: int, key: str) -> Any:
    """textual-serve's server behind the guard."""
    from aiohttp import web
    from textual_serve.server import Server

    open_pages: set[asyncio.Task[Any]] = set()

    class Guarded(Server):
        """Answers who brings the key."""

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard(key, f"eos-{port}"))
            return app

        async def handle_index(self, request: web.Request) -> web.Response:
            """The page, which asks no other server for anything and calls back where it was called: a tunnel has other ports."""
            self.public_url = f"{request.scheme}://{request.host}"
            page = cast(web.Response, await super().handle_index(request))
            page.text = OUTSIDE_FONT.sub("", page.text or "")
            return page

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            """One page, from its opening to its end."""
            open_pages.add(page := cast("asyncio.Task[Any]", asyncio.current_task()))
            try:
                return await super().handle_websocket(request)
            finally:
                open_pages.discard(page)

        async def on_shutdown(self, app: web.Application) -> None:
            """Take every page's `eos` along: left alone they end with a traceback each."""
            for page in tuple(open_pages):
                page.cancel()
            if open_pages:
                await asyncio.wait(open_pages, timeout=SHUTDOWN_SECONDS)
                await asyncio.sleep(0.2)  # for the event loop to notice that they have ended
            for ended in gc.get_objects():  # textual-serve keeps no hold of them; left open, Python 3.13 complains once the loop is gone
                if isinstance(ended, BaseSubprocessTransport):
                    ended.close()
            await asyncio.sleep(0)

        async def on_startup(self, app: web.Application) -> None:
            """Say nothing: the address was printed, with its key."""

        def initialize_logging(self) -> None:
            """stdout is the address's."""

    return Guarded(command, host=host, port=port, title="eos")


def guard(key: str, cookie: str) -> Callable[..., Awaitable[Any]]:
    """A middleware that trades the key in the first address for a cookie of that name, and turns everybody else away."""
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if hmac.compare_digest(request.cookies.get(cookie, "").encode(), key.encode()):
            return await handler(request)
        if request.path == "/" and hmac.compare_digest(request.query.get("key", "").encode(), key.encode()):
            answer = web.Response(status=302, headers={"Location": "/"})
            answer.set_cookie(cookie, key, httponly=True, samesite="Strict")
            return answer
        return web.Response(status=403, text="eos: open the address that `eos serve` printed, with its key\n")

    return check

"""The same app in a browser: textual-serve starts one `eos` a page, and this module sees to it who may look, and that a page ends.

textual-serve has no guard of its own. Whoever reaches the port drives the runs: other users of the machine reach loopback, and so does
any web page that the user opens, for websockets know no same-origin rule. So it is done as Jupyter does it. A request must name this
server as its host, or a page elsewhere could have its own name point here; and where it names the page it comes from, that must be one
of ours. The first address holds a key. It is traded for a cookie, which lets pages and files be fetched, and for a token, which is the
page's alone: browsers send cookies to every port of a host, so whatever serves another one knows ours, and it opens no socket.
"""

import asyncio
import errno
import hmac
import importlib.util
import ipaddress
import json
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from engine.base.errors import UserError, first_line
from engine.base.text import print_line
from engine.jobs.launch import environment, python

PORT = 8000
MOST_PAGES = 16
"""Pages open at once: each is a process."""
MOST_COLUMNS, MOST_ROWS = 800, 300
"""Of a page's terminal; a 4K screen has 480 × 120 at the usual size of letters."""
MOST_BYTES = 1 << 20
"""Of a message from a page."""
STUCK_SECONDS = 10.0
"""For a page's process to take what was typed."""
QUIT_SECONDS, TERM_SECONDS = 2.0, 2.0
"""For a page's process to end when asked to, and when terminated; then it is killed."""
LOOK_SECONDS = 0.02
BACKLOG = 128
"""Connections that wait to be taken."""
OUTSIDE_FONT = re.compile(r"<link[^>]*https://fonts\.[^>]*>")
"""textual-serve's page asks Google for a font."""
HEADERS = {
    "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
TOKEN_SCRIPT = """<script>
(() => {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("eos-token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  const token = sessionStorage.getItem("eos-token");
  if (!token) {
    document.addEventListener("DOMContentLoaded", () => {
      document.querySelectorAll(".textual-terminal").forEach((terminal) => terminal.remove());
      document.querySelector(".intro").textContent = "Open the address that `eos serve` printed, with its key.";
    });
  }
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(address) {
      super(address + "&token=" + encodeURIComponent(token));
    }
  };
})();
</script>
"""
"""Takes the token out of the address, keeps it for this tab and this port, and sends it with the socket."""

FOCUS_SCRIPT = """<script>
(() => {
  const focus = () => {
    const entry = document.querySelector(".xterm-helper-textarea");
    if (entry && document.activeElement !== entry) entry.focus({preventScroll: true});
    return entry;
  };
  document.addEventListener("DOMContentLoaded", () => {
    const watch = new MutationObserver(() => { if (focus()) watch.disconnect(); });
    watch.observe(document.body, {childList: true, subtree: true});
  });
  window.addEventListener("focus", focus);
  window.addEventListener("keydown", focus, true);
})();
</script>
"""
"""Gives the keys to the terminal as soon as it is there, and whenever the tab is chosen again: nobody has to click first."""


class Secrets(NamedTuple):
    """What a browser must bring: none of them can be had from another."""

    key: str
    """In the address that is printed."""
    cookie: str
    token: str
    """Of a page: with the cookie it opens a socket."""


def command(run: str | None, options: Sequence[str]) -> str:
    """The command of one page, for a shell."""
    return shlex.join([*python(), "-m", "eos_tui", *(["attach", run] if run else []), *options])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


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
        server(command(run, options), host, port, key, f"eos · {Path(run).name}" if run else "eos").serve()
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        advice = "; choose another --port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        raise UserError(f"{host}:{port}: cannot be served ({why}){advice}") from None
    return 0


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """A socket at each address of the host. Raises OSError where there is none: asyncio, left to make them, goes on without."""
    sockets, refused = list[socket.socket](), OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    addresses = {(family, address) for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    try:
        for family, address in addresses:
            try:
                sockets.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                refused = error  # a host of several names an address of a kind that this machine has not
        if not sockets:
            raise refused
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def server(command: str, host: str, port: int, key: str, title: str = "eos") -> Any:
    """textual-serve's server behind the guard; browsers call its tab by the title."""
    from aiohttp import WSMsgType, web
    from textual_serve.app_service import AppService
    from textual_serve.server import Server, to_int

    class Page(AppService):
        """The process behind a page, and its end."""

        ending: asyncio.Task[None] | None = None

        async def _open_app_process(self, width: int = 80, height: int = 24) -> asyncio.subprocess.Process:
            """Start it without a shell, in a session of its own, so that all of it can be ended, and what it says on stderr is ours."""
            around = self._build_environment(width, height) | {"TEXTUAL_DRIVER": "eos_tui.terminal.browser_driver:PageDriver"}
            around["PYTHONPATH"] = environment()["PYTHONPATH"]
            try:
                self._process = process = await asyncio.create_subprocess_exec(
                    *shlex.split(self.command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=around,
                    start_new_session=True,
                )  # fmt: skip
            except (OSError, RuntimeError) as error:
                for frame, _ in walk_tb(error.__traceback__):
                    if (transport := frame.f_locals.get("transp")) is not None:  # asyncio leaves alone what it began and could not watch
                        transport.close()
                raise UserError(f"a page could not be opened ({first_line(error)})") from None
            self._stdin = process.stdin
            process.stderr = asyncio.StreamReader()  # textual-serve prints on stdout what it reads from there
            process.stderr.feed_eof()
            return process

        async def on_data(self, payload: bytes) -> None:
            """Pass on what it draws; once the page is gone, only read it, or the process could not end."""
            with suppress(ConnectionError, RuntimeError):
                await self.remote_write_bytes(payload)

        async def _put(self, send: Awaitable[Any]) -> None:
            """Raises TimeoutError where the process takes nothing any more."""
            async with asyncio.timeout(STUCK_SECONDS):
                await send

        async def over(self) -> None:
            """Return when the process has nothing more to say."""
            if self._task is not None:
                await asyncio.wait([self._task])

        async def end(self) -> None:
            """Have the process end, if it must be by force. Whoever calls it waits for that, and cannot break it off."""
            self.ending = self.ending or asyncio.create_task(self._end())
            await asyncio.shield(self.ending)

        async def _end(self) -> None:
            process = self._process
            if process is None:
                return
            await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
            asking = asyncio.create_task(self.send_meta({"type": "quit"}))  # it may take no more
            for number, seconds in ((None, QUIT_SECONDS), (signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS)):
                if number is not None and process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, number)  # what it has started, too; an engine is in a session of its own
                until = time.monotonic() + seconds
                while process.returncode is None and time.monotonic() < until:
                    await asyncio.sleep(LOOK_SECONDS)
            for task in (asking, self._task):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])
            process._transport.close()  # type: ignore[attr-defined]  # left open, Python 3.13 complains once the loop is gone

    open_pages: dict[asyncio.Task[Any], Page | None] = {}

    class Guarded(Server):
        """Answers who may look."""

        def serve(self, debug: bool = False) -> None:
            """Serve until a signal asks for the end."""
            self.initialize_logging()
            sockets, loop = listening_sockets(self.host, self.port), asyncio.new_event_loop()
            try:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, self.request_exit)
            except RuntimeError as error:
                raise UserError(f"signals cannot be heeded here ({error}), so nothing is served") from None
            web.run_app(self._make_app(), sock=sockets, handle_signals=False, loop=loop, print=None)

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            asked = Secrets(key, secrets.token_urlsafe(24), secrets.token_urlsafe(24))
            app.middlewares.append(guard(asked, f"eos-{port}", host))
            return app

        async def handle_index(self, request: web.Request) -> web.Response:
            """The page, which asks no other server for anything and calls back where it was called: a tunnel has other ports."""
            self.public_url = f"{request.scheme}://{request.host}"
            page = cast(web.Response, await super().handle_index(request))
            named = f"<title>{escape(title)}</title>\n"
            page.text = OUTSIDE_FONT.sub("", page.text or "").replace("<head>", f"<head>\n{named}{TOKEN_SCRIPT}{FOCUS_SCRIPT}", 1)
            return page

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            """One page, from its opening to its end."""
            if len(open_pages) >= MOST_PAGES:
                raise web.HTTPServiceUnavailable(text=f"eos: {MOST_PAGES} pages are open already; close one\n")
            this = cast("asyncio.Task[Any]", asyncio.current_task())
            open_pages[this] = None
            feed = web.WebSocketResponse(heartbeat=15, max_msg_size=MOST_BYTES, timeout=1.0)

            async def close() -> None:
                await feed.close()

            try:
                await feed.prepare(request)
                open_pages[this] = page = Page(
                    self.command, write_bytes=feed.send_bytes, write_str=feed.send_str, close=close,
                    download_manager=self.download_manager,
                )  # fmt: skip
                sizes = (to_int(request.query.get(name, ""), usual) for name, usual in (("width", 80), ("height", 24)))
                await page.start(*bounded(*sizes))
                talk = asyncio.create_task(self._process_messages(feed, page))
                await asyncio.wait([talk, asyncio.create_task(page.over())], return_when=asyncio.FIRST_COMPLETED)
                talk.cancel()
                with suppress(asyncio.CancelledError, TimeoutError, ConnectionError):
                    await talk
            except asyncio.CancelledError:
                pass  # the server ends
            finally:
                if (begun := open_pages[this]) is not None:
                    await begun.end()
                del open_pages[this]
                with suppress(RuntimeError, ConnectionError):
                    await feed.close()
            return feed

        async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
            """What a page sends, until it closes. Anything else than a page sends closes it."""
            page = cast(Page, app_service)
            async for message in websocket:
                if message.type != WSMsgType.TEXT:
                    continue
                try:
                    envelope = json.loads(message.data)
                except (ValueError, RecursionError):
                    envelope = None
                match envelope:
                    case ["stdin", str(text)]:
                        await page._put(page.send_bytes(text.encode("utf-8", "replace")))
                    case ["resize", {"width": int(width), "height": int(height)}]:
                        await page._put(page.set_terminal_size(*bounded(width, height)))
                    case ["resize", _]:
                        pass  # a page that is hidden has no size
                    case ["ping", str(text)]:
                        await websocket.send_json(["pong", text])
                    case ["blur"]:
                        await page._put(page.blur())
                    case ["focus"]:
                        await page._put(page.focus())
                    case _:
                        return

        async def on_shutdown(self, app: web.Application) -> None:
            """Take every page's `eos` along."""
            tasks, pages = list(open_pages), [page for page in open_pages.values() if page is not None]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait([*tasks, *(asyncio.create_task(page.end()) for page in pages)], timeout=QUIT_SECONDS + 2 * TERM_SECONDS)
            await asyncio.sleep(0)  # for their transports to be closed

        async def on_startup(self, app: web.Application) -> None:
            """Say nothing: the address was printed, with its key."""

        def initialize_logging(self) -> None:
            """stdout is the address's; what aiohttp, textual-serve and asyncio have to say is a line on stderr, and so is what comes up
            where Python has nobody to raise it to: a loop that could not be made, a process that could not be watched."""
            sys.unraisablehook = _tell_unraisable
            for name in ("aiohttp.server", "textual-serve", "asyncio"):
                logger = logging.getLogger(name)
                logger.handlers, logger.propagate = [OneLine(logging.WARNING)], False

    return Guarded(command, host=host, port=port, title=title)


def _tell_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if isinstance(unraisable.exc_value, Exception):
        print_line(f"eos: {first_line(unraisable.exc_value)}", error=True)


class OneLine(logging.Handler):
    """Tells what went wrong in one line: a traceback that any request can cause is of no use to a user."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = f" ({type(error).__name__}: {' '.join(str(error).split())[:200]})" if error is not None else ""
        print_line(f"eos: {record.getMessage().partition(chr(10))[0]}{said}", error=True)


def bounded(columns: int, rows: int) -> tuple[int, int]:
    """The size of a terminal that a page asks for, as far as it is drawn."""
    return min(max(columns, 1), MOST_COLUMNS), min(max(rows, 1), MOST_ROWS)


def guard(asked: Secrets, cookie: str, host: str) -> Callable[..., Awaitable[Any]]:
    """A middleware that trades the key in the first address for a cookie of that name and the page's token, and turns others away."""
    from aiohttp import web

    def turned_away(why: str) -> web.Response:
        return web.Response(status=403, text=f"eos: {why}\n")

    @web.middleware
    async def check(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        answer = await answered(request, handler)
        if not answer.prepared:
            answer.headers.update(HEADERS)
        return answer

    async def answered(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        names = request.headers.getall("Host", [])
        if len(names) != 1 or not is_ours(names[0], host):
            return turned_away("this server has another name; open the address that `eos serve` printed, or name it with --host")
        if not all(is_same(origin, names[0]) for origin in request.headers.getall("Origin", [])):
            return turned_away("a page of another origin asks, and only this server's own may")
        if request.path == "/" and _equal(request.query.get("key", ""), asked.key):
            answer = web.Response(status=302, headers={"Location": f"/#token={asked.token}"})
            answer.set_cookie(cookie, asked.cookie, httponly=True, samesite="Strict")
            return answer
        if not _equal(request.cookies.get(cookie, ""), asked.cookie):
            return turned_away("open the address that `eos serve` printed, with its key")
        if request.path == "/ws" and not _equal(request.query.get("token", ""), asked.token):
            return turned_away("a socket takes the token of a page; open the address that `eos serve` printed, with its key")
        return await handler(request)

    return check


def _equal(given: str, secret: str) -> bool:
    """Whether a secret was given, compared in constant time; a header may hold any byte."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def is_ours(named: str, host: str) -> bool:
    """Whether the host that a request names is this server: another name may have been made to point here by whoever owns it, an address
    may not.
    """
    parts = _authority(f"//{named}")
    if parts is None:
        return False
    name = parts[0].removesuffix(".")
    if is_loopback(host):
        return is_loopback(name)
    return name in ("localhost", host.lower(), socket.gethostname().lower()) or _address(name) is not None


def is_same(origin: str, named: str) -> bool:
    """Whether an origin is that of the host that the request names."""
    theirs, ours = _authority(origin), _authority(f"{origin.partition(':')[0]}://{named}")
    return theirs is not None and theirs == ours


def _authority(url: str) -> tuple[str, int] | None:
    """Host and port of an address; None where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and "@" not in parts.netloc else None

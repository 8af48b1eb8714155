"""`eos serve` struck at its n-th system call of a kind by a tracer: that call fails, or the process is killed there.

    python tests/striking_served.py HOME CALL HOW STRIDE       a line of JSON when every so many of the calls were struck
    python tests/striking_served.py HOME page HOW STRIDE       the same for the calls of what is behind a page, the real app, as it writes

Each server is forked from this process, which has imported what there is to import, and waits until the tracer has it. A browser, as far
as it matters, then opens a page and closes it. Whatever was struck, the server ends with a sentence and a status or goes on and answers
the next request; no traceback is seen, and once the server has ended nothing that it started is there.
"""

import asyncio
import gc
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

from aiohttp import ClientError, ClientSession, ClientTimeout, CookieJar, WSMsgType
from textual_serve import app_service, server  # noqa: F401  what is loaded here is not struck

from engine.base.errors import BAD_INPUT
from eos_tui import cli
from eos_tui.terminal import browser

from synthetic import make_run
from waiting import until

HOWS = {"EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "EACCES": "error=EACCES", "EMFILE": "error=EMFILE", "kill": "signal=KILL"}
CHILD = r"""import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.write(1, b"__GANGLION__\nD\0\0\0\2hi")
while os.read(0, 1000): pass
"""
SECONDS = 20.0
"""For a server to begin and to end, under a tracer on a machine that is busy."""
PATIENT = ClientTimeout(total=5.0)


class Served:
    """A server in a process of its own, with a tracer or without."""

    def __init__(self, home: Path, strace: list[str], real: bool):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.mark = f"{home}/{self.port}-{time.monotonic_ns()}"
        self.said = tempfile.TemporaryFile()
        out, into = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.environ["EOS_STRUCK"] = self.mark
            os.dup2(into, 1)
            os.dup2(self.said.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
            if not real:
                browser.command = lambda *_: shlex.join([sys.executable, "-S", "-E", "-c", CHILD])
            status = 1
            try:
                while not Path(f"{self.mark}-begin").exists():  # no read: the tracer would count it
                    time.sleep(0.01)
                status = cli.main(["serve", "one", "--port", str(self.port)])
                gc.collect()  # what complains when it goes
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        os.close(into)
        self.status: int | None = None
        self.tracer = subprocess.Popen([*strace, "-p", str(self.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: "TracerPid:\t0" not in Path(f"/proc/{self.pid}/status").read_text() or self.tracer.poll() is not None, SECONDS)
        Path(f"{self.mark}-begin").touch()
        with open(out) as stdout:
            self.address = stdout.readline().strip()  # its end, where the server ends before

    def has_ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def listens(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def left(self) -> list[int]:
        """Processes that it started and that are there."""
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"EOS_STRUCK={self.mark}\0".encode() in (entry / "environ").read_bytes():
                    pids.append(int(entry.name))
        return pids

    def end(self) -> str:
        """Have it end, struck no more; what it said on stderr."""
        self.tracer.terminate()  # it lets go: the signal's own write is not struck, which nothing but a tracer makes fail
        self.tracer.wait(SECONDS)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            until(self.has_ended, SECONDS)
            until(lambda: not self.left(), SECONDS)
        finally:
            for pid in [*self.left(), *([] if self.has_ended() else [self.pid])]:
                os.kill(pid, signal.SIGKILL)
        self.said.seek(0)
        return self.said.read().decode()


async def look(address: str) -> bool:
    """Open a page, type a letter, and close it; whether it drew anything."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True), timeout=PATIENT) as page:
        first = await page.get(address)
        token = first.real_url.fragment.removeprefix("token=")
        async with page.ws_connect(f"{address.partition('?')[0]}ws?width=80&height=24&token={token}") as feed, asyncio.timeout(5):
            while (message := await feed.receive()).type == WSMsgType.TEXT:
                pass
            if message.type == WSMsgType.BINARY:
                await feed.send_json(["stdin", "x"])
                await feed.send_json(["resize", {"width": 90, "height": 30}])
            return message.type == WSMsgType.BINARY


async def is_answered(address: str) -> bool:
    """Whether the first address is."""
    with suppress(ClientError, OSError, TimeoutError):
        async with ClientSession(cookie_jar=CookieJar(unsafe=True), timeout=PATIENT) as page:
            return (await page.get(address)).status == 200
    return False


def served(home: Path, strace: list[str], real: bool, killed: bool) -> bool:
    """One server, begun and looked at and ended, whatever strikes it meanwhile; whether its page drew anything."""
    struck, drew = Served(home, strace, real), False
    try:
        until(lambda: struck.has_ended() or struck.listens(), SECONDS)
        with suppress(ClientError, OSError, TimeoutError):
            drew = asyncio.run(look(struck.address))
        until(lambda: struck.left() in ([], [struck.pid]), SECONDS)  # what was behind the page
        goes_on = any(asyncio.run(is_answered(struck.address)) for _ in range(2))  # one may be struck, too
        if not goes_on:
            until(struck.has_ended, SECONDS)
    finally:
        said = struck.end()
    assert struck.status in (0, BAD_INPUT, *((-signal.SIGKILL,) if killed else ())), (struck.status, said)
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    assert struck.status != BAD_INPUT or "eos: " in said.splitlines()[-1], said
    return drew


def load() -> None:
    """Have this process import what a server does, for the loading of modules is not what is struck."""
    real, browser.server = browser.server, lambda *_: SimpleNamespace(serve=lambda: "\x00".encode("unicode_escape"))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert cli.main(["serve", "one"]) == 0
    browser.server = real


def calls_of(home: Path, call: str, real: bool) -> int:
    """How many of the calls there are where nothing strikes, up to the signal that ends it."""
    log = home / "calls"
    assert served(home, ["strace", "-qq", *(["-f"] if real else []), "-o", str(log), "-e", f"trace={call}"], real, False)
    return log.read_text().partition("--- SIGTERM")[0].count(f"{call}(")


def main(home: Path, call: str, how: str, stride: int = 1) -> int:
    """Strike every so many of the calls."""
    os.environ["EOS_HOME"] = str(home)
    os.environ["EOS_CONFIG"] = str(home / "config.toml")
    if not (home / "one").exists():
        make_run(home, 60, "one")
    load()
    real, call = call == "page", "write" if call == "page" else call
    count = calls_of(home, call, real)
    for n in range(1, count + 1, stride):
        follow = ["-f"] if real else []
        strace = ["strace", "-qq", *follow, "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{HOWS[how]}:when={n}"]
        try:
            served(home, strace, real, how == "kill")
        except BaseException:
            print(f"struck: {call} {how} {n}", file=sys.stderr)
            raise
    print(json.dumps({"call": call, "how": how, "calls": count}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))

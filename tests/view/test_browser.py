"""`eos serve`: the real server with the real app behind it, nobody let in without the key, and no process left behind a page."""

import asyncio
import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.jobs import launch
from engine.record.messages import Pause
from eos_tui import cli
from eos_tui.terminal import browser

from piloting import until
from places import ROOT
from synthetic import FakeEngine, make_run

pytest.importorskip("textual_serve")
from aiohttp import ClientSession, CookieJar, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

KEY = "the-key"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name in ("QUIT_SECONDS", "TERM_SECONDS"):
        monkeypatch.setattr(browser, name, 0.3)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


async def client(command: str | None = None, host: str = "127.0.0.1") -> TestClient:
    """A browser, as far as it matters, in front of the server."""
    app = await browser.server(command or browser.command(None, []), host, 8000, KEY)._make_app()
    page = TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True))  # unsafe: cookies for a bare address
    await page.start_server()
    return page


async def opened(page: TestClient) -> str:
    """Open the first address; the token it gives."""
    first = await page.get(f"/?key={KEY}", allow_redirects=False)
    return first.headers["Location"].removeprefix("/#token=")


async def test_without_the_key_nothing_answers(runs):
    page = await client()
    try:
        for path in ("/", "/?key=", "/?key=wrong", "/ws", f"/ws?key={KEY}", f"/ws?token={KEY}", "/static/js/textual.js", "/download/x"):
            assert (await page.get(path)).status == 403
        for wrong in ("wrong", KEY):
            page.session.cookie_jar.update_cookies({"eos-8000": wrong})
            assert (await page.get("/")).status == 403
    finally:
        await page.close()


async def test_the_key_becomes_a_cookie_and_a_token_none_of_which_leads_to_another(runs):
    page = await client()
    try:
        first = await page.get(f"/?key={KEY}", allow_redirects=False)
        path, _, token = first.headers["Location"].partition("#token=")
        assert (first.status, path) == (302, "/")
        assert "HttpOnly" in first.headers["Set-Cookie"]
        assert "SameSite=Strict" in first.headers["Set-Cookie"]
        cookie = first.cookies["eos-8000"].value
        assert len({KEY, cookie, token}) == 3
        assert min(len(cookie), len(token)) >= 32
        answer = await page.get("/")
        text = await answer.text()
        assert f"ws://127.0.0.1:{page.port}/ws" in text  # where the browser came in, not where the server thinks it is
        assert "fonts.googleapis" not in text
        assert "sessionStorage" in text
        assert "<title>eos</title>" in text
        assert ".xterm-helper-textarea" in text
        assert not any(secret in text for secret in (KEY, cookie, token))  # the token is in the address alone, after the #
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    finally:
        await page.close()


async def refused(page: TestClient, path: str, **headers: str) -> int:
    """The status with which a socket is refused."""
    with pytest.raises(WSServerHandshakeError) as refusal:
        await page.ws_connect(path, headers=headers)
    return refusal.value.status


async def test_a_socket_takes_the_token_beside_the_cookie(runs):
    """Browsers send a cookie to every port of the host: whoever serves another one knows it."""
    page = await client(quiet_child())
    try:
        token = await opened(page)
        for query in ("", "?width=80&height=24", "?token=", "?token=wrong", f"?token={KEY}", f"?key={KEY}", f"?token={token}x"):
            assert await refused(page, f"/ws{query}") == 403
        await (await page.ws_connect(f"/ws?width=80&height=24&token={token}")).close()
        page.session.cookie_jar.clear()
        assert await refused(page, f"/ws?token={token}") == 403
    finally:
        await page.close()


ORIGINS = ("http://127.0.0.1:1", "http://localhost:{port}", "null", "", "https://127.0.0.1", "http://evil.example", "http://[", "\x80",
           "http://127.0.0.1:{port}@evil.example", "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:99999999")  # fmt: skip


async def test_no_page_of_another_origin_is_answered_whatever_it_brings(runs):
    page = await client(quiet_child())
    try:
        token = await opened(page)
        for origin in (each.format(port=page.port) for each in ORIGINS):
            assert await refused(page, f"/ws?token={token}", Origin=origin) == 403
            for path in ("/", f"/?key={KEY}", "/static/js/textual.js"):
                assert (await page.get(path, headers={"Origin": origin}, allow_redirects=False)).status == 403
        same = {"Origin": f"http://127.0.0.1:{page.port}"}
        assert (await page.get("/", headers=same)).status == 200
        await (await page.ws_connect(f"/ws?token={token}", headers=same)).close()
    finally:
        await page.close()


@pytest.mark.parametrize(("host", "named", "ours"), [
    ("127.0.0.1", "127.0.0.1:8000", True), ("127.0.0.1", "localhost:9", True), ("127.0.0.1", "[::1]:8000", True),  # a tunnel's port
    ("localhost", "LOCALHOST", True), ("::1", "127.8.0.1:1", True), ("127.0.0.1", "evil.example:8000", False),
    ("127.0.0.1", "127.0.0.1.evil.example", False), ("127.0.0.1", "192.168.0.7:8000", False), ("127.0.0.1", "0.0.0.0", False),
    ("127.0.0.1", "", False), ("127.0.0.1", "[", False), ("127.0.0.1", "a@127.0.0.1", False), ("127.0.0.1", "\udc80", False),
    ("0.0.0.0", "192.168.0.7:8000", True), ("0.0.0.0", "evil.example", False), ("box.example", "Box.example:8000", True),
    ("::", socket.gethostname(), True), ("127.0.0.1", "127.0.0.1:99999999", False), ("127.0.0.1", "localhost.", True),
])  # fmt: skip
def test_a_name_that_may_have_been_made_to_point_here_is_not_ours(host, named, ours):
    assert browser.is_ours(named, host) is ours


async def test_a_request_under_another_name_is_turned_away(runs):
    page = await client()
    try:
        await opened(page)
        for path in ("/", f"/?key={KEY}"):
            assert (await page.get(path, headers={"Host": "evil.example"}, allow_redirects=False)).status == 403
            assert (await page.get(path, headers={"Host": "localhost:77"})).status == 200
    finally:
        await page.close()


async def sent(port: int, lines: bytes) -> bytes:
    """What the server answers to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(lines + b"Connection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_no_byte_anywhere_in_a_request_is_an_error_of_the_server(runs, capfd):
    page = await client()
    browser.server("", "127.0.0.1", 8000, KEY).initialize_logging()
    try:
        for byte in (0x00, 0x01, 0x0A, 0x22, 0x25, 0x3B, 0x5C, 0x7F, 0x80, 0xC3, 0xFF):
            odd = bytes([byte])
            for lines in (
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: eos-8000=" + odd + b"\r\n",
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: " + odd + b"=a; eos-8000=\"" + odd + b"\r\n",
                b"GET /?key=" + odd + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                b"GET /?key=%%%02X HTTP/1.1\r\nHost: 127.0.0.1\r\n" % byte,
                b"GET /ws?token=%%%02X&width=%%%02X HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (byte, byte),
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1" + odd + b"\r\n",
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://" + odd + b"\r\n",
                b"GET /" + odd + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                b"GET / HTTP/1.1\r\n",
            ):
                assert (await sent(page.port, lines))[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400", b"HTTP/1.0 400")
    finally:
        await page.close()
    assert "Traceback" not in capfd.readouterr().err


# -- the processes behind pages

CHILD = """import os, signal, sys, time
open(os.environ["CHILDREN"], "a").write(f"{os.getpid()} {os.environ['COLUMNS']} {os.environ['ROWS']} {os.getcwd() in sys.path}\\n")
os.write(1, b"__GANGLION__\\n")
"""
STUBBORN = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
"""


@pytest.fixture(autouse=True)
def children(tmp_path, monkeypatch):
    """Where the processes behind pages write who they are."""
    monkeypatch.setenv("CHILDREN", str(tmp_path / "children"))
    return tmp_path / "children"


def child(code: str) -> str:
    return shlex.join([*launch.python(), "-c", CHILD + code])


def quiet_child() -> str:
    """A process behind a page that does what it is told and draws nothing."""
    return child("while os.read(0, 1000): pass")


def is_there(pid: int) -> bool:
    """Whether a process, or another of its group, is at work: one that is killed is gone, though nobody has asked what became of it."""
    done = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    return any(int(group) == pid and state[0] != "Z" for group, state in map(str.split, done.stdout.splitlines()))


@pytest.mark.parametrize("code", [
    "time.sleep(1000)", STUBBORN + "time.sleep(1000)", STUBBORN + "while True: pass", STUBBORN + "while True: os.write(1, bytes(5) * 1000)",
    STUBBORN + "os.close(0); os.close(1); time.sleep(1000)", "while os.read(0, 1000): pass",
], ids=["deaf", "stubborn", "busy", "talkative", "closed", "willing"])  # fmt: skip
async def test_a_process_ends_with_its_page(code, runs, children):
    page = await client(child(code))
    try:
        token = await opened(page)
        feed = await page.ws_connect(f"/ws?token={token}")
        await until(lambda: children.exists() and children.read_text().endswith("\n"))
        pid = int(children.read_text().split()[0])
        await asyncio.sleep(0.1)
        await feed.close()
        await until(lambda: not is_there(pid))
    finally:
        await page.close()


async def test_the_server_takes_the_processes_along(runs, children):
    page = await client(child(STUBBORN + "time.sleep(1000)"))
    try:
        token = await opened(page)
        feeds = [await page.ws_connect(f"/ws?token={token}") for _ in range(2)]
        await until(lambda: children.exists() and children.read_text().count("\n") == 2)
        pids = [int(line.split()[0]) for line in children.read_text().splitlines()]
        await page.server.close()
        await until(lambda: not any(map(is_there, pids)))  # what is killed with its group may be a moment on its way
        for feed in feeds:
            assert (await feed.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    finally:
        await page.close()


async def test_a_page_whose_process_ends_is_closed(runs):
    page = await client(child(""))
    try:
        feed = await page.ws_connect(f"/ws?token={await opened(page)}")
        async with asyncio.timeout(10):
            assert (await feed.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
    finally:
        await page.close()


async def test_sizes_and_pages_are_bounded(runs, children, monkeypatch):
    monkeypatch.setattr(browser, "MOST_PAGES", 2)
    received = children.with_name("received")
    page = await client(child(f"while data := os.read(0, 1000): open({str(received)!r}, 'ab').write(data)"))
    try:
        token = await opened(page)
        first = await page.ws_connect(f"/ws?width=1000000&height=1000000&token={token}")
        second = await page.ws_connect(f"/ws?width=-5&height={'9' * 5000}&token={token}")
        await until(lambda: children.exists() and children.read_text().count("\n") == 2)
        assert sorted(line.split()[1:] for line in children.read_text().splitlines()) == [["1", "24", "False"], ["800", "300", "False"]]
        for size in ([10**9, 10**9], [0, -1], [True, 1], ["a", None], [1.5, 2], [None, 2]):
            await first.send_json(["resize", dict(zip(("width", "height"), size, strict=True))])
        await first.send_json(["stdin", "\ud800q"])
        await until(lambda: received.exists() and b"?q" in received.read_bytes())
        sizes = [json.loads(each) for each in re.findall(rb"M....({.*?})", received.read_bytes(), re.DOTALL)]
        assert [(each["width"], each["height"]) for each in sizes] == [(800, 300), (1, 1), (1, 1)]
        assert await refused(page, f"/ws?token={token}") == 503
        await second.close()
        for _ in range(500):
            with suppress(WSServerHandshakeError):
                await page.ws_connect(f"/ws?token={token}")
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("a page that was closed still counts")
    finally:
        await page.close()


async def test_what_no_page_sends_closes_the_socket_and_nothing_else(runs, capfd):
    page = await client(quiet_child())
    try:
        token = await opened(page)
        for message in ("", "{", "[]", "5", "[1]", '["stdin"]', '["stdin", 5]', '["stdin", "a", "b"]', "[" * 5000, '["x", 1]'):
            feed = await page.ws_connect(f"/ws?token={token}")
            await feed.send_json(["ping", "7"])
            assert await feed.receive_json() == ["pong", "7"]
            await feed.send_str(message)
            async with asyncio.timeout(10):
                assert (await feed.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert (await page.get("/")).status == 200
    finally:
        await page.close()
    assert capfd.readouterr() == ("", "")


async def test_a_process_that_takes_nothing_keeps_its_page_open_for_a_while_only(runs, children, monkeypatch):
    monkeypatch.setattr(browser, "STUCK_SECONDS", 0.2)
    page = await client(child("time.sleep(1000)"))
    try:
        feed = await page.ws_connect(f"/ws?token={await opened(page)}")
        with suppress(ConnectionError):
            for _ in range(40):
                await feed.send_json(["stdin", "x" * 10_000])
        await until(lambda: children.exists() and children.read_text().endswith("\n"))
        await until(lambda: not is_there(int(children.read_text().split()[0])))
    finally:
        await page.close()


def test_a_page_whose_server_was_killed_leaves(runs, children):
    around = os.environ | {"TEXTUAL_DRIVER": "eos_tui.terminal.browser_driver:PageDriver", "COLUMNS": "80", "ROWS": "24"}
    process = subprocess.Popen([*launch.python(), "-m", "eos_tui"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=around)  # fmt: skip
    assert process.stdout.readline() == b"__GANGLION__\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(20) == 129
    assert process.stderr.read() == b""
    process.stderr.close()


NODE = """
const given = JSON.parse(process.argv[2]), kept = given.kept, calls = [];
globalThis.location = {hash: given.hash, pathname: "/", search: ""};
globalThis.history = {replaceState: (...all) => calls.push(all)};
globalThis.sessionStorage = {setItem: (name, value) => (kept[name] = value), getItem: (name) => kept[name] ?? null};
globalThis.document = {addEventListener: (name) => calls.push(name)};
globalThis.window = {WebSocket: class { constructor(address) { this.address = address; } }};
eval(given.script);
console.log(JSON.stringify({kept, calls, address: new window.WebSocket("ws://h/ws?width=1").address}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_the_script_of_a_page_keeps_the_token_for_its_tab_and_sends_it_with_the_socket(tmp_path):
    (tmp_path / "try.cjs").write_text(NODE)
    script = browser.TOKEN_SCRIPT.removeprefix("<script>").strip().removesuffix("</script>")

    def tried(hash: str, kept: dict[str, str]) -> dict:
        asked = json.dumps({"hash": hash, "kept": kept, "script": script})
        return json.loads(subprocess.run(["node", tmp_path / "try.cjs", asked], capture_output=True, text=True, check=True).stdout)

    first = tried("#token=a-b_c", {})
    assert first == {"kept": {"eos-token": "a-b_c"}, "calls": [[None, "", "/"]], "address": "ws://h/ws?width=1&token=a-b_c"}
    again = tried("", first["kept"])  # reloaded
    assert (again["calls"], again["address"]) == ([], first["address"])
    assert tried("", {})["calls"] == ["DOMContentLoaded"]  # says where the key is


@contextmanager
def served(*argv: str):
    """`eos serve` as a process of its own, and the address it printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen([*launch.python(), "-m", "eos_tui", "serve", *argv, "--port", port], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/\?key=[\w-]{{20,}}", address)
        for _ in range(200):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", int(port)), 1).close()
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        out, err = process.communicate(timeout=10)
    assert out == ""
    assert "Traceback" not in err
    assert "warning" not in err


async def test_the_command_shows_the_run_in_a_page_and_q_ends_it(runs, tmp_path):
    """In a folder with modules named like ours, too."""
    run = make_run(runs)
    for name in ("textual", "engine", "eos_tui", "random", "textual_serve", "aiohttp", "rich", "presets"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    with served(run.name) as address:
        async with asyncio.timeout(30), ClientSession(cookie_jar=CookieJar(unsafe=True)) as page:
            first = await page.get(address)
            assert "textual" in await first.text()
            token = first.real_url.fragment.removeprefix("token=")
            async with page.ws_connect(f"{address.partition('?')[0]}ws?width=120&height=40&token={token}") as feed:
                shown = b""
                while b"399" not in shown or "ηS/2".encode() not in shown:
                    message = await feed.receive()
                    assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT)
                    shown += message.data if message.type == WSMsgType.BINARY else b""
                await feed.send_json(["stdin", "q"])
                while (await feed.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    pass


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
async def test_chromium_draws_the_run_and_asks_nobody_else(runs, tmp_path):
    """Only a browser runs the page's script: it loads everything from eos and shows the terminal."""
    run = make_run(runs, finished=False)
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800")
    with served(run.name) as address, FakeEngine(run) as engine:
        process = subprocess.Popen([CHROMIUM, *quiet, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            port = next(match[1] for line in process.stderr if (match := re.search(r"listening on ws://127.0.0.1:(\d+)/", line)))
            async with asyncio.timeout(60), ClientSession() as session:
                pages = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
                    asked: list[str] = []

                    async def call(method: str, **parameters):
                        await devtools.send_json({"id": 1, "method": method, "params": parameters})
                        while True:
                            message = await devtools.receive_json()
                            if message.get("method") == "Network.requestWillBeSent":
                                asked.append(message["params"]["request"]["url"])
                            if message.get("id") == 1:
                                return message["result"]

                    await call("Network.enable")
                    await call("Page.navigate", url=address)
                    drawn = "document.body.classList.contains('-first-byte')"
                    while not (await call("Runtime.evaluate", expression=drawn))["result"].get("value"):
                        await asyncio.sleep(0.1)
                    await asyncio.sleep(2)
                    assert (await call("Runtime.evaluate", expression="document.title"))["result"]["value"] == f"eos · {run.name}"
                    for kind in ("keyDown", "keyUp"):  # without a click before
                        await call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" " if kind == "keyDown" else "",
                                   windowsVirtualKeyCode=32)
                    await until(lambda: any(isinstance(each, Pause) for each in engine.commands))
                    picture = base64.b64decode((await call("Page.captureScreenshot"))["data"])
        finally:
            process.terminate()
            process.communicate(timeout=10)
    Path("browser.png").write_bytes(picture)
    assert len(picture) > 40_000  # curves, not an empty page
    assert len(asked) > 3
    assert {re.match(r"(https?|wss?|data|blob)(://127\.0\.0\.1)?", url)[0] for url in asked} <= {"http://127.0.0.1", "data", "blob"}


def test_a_port_that_is_taken_is_reported_in_one_line(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run([sys.executable, "-m", "eos_tui", "serve", "--port", str(taken.getsockname()[1])], check=False,
                              capture_output=True, text=True, timeout=30, env=os.environ.copy())
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("host", "alone"), [
    ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False), ("192.168.0.7", False),
    ("::", False), ("example.org", False),
])  # fmt: skip
def test_only_loopback_goes_without_a_warning(host, alone, monkeypatch, capsys):
    monkeypatch.setattr(browser, "server", lambda *_: type("Silent", (), {"serve": lambda self: None})())
    browser.serve(None, host=host)
    assert ("reached from other machines" in capsys.readouterr().err) is not alone


def test_without_the_extra_a_sentence_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve"]) == 2
    assert capsys.readouterr().err == "eos: eos serve needs textual-serve: `pip install 'eos-tui[web]'` brings it\n"

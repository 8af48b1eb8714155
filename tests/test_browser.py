"""`eos serve`: the real server with the real app behind it, and nobody let in without the key."""

import asyncio
import base64
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from eos_tui import browser, cli

from synthetic import make_run

pytest.importorskip("textual_serve")
from aiohttp import ClientSession, CookieJar, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

ROOT = Path(__file__).parent.parent
KEY = "the-key"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


async def client() -> TestClient:
    """A browser, as far as it matters, in front of the server."""
    app = await browser.server(browser.command(None, []), "127.0.0.1", 8000, KEY)._make_app()
    found = TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True))  # unsafe: cookies for a bare address
    await found.start_server()
    return found


async def test_without_the_key_nothing_answers(runs):
    page = await client()
    try:
        for path in ("/", "/?key=", "/?key=wrong", "/ws", f"/ws?key={KEY}", "/static/js/textual.js", "/download/x"):
            assert (await page.get(path)).status == 403
        page.session.cookie_jar.update_cookies({"eos-8000": "wrong"})
        assert (await page.get("/")).status == 403
    finally:
        await page.close()


async def test_the_key_becomes_a_cookie_that_other_sites_cannot_send(runs):
    page = await client()
    try:
        first = await page.get(f"/?key={KEY}", allow_redirects=False)
        assert (first.status, first.headers["Location"]) == (302, "/")
        assert "HttpOnly" in first.headers["Set-Cookie"]
        assert "SameSite=Strict" in first.headers["Set-Cookie"]
        text = await (await page.get("/")).text()
        assert f"ws://127.0.0.1:{page.port}/ws" in text  # where the browser came in, not where the server thinks it is
        assert "fonts.googleapis" not in text
    finally:
        await page.close()


@contextmanager
def served(*argv: str):
    """`eos serve` as a process of its own, and the address it printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "eos_tui", "serve", *argv, "--port", port], stdout=subprocess.PIPE,
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


async def test_the_command_shows_the_run_in_a_page_and_q_ends_it(runs):
    run = make_run(runs)
    with served(run.name) as address:
        async with asyncio.timeout(30), ClientSession(cookie_jar=CookieJar(unsafe=True)) as page:
            assert "textual" in await (await page.get(address)).text()
            async with page.ws_connect(f"{address.partition('?')[0]}ws?width=120&height=40") as feed:
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
    run = make_run(runs)
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800")
    with served(run.name) as address:
        process = subprocess.Popen([CHROMIUM, *quiet, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            port = next(found[1] for line in process.stderr if (found := re.search(r"listening on ws://127.0.0.1:(\d+)/", line)))
            async with asyncio.timeout(60), ClientSession() as session:
                pages = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
                    asked: list[str] = []

                    async def call(method: str, **parameters):
                        await devtools.send_json({"id": 1, "method": method, "params": parameters})
                        while True:
                            told = await devtools.receive_json()
                            if told.get("method") == "Network.requestWillBeSent":
                                asked.append(told["params"]["request"]["url"])
                            if told.get("id") == 1:
                                return told["result"]

                    await call("Network.enable")
                    await call("Page.navigate", url=address)
                    drawn = "document.body.classList.contains('-first-byte')"
                    while not (await call("Runtime.evaluate", expression=drawn))["result"].get("value"):
                        await asyncio.sleep(0.1)
                    await asyncio.sleep(2)
                    picture = base64.b64decode((await call("Page.captureScreenshot"))["data"])
        finally:
            process.terminate()
            process.communicate(timeout=10)
    Path("browser.png").write_bytes(picture)
    assert len(picture) > 40_000  # curves, not an empty page
    assert len(asked) > 3
    assert {re.match(r"(https?|wss?|data|blob)(://127\.0\.0\.1)?", url)[0] for url in asked} <= {"http://127.0.0.1", "data", "blob"}


def test_a_port_that_is_taken_is_told_in_one_line(runs):
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

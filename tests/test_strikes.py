"""create, fork, rm, resume and sweep, killed or failed at their system calls: nothing half made is seen, nothing acknowledged lost. And
serve: it ends with a sentence and a status or goes on, and leaves no process behind.
"""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from places import ROOT, TESTS

SCRIPT, SERVED = (str(TESTS / name) for name in ("striking.py", "striking_served.py"))
COMMANDS = ("create", "fork", "rm", "resume", "sweep")
WRITING = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,write,pwrite64,ftruncate,truncate,fsync,link,linkat,flock"


SERVING = (
    "socketpair", "epoll_create1", "socket", "bind", "listen", "fcntl", "accept4", "pipe2", "vfork", "clone3", "openat", "close", "read",
    "write", "recvfrom", "sendto", "setsockopt", "getsockname", "epoll_ctl", "page",
)  # fmt: skip
"""What a server calls, from its loop to its pages, and the writes of the app behind a page."""


def python(*given: str, tracer: tuple[str, ...] = (), script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    around = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    command = [*tracer, sys.executable, "-B", script, *given]
    return subprocess.run(command, capture_output=True, text=True, env=around, timeout=900, check=False)


def strike(where: Path, command: str, how: str, first: int, stride: int) -> None:
    done = python(str(where / "runs"), command, how, str(first), str(stride))
    assert done.returncode == 0, (command, how, done.stderr[-3000:])
    assert f'"command": "{command}"' in done.stdout


@pytest.mark.parametrize(("command", "how", "first", "stride"), [
    ("create", "kill", 3, 6), ("fork", "full", 2, 6), ("rm", "kill", 2, 5), ("resume", "once", 5, 12), ("sweep", "kill", 20, 90),
])  # fmt: skip
def test_a_command_struck_at_some_of_its_calls_leaves_nothing_half_made(command, how, first, stride, tmp_path):
    strike(tmp_path, command, how, first, stride)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full", "once", "read-only"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_struck_at_any_of_its_calls_leaves_nothing_half_made(command, how, tmp_path):
    """Every call there is, by death and by three errors: which of them is the one that is not guarded, no list of cases foresees."""
    strike(tmp_path, command, how, 1, 1)


def need_tracing() -> None:
    if shutil.which("strace") is None or subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("strace is not installed, or tracing is not allowed here")


def strike_served(where: Path, call: str, how: str, stride: int) -> None:
    need_tracing()
    pytest.importorskip("textual_serve")
    done = python(str(where), call, how, str(stride), script=SERVED)
    assert done.returncode == 0, (call, how, done.stderr[-3000:])
    assert f'"call": "{call if call != "page" else "write"}"' in done.stdout


@pytest.mark.parametrize(("call", "how"), [pytest.param("socket", "EMFILE", marks=pytest.mark.slow), ("accept4", "EMFILE")])
def test_serve_struck_at_its_first_call_of_a_kind_ends_with_a_sentence_or_goes_on(call, how, tmp_path):
    strike_served(tmp_path, call, how, 99)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "how"), [
    *itertools.product(SERVING, ("EIO", "EACCES", "kill")), *itertools.product(("write", "page"), ("ENOSPC",)),
    *itertools.product(("socketpair", "epoll_create1", "socket", "accept4", "pipe2", "openat"), ("EMFILE",)),
])  # fmt: skip
def test_serve_struck_at_any_of_its_calls_ends_with_a_sentence_or_goes_on(call, how, tmp_path):
    """Every call of a server with a page that is opened and closed: asyncio tells of some in tracebacks, and of some not at all."""
    strike_served(tmp_path, call, how, 1)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["create", "fork", "rm"])
def test_a_command_killed_by_the_system_at_any_write_leaves_nothing_half_made(command, tmp_path):
    """What Python does not announce, single writes to a file, is struck by the tracer."""
    need_tracing()
    where, struck = tmp_path / "runs", 0
    for call in WRITING.split(","):  # the tracer counts each by itself
        for n in range(1, 200):
            shutil.rmtree(where, ignore_errors=True)
            assert python(str(where), command, "ready").returncode == 0
            strace = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}")
            undisturbed = python(str(where), command, "undisturbed", tracer=strace).returncode == 0
            checked = python(str(where), command, "check")
            assert checked.returncode == 0, (call, n, checked.stderr[-3000:])
            if undisturbed:
                break
            struck += 1
    assert struck > 10

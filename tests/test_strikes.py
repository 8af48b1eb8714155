"""create, fork, rm, resume and sweep, killed or failed at their system calls: nothing half made is seen, nothing acknowledged lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from places import ROOT, TESTS

SCRIPT = str(TESTS / "striking.py")
COMMANDS = ("create", "fork", "rm", "resume", "sweep")
WRITING = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,write,pwrite64,ftruncate,truncate,fsync,link,linkat,flock"


def python(*given: str, tracer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    around = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    command = [*tracer, sys.executable, "-B", SCRIPT, *given]
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("command", ["create", "fork", "rm"])
def test_a_command_killed_by_the_system_at_any_write_leaves_nothing_half_made(command, tmp_path):
    """What Python does not announce, single writes to a file, is struck by the tracer."""
    if python("x", "create", "check", tracer=("strace", "-qq", "-e", "trace=fsync")).stderr.startswith("strace"):
        pytest.skip("tracing is not allowed here")
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

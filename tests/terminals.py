"""A pseudo-terminal with a program in it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte

from places import ROOT

COLS, ROWS = 120, 40
PRIVATE = re.compile(rb"\x1b\[[<>=?][0-9;]*[a-zA-Z$]+")
"""Queries and modes that pyte would print."""
ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[6n": b"\x1b[1;1R"}
LEAVE_SCREEN, SHOW_CURSOR = b"\x1b[?1049l", b"\x1b[?25h"
OWN_TERMINAL = ("import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
                "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
"""Makes its standard input the terminal that controls it, as a shell has it, and becomes the program."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of the program under test."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR", "COLORTERM", "COLUMNS", "LINES")}
    fixed = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "TEXTUAL_ANIMATIONS": "none", "PYTHONPATH": str(ROOT)}
    return {**kept, **fixed, "EOS_HOME": str(home), **more}


class Terminal:
    """A terminal with the program in it. It answers what a terminal answers, and keeps what it was sent."""

    def __init__(self, home: Path, *command: str, **env: str):
        self.sent = b""
        self.screen = pyte.Screen(COLS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *(command or ("-m", "eos_tui"))], stdin=slave, stdout=slave, stderr=slave,
            cwd=home.parent, env=environment(home, **env), start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Take the terminal away, as a lost connection does."""
        if self._open:
            self._open = False
            self._reader.join(timeout=5)
            os.close(self.master)

    def _read(self) -> None:
        while self._open:
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the program has ended
                return
            before, self.sent = len(self.sent), self.sent + data
            self._stream.feed(PRIVATE.sub(b"", data))
            for query, answer in ANSWERS.items():  # which may have come in two pieces
                os.write(self.master, answer * self.sent[max(0, before - len(query) + 1) :].count(query))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def parting(self) -> str:
        """What was printed after the program gave the screen back."""
        return self.sent.rpartition(LEAVE_SCREEN)[2].decode().replace("\r\n", "\n")

    def wait_for(self, pattern: str, seconds: float = 30.0) -> re.Match[str]:
        """Wait until this is on the screen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if match := re.search(pattern, self.text):
                return match
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} did not appear:\n{self.text}")

    def wait_for_end(self, seconds: float = 10.0) -> int:
        """Wait until the program has ended, and return its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(timeout=1)
        return status

"""Text to the user's clipboard, from however far away: OSC 52 through the terminal, or tmux's own way where tmux is between.

tmux drops OSC 52 by default, but sets the outer terminal's clipboard itself when asked with `load-buffer -w`. Neither says
whether it worked, so the text is saved to a file as well.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from engine.base.atomic import replace_with
from engine.record import store

TMUX_SECONDS = 2.0


def copy(text: str, osc52: Callable[[str], object]) -> str:
    """Copy the text, and say in words where it went. `osc52` sends it through the terminal. Raises OSError from the file."""
    saved = save(text)
    if os.environ.get("TMUX") and through_tmux(text):
        return f"in tmux's buffer and the clipboard; saved to {saved}"
    osc52(text)
    return f"on the clipboard, where the terminal takes OSC 52; saved to {saved}"


def save(text: str) -> Path:
    """Keep the text in the one file for what was copied last."""
    folder = store.home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "copied.txt"
    replace_with(file, text.encode())
    return file


def through_tmux(text: str) -> bool:
    """Whether tmux took the text; one older than 3.2 knows no `-w` and keeps it in its buffer alone."""
    for options in (["-w"], []):
        try:
            done = subprocess.run(["tmux", "load-buffer", *options, "-"], input=text.encode(), capture_output=True,
                                  timeout=TMUX_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode == 0:
            return True
    return False

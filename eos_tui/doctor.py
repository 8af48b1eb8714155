"""What eos finds where it runs, and what to do about it: one finding a subject, each with a verdict and, if need be, advice.

jax is asked in a process of its own with a time limit: a driver that hangs is a finding, not a hang.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console

import engine
from engine.base import folders
from engine.base.errors import UserError
from engine.data import embedded
from engine.jobs import launch
from engine.record import lock, store
from engine.record.glance import all_glances
from eos_tui import config

Verdict = Literal["good", "note", "bad"]
JAX_SECONDS = 60.0
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "textual", "rich", "plotext", "tensorflow-datasets")
SMALLEST, COMFORTABLE = (40, 12), (110, 36)
"""Columns and rows from which anything is shown, and from which all plots stand side by side."""
ENOUGH_BYTES = 200e6
ASK_JAX = (
    "import json, jax\n"
    "listed = jax.devices()\n"
    "print(json.dumps({'backend': jax.default_backend(), 'devices': [str(each.device_kind) for each in listed]}))"
)


class Finding(NamedTuple):
    """One subject: its state, whether that will do, and the remedy where it will not."""

    subject: str
    state: str
    verdict: Verdict = "good"
    advice: str = ""


def examine(environment: Mapping[str, str] = os.environ, ask_jax: Callable[[], Finding] | None = None) -> list[Finding]:
    """Every finding, in the order of the report."""
    return [
        _versions(), terminal(environment), size(), colors(environment), encoding(), between(environment),
        (ask_jax or devices)(), data(), home(), *locks(), *space(), settings(),
    ]


def _versions() -> Finding:
    parts = [f"eos {engine.__version__}", f"Python {platform.python_version()}"]
    missing = []
    for name in PACKAGES:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(parts)
    if missing:
        return Finding("versions", text, "bad", f"not installed: {', '.join(missing)}; `pip install eos-tui` brings them")
    return Finding("versions", text)


def terminal(environment: Mapping[str, str]) -> Finding:
    """What kind of terminal, if one at all."""
    kind = environment.get("TERM", "")
    shown = " ".join(filter(None, [kind or "no TERM", environment.get("TERM_PROGRAM", "")]))
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return Finding("terminal", f"{shown}; input or output is redirected", "note",
                       "the view needs a terminal; `eos demo --headless` and `eos plot --once` do without")
    if kind in ("", "dumb", "unknown"):
        return Finding("terminal", shown, "bad", "set TERM to what the terminal is, as in `export TERM=xterm-256color`")
    return Finding("terminal", shown)


def size() -> Finding:
    """Columns and rows."""
    width, height = shutil.get_terminal_size()
    text = f"{width} columns × {height} rows"
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Finding("size", text, "bad",
                       f"eos needs {SMALLEST[0]}×{SMALLEST[1]}: make the window larger, or its font smaller")
    if width < COMFORTABLE[0] or height < COMFORTABLE[1]:
        return Finding("size", text, "note", f"plots come in pages; all stand side by side from {COMFORTABLE[0]}×{COMFORTABLE[1]}")
    return Finding("size", text)


def colors(environment: Mapping[str, str]) -> Finding:
    """How many colours, as far as the environment tells."""
    system = Console(force_terminal=True, _environ=dict(environment)).color_system
    names = {None: "none", "standard": "16", "256": "256", "truecolor": "16 million"}
    text = names.get(system, str(system))
    if "NO_COLOR" in environment:
        return Finding("colours", "none, as NO_COLOR asks", "note",
                       "curves are told apart by their strokes; unset NO_COLOR for colours")
    if system in (None, "standard"):
        return Finding("colours", text, "note",
                       "eos uses the terminal's own; if it can do more, set TERM=xterm-256color or COLORTERM=truecolor")
    if system == "256":
        return Finding("colours", text, "good", "COLORTERM=truecolor gives exact shades, where the terminal has them (ssh drops it)")
    return Finding("colours", text)


def encoding() -> Finding:
    """Whether braille and box drawing come through."""
    name = sys.stdout.encoding or "unknown"
    if "utf" not in name.lower():
        return Finding("text", name, "note", "eos draws in ASCII; `export LANG=C.UTF-8` before it gives finer plots")
    return Finding("text", f"{name}; a plot shows as ⣀⡠⠔⠊⠉ and ╭─╮", "good", "if these look broken, choose another font, or `--ascii`")


def between(environment: Mapping[str, str]) -> Finding:
    """What lies between eos and the screen."""
    layers, advice = [], []
    if "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        layers.append("ssh")
        advice.append("on a slow link `--low-bandwidth`; a dropped connection leaves the engine running")
    if "TMUX" in environment:
        layers.append("tmux")
        advice.append("copying goes through tmux's buffer")
    elif environment.get("TERM", "").startswith("screen") or "STY" in environment:
        layers.append("screen")
        advice.append("copying saves to a file only, for screen passes no clipboard on")
    if not layers:
        return Finding("between", "nothing: a local terminal")
    return Finding("between", " and ".join(layers), "good", "; ".join(advice))


def devices(seconds: float = JAX_SECONDS, code: str = ASK_JAX) -> Finding:
    """What jax computes on."""
    try:
        done = subprocess.run([*launch.python(), "-c", code], capture_output=True, text=True, timeout=seconds, check=False,
                              stdin=subprocess.DEVNULL, cwd=folders.home(), env=launch.environment())
    except subprocess.TimeoutExpired:
        return Finding("devices", f"jax did not start within {seconds:.0f} s", "bad",
                       "a driver may hang: JAX_PLATFORMS=cpu leaves the GPUs alone")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        answer = json.loads(last)
        kinds = [str(kind) for kind in answer["devices"]]
    except (ValueError, TypeError, KeyError):
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Finding("devices", f"jax fails: {why[:200]}", "bad",
                       "`pip install --upgrade eos-tui` repairs it, or JAX_PLATFORMS=cpu avoids it")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = ", ".join(f"{kind} ×{kinds.count(kind)}" for kind in dict.fromkeys(kinds)) + f"; {cores} CPU cores"
    if answer["backend"] == "cpu" and shutil.which("nvidia-smi"):
        return Finding("devices", text, "note",
                       "there is an NVIDIA driver that jax does not use: `pip install 'eos-tui[cuda12]'`, or cuda13")
    return Finding("devices", text)


def data() -> Finding:
    """Whether the embedded data sets are as they were packed."""
    try:
        held = embedded.check()
    except UserError as error:
        return Finding("data", str(error), "bad",
                       "`pip install --force-reinstall eos-tui` brings them anew")
    return Finding("data", f"embedded: {', '.join(name.partition('.')[0] for name in held)}; "
                           "`eos data list` tells of the others")


def home() -> Finding:
    """The folder of runs."""
    try:
        folder = store.home()
    except UserError as error:
        return Finding("runs", str(error), "bad", "set EOS_HOME to a folder that can be written")
    origin = "EOS_HOME" if os.environ.get("EOS_HOME") else "the platform's folder"
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("runs", f"{folder} ({origin}) cannot be written", "bad", "set EOS_HOME to a folder that can")
    return Finding("runs", f"{len(all_glances())} in {folder} ({origin})")


def locks(folder: Path | None = None) -> list[Finding]:
    """Whether the file system of the runs has flock; nothing where they have no folder."""
    try:
        folder = folder or store.home()
    except UserError:
        return []
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        has = lock.has_flock(there)
    except OSError as error:
        said = f"cannot be tried in {there} ({error.strerror})"
        return [Finding("locks", said, "note", "set EOS_HOME to a folder that can be written")]
    if not has:
        return [Finding("locks", f"{there} has no flock: a file {lock.HELD} with its engine's id and host locks a run", "note",
                        "after a crash on another host `eos resume RUN --force` takes such a lock over")]
    return [Finding("locks", f"flock in {there}")]


def space(folder: Path | None = None) -> list[Finding]:
    """Room for runs; nothing where they have no folder."""
    try:
        folder = folder or store.home()
    except UserError:
        return []
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free"
    if free < ENOUGH_BYTES:
        return [Finding("space", text, "bad",
                        "a run of the default preset takes some 10 MB with its checkpoints: `eos rm` old runs, or move EOS_HOME")]
    return [Finding("space", text)]


def settings() -> Finding:
    """The file of settings."""
    try:
        loaded = config.load()
    except UserError as error:
        return Finding("settings", str(error), "bad", "mend the file, or move it away; `eos config validate` checks it")
    return Finding("settings", str(loaded.path) if loaded.exists else f"none at {loaded.path}: defaults hold")


SIGNS: dict[Verdict, tuple[str, str]] = {"good": ("✓", "ok"), "note": ("·", "--"), "bad": ("✗", "!!")}


def as_text(findings: list[Finding], ascii: bool = False) -> str:
    """The findings as lines, advice beneath what it is about."""
    width = max(len(each.subject) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{SIGNS[each.verdict][ascii]} {each.subject:<{width}}  {each.state}")
        if each.advice:
            lines.append(f"{' ' * (width + 4)}{'->' if ascii else '→'} {each.advice}")
    wrong = [each.subject for each in findings if each.verdict == "bad"]
    lines.append(f"To mend: {', '.join(wrong)}." if wrong else "Nothing to mend.")
    return "\n".join(lines)

"""What the view costs, against what it may: bytes and latency in a pseudo-terminal, drawing, attaching, memory.

    python tests/bench/view.py [--quick]

Prints a table of goals and measurements. Needs Linux and no network; the machine should be idle, for other work shows in
every figure but the bytes. Runs are made by the script; no engine is started. The first paint is that of a program whose
bytecode is at hand, as after any first start: one start before it is not measured.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from engine.record import store  # noqa: E402
from engine.record.reader import Run  # noqa: E402
from eos_tui.draw import line_plot, panels  # noqa: E402
from eos_tui.model.history import History  # noqa: E402
from eos_tui.model.source import Source  # noqa: E402

from synthetic import FakeEngine, make_run, rows_of  # noqa: E402

ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[6n": b"\x1b[1;1R"}
QUESTION = b"\x1b[6n"
BARE = re.compile(rb"\x1b\[\?2026[hl]|\x1b\[6n|\x1b\[0?m")
"""What a frame without a change consists of."""
OWN_TERMINAL = ("import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
                "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")


class Seen:
    """The view in a pseudo-terminal: what came when, with the link limited where asked. Without a name, the launcher."""

    def __init__(self, home: Path, name: str, size: tuple[int, int], fps: float = 4.0, rate: float = 0.0, rtt: float = 0.0):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "EOS_HOME": str(home),
               "TEXTUAL_ANIMATIONS": "none", "PYTHONPYCACHEPREFIX": str(home.parent / "bytecode")}
        for left_out in ("TMUX", "NO_COLOR", "COLORTERM", "PYTHONDONTWRITEBYTECODE"):
            env.pop(left_out, None)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", OWN_TERMINAL, "-P", "-m", "eos_tui", *(["attach", name] if name else []), "--fps", str(fps)],
            stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        os.close(slave)
        self.rate, self.rtt = rate, rtt
        self.chunks: list[tuple[float, bytes]] = []
        self._replies: list[tuple[float, bytes]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Seen":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2)
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self) -> None:
        while not self._over.is_set():
            now = time.perf_counter()
            while self._replies and self._replies[0][0] <= now:
                os.write(self.master, self._replies.pop(0)[1])
            if not select.select([self.master], [], [], 0.001)[0]:
                continue
            try:
                data = os.read(self.master, 1024 if self.rate else 65536)
            except OSError:
                return
            if self.rate:
                time.sleep(len(data) / self.rate)
            now = time.perf_counter()
            self.chunks.append((now, data))
            for query, answer in ANSWERS.items():
                self._replies += [(now + self.rtt, answer)] * data.count(query)

    def wait_for(self, text: bytes, since: int = 0, seconds: float = 30.0) -> float:
        """When this text had come, counting chunks from `since`; seconds since the start."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            seen = b""
            for at, data in self.chunks[since:]:
                seen += data
                if text in seen:
                    return at - self.began
            time.sleep(0.001)
        raise RuntimeError(f"{text!r} never came; the last was {seen[-300:]!r}")

    def settled(self, quiet: float = 2.0) -> float:
        """When the last change came before nothing but questions did for so long; seconds since the start."""
        while True:
            drawn = [at for at, data in self.chunks if len(BARE.sub(b"", data)) > 0]
            if drawn and time.perf_counter() - drawn[-1] > quiet:
                return drawn[-1] - self.began
            time.sleep(0.05)

    def frames(self, since: float) -> list[int]:
        """Bytes of each frame after this moment: what came up to each of the clock's questions."""
        body = b"".join(data for at, data in self.chunks if at - self.began > since)
        return [len(part) for part in body.split(QUESTION)[1:-1]]

    def key_latencies(self, keys: str, count: int, pause: float) -> list[float]:
        """Milliseconds from each key to the last byte of the first frame that came after it and was more than a question."""
        latencies = []
        for k in range(count):
            time.sleep(pause * (0.75 + 0.5 * (k * 0.618 % 1)))
            since, at = len(self.chunks), time.perf_counter()
            os.write(self.master, keys[k % len(keys)].encode())
            while time.perf_counter() - at < 3:
                fresh = self.chunks[since:]
                if any(len(BARE.sub(b"", data)) > 12 for _, data in fresh):
                    latencies.append((fresh[-1][0] + self.rtt - at) * 1e3)
                    break
                time.sleep(0.0005)
        return latencies


class Stream(threading.Thread):
    """An engine that takes a step every so often."""

    def __init__(self, engine: FakeEngine, every: float):
        super().__init__(daemon=True)
        self.engine, self.every, self.over = engine, every, threading.Event()

    def __enter__(self) -> "Stream":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(2)

    def run(self) -> None:
        while not self.over.wait(self.every):
            writer = self.engine.writer
            writer.append(rows_of(self.engine.run_directory, writer.last_step + 1, writer.last_step + 2))
            self.engine.say()


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else float("nan")


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int | str = "self") -> float:
    """Memory of a process, MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def million(home: Path, rows: int) -> Run:
    """A finished run of so many steps."""
    run = make_run(home, 2, f"rows-{rows}")
    with open(run.path / "metrics.f64", "wb") as record:
        for start in range(0, rows, 50_000):
            record.write(rows_of(run, start, min(start + 50_000, rows)).astype("<f8").tobytes())
    return run


def bytes_and_cpu(home: Path, seconds: float):
    for size, goal in (((120, 40), 600), ((80, 24), 250)):
        run = make_run(home, 700, f"live-{size[0]}", finished=False)
        with FakeEngine(run) as engine, Stream(engine, 0.25), Seen(home, run.name, size) as seen:
            seen.wait_for(b"live")
            time.sleep(2)
            since, before = time.perf_counter() - seen.began, cpu_seconds(seen.process.pid)
            time.sleep(seconds)
            used = cpu_seconds(seen.process.pid) - before
            sizes = seen.frames(since)
            yield f"bytes a frame, {size[0]}×{size[1]}, a row a frame", f"≤ {goal} median", f"{statistics.median(sizes):.0f}"
            yield f"CPU of a core at 4 Hz, {size[0]}×{size[1]}", "≤ 8 %", f"{100 * used / seconds:.1f} %"
            latencies = seen.key_latencies("\t", 25, 0.2)
            yield f"key to screen at 4 Hz, {size[0]}×{size[1]}, p95", "≤ 50 ms", f"{p95(latencies):.0f} ms"
    with Seen(home, make_run(home, 700, "idle").name, (120, 40)) as seen:
        seen.wait_for(b"finished")
        time.sleep(2)
        before = cpu_seconds(seen.process.pid)
        time.sleep(seconds)
        yield "CPU of a core at rest", "≤ 1.5 %", f"{100 * (cpu_seconds(seen.process.pid) - before) / seconds:.1f} %"
        latencies = seen.key_latencies("\t", 40, 0.2)
        yield "key to screen, idle, p95", "≤ 10 ms", f"{p95(latencies):.0f} ms (median {statistics.median(latencies):.0f})"


def slow_links(home: Path):
    for fps, rate, rtt, goal in ((4, 20_000, 0.05, 150), (10, 5_000, 0.0, 1000)):
        run = make_run(home, 700, f"slow-{rate}", finished=False)
        with FakeEngine(run) as engine, Stream(engine, 1 / fps), Seen(home, run.name, (120, 40), fps, rate, rtt) as seen:
            seen.wait_for(b"live", seconds=60)
            time.sleep(4)
            latencies = seen.key_latencies("\t", 20, 0.4)
            yield f"key to screen, {fps} Hz, {rate / 1000:g} kB/s, {rtt * 1000:.0f} ms, p95", f"≤ {goal} ms", f"{p95(latencies):.0f} ms"


def attaching(home: Path, rows: int):
    make_run(home, 400, "short")
    for name, text, what in (("", b"fashion-cnn", "the launcher"), ("short", b"finished", "a run")):
        taken = []
        for _ in range(6):
            with Seen(home, name, (120, 40)) as seen:
                taken.append(seen.wait_for(text))
        yield f"first paint of {what}, median of 5", "≤ 0.6 s", f"{statistics.median(taken[1:]):.2f} s"
    run = million(home, rows)
    with Seen(home, run.name, (120, 40)) as seen:
        seen.wait_for(b"finished")
        took = seen.settled()
        yield f"attach to {rows:,} steps, fully drawn", "≤ 1 s", f"{took:.2f} s ({resident(seen.process.pid):.0f} MB resident)"


def drawing(rows: int):
    columns = Source(make_run(store.home(), 2, "columns")).columns
    loss = line_plot.PlotSpec("loss", "training loss", (line_plot.Curve("gd.loss", "gradient descent", "gd"),))
    best = {}
    for count in (1_000, 10_000, 100_000, rows):
        kept = [column for column in columns if column.name in ("step", "learning_rate", "gd.loss")]
        history, t = History(kept), np.arange(float(count))
        history.extend(np.stack([t, np.full(count, 0.02), 0.5 * np.exp(-t / count) + 0.01 * (-1) ** t], axis=1))
        taken = []
        for k in range(60):
            began = time.perf_counter()
            line_plot.draw(loss, history, line_plot.Window(k, count), 100, 20)  # each window is new: nothing is left from the last
            taken.append(time.perf_counter() - began)
        best[count] = min(taken) * 1e3
    shown = ", ".join(f"{value:.2f}" for value in best.values())
    yield f"a plot of 100×20 from 1e3, 1e4, 1e5, {rows:.0e} rows, best of 60", "≤ 1 ms, within 1.5×", (
        f"{shown} ms ({max(best.values()) / min(best.values()):.1f}×)")


def streaming(home: Path, rows: int):
    run = make_run(home, 2, "streamed", finished=False)
    source = Source(run)
    drawn = [curve.column for plot in panels.line_plots(run.columns, panels.CHOICES[0]) for curve in plot.curves]
    source.history.prepare([*drawn, "learning_rate", "stage"])  # as the dashboard does
    source.take(source.read())
    before, piece = 0.0, 2000
    with open(run.path / "metrics.f64", "ab") as record:
        for start in range(2, rows, piece):
            record.write(rows_of(run, start, start + piece).astype("<f8").tobytes())
            record.flush()
            source.take(source.read())
            if start < 5 * piece:  # the newest rows are kept however long the run
                before = resident()
    yield f"memory over {rows:,} streamed steps of {len(run.columns)} columns", "≤ 10 MB", f"{resident() - before:.1f} MB"


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and of the seconds")
    quick = parser.parse_args().quick
    rows, seconds = (100_000, 4.0) if quick else (1_000_000, 15.0)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "runs"
        home.mkdir()
        os.environ["EOS_HOME"] = str(home)
        print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print(f"{'what':<66} {'goal':<20} measured")
        for part in (drawing(rows), streaming(home, rows), attaching(home, rows), bytes_and_cpu(home, seconds), slow_links(home)):
            for what, goal, measured in part:
                print(f"{what:<66} {goal:<20} {measured}", flush=True)


if __name__ == "__main__":
    main()

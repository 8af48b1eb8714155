"""A folder of many runs, listed: by what a list reads of each, and as each was opened.

    python tests/bench/listing.py [RUNS]
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from engine.record.glance import all_glances  # noqa: E402
from engine.record.store import all_runs, resolve  # noqa: E402
from eos_tui.model.listing import Listing  # noqa: E402

from synthetic import make_run  # noqa: E402


def main() -> None:
    """Make the runs and print how long each way takes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EOS_HOME"] = folder
        first = make_run(Path(folder), 150, "run-0000")
        spec = (first.path / "spec.toml").read_text()
        for k in range(1, count):
            made = Path(folder) / f"run-{k:04d}"
            shutil.copytree(first.path, made)
            (made / "spec.toml").write_text(spec.replace("learning_rate = 0.02", f"learning_rate = {0.02 + 1e-6 * k!r}"))
        listing = Listing()
        took = {
            "the launcher's first look": timed(listing.look), "its next look": timed(listing.look), "eos ls": timed(all_glances),
            "the latest run": timed(resolve), "every run opened": timed(all_runs),
        }  # fmt: skip
    for name, seconds in took.items():
        print(f"{name:<26} {seconds:8.3f} s")
    ratio = took["every run opened"] / took["the launcher's first look"]
    print(f"{count:,} runs: listed in a {ratio:.0f}th of the time in which they are opened")


def timed(function) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

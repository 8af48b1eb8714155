"""What the tests share: jax in float64, a place for runs that is not the user's, and a small smooth network."""

import gc
import os
import signal
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: for matrices this small its threads only spin, on cores that others need

import pytest

from engine.base.xla_flags import correct_sums, jaxlib_release
from engine.xla.mappings import make_room

correct_sums()  # whichever test computes first
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in the background: tests interrupt themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROUGH = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
"""The problems of the tests are small: they take longer to compile than to compute."""
if jaxlib_release() < (0, 11):  # 0.12 does not know the first, and ends the process; parts compiled on several cores cost more in all
    ROUGH += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *ROUGH]).strip()
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some two hundred processes are started: each would compile the program anew
sys.dont_write_bytecode = False
gc.set_threshold(200_000, 20, 50)  # what jax traces makes many objects, and most of them stay: looking for others is a fifth of the time


LONGEST = (
    "test_several", "test_hosts", "test_pages", "test_edge_readings", "test_dashboard", "test_viewing", "test_manners", "test_scale",
    "test_runner", "test_trajectories", "test_untrusted", "test_models", "test_launcher", "test_lessons", "test_extending",
    "test_pty", "test_unrolled", "test_faults", "test_formats", "test_optimizers", "test_damage", "test_page", "test_jobs",
    "test_trust", "test_figures", "test_keys", "test_curvature", "test_assumptions", "test_own_examples", "test_training",
    "test_loss_identity", "test_boundaries", "test_edges", "test_driving", "test_central_flow", "test_cli", "test_own",
    "test_combinations", "test_doors", "test_density", "test_kinks", "test_strikes", "test_runs_of_before", "test_sentences",
    "test_tfds", "test_experiment", "test_complementarity", "test_stuck", "test_browser", "test_metrics",
)  # fmt: skip
"""Files that take longest, longest first: begun last, they would keep one worker busy while the others have nothing left."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: several tests wait for processes of their own. More than four would crowd each other."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Runs, compiled code and the key of trust go to folders of the test's own; nothing of the user's is read."""
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "eos-home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user-data"))
    return tmp_path / "eos-home"


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch):
    """Engines in the tests' own process compile what they come to, and nothing of the edge beside the approach: most of these runs end
    before it. Those in processes of their own compile ahead."""
    if experiment := sys.modules.get("engine.phases.experiment"):
        monkeypatch.setattr(experiment.Experiment, "precompile", lambda self: None)


MOST_COMPILED = 300e6
"""Bytes of compiled code that are left from one run of the tests to the next, the newest."""


def pytest_configure(config):
    """Compiled code is kept in pytest's own cache, from one run of the tests to the next; without one, in a folder that goes with this run.
    The workers and their child processes inherit the name of it.

    That several write there is safe, and an entry that is damaged is none: see `engine/xla/compile_cache.py`. `pytest --cache-clear`
    compiles anew.
    """
    if hasattr(config, "workerinput"):
        return
    if cache := getattr(config, "cache", None):
        folder = cache.mkdir("eos-compiled")
        bytes_kept = 0
        for path in sorted(folder.rglob("*-cache"), key=lambda path: path.stat().st_mtime, reverse=True):
            bytes_kept += path.stat().st_size
            if bytes_kept > MOST_COMPILED:
                path.unlink(missing_ok=True)
        os.environ["EOS_CACHE"] = str(folder)
    else:
        temporary = tempfile.TemporaryDirectory(prefix="eos-compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(temporary.cleanup)
        os.environ["EOS_CACHE"] = temporary.name


@pytest.fixture(scope="session")
def x64():
    """jax as an engine process has it: float64 where asked, exact products, correct sums."""
    from engine.xla.device import configure

    configure()


@pytest.fixture(autouse=True, scope="module")
def room_for_compiled_code():
    """As a run has it that begins: a worker of the suite compiles thousands of functions, not all of them for runs."""
    yield
    make_room()


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of runs that the app opens, below the folder it works in."""
    home = tmp_path / "runs"
    home.mkdir()
    monkeypatch.setenv("EOS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def rows_looked_at(monkeypatch):
    """How many rows each look of a pyramid of extremes reads, in order."""
    from eos_tui.model.pyramid import Extremes

    looked, folded = [], Extremes.folded

    def counting(self, values, *args):
        looked.append(values.size)
        return folded(self, values, *args)

    monkeypatch.setattr(Extremes, "folded", counting)
    return looked

"""What is imported where. The view must open without jax, the engine must work where Textual is not wanted."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

from places import ROOT, TESTS

SHARED = ("base", "spec", "record", "report", "data", "jobs", "figures", "help", "commands")
"""Packages of the engine that a viewer uses, or may."""
HEAVY = ("jax", "jaxlib", "flax", "tensorflow_datasets", "matplotlib")
DRAWING = ("textual", "plotext", "eos_tui")
UNUSED = ("pyarrow", "tensorstore", "orbax", "uvloop", "tensorflow_datasets", "PIL")
"""What other packages bring, or the preparation of data takes, and no run loads."""


def loaded_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of these packages a fresh Python has loaded after running the code."""
    code = f"{code}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()[-1].split()


def modules(package: str) -> list[str]:
    """Every module of a package, by its dotted name."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return [name for name in names if not name.endswith("__main__") and ".examples." not in name]  # those run


def test_the_folders_of_the_tests_hide_no_package():
    """`tests/engine/` is no package, so that `import engine` is the engine wherever the tests are on the path; nor has a name two files."""
    assert list(TESTS.rglob("__init__.py")) == []
    names = [path.name for path in TESTS.rglob("*.py")]
    assert len(names) == len(set(names))
    code = f"import sys\nsys.path[:0] = [{str(TESTS)!r}, {str(TESTS / 'engine')!r}]\nimport engine\nprint(engine.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=TESTS, check=True)
    assert done.stdout.strip() == str(ROOT / "engine" / "__init__.py")


def test_the_view_never_loads_jax():
    assert "eos_tui.app" in modules("eos_tui")
    assert loaded_by("\n".join(f"import {name}" for name in modules("eos_tui")), HEAVY) == []


def test_a_portrait_is_drawn_without_scipy():
    code = "from eos_tui.widgets import portrait\nfrom engine import theory\nassert theory.period(1.0, 1.0, 1.0, 0.1) > 0"
    assert loaded_by(code, ("scipy",)) == []


def test_the_first_frame_waits_for_no_command_line_and_for_no_other_screen():
    code = "from eos_tui import opening, app\nfrom eos_tui.screens import {}\nassert opening.ViewCommand.of(['--fps', '4'])"
    spared = ("cyclopts", "engine.data", "importlib.metadata", *(f"eos_tui.screens.{name}" for name in ("learn", "landscape", "theorem")))
    assert loaded_by(code.format("launcher"), (*spared, "eos_tui.screens.dashboard")) == []
    assert loaded_by(code.format("dashboard"), (*spared, "eos_tui.screens.launcher")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_the_view_starts_no_threads_of_linear_algebra_and_tells_nobody_else_not_to(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    code = "import eos_tui.app, os\nassert 'OPENBLAS_NUM_THREADS' not in os.environ\nassert len(os.listdir('/proc/self/task')) == 1"
    assert loaded_by(code, ()) == []


def test_the_engine_never_loads_the_view():
    assert "engine.process.runner" in modules("engine")
    assert loaded_by("\n".join(f"import {name}" for name in modules("engine")), DRAWING) == []


def test_what_a_viewer_shares_loads_neither():
    names = [name for name in modules("engine") if name.split(".")[1:2] and name.split(".")[1] in SHARED]
    names = [name for name in names if name not in ("engine.figures.drawings", "engine.data.upstream")]  # whose work these libraries are
    assert loaded_by("\n".join(f"import {name}" for name in names), HEAVY + DRAWING) == []


def test_the_headless_commands_load_neither():
    code = "from engine.commands.main import main\nassert main(['presets', '--json']) == 0\nassert main(['ls']) == 0"
    assert loaded_by(code, HEAVY + DRAWING) == []


def test_a_headless_run_loads_neither_in_the_process_that_watches_it(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "from engine.commands.main import main\nassert main(['run', 'phase', '--set', 'budget.steps=10']) == 0"
    assert loaded_by(code, HEAVY + DRAWING) == []


def test_the_engine_process_itself_loads_no_textual(monkeypatch, own_home):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = (
        "from engine import spec\nfrom engine.record import store\nfrom engine.record.writer import Writer\n"
        "from engine.process import runner\n"
        "run = store.create(spec.load_spec('toy', ['budget.steps=3', 'tracking.mode=sharpness']), 'mine')\n"
        "assert runner.work(run, Writer(run)) == 0"
    )
    assert loaded_by(code, DRAWING + UNUSED) == []
    assert (own_home / "mine" / "metrics.f64").stat().st_size > 0


def test_the_import_contracts_hold():
    code = "from importlinter.cli import lint_imports\nraise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    """The code of the program: the example scripts that come with it are a user's."""
    files = (path for package in ("engine", "eos_tui") for path in sorted((ROOT / package).rglob("*.py")))
    return [(path, ast.parse(path.read_bytes())) for path in files if path.parent.name != "examples"]


def test_nothing_read_from_a_file_is_ever_executed():
    """No pickle or its kin, no eval or exec, no shell; and every np.load says that it refuses pickles."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
    faults = []
    for path, tree in sources():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            faults += [f"{path}: imports {name}" for name in names if name.split(".")[0] in forbidden]
            if not isinstance(node, ast.Call):
                continue
            called, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called in ("eval", "exec", "compile", "os.system", "os.popen") or options.get("shell", "False") != "False":
                faults.append(f"{path}:{node.lineno}: {ast.unparse(node)[:80]}")
            pickles = options.get("allow_pickle", "True" if called in ("np.load", "numpy.load", "jnp.load") else "False")
            if pickles != "False":
                faults.append(f"{path}:{node.lineno}: {called} may unpickle")
    assert faults == []


DOORS = {
    "open": {"engine/base/exit.py": "the standard streams", "engine/record/trust.py": "the key, of this user alone"}, "os.open": {
        "engine/base/files.py": "the door", "engine/record/trust.py": "the key, of this user alone",
        "engine/base/atomic.py": "the door for output", "engine/base/exit.py": "the standard streams",
        "engine/record/lock.py": "a folder by its descriptor, and its lock, of which no link is followed",
        "engine/jobs/groups.py": "a lock in a folder of this user alone"},
    "read_text": {
        "engine/xla/mappings.py": "/proc", "engine/process/rendezvous.py": "/proc", "engine/record/lock.py": "/proc",
        "engine/spec/loading.py": "presets in the package",
        "engine/data/catalog.py": "a table of another package", "engine/help/catalog.py": "topics in the package",
        "engine/help/scripts.py": "examples in the package",
        "engine/base/xla_flags.py": "jaxlib's own"},
    "read_bytes": {
        "engine/xla/mappings.py": "/proc", "engine/data/embedded.py": "in the package", "eos_tui/model/recording.py": "in the package",
        "engine/data/upstream.py": "archives whose sums are checked",
        "engine/problems/imported.py": "sources that Python has imported"},
    "write_text": {"engine/record/store.py": "into a folder made a moment before"}, "write_bytes": {},
    "touch": {"engine/record/store.py": "into a folder made a moment before"},
    "np.fromfile": {"engine/record/reader.py": "of what the door has opened"},
    "np.load": {
        "engine/record/safe_read.py": "of what the door has opened", "engine/data/compact.py": "likewise",
        "engine/problems/starts.py": "likewise",
        "engine/data/embedded.py": "of bytes in memory", "engine/process/lockstep.py": "of bytes in memory",
        "eos_tui/model/recording.py": "of bytes in memory"},
    "np.memmap": {}, "np.save": {}, "np.genfromtxt": {}, "np.loadtxt": {}, "tofile": {}, "os.fdopen": {
        "engine/base/files.py": "the door", "engine/base/atomic.py": "the door for output"},
    "shutil.copy": {}, "shutil.copyfile": {}, "shutil.copy2": {}, "shutil.copytree": {}, "shutil.move": {},
    "savefig": {"engine/figures/drawings.py": "into what the door has opened", "engine/figures/sweep_plot.py": "likewise",
                "engine/api/pictures.py": "into memory"},
    "tomllib.loads": {"engine/base/toml.py": "where the depth of keys is bounded"}, "tomllib.load": {},
    "expanduser": {}, "Path.home": {}, "os.path.expanduser": {"engine/base/folders.py": "the one rule"},
}  # fmt: skip
"""Ways to a file by name, and who may take them, and why: all others go through
engine/base/files.py, engine/base/atomic.py and engine/base/folders.py."""


def test_every_file_is_opened_through_one_door():
    strays = []
    for path, tree in sources():
        where = str(path.relative_to(ROOT))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                whole = ast.unparse(node.func)
                called = whole if whole in DOORS else whole.rpartition(".")[2]
                if whole in ("tarfile.open", "asked.open") or (called == whole and called == "read_text"):
                    continue  # an archive whose sum is checked, the view, and the door itself
                if called in DOORS and where not in DOORS[called]:
                    strays.append(f"{where}:{node.lineno}: {ast.unparse(node)[:90]}")
    assert strays == [], "open it by engine.base.files or engine.base.atomic, or say here why not"


def test_nothing_is_named_found_or_told():
    """They say how a thing was come by, and not what it is. The names of tests are sentences."""
    names = re.compile(r"(?!test_)(?:\w*_)?(?:found|told)(?:_\w*)?", re.IGNORECASE)
    faults = []
    for path in (path for folder in ("engine", "eos_tui", "tests") for path in sorted((ROOT / folder).rglob("*.py"))):
        text = path.read_text()
        if names.search(text):
            tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.NAME]
            faults += [f"{path}:{token.start[0]}: {token.string}" for token in tokens if names.fullmatch(token.string)]
    assert faults == []

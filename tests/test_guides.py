"""Every command of the README and of the topics of `eos help` is carried out, in its own words: on smaller problems, and with stand-ins
for what is not here.

`ssh`, `tmux`, `srun` and `sbatch` are scripts that do on this machine what they would do elsewhere; CIFAR-10 is a tiny archive in
the true layout; a view is looked at in a terminal and left with `q`.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from engine.help import scripts
from engine.record import store
from engine.record.reader import Run

from guides import GUIDES
from places import ROOT, TESTS
from terminals import Terminal
from tfds_archives import bring

BLOCKS = [
    [line.split(" #")[0].strip() for line in block.splitlines() if line.strip()]
    for block in re.findall(r"```sh\n(.*?)```", GUIDES, re.DOTALL)
]
ELSEWHERE = ("pip install", "pip-audit")
"""What needs a fresh environment or a service: `.ci/run` carries out the first block."""
LEAN = ("tracking.flow=false", "tracking.gauges_every=0", "tracking.landscape_every=0", 'tracking.predictions=["transported"]')
SMALLER = {
    "fashion": ["budget.steps=12", "problem.data.examples=20", "problem.model.widths=[4]", "optimizer.learning_rate=1e-3", *LEAN],
    "fashion-cnn": ["budget.steps=3", "problem.data.examples=8", "problem.model.widths=[2]", "tracking.mode=sharpness"],
    "fig4-cnn": ["budget.steps=3", "problem.data.examples=8", "problem.model.widths=[2,2]", *LEAN],
    "appendix-resnet": ["budget.steps=3", "problem.data.examples=8", "problem.model.widths=[2]", "problem.model.blocks=1", *LEAN],
    "fig1": ["budget.steps=30"],
    "regression.toml": ["budget.steps=12"],
}
"""What makes each preset or figure small enough; most of what is left is compiling."""
SHIMS = {
    "ssh": 'while [[ $1 == -* ]]; do shift; done; shift; exec "$@"',
    "tmux": 'echo "tmux $*"',
    "eos": 'exec python -m eos_tui "$@"',
    "python": f'exec {shlex.quote(sys.executable)} "$@"',
    # One process, or two that know of each other, as a cluster starts them on its nodes.
    "srun": """\
if [[ " $* " == *" --coordinator "* ]]; then set -- several "$@"; fi
several=
[[ $1 == several ]] && several=1 && shift
while [[ $1 == -* ]]; do
  case $1 in --output|--error|--wait) shift ;; esac
  shift
done
[[ $several ]] || exec "$@"
export SLURM_JOB_ID=${SLURM_JOB_ID:-7} SLURM_NTASKS=2 SLURM_STEP_NODELIST=127.0.0.1
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" >/dev/null &
SLURM_PROCID=0 SLURM_LOCALID=0 "$@"; status=$?
wait
exit $status""",
    "sbatch": """\
export SLURM_JOB_ID=$$ SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
bash "$1" >/dev/null 2>&1 &
echo "Submitted batch job $$"
""",
}
"""Programs that the guides name, as far as they are needed here."""
PRESETS = ("run", "sweep", "check", "reproduce")
ON_THE_OTHER_HOST = "10.0.0.1:4000"


class Machine:
    """A machine on which the guides are followed: its folders, its programs and the environment of its shell."""

    def __init__(self, folder: Path):
        self.folder, programs, site = folder, folder / "programs", folder / "site"
        for each in (programs, site, folder / "work", folder / "DIR"):
            each.mkdir()
        for name, body in SHIMS.items():
            (programs / name).write_text(f"#!/bin/bash\n{body}\n")
            (programs / name).chmod(0o755)
        (site / "sitecustomize.py").write_text("import tfds_archives\ntfds_archives.install()\n")
        path = os.pathsep.join(map(str, (site, ROOT, TESTS)))
        self.environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "SCRATCH": str(folder),
            "EOS_HOME": str(folder / "eos"), "TFDS_DATA_DIR": str(folder / "data"),
        }  # fmt: skip
        bring("cifar10", folder / "data")

    def follow(self, line: str) -> str:
        """Carry out a line of a guide; what it wrote to stdout, or left on the screen."""
        if line.startswith("export "):
            for setting in shlex.split(line)[1:]:
                name, _, value = setting.partition("=")
                self.environment[name] = value.replace("$SCRATCH", str(self.folder))
            return ""
        line = smaller(line)
        if shows_a_view(line):
            return self.look(shlex.split(line)[1:])
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, env=self.environment, cwd=self.folder / "work", timeout=400, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def look(self, arguments: list[str]) -> str:
        """Open a view, and leave it once it shows the run: the screen, and what is said on leaving."""
        with Terminal(self.folder / "work" / "-", "-m", "eos_tui", *arguments, **self.environment) as terminal:
            terminal.wait_for("2/η", 60)
            text = terminal.text
            terminal.press("q")
            assert terminal.wait_for_end(30) == 0
            return text + terminal.text

    def wait_for_runs(self) -> list[Run]:
        """Every run, once none is at work any more."""
        deadline = time.monotonic() + 400
        while True:
            runs = store.all_runs(Path(self.environment["EOS_HOME"]))
            if runs and all(run.liveness() == "finished" for run in runs):
                return runs
            assert time.monotonic() < deadline, [(run.name, run.liveness(), run.state()) for run in runs]
            time.sleep(0.1)


def smaller(line: str) -> str:
    """The line with settings that make its preset small: before anything that is sent elsewhere."""
    words = shlex.split(line)
    preset = next((words[k + 1] for k, word in enumerate(words[:-1]) if word in PRESETS and words[k + 1] in SMALLER), None)
    if preset is None:
        return line
    asked, arrow, elsewhere = line.partition(" > ")
    return " ".join([asked, *(f"--set {shlex.quote(setting)}" for setting in SMALLER[preset])]) + arrow + elsewhere


def shows_a_view(line: str) -> bool:
    """Whether a line opens the app."""
    command = line.split()[:2]
    return command == ["eos", "attach"] or (command == ["eos", "run"] and "--headless" not in line and "--process 1" not in line)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def block(*words: str) -> list[str]:
    """The lines of the one block that has these words."""
    [chosen] = [lines for lines in BLOCKS if all(any(word in line for line in lines) for word in words)]
    return chosen


FOLLOWED = [
    ("reproduce fig1",), ("data list",), ("sweep fashion ",), ("ssh -t",), ("eos doctor",), ("export EOS_HOME",), ("10.0.0.1",),
    ("regression.toml",), ("--hdf5",), ("problem.shard=both",),
]  # fmt: skip
"""Words of each block that a test below follows."""


def test_every_block_is_followed_or_left_to_others_for_a_reason():
    followed = [lines for words in FOLLOWED for lines in [block(*words)]]
    for lines in BLOCKS:
        assert lines in followed or all(line.startswith(ELSEWHERE) for line in lines), lines


@pytest.mark.slow
def test_a_figure_is_made(machine):
    """Three runs and their pictures, and those for a paper: half a minute."""
    pytest.importorskip("matplotlib")
    for line in block("reproduce fig1"):
        machine.follow(line)
    assert {path.suffix for path in (machine.folder / "work" / "figures").rglob("*.*")} >= {".svg", ".png", ".pdf", ".csv", ".json"}


@pytest.mark.slow
def test_a_run_goes_to_other_programs(machine):
    """Each by its package, where that is installed."""
    machine.follow("eos run toy --headless --set budget.steps=5")
    for line, package in zip(block("--hdf5"), ("h5py", "tensorboardX", "wandb"), strict=True):
        if find_spec(package) is not None:
            machine.follow(line)


@pytest.mark.slow
def test_data_are_prepared_where_there_is_a_network_and_a_run_takes_them(machine):
    """Here an archive that was brought by hand, as the guide says for machines without one."""
    listed, prepared, verified, run = block("data list")
    assert "cifar10" in machine.follow(listed)
    machine.follow(prepared)
    assert "cifar10: whole" in machine.follow(verified)
    shutil.copytree(machine.folder / "data", machine.folder / "work" / "DIR")
    assert "fashion-cnn" in machine.follow(run)
    [run] = machine.wait_for_runs()
    assert run.provenance()["problem"]["parameters"] > 0
    assert (run.spec.problem.data.name, run.spec.problem.data.classes) == ("cifar10", (3, 5))


@pytest.mark.slow
def test_a_sweep_is_a_table(machine):
    """Fifteen engines, two at a time: a minute."""
    machine.follow(*block("sweep fashion "))
    table = (machine.folder / "work" / "table.csv").read_text().splitlines()
    assert len(table) == 1 + 3 * 5
    assert table[0].startswith("optimizer.learning_rate,seed,run,outcome")


@pytest.mark.slow
def test_what_several_devices_share_out_is_told_before_a_run(machine):
    """Here one device alone, for which it changes nothing."""
    [check] = block("problem.shard=both")
    assert "changes nothing here" in machine.follow(check)


@pytest.mark.slow
def test_a_run_is_watched_left_and_opened_again_over_ssh_in_tmux(machine):
    connect, *views = block("ssh -t")
    assert machine.follow(connect) == "tmux new -A -s eos\n"
    for view in views:
        assert "first" in machine.follow(view)
    [run] = machine.wait_for_runs()
    assert (run.name, run.state().outcome.kind) == ("first", "edge_never_reached")


@pytest.mark.slow
def test_a_gpu_box_is_looked_at_and_a_run_goes_in_micro_batches(machine):
    doctor, check, run = block("eos doctor")
    assert "devices" in machine.follow(doctor)
    assert "memory" in machine.follow(check)
    assert re.search(r"^steps +3$", machine.follow(run), re.MULTILINE)


@pytest.mark.slow
def test_a_cluster_without_a_network_is_used_from_its_login_node(machine):
    """A job, and a sweep of two handed in through `sbatch`: half a minute, nearly all of it compiling."""
    pytest.importorskip("submitit")
    for line in (lines := block("export EOS_HOME")):
        output = machine.follow(line)
        if line.startswith("eos sweep"):
            machine.wait_for_runs()
    assert lines[-1].startswith("eos tail")
    assert output.split()[:2] == ["step", "gd.sharpness"]
    assert '"outcome": "edge_never_reached"' in (machine.folder / "work" / "summary.json").read_text()
    assert [run.spec.optimizer.learning_rate for run in machine.wait_for_runs()] == [0.01, 0.01, 0.02]


@pytest.mark.slow
def test_a_run_takes_several_hosts(machine):
    """Two processes that SLURM brings together, then two that are told where to meet: each compiles for itself, a minute."""
    machine.follow(block("export EOS_HOME")[1])
    slurm, leading, following = block("10.0.0.1")
    machine.environment["JAX_COORDINATOR_PORT"] = free_port()
    machine.follow(slurm)
    assert '"outcome": "edge_never_reached"' in (machine.folder / "work" / "summary.json").read_text()
    here = f"127.0.0.1:{free_port()}"
    second = subprocess.Popen(
        ["bash", "-c", smaller(following).replace(ON_THE_OTHER_HOST, here)], env=machine.environment, cwd=machine.folder / "work"
    )
    machine.follow(leading.replace(ON_THE_OTHER_HOST, here))
    assert second.wait(120) == 0
    assert [run.provenance()["processes"] for run in machine.wait_for_runs()] == [2, 2]


def free_port() -> str:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.mark.slow
def test_a_model_of_ones_own_is_checked_and_run(machine):
    """With the example that the guide names, which `test_examples` runs in the usual suite."""
    work = machine.folder / "work"
    [script] = scripts.copy(work, "own_model")
    (work / "regression.toml").write_text(runpy.run_path(str(script))["PRESET"])
    check, run = block("regression.toml")
    assert "own_model:make_problem" in machine.follow(check)
    assert "regression" in machine.follow(run)
    [run] = machine.wait_for_runs()
    assert run.spec.optimizer.learning_rate == 0.2

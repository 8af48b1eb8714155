"""One run shared out to two processes on this machine: the same numbers as one, one writer, the same decisions, no hanging."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import legs
import numpy as np
import pytest

import engine
from engine.base.errors import UserError
from engine.jobs import groups
from engine.jobs.groups import Group
from engine.phases import whole_spectrum
from engine.phases.experiment import Experiment
from engine.problems.build import build
from engine.process import rendezvous
from engine.process.runner import Runner
from engine.record import messages, store
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.spec import with_overrides
from eos_tui import cli as view

from places import ROOT, TESTS
from small import chebyshev_spec, loss_at, rows, toy_spec
from waiting import answer, until_run

pytestmark = pytest.mark.usefixtures("x64")
LEAN = {"flow": False, "landscape_every": 0, "gauges_every": 0, "predictions": ["transported"]}
SPEC = chebyshev_spec(0.2, **LEAN)
TRAINED = with_overrides(chebyshev_spec(0.2, mode="sharpness", sharpness_every=5), ["problem.model.widths=[4]"])
"""A run that compiles little, where it does not matter what is computed."""


def test_several_processes_join_only_where_they_are_asked_to():
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "n[1-4]"}
    assert groups.asked(environment=allocation) is None
    assert groups.asked("slurm", environment=allocation) == Group("slurm", 4, 2)
    assert groups.asked(environment=allocation | {"EOS_COORDINATOR": "slurm"}) == Group("slurm", 4, 2)
    assert groups.asked("slurm", environment={"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
    environment = {"EOS_COORDINATOR": "n1:4000", "EOS_PROCESSES": "2", "EOS_PROCESS": "1"}
    assert groups.asked(environment=environment) == Group("n1:4000", 2, 1)
    assert groups.asked("n2:4001", 3, 0, environment=environment) == Group("n2:4001", 3, 0)
    group = Group("n1:4000", 2, 1)
    assert group.options() == ["--coordinator", "n1:4000", "--processes", "2", "--process", "1"]


@pytest.mark.parametrize(("given", "words"), [
    ((None, 2, None), "need --coordinator, the HOST:PORT of process 0, or slurm"),
    (("n1", 2, 0), "--coordinator n1: expected HOST:PORT"),
    (("n1:70000", 2, 0), "expected HOST:PORT"),
    (("n1:4000", None, 0), "EOS_PROCESSES is not set; expected a number there, or --processes"),
    (("slurm", None, None), "SLURM_NTASKS is not set"),
    (("n1:4000", 2, 2), "--process 2: expected one of 0 to 1, as there are 2 processes"),
])  # fmt: skip
def test_what_a_group_lacks_is_reported(given, words):
    with pytest.raises(UserError) as error:
        groups.asked(*given, environment={})
    assert words in str(error.value)


@pytest.mark.parametrize("words", ["run chebyshev", "resume begun"])
def test_the_commands_with_a_view_take_the_options_and_process_0_alone_shows_the_run(words, monkeypatch):
    store.create(SPEC, "begun")
    done: list = []
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: done.append(group) or 1)
    monkeypatch.setattr("engine.commands.main.help_compute", lambda group, asked=None: done.append(group) or 0)
    monkeypatch.setattr("eos_tui.cli.need_terminal", lambda look: None)
    monkeypatch.setattr("eos_tui.cli.view", lambda run, look: done.append("view") or 0)
    monkeypatch.setattr(Run, "liveness", lambda run: "crashed")
    groups = [Group("n1:4000", 2, process) for process in (0, 1)]
    for group in groups:
        assert view.main([*words.split(), *group.options()]) == 0
    assert done == [groups[0], "view", groups[1]]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(arguments: list[str], process: int, port: int, processes: int = 2) -> subprocess.Popen:
    """One of the processes that meet at a port of this machine, with its output at hand."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    around = os.environ | {"PYTHONPATH": f"{ROOT}:{TESTS}", "XLA_FLAGS": flags}
    options = Group(f"127.0.0.1:{port}", processes, process).options()
    return subprocess.Popen([sys.executable, *arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=around)


def two_at(run: Run) -> tuple[subprocess.Popen, subprocess.Popen]:
    """The engine of a run, and a process that follows it: all that this one is given is where to meet."""
    port = free_port()
    return start(["-m", "engine", "work", str(run.path)], 0, port), start(["-m", "engine", "resume", "it"], 1, port)


def end_of(*processes: subprocess.Popen) -> list[tuple[str, str]]:
    """What each wrote to stdout and stderr; all have ended well."""
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def carried_out(run: Run, command: messages.AnyCommand) -> messages.AnyEvent:
    """The event that answers a command which is sent now."""
    return answer(run, messages.send(run.path, command))


DERIVATIVES = """
import json, sys
import jax, numpy as np
import engine
engine.configure(sparing=True)
from engine.jobs.groups import asked
from engine.process.rendezvous import join, leave
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
join(asked(options["--coordinator"], int(options["--processes"]), int(options["--process"])), sys.exit)
from engine.problems.build import build
from engine.problems.problem import Problem
from engine.spec import with_overrides
from small import chebyshev_spec
problem, theta, _ = build(with_overrides(chebyshev_spec(), ["problem.micro_batch=5"]))
inputs = problem.data.examples[0]
assert [shard.data.shape[1] for shard in inputs.addressable_shards] == [inputs.shape[1] // 2]  # its share, and no more
v = jax.numpy.sin(jax.numpy.arange(theta.size))
of = jax.jit(lambda p, t, v: (p.loss(t), p.gradient(t), p.hvp(t, v), p.grad_sharpness(t, v)))
results = [[np.asarray(part).tolist() for part in of(problem, theta, v)]]
from engine.phases.experiment import Experiment
from engine.process.lockstep import Participant
participant = Participant(Experiment(chebyshev_spec()))
drift = 1e-15 * jax.process_index()
participant.experiment.state = participant.experiment.state._replace(theta=participant.experiment.state.theta * (1 + drift))
results.append([participant.agree(), participant.agree(), np.asarray(participant.experiment.state.theta).tolist()])
print(json.dumps(results))
leave(0)
"""


def test_two_processes_give_the_derivatives_of_one_to_rounding_and_one_that_drifts_is_brought_back():
    """In batches; all examples at once, a training is shared out below."""
    problem, theta, _ = build(chebyshev_spec())
    v = jnp.sin(jnp.arange(theta.size))
    alone = jax.jit(lambda p, t, v: (p.loss(t), p.gradient(t), p.hvp(t, v), p.grad_sharpness(t, v)))(problem, theta, v)
    port = free_port()
    both = [start(["-c", DERIVATIVES], process, port) for process in (0, 1)]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in end_of(*both))
    assert first == second
    derivatives, (before, after, brought_back) = first
    assert (before, after) == ([False, True], [False, False])  # that nobody was asked to stop, and whether one had drifted off
    assert brought_back == theta.tolist()
    for one, two in zip(alone, derivatives, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-13)


def completed_by_two(run, both):
    """Both processes end well, the run is complete, and it says who took its steps."""
    outputs = end_of(*both)
    assert outputs[1][0] == ""  # stdout carries data
    assert run.state().outcome.kind == "completed"
    shared_by_two(run)
    assert "drifted" not in str(outputs)


def shared_by_two(run):
    """The run says who takes its steps."""
    assert run.state().device == "CPU ×2 in 2 processes"
    assert run.provenance()["processes"] == 2


def ends_at(run, log, step):
    """Where process 1 is gone, process 0 ends the run at its last checkpoint, and says how it goes on."""
    assert "Traceback" in log  # of what jax said
    outcome = run.state().outcome
    assert outcome.kind == "failed"
    assert outcome.text == (
        f"process 1 is gone; the last checkpoint, step-{step:09d}.npz, stands. `eos resume {run.name}` goes on in one process"
    )


def same_spectrum(run, spectrum):
    """What two processes read of the whole spectrum at step 12 is what one did, within the eigensolver's tolerance."""
    together = engine.load(run.path).densities()[12]
    for name in ("nodes", "weights", "eigenvalues", "gauss_newton", "layer_sharpness"):
        np.testing.assert_allclose(together[name], spectrum[name], rtol=1e-4, atol=1e-6 * np.abs(spectrum[name]).max(), err_msg=name)


def test_a_training_of_two_processes_with_commands_is_that_of_one_and_goes_on_alone_where_one_dies():
    """From one command to the next: η is raised at step 12, and process 1 killed at step 20. 1e-6 of each column. The snapshots that
    process 0 writes are of the run's θ, with the eigenvectors that all processes solve for. That both may end well, and read the whole
    spectrum, the slow suite has: each compiles it for itself."""
    kept = ["recording.snapshots_every=10", 'recording.snapshots=["theta", "eigenvectors"]']
    spec = with_overrides(TRAINED, ["budget.steps=30", *kept])
    alone = Experiment(spec)
    expected = [rows(alone, 12)]
    alone.set_learning_rate(messages.SetLearningRate(learning_rate=0.25))
    expected.append(rows(alone, 30))

    run = store.create(spec, "two")
    messages.send(run.path, messages.Advance(steps=12))
    leading, dying = two_at(run)
    until_run(run, lambda: run.state().status == "paused" and run.state().step == 12)
    assert carried_out(run, messages.SetLearningRate(learning_rate=0.25)).step == 12
    assert isinstance(carried_out(run, messages.Anchor()), messages.Refused)
    messages.send(run.path, messages.Advance(steps=8))
    until_run(run, lambda: run.state().status == "paused" and run.state().step == 20)
    shared_by_two(run)
    carried_out(run, messages.Checkpoint())
    dying.kill()
    errors = [process.communicate(timeout=60)[1] for process in (leading, dying)]
    assert leading.returncode == 3, errors
    ends_at(run, errors[0], 20)
    with Writer(run) as writer:
        assert Runner(run, writer).work().kind == "completed"

    table = run.table()
    np.testing.assert_array_equal(table["step"], np.arange(30))
    for name in ("learning_rate", "gd.loss", "gd.gradient_norm", "gd.sharpness"):
        np.testing.assert_allclose(table[name], np.concatenate([part[name] for part in expected]), rtol=1e-6, err_msg=name)
    problem, snapshots = alone.setup.problem, engine.load(run.path).snapshots()
    assert [each.step for each in snapshots] == [0, 10, 20]
    for each in snapshots:
        assert float(loss_at(problem, jnp.asarray(each.vector()))) == pytest.approx(table["gd.loss"][each.step], rel=1e-6)
        assert each.facts["eigenvalues"][0] == pytest.approx(table["gd.sharpness"][each.step], rel=1e-4)


@pytest.mark.slow
def test_a_run_of_two_processes_with_commands_is_that_of_one():
    """θ† and the predictions, too, which each process compiles: a minute. Begun alone, gone on with by two: the whole spectrum is read
    and η raised at step 12, the prediction anchored at the edge. 1e-6 of each column; what is read of the spectrum hangs on where the
    eigensolver began, within its tolerance."""
    spec = with_overrides(chebyshev_spec(0.7, **LEAN), ["budget.steps=66", "tracking.landscape_every=5"])
    alone = Experiment(spec)
    expected = [rows(alone, 12)]
    asked = messages.Density(probes=2, steps=8)
    spectrum = whole_spectrum.whole(alone.whole_spectrum(asked)).arrays
    alone.set_learning_rate(messages.SetLearningRate(learning_rate=0.72))
    expected.append(rows(alone, 55))
    assert alone.edge_step is not None
    alone.anchor(messages.Anchor())
    samples: dict[int, dict[str, np.ndarray]] = {}
    expected.append(rows(alone, 66, samples))

    run = store.create(spec, "two")
    with Writer(run) as writer:
        runner = Runner(run, writer)
        runner.ask(messages.Advance(steps=8))
        for _ in runner.blocks():
            if runner.status == "paused":
                runner.ask(messages.Stop())
    assert run.row_count() == 8
    messages.send(run.path, messages.Advance(steps=4))
    both = two_at(run)
    until_run(run, lambda: run.state().status == "paused" and run.state().step == 12)
    assert isinstance(carried_out(run, asked), messages.DensityTaken)
    assert carried_out(run, messages.SetLearningRate(learning_rate=0.72)).step == 12
    assert isinstance(carried_out(run, messages.Anchor()), messages.Refused)
    carried_out(run, messages.Advance(steps=43))
    until_run(run, lambda: run.state().status == "paused" and run.state().step == 55)
    assert isinstance(carried_out(run, messages.Anchor()), messages.Anchored)
    messages.send(run.path, messages.Resume())
    completed_by_two(run, both)

    table = run.table()
    np.testing.assert_array_equal(table["step"], np.arange(66))
    names = ["gd.loss", "gd.gradient_norm", "gd.sharpness", "transported.sharpness"]
    for name in [*names, *(f"constrained.{name}" for name in ("loss", "sharpness", "lambda2", "alpha", "beta", "delta", "epsilon"))]:
        whole = np.concatenate([part[name] for part in expected])
        np.testing.assert_allclose(table[name], whole, rtol=1e-6, err_msg=name)
    same_spectrum(run, spectrum)
    record = engine.load(run.path).samples()
    assert len(samples) >= 2
    for step, one in samples.items():
        two = record[step]
        np.testing.assert_allclose(two["F_even"], one["F_even"], rtol=0, atol=1e-6 * np.ptp(one["F_even"]))
        mirrored = min(two["plane"], two["plane"][::-1], key=lambda plane: abs(plane - one["plane"]).max())  # u is known up to its sign
        np.testing.assert_allclose(mirrored, one["plane"], rtol=0, atol=1e-6 * np.ptp(one["plane"]))


@pytest.mark.slow
def test_a_run_past_the_edge_goes_on_in_other_numbers_of_processes_and_devices():
    """Two processes of two devices, one of four, one of one, and two of two again; where the new state of a step lies in the place of the
    old one, too. Waited for as long as it takes: where processes crowd each other, a tracked step of two takes seconds."""
    spec = chebyshev_spec(0.7, **LEAN, seed_oscillation=True)
    one = Experiment(spec)
    whole = rows(one, 70)
    assert one.edge_step is not None
    assert one.edge_step < 56
    run = store.create(with_overrides(spec, ["budget.steps=70", "problem.devices=0"]), "moving")
    legs.take(run, 58, 2, free_port(), overwrites=True)
    legs.take(run, 4, 4)
    legs.take(run, 4, 1)
    legs.take(run, 4, 2, free_port())
    table = run.table()
    np.testing.assert_array_equal(table["step"], np.arange(70))
    for name, numbers in whole.items():
        if not name.startswith("cost.") and not np.isnan(numbers).all():
            np.testing.assert_allclose(table[name], numbers, rtol=0, atol=1e-6 * np.nanmax(np.abs(numbers)) + 1e-13, err_msg=name)


@pytest.mark.slow
def test_where_one_of_three_processes_dies_the_others_say_which():
    run = store.create(with_overrides(TRAINED, ["budget.steps=30"]), "left")
    messages.send(run.path, messages.Advance(steps=10))
    port = free_port()
    leading = start(["-m", "engine", "work", str(run.path)], 0, port, 3)
    dying, staying = (start(["-m", "engine", "resume", "it"], process, port, 3) for process in (1, 2))
    until_run(run, lambda: run.state().status == "paused")
    carried_out(run, messages.Checkpoint())
    dying.kill()
    errors = [process.communicate(timeout=60)[1] for process in (leading, staying, dying)]
    assert [process.returncode for process in (leading, staying)] == [3, 3], errors
    assert "eos: process 2: process 1 is gone\n" in errors[1]
    ends_at(run, errors[0], 10)


@pytest.mark.slow
def test_where_process_0_dies_the_others_end():
    """Mostly by jax, which ends a process whose coordinator is gone before its Python hears of it."""
    run = store.create(with_overrides(TRAINED, ["budget.steps=120"]), "headless")
    messages.send(run.path, messages.Advance(steps=10))
    leading, following = two_at(run)
    until_run(run, lambda: run.state().status == "paused")
    leading.kill()
    err = following.communicate(timeout=60)[1]
    leading.communicate()
    assert following.returncode in (-signal.SIGABRT, 3), err
    assert "process 0 is gone" in err or "the leader task was preempted/died" in err
    assert run.liveness() == "crashed"


class Service:
    """A coordination service with signs of life, each list one look after another."""

    def __init__(self, *looks: dict[int, str]):
        self.looks, self.left = [list({f"{rendezvous.SIGNS}{k}": sign for k, sign in look.items()}.items()) for look in looks], {}

    def key_value_dir_get(self, _: str) -> list[tuple[str, str]]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def key_value_set(self, key: str, value: str, **_) -> None:
        self.left[key] = value


@pytest.mark.parametrize(("looks", "words"), [
    ([{1: "4", 2: "5", 3: "4"}, {1: "4", 2: "6", 3: rendezvous.LEAVING}], "process 1 is gone"),
    ([{2: "5", 3: rendezvous.LEAVING}, {2: "6", 3: rendezvous.LEAVING}], "process 1 is gone"),
    ([{1: "4", 2: "5", 3: "4"}, {1: "4", 2: "5", 3: "5"}], "processes 1 and 2 are gone"),
    ([{1: "4", 2: "5", 3: "4"}], "processes 1, 2 and 3 are gone"),
    ([{1: "4", 2: "5", 3: "4"}, {1: "5", 2: "6", 3: "5"}], "another process is gone"),
])  # fmt: skip
def test_who_gives_no_sign_of_life_is_gone(looks, words, monkeypatch):
    service = Service(*looks)
    monkeypatch.setattr(rendezvous, "coordination_service", lambda: service)
    heartbeat = rendezvous.Heartbeat(Group("n1:4000", 4, 0), pytest.fail)
    heartbeat.stop()  # before its first beat, which would take a look
    for name, seconds in {"GONE_SECONDS": 0.3, "ALL_GONE_SECONDS": 0.3, "BEAT_SECONDS": 0.01}.items():
        monkeypatch.setattr(rendezvous, name, seconds)
    assert heartbeat.who_is_gone() == words
    assert service.left == {f"{rendezvous.GONE}0": words}


@pytest.mark.slow
def test_where_one_process_is_frozen_the_run_fails_and_says_which():
    """Silence of 3 s, not 20. The one that wakes too late ends, too."""
    run = store.create(with_overrides(TRAINED, ["budget.steps=120"]), "frozen")
    messages.send(run.path, messages.Advance(steps=10))
    port = free_port()
    impatient = (
        "import sys; from engine.commands import main; from engine.process import rendezvous; rendezvous.SILENT_SECONDS = 3.0; "
        "sys.exit(main.main())"
    )
    leading = start(["-c", impatient, "work", str(run.path)], 0, port)
    following = start(["-m", "engine", "resume", "it"], 1, port)
    until_run(run, lambda: run.state().status == "paused")
    carried_out(run, messages.Checkpoint())
    following.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert leading.wait(60) == 3
    assert time.monotonic() - began < 15
    outcome = run.state().outcome
    assert (outcome.kind, run.liveness()) == ("failed", "finished")
    assert outcome.text == (
        "process 1 has not answered for 3 s; the last checkpoint, step-000000010.npz, stands. `eos resume frozen` goes on in one process"
    )
    assert [event.outcome for event in run.events() if isinstance(event, messages.Finished)] == ["failed"]
    following.send_signal(signal.SIGCONT)
    assert following.wait(60) != 0
    for process in (leading, following):
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("who", "number"), [(0, signal.SIGUSR2), (1, signal.SIGUSR1)])
def test_what_a_scheduler_sends_to_one_process_stops_all_with_a_checkpoint(who, number):
    """Only two processes show that the others hear of it."""
    run = store.create(with_overrides(SPEC, ["budget.steps=100000"]), f"heard-{who}")
    messages.send(run.path, messages.Advance(steps=3))
    processes = two_at(run)
    until_run(run, lambda: run.state().status == "paused")
    processes[who].send_signal(number)
    end_of(*processes)
    assert run.state().outcome.kind == "stopped"
    assert run.checkpoints()[-1].name == f"step-{run.state().step:09d}.npz"


TO_ITS_END = (
    "import atexit, sys; from engine.commands import main; atexit.register(print, 'the interpreter ended', file=sys.stderr); "
    "sys.exit(main.main())"
)
UNLIKE = (
    "import sys; from engine.commands import main; from engine.process import rendezvous as it; own = it.{0}; "
    "it.{0} = lambda: own() | {1}; sys.exit(main.main())"
)
WITH_A_GPU = (
    "import sys, time; from engine.commands import main; from engine.process import rendezvous as it; it.foreseen = lambda: 'gpu'; "
    "it.devices = lambda: time.sleep(600); sys.exit(main.main())"
)
"""A process with a GPU: where it looks for its devices, jax waits for the GPUs of the others."""


@pytest.mark.parametrize(("other", "words"), [
    pytest.param(
        ["-c", UNLIKE.format("devices", {"device": "Abacus"}), "resume", "it"], "process 1 has device Abacus, process 0 has ",
        marks=pytest.mark.slow,  # compared as what is asked for is
    ),
    pytest.param(
        ["-c", WITH_A_GPU, "resume", "it"], "process 1 has kind of device gpu, process 0 has cpu; expected the same of each",
        marks=pytest.mark.slow,  # compared as what is asked for is
    ),
    pytest.param(
        ["-c", UNLIKE.format("versions", {"jaxlib": "0.1"}), "resume", "it"], "process 1 has jaxlib 0.1, process 0 has ",
        marks=pytest.mark.slow,  # compared as what is asked for is
    ),
    (["-c", TO_ITS_END, "run", "chebyshev"], "process 1: asked for seed = 5, and process 0 for 0; give all the same preset and --set"),
])  # fmt: skip
def test_processes_that_would_not_compute_alike_are_refused_at_the_meeting(other, words):
    """And end with that status, but not by the interpreter's own end, in which jax aborts a process now and then."""
    run = store.create(SPEC, "unlike")
    port = free_port()
    both = start(["-c", TO_ITS_END, "work", str(run.path)], 0, port), start(other, 1, port)
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [3, 3], errors
    assert "the interpreter ended" not in str(errors)
    assert words in errors[1]
    assert (run.state().outcome.kind, words in run.state().outcome.text) == ("failed", True)
    assert run.row_count() == 0


@pytest.mark.slow
def test_an_optimizer_of_ones_own_is_tested_and_refused_by_both_processes():
    own = ["optimizer.kind=own", 'optimizer.function="own_optimizers:ascending"', f'optimizer.folder="{TESTS}"']
    run, port = store.create(with_overrides(TRAINED, own), "own"), free_port()
    both = start(["-m", "engine", "work", str(run.path)], 0, port), start(["-m", "engine", "resume", "it", "--trust"], 1, port)
    (_, _), (_, followed) = (process.communicate(timeout=120) for process in both)
    assert [process.returncode for process in both] == [3, 3]
    assert "its first step goes up" in run.state().outcome.text
    assert "its first step goes up" in followed


@pytest.mark.slow
def test_the_shortest_run_of_two_processes_ends_well_however_often():
    """The interpreter's own end, and that of the coordination service, aborted one process of some two hundred."""
    for k in range(5):
        run = store.create(with_overrides(TRAINED, ["budget.steps=2"]), f"short-{k}")
        completed_by_two(run, two_at(run))


@pytest.mark.parametrize(("platforms", "plugins", "kind"), [("cpu", ["cuda"], "cpu"), ("", [], "cpu"), ("", ["cuda"], "tpu?")])
def test_the_kind_of_device_is_asked_of_another_process_where_there_may_be_one(platforms, plugins, kind, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(rendezvous, "entry_points", lambda group: plugins)
    monkeypatch.setattr(rendezvous, "ASK_JAX", "import os; print('a greeting'); print('tpu?' if not os.environ['JAX_PLATFORMS'] else '')")
    assert rendezvous.foreseen() == kind
    monkeypatch.setattr(rendezvous, "ASK_JAX", "raise RuntimeError('no such driver')")
    assert rendezvous.foreseen() == ("cpu" if kind == "cpu" else "none (RuntimeError: no such driver)")


@pytest.mark.parametrize("state", [None, SimpleNamespace(), SimpleNamespace(client=SimpleNamespace(key_value_set=print))])
def test_a_jax_without_the_service_is_refused_before_anybody_waits(state, monkeypatch):
    monkeypatch.setattr(rendezvous, "initialize", lambda group: None)
    monkeypatch.setattr("jax._src.distributed.global_state", state)
    with pytest.raises(UserError, match=r"several processes: jax \d.* has no coordination service as eos knows it; expected a jax of 0"):
        rendezvous.join(Group("n1:4000", 2, 0), pytest.fail)
    monkeypatch.setitem(sys.modules, "jax._src.distributed", None)
    with pytest.raises(UserError, match="has no coordination service"):
        rendezvous.join(Group("n1:4000", 2, 0), pytest.fail)


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_reported_by_both_processes_which_slurm_brought_together():
    run = store.create(toy_spec(), "nothing-to-share")
    step = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1", "JAX_COORDINATOR_PORT": str(free_port())}
    around = [os.environ | step | {"SLURM_PROCID": place, "SLURM_LOCALID": place, "PYTHONPATH": str(ROOT)} for place in "01"]
    commands = [["work", str(run.path), "--processes", "2", "--process", "0"], ["run", "toy"]]
    leading, following = (
        subprocess.Popen([sys.executable, "-m", "engine", *command, "--coordinator", "slurm"], stderr=subprocess.PIPE, text=True, env=env)
        for command, env in zip(commands, around, strict=True)
    )
    (_, _), (_, err) = (process.communicate(timeout=120) for process in (leading, following))
    assert (leading.returncode, following.returncode) == (3, 3)
    assert 'kind = "toy" has no examples to share out' in err
    assert 'kind = "toy" has no examples to share out' in run.state().outcome.text


def test_a_process_that_waits_in_vain_says_for_what():
    code = (
        "from engine.jobs import groups; from engine.process import lockstep, rendezvous; rendezvous.WAIT_SECONDS = 2.0; "
        "lockstep.follow(groups.Group('127.0.0.1:%d', 2, 1))"
    )
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code % free_port()], capture_output=True, text=True, check=False, timeout=60, env=around
    )
    assert done.returncode == 3
    assert "eos: process 1: waited 2 s for process 0 at 127.0.0.1:" in done.stderr

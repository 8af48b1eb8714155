"""The engine from a script."""

import errno
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import engine
from engine import api
from engine.base.errors import UserError
from engine.process.runner import Runner
from engine.record import store

from small import toy_spec
from waiting import until

pytestmark = pytest.mark.usefixtures("x64")


def test_a_script_runs_a_preset_and_reads_named_columns(own_home):
    record = engine.run("toy", overrides=["budget.steps=50", "tracking.flow=false"], name="mine")
    assert record.outcome.kind == "completed"
    np.testing.assert_array_equal(record["step"], np.arange(50))
    assert record["gd.x"].shape == (50,)
    assert (own_home / "mine" / "metrics.f64").is_file()
    again = engine.load("mine")
    np.testing.assert_array_equal(again["gd.loss"], record["gd.loss"])
    assert again.spec == record.spec
    with pytest.raises(KeyError, match=r"gd\.sharp: not recorded"):
        record["gd.sharp"]


def test_a_record_has_what_was_sampled_by_step():
    record = engine.run(toy_spec(landscape_every=20), steps=50, name="sampled")
    samples = record.samples()
    assert list(samples) == [0, 20, 40]
    assert samples[20]["F"].shape == samples[20]["x"].shape == (51,)
    assert samples[20]["plane"].shape == (*samples[20]["plane_x"].shape, *samples[20]["plane_y"].shape) == (13, 7)
    record.run.curves()[1].write_bytes(b"PK torn")
    assert list(record.samples()) == [0, 40]


def test_a_stream_gives_rows_as_they_come_and_stops_when_closed():
    rows = engine.stream(toy_spec(), name="streamed")
    steps = [next(rows)["step"] for _ in range(5)]
    rows.close()
    assert steps == [0, 1, 2, 3, 4]
    assert engine.load("streamed").outcome.kind == "stopped"


def test_a_stream_that_is_closed_where_the_disk_is_full_ends_as_a_run_does(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoints")

    rows = engine.stream(toy_spec(), name="full")
    next(rows)
    monkeypatch.setattr("engine.record.writer.Writer.checkpoint", full)
    rows.close()
    outcome = engine.load("full").outcome
    assert outcome.kind == "failed"
    assert "No space left on device; the last row on it is that of step 0. Make room, then" in outcome.text


def interrupted(rows, after: int, pause: float = 0.0):
    """Blocks of rows as they come, and Ctrl-C in the midst of the engine's work once there are so many; twice with a pause between."""

    def blocks(runner):
        for block in rows(runner):
            if runner.writer.last_step >= after:
                os.kill(os.getpid(), signal.SIGINT)
                if pause:
                    time.sleep(pause)
                    os.kill(os.getpid(), signal.SIGINT)
            yield block

    return blocks


@pytest.fixture
def fresh(monkeypatch):
    """No interrupt has come lately."""
    monkeypatch.setattr(api.Stepping, "interrupted_at", -math.inf)


def test_an_interrupt_ends_a_run_with_a_checkpoint_and_its_record(fresh, monkeypatch, capfd):
    monkeypatch.setattr(Runner, "blocks", interrupted(Runner.blocks, 20))
    record = engine.run("phase", steps=100_000, learning_rate=1e-5, name="interrupted")
    assert record.outcome.kind == "stopped"
    assert record.outcome.text.startswith("stopped at step ")
    assert int(record.run.checkpoints()[-1].stem.partition("-")[2]) == record.outcome.step == record["step"][-1] + 1
    assert "once more within 5 s raises KeyboardInterrupt" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):  # the next run of a loop, within five seconds
        engine.run("phase", steps=100_000, learning_rate=1e-5, name="next")
    assert engine.load("next").outcome.text == "interrupted at step 0; there is no checkpoint yet" or engine.load("next").outcome.step > 0
    monkeypatch.setattr(api.Stepping, "interrupted_at", time.monotonic() - 5.1)
    assert engine.run("phase", steps=100_000, learning_rate=1e-5, name="later").outcome.kind == "stopped"


def test_a_second_interrupt_raises_and_leaves_a_run_to_go_on_with(fresh, monkeypatch):
    monkeypatch.setattr(Runner, "blocks", interrupted(Runner.blocks, 20, pause=0.1))
    with pytest.raises(KeyboardInterrupt):
        engine.run("phase", steps=100_000, learning_rate=1e-5, name="twice")
    record = engine.load("twice")
    assert record.run.liveness() == "finished"
    assert record.outcome.kind == "stopped"


def test_an_interrupted_stream_stops_cleanly_and_raises(fresh, monkeypatch):
    monkeypatch.setattr(Runner, "blocks", interrupted(Runner.blocks, 20))
    with pytest.raises(KeyboardInterrupt):
        list(engine.stream("phase", steps=100_000, learning_rate=1e-5, name="streamed"))
    assert engine.load("streamed").outcome.text.startswith("stopped at step ")


def test_the_callers_own_handler_hears_an_interrupt_too_and_one_that_ignores_it_is_left(fresh, monkeypatch):
    heard: list[int] = []
    monkeypatch.setattr(Runner, "blocks", interrupted(Runner.blocks, 20))
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        assert engine.run("phase", steps=100_000, learning_rate=1e-5, name="heard").outcome.kind == "stopped"
        assert heard == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert engine.run("phase", steps=60, name="ignored").outcome.kind == "completed"
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_a_run_in_a_process_of_its_own_too(fresh):
    timer = threading.Thread(target=lambda: (reached("apart"), os.kill(os.getpid(), signal.SIGINT)), daemon=True)
    timer.start()
    record = engine.run("phase", steps=900_000_000, learning_rate=1e-5, name="apart", apart=True)
    assert record.outcome.kind == "stopped"
    assert int(record.run.checkpoints()[-1].stem.partition("-")[2]) == record.outcome.step


def reached(name: str) -> None:
    """Wait for a run to have rows."""
    until(lambda: (store.home() / name / "columns.json").exists() and store.resolve(name).row_count())


def test_a_run_in_a_thread_works_without_signals(fresh):
    done: list = []
    thread = threading.Thread(target=lambda: done.append(engine.run("phase", steps=20, name="threaded").outcome.kind))
    thread.start()
    thread.join()
    assert done == ["completed"]


def test_bad_input_is_a_user_error():
    with pytest.raises(UserError, match='did you mean "toy"'):
        engine.run("toi")
    with pytest.raises(UserError, match="neither a run's name nor a run directory"):
        engine.load("no/such/run")


@pytest.mark.parametrize(("given", "words"), [
    ({"name": 5}, "run name '5': use up to 80 letters"),
    ({"overrides": "budget.steps=5"}, "overrides = 'budget.steps=5': expected a list, overrides="),
    ({"overrides": None}, "overrides = 'None': expected a list"), ({"overrides": [5]}, "overrides = '[5]': expected a list"),
    ({"metrics": abs}, "metrics = '<built-in function abs>': expected functions by the names of their columns"),
    ({"metrics": "norm"}, "metrics = 'norm': expected functions"),
    ({"metrics": {"a b": abs}}, "metrics: 'a b': no name of a column; expected up to 40 letters, digits and '_'"),
    ({"metrics": [lambda context: 0.0]}, "metrics: '<lambda>': no name of a column"),
    ({"learning_rate": 1e-310}, "a learning rate of 1e-310; expected 1e-100 or more, for 2/η to be a number"),
])  # fmt: skip
def test_an_argument_that_will_not_do_is_refused_by_its_name(given, words, own_home):
    with pytest.raises(UserError) as caught:
        engine.run("toy", **given)
    assert words in str(caught.value)
    assert engine.runs() == []


def test_what_a_fork_and_the_list_of_runs_are_asked_with_is_tested_too(own_home):
    record = engine.run("toy", steps=3)
    for given, words in (({"step": "3"}, "step = '3': expected a whole number"), ({"overrides": "a=1"}, "expected a list")):
        with pytest.raises(UserError, match=words):
            engine.fork(record, **given)
    with pytest.raises(UserError, match="tag '5'"):
        engine.runs(5)


@pytest.mark.parametrize(("switch", "given", "usual"), [
    ("jax_debug_nans", True, False), ("jax_debug_infs", True, False), ("jax_disable_jit", True, False),
    ("jax_numpy_dtype_promotion", "strict", "standard"), ("jax_numpy_rank_promotion", "raise", "allow"),
    ("jax_transfer_guard", "disallow", "allow"),
])  # fmt: skip
def test_a_switch_of_jax_under_which_no_step_could_be_taken_is_refused_by_its_name(switch, given, usual, own_home):
    import jax

    before = getattr(jax.config, switch)
    jax.config.update(switch, given)
    try:
        with pytest.raises(UserError) as caught:
            engine.run("toy")
    finally:
        jax.config.update(switch, before)
    assert str(caught.value).startswith(f"{switch} = {given!r}: eos cannot compute so: ")
    assert f"leave {switch.upper()} out of the environment, or call jax.config.update({switch!r}, {usual!r}) first" in str(caught.value)
    assert engine.runs() == []


def test_importing_the_engine_is_cheap():
    code = "import sys, engine.record.store, engine.record.messages, engine.theory\nprint('jax' in sys.modules, 'flax' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


def test_a_field_is_set_by_its_own_name_where_there_is_one(own_home):
    record = engine.run("phase", learning_rate=np.float64(0.03), steps=7, starts=[0.2, 0.5], name="short")
    assert (record.spec.optimizer.learning_rate, record.spec.budget.steps, record.spec.problem.starts) == (0.03, 7, (0.2, 0.5))
    assert record.provenance["precision"] == "f64"
    for fields, said in (
        ({"momentum": 0.9}, "momentum: no field of this specification"),
        ({"steps": object()}, "steps = <object object at .*: expected a number, a text, or a list"),
        ({"steps": 0}, r"\[budget\] steps = 0"),
    ):
        with pytest.raises(UserError, match=said):
            engine.run("phase", **fields)
    with pytest.raises(UserError, match=r'kind: is one of "problem\.model\.kind", "problem\.kind"|"problem\.kind"'):
        engine.run("fashion", kind="toy")


def test_another_mode_is_chosen_by_its_own_name_whatever_else_is_set():
    """What it has is known once it is chosen: fields and overrides beside it may be of that mode, in any order."""
    expected = engine.spec.SharpnessTracking(sharpness_every=3, eigenvalues=1)
    for number, fields in enumerate(({"mode": "sharpness", "eigenvalues": 1}, {"eigenvalues": 1, "mode": "sharpness"})):
        record = engine.run("toy", overrides=["tracking.sharpness_every=3"], steps=4, name=f"read-{number}", **fields)
        assert record.spec.tracking == expected
    assert np.isfinite(record["gd.sharpness"]).tolist() == [True, False, False, True]
    with pytest.raises(UserError, match=r'\[tracking\] mode = "loose"; expected one of "coupled", "sharpness"'):
        engine.run("toy", mode="loose")


def test_a_record_becomes_frames_and_datasets(own_home):
    from synthetic import make_run

    make_run(own_home, steps=150)
    record = engine.load("made")
    pandas = pytest.importorskip("pandas")
    frame = record.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index[:2]) == [0, 1]
    np.testing.assert_array_equal(frame["gd.x"], record["gd.x"])


def test_a_record_becomes_a_polars_frame_with_nulls(own_home):
    pytest.importorskip("polars")
    from synthetic import EDGE, make_run

    make_run(own_home, steps=150)
    frame = engine.load("made").to_polars()
    assert frame["gd.x"].null_count() == EDGE
    assert frame["step"].to_list() == list(range(150))


def test_a_record_becomes_a_dataset_with_units(own_home):
    pytest.importorskip("xarray")
    from synthetic import make_run

    make_run(own_home, steps=150)
    dataset = engine.load("made").to_xarray()
    assert dataset["cost.seconds"].attrs["units"] == "s"
    assert "units" not in dataset["gd.y"].attrs  # its numbers are not multiples of 1/η
    np.testing.assert_array_equal(dataset["gd.x"].sel(step=120), engine.load("made")["gd.x"][120])


def test_the_reference_tells_everything_and_its_links_lead_somewhere(capfd):
    import re

    from engine.commands.main import main

    assert main(["reference"]) == 0
    text = capfd.readouterr().out
    headings = re.findall(r"^## `engine\.(\w+)`$", text, re.MULTILINE)
    assert headings == [*engine.SCRIPTING, "theory"]
    anchors = {f"#engine{name.lower()}" for name in headings}
    links = re.findall(r"\]\((#[^)]*)\)", text)
    assert set(links) == anchors
    assert len(links) > len(headings)  # beside the contents, from one to another
    for name in headings:
        body = text.split(f"## `engine.{name}`\n", 1)[1].split("\n## ", 1)[0]
        assert len(body.split()) > 12, name
    assert "(problem: Problem, center: TaylorCenter, learning_rate: float" in text


def script(text, *args):
    """What a script prints on stdout, in a Python of its own."""
    done = subprocess.run([sys.executable, "-P", "-c", text, *args], capture_output=True, text=True, timeout=200, check=True)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_stream_that_is_open_when_the_script_ends_is_stopped_with_a_checkpoint(own_home):
    script('import engine; rows = engine.stream("toy", steps=50, flow=False, name="left"); next(rows)')
    record = engine.load("left")
    assert record.outcome.kind == "stopped"
    assert list((own_home / "left" / "checkpoints").iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
def test_a_process_that_was_forked_after_jax_began_refuses_to_compute():
    text = """
import os, engine
from engine.base.errors import UserError
engine.run("toy", steps=3, flow=False)
if not os.fork():
    try:
        engine.run("toy", steps=3, flow=False)
    except UserError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    assert "forked from one in which jax had begun" in script(text)


def test_a_run_that_was_deleted_is_said_to_be_gone_and_what_was_read_of_it_stays(own_home):
    record = engine.run("toy", steps=5, name="gone", snapshots_every=2)
    before = record["gd.loss"]
    store.discard("gone")
    for ask in (record.run.rows, record.run.row_count, record.run.table, record.samples, record.densities, record.snapshots):
        with pytest.raises(UserError, match=r"run gone: not there any more: .* was deleted or moved away"):
            ask()
    assert (record["gd.loss"] == before).all()
    assert repr(record) == "<Record gone: 5 rows, completed 5 steps>"
    assert "run gone: not there any more" in record._repr_html_()


def test_a_record_equals_itself_alone():
    engine.run(toy_spec(), steps=3, name="one")
    one, again = engine.load("one"), engine.load("one")
    assert one == one  # noqa: PLR0124
    assert one != again
    assert one in [again, one]
    assert {one: 1}[one] == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_a_sweep_takes_one_engine_or_more(workers):
    with pytest.raises(UserError, match=r"workers = .*; expected a whole number"):
        engine.Sweep("toy", {"seed": [0, 1]}).run(workers=workers)


@pytest.mark.parametrize("values", [3, "0.01", None])
def test_a_grid_has_lists_of_values(values):
    with pytest.raises(UserError, match="expected values for each field"):
        engine.Sweep("toy", {"seed": values})


def test_a_folder_of_runs_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "file"))
    for ask in (engine.runs, engine.load):
        with pytest.raises(UserError, match=r"file: the runs cannot be listed \(Not a directory\)"):
            ask()

"""Runs of earlier versions stay runs: they open, go on, fork and are exported, whatever has been added since.

`runs_of_before/` holds four of the first format, before checkpoints and states said theirs: `coupled`, stopped at the edge with
checkpoints on the approach (30) and at it (60, 66), with every form, the landscape, the gauges, (5) and the flow; `descent`, stopped past
the end of θ†; `sharpness`, in that mode; and a phase portrait. They are kept as they are.
"""

import json
import re
import shutil
from typing import Annotated, Any, NamedTuple, get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest

from engine.base.errors import UserError
from engine.commands.main import main
from engine.curvature.halves import whole
from engine.jobs.fork import fork
from engine.phases import context, experiment
from engine.phases.coupled_state import STATES
from engine.phases.edge_state import EdgeState
from engine.process.runner import Runner
from engine.record import columns, messages, store
from engine.record.arrays import save_checkpoint
from engine.record.columns import Column, columns_for, layout
from engine.record.reader import FORMAT, Run, State
from engine.record.safe_read import read_arrays
from engine.record.writer import Writer
from engine.xla.leaves import Earlier, pack, unpack
from eos_tui.model.source import Source

from places import TESTS

RUNS = TESTS / "runs_of_before"
STOPPED = {"coupled": 66, "descent": 58, "sharpness": 62, "portrait": 70}
MORE = Column("gd.more", "m", "a column that comes later", "", "m", "eos")


@pytest.fixture
def run(request, own_home) -> Run:
    """A copy of one of the runs, among the user's."""
    shutil.copytree(RUNS / request.param, own_home / request.param)
    return store.resolve(request.param)


def of(*names: str):
    return pytest.mark.parametrize("run", names, indirect=True)


@pytest.fixture
def later_columns(monkeypatch):
    """Today's columns with one more, not at their end."""
    def more(spec):
        return (*columns_for(spec)[:4], MORE, *columns_for(spec)[4:])

    for module in (store, context, experiment):
        monkeypatch.setattr(module, "columns_for", more)


def go_on(run: Run, steps: int) -> tuple[Run, np.ndarray]:
    """Carry the run on, in this process, until so many steps more are recorded, and stop it there. Also every row that was computed,
    those on disk again.
    """
    taken = []
    with Writer(run) as writer:
        end, blocks = writer.last_step + steps, Runner(run, writer).blocks()
        for block in blocks:
            taken.append(block)
            if writer.last_step >= end:
                blocks.close()
    return Run(run.path), np.concatenate(taken)


def same_descent(run: Run, computed: np.ndarray, recorded: np.ndarray):
    """Gradient descent and the orbits at the same steps, which no version computes otherwise."""
    for name in ("step", "time", "learning_rate", "gd.loss", "gd.gradient_norm", "ode1.x", "map2.y"):
        if name in run.index:
            mine, theirs = (rows[:, run.index[name]] for rows in (computed, recorded))
            np.testing.assert_allclose(mine, theirs, rtol=1e-4 if run.spec.precision.approach == "float32" else 1e-8, err_msg=name)


@of(*STOPPED)
def test_it_opens_is_shown_and_exported(run, capfd, tmp_path):
    assert run.columns == Run(RUNS / run.name).columns
    assert (run.liveness(), run.state().format, run.row_count()) == ("finished", 1, STOPPED[run.name])
    source = Source(run)
    source.take(source.read())
    assert len(source.history) == STOPPED[run.name]
    for command in (["show", run.name], ["show", run.name, "--json"], ["ls"], ["tail", run.name, "--events"], ["compare", run.name]):
        assert main(command) == 0, command
    assert "Traceback" not in capfd.readouterr().err
    assert main(["export", run.name, "--npz", "--out", str(tmp_path / "rows.npz")]) == 0
    with np.load(tmp_path / "rows.npz") as rows:
        assert list(rows) == [column.name for column in run.columns]
        np.testing.assert_array_equal(rows["step"], np.arange(STOPPED[run.name]))


@pytest.mark.usefixtures("x64", "later_columns")
@of(*STOPPED)
def test_it_goes_on_in_its_own_columns_as_it_did(run):
    """From the last checkpoint but one: the steps after it are taken again."""
    before, stopped, last = run.rows(), STOPPED[run.name], run.checkpoints()[-1]
    last.unlink()
    begun = int(run.checkpoints()[-1].stem.removeprefix("step-"))
    after, computed = go_on(run, 5)
    same_descent(run, computed[: stopped - begun], before[begun:])
    assert after.columns == run.columns
    np.testing.assert_array_equal(after.rows(0, stopped), before)
    table = after.table()
    np.testing.assert_array_equal(table["step"], np.arange(after.row_count()))
    seen = [name for name in table if np.isfinite(before[-1, run.index[name]]) and not name.startswith("test.")]
    for name in seen:  # what had a value has one, but for what is read now and then
        assert np.isfinite(table[name][stopped:]).any() or name.startswith(("landscape.", "assumption.", "train.")), name
    kinds = [type(event) for event in after.events()]
    assert messages.CheckpointSkipped not in kinds
    assert any("continued from the checkpoint at step" in event.text for event in after.events())
    state = json.loads((run.path / "state.json").read_text())
    for facts in (state, after.provenance()):
        assert (facts["format"], facts["layout"]) == (FORMAT, layout(run.columns))
    newest = read_arrays(after.checkpoints()[-1])
    assert (int(newest["record.format"]), str(newest["record.layout"])) == (FORMAT, layout(run.columns))


@pytest.mark.usefixtures("x64", "later_columns")
@of("coupled", "sharpness", "portrait")
def test_its_fork_is_a_new_run_in_the_columns_of_today(run):
    at = {"coupled": 60, "sharpness": 40, "portrait": 40}[run.name]
    made = fork(run, STOPPED[run.name] - 1, [f"budget.steps={STOPPED[run.name]}"], "made")
    assert [column.name for column in made.columns].index(MORE.name) == 4
    assert made.row_count() == at
    if run.name == "coupled":  # whose steps take long to compile: that of the run before takes them
        taken = experiment.Experiment(made.spec, made.columns)
        taken.restore(read_arrays(made.checkpoints()[0]))
        assert (taken.clock.step, taken.phase, taken.setup.column_index) == (at, "edge", made.index)
    else:
        made, computed = go_on(made, STOPPED[run.name] - at)
        own = columns.arranged(run.rows(at), run.index, made.index)
        same_descent(made, computed, own)
        same_descent(made, made.rows(at), own)
    for name, values in run.table().items():
        np.testing.assert_array_equal(made.table()[name][:at], values[:at])
    assert np.isnan(made.table()[MORE.name]).all()


@pytest.mark.usefixtures("x64", "later_columns")
@of("coupled")
def test_rows_that_a_checkpoint_holds_back_are_brought_over_by_name(run):
    """On the approach rows wait in the state until a check has passed."""
    arrays = read_arrays(run.checkpoints()[0])
    held = run.rows(20, 30)
    save_checkpoint(run, 30, arrays | {"state.pending": held})
    made = fork(run, 30, ["budget.steps=40"], "made")
    brought = read_arrays(made.checkpoints()[0])["state.pending"]
    for name, place in run.index.items():
        np.testing.assert_array_equal(brought[:, made.index[name]], held[:, place])
    taken = experiment.Experiment(made.spec, made.columns)
    taken.restore(read_arrays(made.checkpoints()[0]))
    progress = taken.advance(10)
    assert [row[made.index["step"]] for row in progress.rows[:10]] == list(range(20, 30))


def leaves_of(run: Run, step: int) -> dict[str, np.ndarray]:
    return read_arrays(run.path / "checkpoints" / f"step-{step:09d}.npz")


def with_fields(kind: type, **fields: object) -> type:
    """The state with fields more at its end."""
    return NamedTuple("Later", [*get_type_hints(kind, include_extras=True).items(), *fields.items()])


class Audit(NamedTuple):
    """A state that comes to another later."""

    step: int
    probe: np.ndarray


class Nothing(NamedTuple):
    """A state that may hold nothing."""

    named: dict[str, np.ndarray]
    others: dict[str, Audit]


class Probed(NamedTuple):
    """A state of an earlier version."""

    theta: np.ndarray
    loss: float
    pairs: np.ndarray


def test_what_an_older_checkpoint_lacks_is_made_as_the_state_declares():
    leaves = pack(Probed(np.ones(97), 2.0, np.ones((2, 4, 97))), "state.")
    later = with_fields(
        Probed,
        turning=Annotated[jnp.ndarray, Earlier(lambda _: np.array(True))],
        probe=Annotated[np.ndarray, Earlier(lambda state: np.ones_like(state["theta"]) * state["loss"])],
        audit=Annotated[Audit, Earlier(lambda state: Audit(int(state["loss"]), state["theta"]))],
        course=Annotated[jnp.ndarray, Earlier(names=("path", "theta"))],
        fewer=Annotated[np.ndarray, Earlier(names=("pairs",), fitted=lambda array, state: array[:, : len(state["pairs"])])],
        named=dict[str, np.ndarray],
        none=Nothing,
        own=Any,
    )
    with pytest.raises(ValueError, match=r"it has no state.own, and nothing says what that would have been"):
        unpack(later, leaves, "state.")
    state = unpack(later, leaves | pack({"a": np.zeros(2)}, "state.named.") | pack((np.ones(3), {"b": 2.0}), "state.own."), "state.",
                   {"own": (np.zeros(3), {"b": 0.0})})
    assert bool(state.turning) is True
    np.testing.assert_array_equal(state.probe, np.full(97, 2.0))
    assert (state.audit.step, state.audit.probe.shape) == (2, (97,))
    np.testing.assert_array_equal(state.course, state.theta)
    assert (state.pairs.shape, state.fewer.shape) == ((2, 4, 97), (2, 2, 97))
    assert list(state.named) == ["a"]
    assert state.none == Nothing({}, {})
    np.testing.assert_array_equal(state.own[0], np.ones(3))
    assert float(state.own[1]["b"]) == 2.0
    again = unpack(later, pack(state, "state.") | {"state.unknown": np.ones(3)}, "state.", {"own": state.own})
    np.testing.assert_array_equal(again.audit.probe, state.audit.probe)
    np.testing.assert_array_equal(again.fewer, state.fewer)
    np.testing.assert_array_equal(again.own[0], state.own[0])
    for undeclared in (with_fields(Probed, age=int), with_fields(Probed, audit=Audit)):
        with pytest.raises(ValueError, match=r"it has no state.(age|audit), and nothing says what that would have been"):
            unpack(undeclared, leaves, "state.")


@pytest.mark.usefixtures("x64")
def test_the_tracks_of_a_checkpoint_of_before_are_what_it_had_in_one_tuple():
    leaves = leaves_of(Run(RUNS / "coupled"), 66)
    state = unpack(EdgeState, leaves, "state.", {"optimizer": None, "beside": STATES}).coupled
    assert float(state.descent.optimizer.learning_rate) == leaves["state.clock.learning_rate"]
    np.testing.assert_allclose(whole(state.descent.eigenvectors, "float32"), leaves["state.moving.bases"], rtol=5e-4, atol=1e-9)
    np.testing.assert_allclose(state.constrained.refined, leaves["state.moving.center_bases"][1], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(state.constrained.center.theta, leaves["state.moving.center.theta"])
    np.testing.assert_array_equal(state.beside["flow"].theta, leaves["state.moving.flow"])
    for k, (form, score) in enumerate(state.predicted.scores.items()):
        np.testing.assert_array_equal(state.predicted.displacements[form], leaves[f"state.moving.predictions.{form}"])
        np.testing.assert_array_equal(score.sums, leaves["state.moving.scores.sums"][k])


@pytest.mark.usefixtures("x64")
@of("sharpness")
@pytest.mark.parametrize(("spoil", "why"), [
    (lambda leaves: leaves.pop("state.bases"), r"it has no state.eigenvector_history"),
    (lambda leaves: leaves.update({"state.bases": np.ones(3)}),
     r"state.eigenvector_history is of shape \(3,\), which does not go with \(4, 2, 265\)"),
    (lambda leaves: leaves.update({"state.bases": np.ones((4, 2, 7), np.float32)}), r"state.eigenvector_history is of shape \(4, 2, 7\)"),
    (lambda leaves: leaves.update({"record.format": np.array(99)}), r"written by a later version of eos, in format 99"),
    (lambda leaves: leaves.update({"record.layout": np.array("0123456789abcdef")}), r"continues rows of the columns '0123456789abcdef'"),
    (lambda leaves: leaves.update(phase=np.array("edge")), r"of the phase 'edge', which this specification does not come to"),
])  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_reported_and_the_one_before_is_tried(run, spoil, why, capfd):
    before, leaves = run.rows(), leaves_of(run, 62)
    spoil(leaves)
    np.savez(run.path / "checkpoints" / "step-000000062.npz", **leaves)
    after, _ = go_on(run, 2)
    skipped = next(event for event in after.events() if isinstance(event, messages.CheckpointSkipped))
    assert f"checkpoint step-000000062.npz cannot be gone on from ({skipped.text.partition('(')[2]}" in capfd.readouterr().err
    assert skipped.text.endswith("the run goes on from step 40")
    assert re.search(why, skipped.text), skipped.text
    np.testing.assert_array_equal(after.rows(0, 62), before)
    np.testing.assert_array_equal(after.rows()[:, 0], np.arange(after.row_count()))


@pytest.mark.usefixtures("x64")
@of("descent")
def test_a_checkpoint_that_no_step_can_be_taken_from_is_one_that_does_not_fit(run, capfd):
    np.savez(run.path / "checkpoints" / "step-000000058.npz", **leaves_of(run, 58) | {"state.bases": np.ones((4, 4, 5))})
    after, _ = go_on(run, 1)
    texts = [event.text for event in after.events() if isinstance(event, messages.CheckpointSkipped | messages.Started)][1:]
    assert re.fullmatch(r"checkpoint step-000000058.npz cannot be gone on from \(.*\); the run goes on from step 56", texts[-2])
    assert texts[-1].startswith("continued from the checkpoint at step 56")
    assert "Traceback" not in capfd.readouterr().err
    np.testing.assert_array_equal(after.rows()[:, 0], np.arange(after.row_count()))


@pytest.mark.usefixtures("x64")
@of("portrait")
def test_a_fork_whose_checkpoint_does_not_fit_begins_nowhere_else(run):
    made = fork(run, 40, name="made")
    leaves = read_arrays(made.checkpoints()[0])
    del leaves["state.flow"]
    np.savez(made.checkpoints()[0], **leaves)
    with Writer(made) as writer:
        outcome = Runner(made, writer).work()
    assert outcome.kind == "failed"
    assert "it has no state.flow" in outcome.text
    assert "a fork has no other beginning" in outcome.text
    assert made.row_count() == 40
    run.checkpoints()[0].write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"checkpoint step-000000040.npz cannot be read; give the step of an earlier one"):
        fork(run, 40, name="other")
    assert sorted(each.name for each in store.all_runs()) == ["made", "portrait"]


@of("portrait")
def test_rows_of_other_columns_are_no_rows_of_this_run(run, capfd):
    listed = (run.path / "columns.json").read_text()
    with Writer(run) as writer:
        writer.state(run.state())
    source = Source(Run(run.path))
    fewer = json.loads(listed)[:-1]
    (run.path / "columns.json").write_text(json.dumps(fewer))
    for command in (["show", run.name], ["export", run.name], ["resume", run.name], ["fork", run.name, "--step", "40"]):
        assert main(command) == 2, command
        err = capfd.readouterr().err
        assert "written beside rows of the columns" in err
        assert "columns.json lists" in err
    assert store.all_runs() == []
    (run.path / "columns.json").write_text(listed)
    other = State(layout="0123456789abcdef")
    (run.path / "state.json").write_text(json.dumps({"layout": other.layout}))
    assert (source.read().condition, len(source.read().rows)) == ("removed", 0)
    (run.path / "state.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match=r"state.json: written by a later eos, in format 99, and this one reads formats up to"):
        Run(run.path)


@of("portrait")
def test_the_first_format_has_no_sums_but_rows_that_go_up_by_steps(run):
    """Its columns.json with a column less: nothing is appended to rows that are none of these columns."""
    fewer = json.loads((run.path / "columns.json").read_text())[:-1]
    (run.path / "columns.json").write_text(json.dumps(fewer))
    before = (run.path / "metrics.f64").read_bytes()
    with pytest.raises(UserError, match=r"metrics.f64: .*(these are not the columns of columns.json|so not written by eos)"):
        Writer(Run(run.path))
    assert (run.path / "metrics.f64").read_bytes() == before


def test_a_layout_is_of_names_and_their_order():
    spec = Run(RUNS / "coupled").spec
    whole = columns_for(spec)
    reworded = (whole[0]._replace(words="other words"), *whole[1:])
    assert layout(whole) == layout(reworded) != layout(whole[::-1])
    assert layout(whole[:-1]) != layout(whole)
    rows = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(
        columns.arranged(rows, {"a": 0, "b": 1, "c": 2}, {"c": 0, "d": 1, "a": 2}), [[2, np.nan, 0], [5, np.nan, 3]]
    )

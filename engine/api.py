"""The engine for scripts: run a preset or a specification, step through it, load what is on disk.

    import engine
    record = engine.run("fashion", learning_rate=0.05, edge_steps=200)
    record["gd.sharpness"]            # float64, one value a step, NaN where there is none
    for row in engine.stream("toy"):  # as it happens
        row["gd.x"]
    engine.load("fashion-20260101-120000").to_pandas()
"""

import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
import numpy as np
import tomli_w

from engine.base.errors import UserError, one_of
from engine.base.xla_flags import has_begun
from engine.data.catalog import ready
from engine.jobs import groups, launch
from engine.jobs.follow import LOOK_SECONDS, has_ended, log_note
from engine.problems.handed_over import hand_over, is_handed_over, named
from engine.record import messages, store
from engine.record import trust as trusts
from engine.record.arrays import MARKS
from engine.record.columns import Column
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome, RowTail, Run
from engine.record.safe_read import read_arrays
from engine.record.writer import Writer
from engine.spec import RunSpec, choice_of, from_tree, load_spec, with_overrides
from engine.xla.device import configure, require_correct_sums

if TYPE_CHECKING:
    import pandas
    import polars
    import xarray
    from jax import Array

    from engine.phases.metrics import Metric
    from engine.problems.own import Made
    from engine.problems.problem import Problem
    from engine.process.runner import Runner

AGAIN_SECONDS = 5.0
"""Between two interrupts of which the second is to end more than a run."""

HANDED_OVER = "A problem that was handed over in Python: the process that made it alone can build it, and go on with this run"
OF_ITS_OWN = "; or give this run a process of its own with apart=True"


class Record(Mapping[str, np.ndarray]):
    """A run on disk: a mapping from column names to arrays (steps,), with its specification, events and outcome.

    The arrays are read once, when the record is made; `engine.load` again for what came later.
    """

    def __init__(self, run: Run):
        self.run, self.name, self.path, self.spec = run, run.name, run.path, run.spec
        self.events: list[AnyEvent] = run.events()
        self.provenance: dict[str, Any] = run.provenance()
        """Versions, device, number formats, data rule and hash, as the engine wrote them at its start."""
        self.outcome: Outcome | None = run.state().outcome
        """None while the run goes on."""
        self._table = run.table()

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self._table:
            raise KeyError(f"{column}: not recorded by {self.name}; it has {', '.join(self._table)}")
        return self._table[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def samples(self) -> dict[int, dict[str, np.ndarray]]:
        """What was sampled now and then, by the step of the sample: what `curves/` holds, less any file that cannot be read.

        About θ†: `delta` (); `x` (51,) along u, `F`, its even part `F_even` and `quadratic` x²/η; `plane` (13, 7), the rise of the loss
        in the plane of u and ∇S⊥, at `plane_x` (13,) and `plane_y` (7,); `beta` of the `beta_starts` followed (Appendix F, Section 4).
        """
        return _without_marks(self.run.samples())

    def densities(self) -> dict[int, dict[str, np.ndarray]]:
        """What was read of the whole spectrum on demand, by the step: the `density` (n,) of eigenvalues at `grid` (n,), from `nodes` and
        `weights` (K, m) of stochastic Lanczos quadrature and a Gaussian of `width`; the `eigenvalues` (k,) followed and the share
        u·Gu/λ of each, `gauss_newton` (k,), NaN where the loss is no criterion of a network's outputs; `layer_sharpness` (b,), the top
        eigenvalue of the diagonal block of each of the `layers` (b,). Less any file that cannot be read.
        """
        return _without_marks(self.run.densities())

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row a step, indexed by the step. Needs pandas."""
        frame = _needed("pandas").DataFrame({name: values for name, values in self.items() if name != "step"})
        return frame.set_axis(self["step"].astype(np.int64), axis=0).rename_axis("step")

    def to_polars(self) -> "polars.DataFrame":
        """A data frame with a row a step; null where a column has no value. Needs polars."""
        return _needed("polars").DataFrame(dict(self), nan_to_null=True)

    def to_xarray(self) -> "xarray.Dataset":
        """A dataset over `step`, with the words and symbol of each variable, and its unit where it has one. Needs xarray."""
        columns = {column.name: column for column in self.run.columns}
        variables = {
            name: ("step", values, {"long_name": columns[name].words, "symbol": columns[name].symbol, **_units(columns[name])})
            for name, values in self.items() if name != "step"
        }  # fmt: skip
        return _needed("xarray").Dataset(variables, {"step": self["step"].astype(np.int64)}, {"run": self.name})

    def __repr__(self) -> str:
        ended = self.outcome.text if self.outcome else self.run.liveness()
        return f"<Record {self.name}: {self.run.row_count()} rows, {ended}>"


def run(
    preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None" = None, *, overrides: Sequence[str] = (),
    name: str | None = None, apart: bool = False, trust: bool = False,
    metrics: "Mapping[str, Metric] | Sequence[Metric]" = (), **fields: Any,
) -> Record:
    """Run to the end, and return the record. The run directory is under `$EOS_HOME`, as for the app.

    `preset` is a preset's name, the path of a preset file, or a specification; or what `from_loss` and `from_flax` give, or a problem and
    the `theta` (p,) to start from, with a `learning_rate`. `overrides` are "section.field=value", and `fields` the same by the field's own
    name, `learning_rate=0.05`, where no other section has one of that name. `metrics` are functions of a `MetricContext`, by the name of
    their column `metric.NAME`, or by their own. What no file holds, problems and functions of a notebook, is handed over to this process
    alone: the run is recorded and can be watched from elsewhere, and gone on with here. The run works in this process, or with `apart` in
    one of its own, as under the app. Where jax has begun here with sums that go wrong on a CPU, only the latter is right, and this process
    refuses: what it computes by itself would be as wrong as before.
    A preset file may name code of your own; a specification, or the spec.toml of a run that was not made here, may only with `trust`.
    Raises UserError for bad input; a bad end (diverged, failed) is an outcome of the record, not an exception. Ctrl-C, or a notebook's
    stop, ends the run at its next step with a checkpoint, and the record is returned; once more within five seconds, in this run or the
    next one of a loop, is a KeyboardInterrupt.
    """
    stepping = Stepping(preset, theta, overrides, name, apart, fields, trust, metrics)
    with _interrupts(stepping):
        for _ in stepping.blocks():
            pass
    return Record(stepping.run)


def stream(
    preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None" = None, *, overrides: Sequence[str] = (),
    name: str | None = None, apart: bool = False, trust: bool = False,
    metrics: "Mapping[str, Metric] | Sequence[Metric]" = (), **fields: Any,
) -> Iterator[dict[str, float]]:
    """Run, and give each row as it is recorded, by column name; NaN where there is no value.

    Arguments and errors as for `run`. Closing the iterator stops the run, with a checkpoint to go on from, and so does an interrupt,
    which then raises KeyboardInterrupt.
    """
    stepping = Stepping(preset, theta, overrides, name, apart, fields, trust, metrics)
    names, blocks = [column.name for column in stepping.run.columns], stepping.blocks()
    while True:
        with _interrupts(stepping):  # not while the caller has its turn: there an interrupt is the caller's
            block = next(blocks, None)
        if block is None:
            break
        for row in block:
            yield dict(zip(names, row.tolist(), strict=True))
    if stepping.interrupted:
        raise KeyboardInterrupt


def load(run: str | Path | None = None) -> Record:
    """The record of a run by its name, by its directory, or of the latest run. Raises UserError when there is none."""
    return Record(store.resolve(str(run) if run is not None else None))


@contextmanager
def _interrupts(stepping: "Stepping") -> Iterator[None]:
    """An interrupt inside stops the run, rather than raise in the middle of anything. Where a handler of the caller's is there it is called
    too. Nothing in a thread, where no signal can be handled: and none comes there.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # ignored, or handled outside Python
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        now, last = time.monotonic(), Stepping.interrupted_at
        Stepping.interrupted_at = now
        if stepping.interrupted or now - last < AGAIN_SECONDS:
            raise KeyboardInterrupt
        stepping.interrupt()
        with suppress(RuntimeError):  # it has interrupted a print on the same stream
            print(f"run {stepping.run.name} stops at its next step; once more within {AGAIN_SECONDS:.0f} s raises KeyboardInterrupt",
                  file=sys.stderr)
        if before is not signal.default_int_handler:
            cast(Callable[[int, Any], Any], before)(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stepping:
    """A run that is carried out for this process: by it, or by an engine of its own."""

    interrupted_at: ClassVar[float] = -math.inf
    """When the last interrupt came, in this run or an earlier one."""

    def __init__(
        self, preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None", overrides: Sequence[str],
        name: str | None, apart: bool, fields: Mapping[str, Any], trust: bool, metrics: "Mapping[str, Metric] | Sequence[Metric]",
    ):
        preset = str(preset) if isinstance(preset, Path) else preset
        if isinstance(preset, str | RunSpec):
            if theta is not None:
                raise UserError("theta: what to start from belongs to a problem given in Python; a preset has its own")
        else:
            preset, fields, trust = _handed_over(preset, theta, dict(fields)), _without(fields, "learning_rate"), True
        chosen = {name: path for name in fields if (path := choice_of(name))}  # which fields there are depends on these
        first = [*overrides, *(_assigned(name, path, fields[name]) for name, path in chosen.items())]
        spec = load_spec(preset, first) if isinstance(preset, str) else with_overrides(preset, first)
        spec = ready(with_overrides(spec, [_override(spec, *field) for field in fields.items() if field[0] not in chosen]))
        if not trust:
            trusts.need_preset(preset, spec) if isinstance(preset, str) else trusts.need_word(spec)
        spec = _with_metrics(spec, metrics)
        if apart and (here := [each for each in trusts.functions_of(spec) if is_handed_over(each)]):
            raise UserError(f"apart=True: {one_of(here)} was handed over to this process alone; put it into a file, or leave apart out")
        groups.refuse_copies("run it in one, or set EOS_COORDINATOR=none where each task has a run of its own")
        if not apart:
            if has_begun():
                require_correct_sums(OF_ITS_OWN)
            configure(spec.rematerializes)
        self.run, self.apart = store.create(spec, name), apart
        self.interrupted = False
        self._runner: Runner | None = None

    def interrupt(self) -> None:
        """Have the run stop at its next step, with a checkpoint. A signal handler calls this."""
        self.interrupted = True
        if self._runner is not None:
            self._runner.ask(messages.Stop())

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows as they are recorded, (rows, columns). Raises UserError, and leaves no run, where the problem was refused."""
        yield from self._from_engine() if self.apart else self._here()
        launch.refuse_unbuilt(self.run)

    def _here(self) -> Iterator[np.ndarray]:
        from engine.process.runner import Runner

        with Writer(self.run) as writer:
            self._runner = Runner(self.run, writer)
            if self.interrupted:
                self._runner.ask(messages.Stop())
            yield from self._runner.blocks()

    def _from_engine(self) -> Iterator[np.ndarray]:
        pid, rows, gone, asked = launch.start(self.run), RowTail(self.run), False, False
        try:
            while not gone:
                gone = has_ended(pid)  # before the rest is read: then that is all there is
                if self.interrupted and not (gone or asked):
                    asked = True
                    messages.send(self.run.path, messages.Stop())  # Ctrl-C has not reached it: its session is its own
                yield rows.poll()
                time.sleep(0 if gone else LOOK_SECONDS)
        except KeyboardInterrupt:  # the second: the engine is asked to stop, and writes its checkpoint by itself
            if not (gone or asked):
                messages.send(self.run.path, messages.Stop())
            gone = True
            raise
        finally:
            if not gone:
                messages.send(self.run.path, messages.Stop())
            while not (gone or has_ended(pid)):
                time.sleep(LOOK_SECONDS)
        if self.run.liveness() == "crashed":
            raise UserError(f"run {self.run.name}: its engine is gone without a word; {log_note(self.run)}")


def _handed_over(given: Any, theta: Any, fields: dict[str, Any]) -> RunSpec:
    """The specification of a problem that this process alone has. Raises UserError where it is none, or has nowhere to start."""
    from engine.problems.own import Made
    from engine.problems.problem import Problem

    if not isinstance(given, Made | Problem):
        raise UserError(
            f"{str(given)[:200]!a}: expected a preset's name, the path of a preset file, a RunSpec, or what engine.from_loss or "
            "engine.from_flax gives"
        )
    problem, start = given if isinstance(given, Made) else (given, None)
    start = start if theta is None else theta
    if start is None:
        raise UserError(f"{problem!r}: has no θ to start from; give it as the second argument, engine.run(problem, theta, …)")
    if "learning_rate" not in fields:
        raise UserError(f"{problem!r}: has no learning rate; give one, engine.run(…, learning_rate=0.1)")
    function = hand_over(lambda: Made(problem, start), problem.label).function
    tree = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", problem.label).strip("-._")[:48] or "problem", "title": problem.label[:80],
        "shows": HANDED_OVER, "problem": function, "optimizer": {"learning_rate": _plain(fields["learning_rate"])},
    }
    return from_tree(tree, "engine.run")


def _with_metrics(spec: RunSpec, metrics: "Mapping[str, Metric] | Sequence[Metric]") -> RunSpec:
    """The specification with further quantities of the user's own: functions by their columns' names, or by their own. Those that no file
    holds, or one in another folder than those before, are handed over."""
    pairs = list(metrics.items()) if isinstance(metrics, Mapping) else [(getattr(each, "__name__", "metric"), each) for each in metrics]
    functions, folder = dict(spec.metrics.functions), spec.metrics.folder
    for name, function in pairs:
        if not callable(function):
            raise UserError(f"metrics: {name} = {str(function)[:100]!a}; expected a function of an engine.MetricContext")
        if name in functions:
            raise UserError(f"metrics: two of the name {name}; give them as a dict, metrics={{{name!r}: …, 'another': …}}")
        known = named(function)
        if known.folder and folder and known.folder != folder:
            known = hand_over(function, name)
        functions[name], folder = known.function, folder or known.folder
    if not pairs:
        return spec
    given = [f"metrics.functions={_toml(functions)}", f"metrics.folder={_toml(folder)}"]
    return with_overrides(spec, given)


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _override(spec: RunSpec, name: str, value: Any) -> str:
    """The override that sets the one field of this name. Raises UserError where there is none, or more than one."""
    fields = list(_paths(msgspec.to_builtins(spec), name))
    if len(fields) != 1:
        named = f"is one of {one_of(fields)}; say which in overrides" if fields else "no field of this specification"
        raise UserError(f"{name}: {named}")
    return _assigned(name, fields[0], value)


def _assigned(name: str, path: str, value: Any) -> str:
    """The override that sets the field at this path."""
    try:
        return f"{path}={_toml(_plain(value))}"
    except (TypeError, ValueError):
        raise UserError(f"{name} = {value!r}: expected a number, a text, or a list of such") from None


def _plain(value: Any) -> Any:
    """A number of numpy's, or of jax's, as Python's own."""
    return value.item() if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "shape", None) == ()) else value


def _toml(value: Any) -> str:
    """A value in TOML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return tomli_w.dumps({"value": value}).removeprefix("value =").strip()


def _paths(tree: Mapping[str, Any], name: str, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if key == name and prefix + key not in ("name", "title", "shows", "takes"):
            yield prefix + key
        elif isinstance(value, dict):
            yield from _paths(value, name, f"{prefix}{key}.")


def _without_marks(files: Mapping[int, Path]) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of these files that can be read, without what marks a file as of a run."""
    read = {step: read_arrays(path) for step, path in files.items()}
    sampled = {step: arrays for step, arrays in read.items() if arrays is not None}
    return {step: {name: array for name, array in arrays.items() if name not in MARKS} for step, arrays in sampled.items()}


def _units(column: Column) -> dict[str, str]:
    """What xarray and pint read the unit from; nothing for what has none of its own."""
    return {"units": column.unit} if column.unit else {}


def _needed(library: str) -> Any:
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise UserError(f"{library}: not installed; pip install {library}") from None

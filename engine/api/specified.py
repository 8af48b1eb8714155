"""The specification that a script asks for, with its own arguments: presets, problems and functions of this process, single fields."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import tomli_w

from engine.base.errors import UserError, one_of
from engine.data.catalog import ready
from engine.problems.handed_over import hand_over, named
from engine.record import trust as trusts
from engine.spec import RunSpec, SharpnessTracking, choice_of, from_tree, load_spec, with_overrides
from engine.spec.sections import Functions

if TYPE_CHECKING:
    from jax import Array

    from engine.phases.metrics import Metric
    from engine.problems.own import Made
    from engine.problems.problem import Problem

HANDED_OVER = "A problem that was handed over in Python: the process that made it alone can build it, and go on with this run"


def specified(
    preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None", overrides: Sequence[str],
    fields: Mapping[str, Any], trust: bool, metrics: "Mapping[str, Metric] | Sequence[Metric]",
) -> RunSpec:
    """The specification of a run: see `engine.run`. Raises UserError."""
    preset, problem, overrides = str(preset) if isinstance(preset, Path) else preset, None, listed(overrides)
    if isinstance(preset, str | RunSpec):
        if theta is not None:
            raise UserError("theta: what to start from belongs to a problem given in Python; a preset has its own")
    else:
        problem, preset = _problem_of(preset), _handed_over(preset, theta, dict(fields))
        fields, trust = _without(fields, "learning_rate"), True
    chosen = {name: path for name in fields if (path := choice_of(name))}  # which fields there are depends on these
    first = [*overrides, *(_assigned(name, path, fields[name]) for name, path in chosen.items())]
    spec = load_spec(preset, first) if isinstance(preset, str) else with_overrides(preset, first)
    spec = ready(with_overrides(spec, assigned(spec, _without(fields, *chosen))))
    if problem is not None and problem.readings and isinstance(spec.tracking, SharpnessTracking):
        spec = with_overrides(spec, [f"problem.readings={toml(list(problem.readings))}"])
    if not trust:
        trusts.need_preset(preset, spec) if isinstance(preset, str) else trusts.need_word(spec)
    return _with_metrics(spec, metrics)


def listed(overrides: Sequence[str]) -> list[str]:
    """Overrides as a list. Raises UserError where they are no list of texts: a text is a list of letters to Python."""
    if isinstance(overrides, list | tuple) and all(isinstance(each, str) for each in overrides):
        return list(overrides)
    raise UserError(f'overrides = {str(overrides)[:100]!a}: expected a list, overrides=["optimizer.learning_rate=0.05"]')


def assigned(spec: RunSpec, fields: Mapping[str, Any]) -> list[str]:
    """The overrides that set fields by their own names. Raises UserError where there is none of a name, or more than one."""
    return [_override(spec, *field) for field in fields.items()]


def _problem_of(given: Any) -> "Problem | None":
    from engine.problems.problem import Problem

    problem = getattr(given, "problem", given)
    return problem if isinstance(problem, Problem) else None


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
    if not isinstance(metrics, Mapping | list | tuple):
        expected = "expected functions by the names of their columns, metrics={'norm': …}, or a list of functions"
        raise UserError(f"metrics = {str(metrics)[:100]!a}: {expected}")
    pairs = list(metrics.items()) if isinstance(metrics, Mapping) else [(getattr(each, "__name__", "metric"), each) for each in metrics]
    functions, folder = dict(spec.metrics.functions), spec.metrics.folder
    for name, function in pairs:
        if not callable(function):
            raise UserError(f"metrics: {name} = {str(function)[:100]!a}; expected a function of an engine.MetricContext")
        if name in functions:
            raise UserError(f"metrics: two of the name {name}; give them as a dict, metrics={{{name!r}: …, 'another': …}}")
        known = named(function)
        try:
            msgspec.convert({name: known.function}, Functions)
        except msgspec.ValidationError:
            expected = "expected up to 40 letters, digits and '_', no digit first, as in metrics={'norm': …}"
            raise UserError(f"metrics: {str(name)[:100]!a}: no name of a column; {expected}") from None
        if known.folder and folder and known.folder != folder:
            known = hand_over(function, name)
        functions[name], folder = known.function, folder or known.folder
    if not pairs:
        return spec
    given = [f"metrics.functions={toml(functions)}", f"metrics.folder={toml(folder)}"]
    return with_overrides(spec, given)


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


def _override(spec: RunSpec, name: str, value: Any) -> str:
    """The override that sets the one field of this name. Where there are several, that of no section goes before any other, and sections
    that the specification leaves out do not count. Raises UserError where there is none, or more than one."""
    fields = list(_paths(msgspec.to_builtins(spec), name))
    if len(fields) > 1:
        defaults = {field.name: field.default for field in msgspec.structs.fields(spec)}
        used = [path for path in fields if getattr(spec, top := path.partition(".")[0]) != defaults[top]]
        fields = [name] if name in fields else used or fields
    if len(fields) != 1:
        named = f"is one of {one_of(fields)}; say which in overrides" if fields else "no field of this specification"
        raise UserError(f"{name}: {named}")
    return _assigned(name, fields[0], value)


def _assigned(name: str, path: str, value: Any) -> str:
    """The override that sets the field at this path."""
    try:
        return f"{path}={toml(_plain(value))}"
    except (TypeError, ValueError):
        raise UserError(f"{name} = {value!r}: expected a number, a text, or a list of such") from None


def _plain(value: Any) -> Any:
    """A number of numpy's, or of jax's, as Python's own; a path as text."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "shape", None) == ()) else value


def toml(value: Any) -> str:
    """A value in TOML on one line. Raises TypeError or ValueError for what TOML has not."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return tomli_w.dumps({"value": value}).removeprefix("value =").strip()


def _paths(tree: Mapping[str, Any], name: str, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if key == name and prefix + key not in ("name", "title", "shows", "takes"):
            yield prefix + key
        elif isinstance(value, dict):
            yield from _paths(value, name, f"{prefix}{key}.")

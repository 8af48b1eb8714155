"""Quantities of the user's own, `metric.NAME` in the record: functions that a specification names, called at θ before a step is taken.

They change nothing of the run: they are given what is there, and where one fails its column has no values any more.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.errors
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, solve_at
from engine.problems import imported
from engine.problems.problem import Problem
from engine.record.columns import METRIC
from engine.record.messages import AnyEvent, MetricFailed
from engine.spec import RunSpec
from engine.xla.shares import bare

UNTRACEABLE = (
    jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
)  # fmt: skip
"""What a function raises under jit that takes its arguments for numbers, as numpy and `if` do."""


class MetricContext(NamedTuple):
    """What a metric is given: gradient descent, or whichever the optimizer, before a step. Number formats are those of the run."""

    step: Array
    """t, (): the step to come."""
    learning_rate: Array
    """η, ()."""
    theta: Array
    """θ_t, (p,)."""
    gradient: Array
    """∇L(θ_t), (p,), of the full batch."""
    eigenvector: Array
    """u, (p,), the top eigenvector of ∇²L(θ_t), of unit length; its sign means nothing."""
    sharpness: Array
    """λ1(∇²L(θ_t)), ()."""
    problem: Problem
    """The training loss, with its derivatives of every order."""

    @property
    def parameters(self) -> Any:
        """θ as the tree of parameters that it is made of."""
        return self.problem.unravel(self.theta)


Metric = Callable[[MetricContext], Any]


@partial(jax.jit, static_argnums=0)
def _compiled(metric: Metric, *given: Any) -> Any:
    return metric(_context(*given))


def _context(
    problem: Problem, step: Array, learning_rate: Array, theta: Array, eigenvector: Array, sharpness: Array
) -> MetricContext:
    return MetricContext(step, learning_rate, theta, problem.gradient(theta), eigenvector, sharpness, problem)


def reads_eigenpair(metric: Metric, problem: Problem, theta: Array) -> bool:
    """Whether a value of the metric takes u or λ1; so it is said, too, where that cannot be seen before it is called."""
    number = jax.ShapeDtypeStruct((), jnp.float64)
    given = jax.ShapeDtypeStruct((), jnp.int64), number, theta, theta, jax.ShapeDtypeStruct((), theta.dtype)
    try:
        traced = jax.make_jaxpr(lambda *rest: metric(_context(problem, *rest)))(*given).jaxpr
    except Exception:  # told where it is called
        return True
    used = {id(variable) for equation in traced.eqns for variable in equation.invars} | {id(variable) for variable in traced.outvars}
    return any(id(variable) in used for variable in traced.invars[-2:])


class Metrics:
    """The metrics of a run, and which of them have failed."""

    def __init__(self, functions: Mapping[str, Metric], every: int, seed: int, dtype: str):
        self._functions, self._every, self._seed, self._dtype = dict(functions), every if functions else 0, seed, dtype
        self._reads_eigenpair: dict[str, bool] = {}
        self._eager = set[str]()
        self._events: list[AnyEvent] = []

    def steps_until_due(self, step: int) -> int:
        """Steps from this one until values are due, or until they are due again; none is further than any run goes."""
        return self._every - step % self._every if self._every else 2**31

    def read(
        self, problem: Problem, step: int, learning_rate: float, theta: Array, eigenvectors: Array
    ) -> dict[str, float]:
        """The values at θ (p,) where they are due at this step, by column, and the products that they took; `eigenvectors` (k, p) are
        those of ∇²L near by. NaN from where a metric has failed.
        """
        if not self._functions or step % self._every:
            return {}
        for name, metric in self._functions.items():
            if name not in self._reads_eigenpair:
                self._reads_eigenpair[name] = reads_eigenpair(metric, problem, theta)
        eigenvector, sharpness, hvps = jnp.zeros_like(theta), jnp.zeros((), theta.dtype), 0
        if any(self._reads_eigenpair[name] for name in self._functions):
            fresh = guards.fresh_rows(self._seed, step, theta.size, self._dtype, problem.shares)
            start = jnp.concatenate([eigenvectors.astype(self._dtype), fresh])
            pairs, _ = solve_at(problem, theta, start, LOOSE_TOLERANCE, self._dtype, wanted=1, looked=len(start))
            eigenvector, sharpness, hvps = pairs.vectors[0].astype(theta.dtype), pairs.values[0].astype(theta.dtype), int(pairs.hvps)
        theta, eigenvector = bare(theta, problem.shares), bare(eigenvector, problem.shares)
        given = problem, jnp.asarray(step, jnp.int64), jnp.asarray(learning_rate, jnp.float64), theta, eigenvector, sharpness
        values: dict[str, float] = {}
        for name in list(self._functions):
            try:
                values[METRIC + name] = self._value(name, given)
            except Exception as error:  # whatever the code of others raises: the run goes on without it
                self._fail(name, step, error)
        return values | ({"cost.hvps": hvps} if hvps else {})

    def _value(self, name: str, given: tuple[Any, ...]) -> float:
        metric = self._functions[name]
        if name not in self._eager:
            try:
                return _number(_compiled(metric, *given))
            except UNTRACEABLE:
                self._eager.add(name)
        return _number(metric(_context(*given)))

    def _fail(self, name: str, step: int, error: Exception) -> None:
        metric = self._functions.pop(name)
        shown = f"{getattr(metric, '__module__', '?')}:{getattr(metric, '__qualname__', name)}"
        how = f"{shown}: {error}" if isinstance(error, NotANumberError) else imported.failed(shown, error)
        text = f"{METRIC}{name} has no values from step {step} on: {how}"
        self._events.append(MetricFailed(step=step, text=text, metric=name))

    def events(self) -> list[AnyEvent]:
        """What has happened since this was last asked."""
        events, self._events = self._events, []
        return events


class NotANumberError(TypeError):
    """What a metric gave is no number."""


def _number(given: Any) -> float:
    """A metric's value as a number. Raises NotANumberError where it is none."""
    array = np.asarray(given)
    if array.shape or array.dtype.kind not in "biuf":
        raise NotANumberError(f"gives an array of shape {array.shape} and format {array.dtype}; expected a number")
    return float(array)


NO_METRICS = Metrics({}, 1, 0, "float32")


def metrics_of(spec: RunSpec) -> Metrics:
    """The metrics of a specification. Imports the code that it names; raises UserError where that fails."""
    section = spec.metrics
    functions = {name: imported.function_of(named, section.folder, "metrics") for name, named in section.functions.items()}
    return Metrics(functions, section.every, spec.seed, spec.precision.curvature)

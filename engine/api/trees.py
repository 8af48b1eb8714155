"""θ as the tree of parameters that it is made of: of a problem, or of a run, whose problem is built for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.api.records import Record
from engine.base.errors import UserError
from engine.record import store
from engine.record import trust as trusts

if TYPE_CHECKING:
    from jax import Array

    from engine.problems.own import Made
    from engine.problems.problem import Problem


def unravel(
    of: "Record | str | Path | Made | Problem", theta: "Mapping[str, np.ndarray] | Array | np.ndarray", *, trust: bool = False
) -> Any:
    """The tree of parameters of a run, by its record, name or path, or of a problem, at what `Snapshot.load` gives, or at θ (p,): as flax
    has it, for `module.apply({"params": tree}, inputs)` of linen and `nnx.update(module, tree)`.

    Of several, as the eigenvectors of a snapshot are, (k, …) or (k, p), it is a tree of (k, …). The problem of a run is built, which
    imports the code that it names: as for `resume`, `trust` allows that of a run that was not made here. Raises UserError where names or
    shapes do not go together.
    """
    import jax
    import jax.numpy as jnp

    from engine.problems.parameters import joined, parameters

    problem, size = _problem(of, trust)
    if isinstance(theta, Mapping):
        numbers = sum(np.size(each) for each in theta.values())
        known = parameters(problem, size or numbers)
        several, rest = divmod(numbers, size) if size else (1, 0)
        lengths = {np.shape(each)[:1] for each in theta.values()}
        if rest == 0 and several > 1 and lengths == {(several,)}:
            rows = [joined(known, {name: each[k] for name, each in theta.items()}, "unravel") for k in range(several)]
            theta = np.stack(rows)
        else:
            theta = joined(known, theta, "unravel")
    vectors = jnp.asarray(theta)
    if vectors.ndim not in (1, 2) or (size and vectors.shape[-1] != size):
        raise UserError(f"unravel: an array of shape {vectors.shape}; expected θ, ({size or 'p'},), or several, (k, {size or 'p'})")
    return problem.unravel(vectors) if vectors.ndim == 1 else jax.vmap(problem.unravel)(vectors)


def _problem(of: Any, trust: bool) -> "tuple[Problem, int]":
    """The problem, and how many numbers its θ has; 0 where that cannot be known of it."""
    from engine.problems.build import build
    from engine.problems.own import Made
    from engine.problems.problem import Problem
    from engine.xla.device import configure
    from engine.xla.shares import numbers

    if isinstance(of, Made):
        return of.problem, numbers(of.theta.size, of.problem.shares)
    if isinstance(of, Problem):
        return of, 0
    if not isinstance(of, Record | str | Path):
        raise UserError(f"unravel: {str(of)[:100]!a}; expected a run's record, name or path, or a problem")
    run = of.run if isinstance(of, Record) else store.resolve(str(of))
    if trust:
        trusts.grant(run.path, run.spec)
    trusts.need(run.path, run.spec)
    configure(run.spec.rematerializes)
    problem, theta, _ = build(run.spec)
    return problem, numbers(theta.size, problem.shares)

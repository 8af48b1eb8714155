"""The engine: gradient descent at the edge of stability, its constrained trajectory and its predicted dynamics.

Importing this package is cheap: jax is imported by the packages that compute (`xla`, `problems`, `curvature`, `dynamics`, `phases`,
`process`), never by those that a viewer shares with the engine. It does set what jax reads at its first computation: a script may import
the two in any order.
"""

from typing import TYPE_CHECKING

from engine.base.xla_flags import correct_sums

if TYPE_CHECKING:  # what `__getattr__` brings, for whoever reads a script without running it
    from engine import theory as theory
    from engine.api import Record as Record
    from engine.api import Sweep as Sweep
    from engine.api import fork as fork
    from engine.api import load as load
    from engine.api import resume as resume
    from engine.api import run as run
    from engine.api import runs as runs
    from engine.api import stream as stream
    from engine.api import unravel as unravel
    from engine.base.errors import UserError as UserError
    from engine.curvature.eigensolver import Eigenpairs as Eigenpairs
    from engine.curvature.eigensolver import random_start as random_start
    from engine.curvature.eigensolver import top_eigenpairs as top_eigenpairs
    from engine.curvature.expansion import TaylorCenter as TaylorCenter
    from engine.dynamics.own_optimizer import from_optax as from_optax
    from engine.dynamics.predicted import Displacement as Displacement
    from engine.dynamics.predicted import displacement as displacement
    from engine.dynamics.scripting import center_at as center_at
    from engine.dynamics.scripting import constrained_step as constrained_step
    from engine.dynamics.scripting import predicted_step as predicted_step
    from engine.dynamics.scripting import stable_point as stable_point
    from engine.phases.metrics import MetricContext as MetricContext
    from engine.problems.own import Made as Made
    from engine.problems.own import from_loss as from_loss
    from engine.problems.own_flax import from_flax as from_flax
    from engine.problems.problem import Problem as Problem
    from engine.problems.self_test import complaints as complaints
    from engine.problems.torch_state import from_torch_state as from_torch_state
    from engine.xla.device import configure as configure

__version__ = "0.1.0"

correct_sums()

SCRIPTING = {
    name: module for module, names in {
        "engine.api": ("run", "stream", "resume", "fork", "load", "runs", "unravel", "Record", "Sweep"),
        "engine.base.errors": ("UserError",),
        "engine.xla.device": ("configure",),
        "engine.problems.problem": ("Problem",),
        "engine.phases.metrics": ("MetricContext",),
        "engine.problems.torch_state": ("from_torch_state",),
        "engine.problems.own": ("from_loss", "Made"),
        "engine.problems.own_flax": ("from_flax",),
        "engine.problems.self_test": ("complaints",),
        "engine.curvature.eigensolver": ("top_eigenpairs", "random_start", "Eigenpairs"),
        "engine.curvature.expansion": ("TaylorCenter",),
        "engine.dynamics.scripting": ("center_at", "stable_point", "constrained_step", "predicted_step"),
        "engine.dynamics.own_optimizer": ("from_optax",),
        "engine.dynamics.predicted": ("displacement", "Displacement"),
    }.items() for name in names
}
"""What scripts use, by the module it lies in: the same names as above."""


if not TYPE_CHECKING:  # with it, every name would be there, and of any type

    def __getattr__(name: str):
        """The scripting interface, imported when first asked for; `theory` is a module."""
        from importlib import import_module

        if name in SCRIPTING:
            return getattr(import_module(SCRIPTING[name]), name)
        if name == "theory":
            return import_module("engine.theory")
        raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *SCRIPTING, "theory"])

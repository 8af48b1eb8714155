"""The engine: gradient descent at the edge of stability, its constrained trajectory and its predicted dynamics.

Importing this package is cheap: jax is imported by the packages that compute (`xla`, `problems`, `curvature`, `dynamics`, `phases`,
`process`), never by those that a viewer shares with the engine. It does set what jax reads at its first computation: a script may import
the two in any order.
"""

from engine.base.xla_flags import correct_sums

__version__ = "0.1.0"

correct_sums()

SCRIPTING = {
    name: module for module, names in {
        "engine.api": ("run", "stream", "load", "Record"),
        "engine.base.errors": ("UserError",),
        "engine.xla.device": ("configure",),
        "engine.problems.problem": ("Problem",),
        "engine.problems.own": ("from_loss", "from_flax", "complaints", "Made"),
        "engine.curvature.eigensolver": ("top_eigenpairs", "random_start", "Eigenpairs"),
        "engine.curvature.expansion": ("TaylorCenter",),
        "engine.dynamics.scripting": ("center_at", "stable_point", "constrained_step", "predicted_step"),
        "engine.dynamics.trajectories": ("displacement", "Displacement"),
    }.items() for name in names
}
"""What scripts use, by the module it lies in."""


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

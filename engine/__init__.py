"""The engine: gradient descent at the edge of stability, its constrained trajectory and its predicted dynamics.

Importing this package is cheap: jax is imported only by the modules that compute (`problem`, `curvature`, …), never by
those that a viewer shares with the engine (`spec`, `columns`, `store`, `control`, `theory`, `narrative`, `launch`). It does set what
jax reads at its first computation: a script may import the two in any order.
"""

from engine.flags import correct_sums

__version__ = "0.1.0"

correct_sums()

SCRIPTING = {
    "run": "engine.api", "stream": "engine.api", "load": "engine.api", "Record": "engine.api", "UserError": "engine.errors",
    "configure": "engine.device", "Problem": "engine.problem", "from_loss": "engine.own", "from_flax": "engine.own",
    "complaints": "engine.own", "top_eigenpairs": "engine.curvature", "random_start": "engine.curvature", "center_at": "engine.steps",
    "stable_point": "engine.steps", "constrained_step": "engine.steps", "predicted_step": "engine.steps",
    "displacement": "engine.trajectories", "Made": "engine.own", "Eigenpairs": "engine.curvature", "TaylorCenter": "engine.curvature",
    "Displacement": "engine.trajectories",
}  # fmt: skip
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

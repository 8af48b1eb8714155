"""The engine: gradient descent at the edge of stability, its constrained trajectory and its predicted dynamics.

Importing this package is cheap: jax is imported only by the modules that compute (`problem`, `curvature`, …), never by
those that a viewer shares with the engine (`spec`, `columns`, `store`, `control`, `theory`, `narrative`, `launch`).
"""

__version__ = "0.1.0"

_API = {"run": "engine.api", "load": "engine.api", "stream": "engine.api", "Record": "engine.api"}


def __getattr__(name: str):
    """The scripting interface, imported when first asked for."""
    if name in _API:
        from importlib import import_module

        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")

"""The view: a terminal program that shows runs and tells the engine what to do. It never imports jax."""

import os


def _import_numpy() -> None:
    """Import numpy without the threads of its linear algebra: starting them takes as long as numpy itself, and nothing here
    uses them. Engines that are started from here inherit no such setting.
    """
    given = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = given or "1"
    import numpy  # noqa: F401

    if given is None:
        del os.environ["OPENBLAS_NUM_THREADS"]


_import_numpy()

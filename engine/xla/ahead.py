"""Compiling beside a run what comes later in it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """For what is done to compile it: an error there ends it with a warning, for it shows again when that comes, only later."""
    try:
        yield
    except Exception as error:
        words = f"what comes later is compiled only then: compiling it ahead ended in {type(error).__name__}: {error}"
        warnings.warn(words, RuntimeWarning, stacklevel=3)

"""Files that are whole or not there: written beside their place, and moved into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path, mark: str = "") -> Iterator[Path]:
    """A draft beside `path` that takes its place at the end; whatever goes wrong before leaves what was there.

    `mark` tells the drafts of several writers apart. Without it a writer that was killed finds its own draft again.
    """
    draft = path.with_name(f".{path.name}{mark}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)

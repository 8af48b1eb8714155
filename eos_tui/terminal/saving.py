"""Files that a command of the view was asked for."""

import sys
from pathlib import Path

from engine.base.atomic import output
from engine.base.errors import UserError


def save(path: Path, body: bytes, force: bool) -> None:
    """Write a file that the user named, `-` for stdout, and say so on stderr. Raises UserError."""
    try:
        with output(path, force) as handle:
            handle.write(body)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    print(f"saved to {path}", file=sys.stderr)

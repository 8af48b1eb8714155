"""How a command ends: with a status, and whatever its user may have caused told in one sentence."""

import os
import sys
from collections.abc import Callable

from engine.errors import BAD_INPUT, BROKEN_PIPE, INTERRUPTED, UserError
from engine.printed import print_line


def ended(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # η on a terminal that knows ASCII alone is no reason to fail
    try:
        status = command()
        sys.stdout.flush()
        return int(status or 0)
    except UserError as error:
        return report_error(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return BROKEN_PIPE
    except MemoryError:
        return report_error("not enough memory for that many rows; choose fewer --columns, or read metrics.f64 in pieces")
    except OSError as error:
        return report_error(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def report_error(error: Exception | str) -> int:
    """Tell an error in one line on stderr and return its exit status, which is that for bad input where it has none."""
    print_line(f"eos: {' '.join(str(error).split())}", error=True)
    return error.status if isinstance(error, UserError) else BAD_INPUT

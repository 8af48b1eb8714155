"""How a command ends: with a status, and whatever its user may have caused said in one sentence."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TextIO

from engine.base.errors import BAD_INPUT, BROKEN_PIPE, INTERRUPTED, UserError
from engine.base.stuck import way_out
from engine.base.text import print_line

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a run to stop, with a checkpoint: Ctrl-C, and what schedulers send some time before they kill."""


def status_of(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit status. A signal ends it whatever the disk does."""
    try:
        open_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # η on a terminal that knows ASCII alone is no reason to fail
        with way_out(STOPPING):
            status = command()
            sys.stdout.flush()
        return int(status or 0)
    except UserError as error:
        return report_error(error)
    except BrokenPipeError:
        _silence(sys.stdout)
        return BROKEN_PIPE
    except SystemExit as end:  # how rich, which help is written with, leaves where nobody reads
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return BROKEN_PIPE
    except MemoryError:
        return report_error("not enough memory for that many rows; choose fewer --columns, or read metrics.f64 in pieces")
    except OSError as error:
        if error.errno == errno.EBADF and error.filename is None:
            _silence(sys.stdout)
            report_error("stdout is closed, so nothing could be printed")
            return BROKEN_PIPE
        return report_error(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def end_at_once(status: int) -> NoReturn:
    """End this process with its exit status and nothing else of the interpreter's end: what is printed is out, files are to be closed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(status)


def open_streams() -> None:
    """Put something in place of the standard streams that were closed (`>&-`): the next file that is opened would take their numbers, and
    what is printed end up in it. An end of input for stdin, nothing for stderr; for stdout what cannot be written to, so that lost
    data are reported.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free, which is this one
    for name, number, way in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, way, encoding="utf-8", closefd=False))


def _silence(stream: TextIO) -> None:
    """Send what is still to be written there nowhere: Python would complain of it at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def report_error(error: Exception | str) -> int:
    """Tell an error in one line on stderr, if anybody reads it. Returns its exit status, that for bad input where it has none."""
    try:
        print_line(f"eos: {' '.join(str(error).split())}", error=True)
    except BrokenPipeError:
        _silence(sys.stderr)
    return error.status if isinstance(error, UserError) else BAD_INPUT

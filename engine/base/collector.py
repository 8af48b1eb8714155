"""Garbage in a process that was started without collecting any: what is imported and made until it stands, stays."""

import gc


def collect_from_here() -> None:
    """Collect again where nothing was collected up to here, and leave out what stands by now: to look through all of it would
    stop a view for 70 ms every now and then.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

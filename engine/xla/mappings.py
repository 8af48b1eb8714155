"""The mappings of memory that compiled code takes, of which Linux allows a process 65,530 and ends it beyond, without a word.

A run of a shape that this process has not had compiles some hundreds of functions, and each keeps a few mappings for as long as jax keeps
the function: 1,600 for an approach, 4,000 with the edge, 21,600 where directions join there one by one. A script that ran twenty shapes one
after the other was ended.
"""

import gc
import sys
from pathlib import Path

MAPPED, ALLOWED = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
OTHERS = 1 / 4
"""Part of the mappings that may be taken when a run begins: one run takes up to a third."""


def make_room() -> bool:
    """Let go of all compiled functions where their mappings would leave a run too few, and say whether that was so. What is needed again
    is compiled again, or read from disk. Where the system tells of no bound there is none.
    """
    jax = sys.modules.get("jax")
    try:
        taken, allowed = MAPPED.read_bytes().count(b"\n"), int(ALLOWED.read_text())
    except (OSError, ValueError):
        return False
    if jax is None or taken <= OTHERS * allowed:
        return False
    jax.clear_caches()
    gc.collect()  # what jax holds in circles
    return True

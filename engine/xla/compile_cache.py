"""Compiled code that is kept on disk, read back only where it is whole.

jax writes an entry once and reads it for ever: one that was cut short, by a full disk or a loss of power, costs a compilation at every
start from then on, and one with a flipped bit may end the process. Here an entry ends with a sum over itself; one that does not fit is
removed, so that jax, which finds none, compiles and writes it anew.
"""

import os
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

SUM_BYTES = 32


def keep_whole() -> None:
    """Have jax check what it reads from its cache of compiled code, where this jax keeps it in the way that is known here."""
    try:
        from jax._src import compilation_cache
        from jax._src.lru_cache import LRUCache
    except ImportError:  # another jax: then it is as jax has it
        return
    if getattr(compilation_cache, "LRUCache", None) is LRUCache:
        vars(compilation_cache)["LRUCache"] = _whole(LRUCache)


def _whole(cache: Any) -> type:
    """A cache of files, one an entry, with sums."""

    class Whole(cache):
        """An entry that does not fit its sum is none."""

        def get(self, key: str) -> bytes | None:
            path = Path(os.fspath(self.path)) / f"{key}-cache"  # jax may have a path of its own, which knows no links
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    entry = super().get(key)
                    if entry is None or is_whole(entry):
                        return entry and entry[:-SUM_BYTES]
            with suppress(OSError):
                path.unlink()
            return None

        def put(self, key: str, value: bytes) -> None:
            super().put(key, with_sum(value))

    return Whole


def with_sum(entry: bytes) -> bytes:
    """An entry as it is written."""
    return entry + sha256(entry).digest()


def is_whole(entry: bytes) -> bool:
    """Whether what was read is what was written."""
    return sha256(entry[:-SUM_BYTES]).digest() == entry[-SUM_BYTES:]

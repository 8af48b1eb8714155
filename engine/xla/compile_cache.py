"""Compiled code that is kept on disk, read back only where it is whole.

jax writes an entry once and reads it for ever: one that was cut short, by a full disk or a loss of power, costs a compilation at every
start from then on, and one with a flipped bit may end the process. Here an entry ends with a sum over itself; one that does not fit is
removed, so that jax, which finds none, compiles and writes it anew.

jax writes it in place, too (`Path.write_bytes`, without a lock as long as the cache has no bound): of several processes that compile the
same function at once, one may read what another has half written, take it for damaged and remove it. Here an entry is written beside its
place and moved into it, so that engines of a sweep and workers of a test run share one folder.
"""

import os
import stat
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.base import atomic

SUM_BYTES = 32


def keep_whole() -> None:
    """Have jax check what it reads from its cache of compiled code, where this jax keeps it in the way that is known here."""
    try:
        from jax._src import compilation_cache
        from jax._src.lru_cache import LRUCache
    except ImportError:  # another jax: then it is as jax has it
        return
    if getattr(compilation_cache, "LRUCache", None) is LRUCache:
        vars(compilation_cache)["LRUCache"] = whole(LRUCache)


def whole(cache: Any) -> type:
    """A cache of files, one an entry, with sums."""

    class Whole(cache):
        """An entry that does not fit its sum is none."""

        def get(self, key: str) -> bytes | None:
            path = self._entry(key)
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    entry = super().get(key)
                    if entry is None or is_whole(entry):
                        return entry and entry[:-SUM_BYTES]
            with suppress(OSError):
                path.unlink()
            return None

        def put(self, key: str, value: bytes) -> None:
            if self.eviction_enabled:  # of a cache with a bound, jax locks each access
                super().put(key, with_sum(value))
            elif not self._entry(key).exists():
                with atomic.write(self._entry(key), f".{os.getpid()}-{threading.get_ident()}") as handle:
                    handle.write(with_sum(value))

        def _entry(self, key: str) -> Path:
            """Its file. jax may have a path of its own, which knows no links."""
            return Path(os.fspath(self.path)) / f"{key}-cache"

    return Whole


def with_sum(entry: bytes) -> bytes:
    """An entry as it is written."""
    return entry + sha256(entry).digest()


def is_whole(entry: bytes) -> bool:
    """Whether what was read is what was written."""
    return sha256(entry[:-SUM_BYTES]).digest() == entry[-SUM_BYTES:]

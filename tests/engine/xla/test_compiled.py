"""Compiled code on disk: what is damaged there is compiled and written anew, without a word, and processes share it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.xla.ahead import compiling_ahead
from engine.xla.compile_cache import is_whole, whole

from places import ROOT

CODE = """
import jax
from engine.xla.device import configure

configure()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
for k in range(6):
    assert float(jax.jit(lambda x: x * k + 1)(1.0)) == k + 1
print(len(hits))
"""


def test_damaged_entries_are_rewritten(tmp_path):
    folder = tmp_path / "compiled"
    around = os.environ | {"EOS_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

    def computed() -> int:
        command = [sys.executable, "-W", "error", "-c", CODE]
        done = subprocess.run(command, capture_output=True, text=True, env=around, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout)

    assert computed() == 0
    written = sorted(folder.glob("*-cache"))
    entries = {path: path.read_bytes() for path in written}
    assert len(entries) >= 6
    assert all(map(is_whole, entries.values()))
    cut, flipped, empty, older, piped, *rest = written
    cut.write_bytes(entries[cut][:-40])
    flipped.write_bytes(entries[flipped][:99] + bytes([entries[flipped][99] ^ 1]) + entries[flipped][100:])
    empty.write_bytes(b"")
    older.write_bytes(entries[older][:-32])  # as an earlier version wrote it
    piped.unlink()
    os.mkfifo(piped)
    assert computed() == len(rest)
    assert all(is_whole(path.read_bytes()) for path in written)
    assert computed() == len(written)


def test_an_entry_has_its_name_once_it_is_whole(tmp_path, monkeypatch):
    """Another process that looks while an entry is being written finds none, and removes nothing."""
    from jax._src.lru_cache import LRUCache

    cache, written, replace = whole(LRUCache)(str(tmp_path), max_size=-1), [], os.replace

    def watched(draft, place):
        assert cache.get("key") is None
        written.append(is_whole(Path(draft).read_bytes()))
        replace(draft, place)

    monkeypatch.setattr(os, "replace", watched)
    cache.put("key", b"compiled")
    cache.put("key", b"compiled by another")
    assert (cache.get("key"), written) == (b"compiled", [True])
    assert [path.name for path in tmp_path.iterdir()] == ["key-cache"]


def test_what_cannot_be_compiled_ahead_is_a_warning():
    """Passed over, it was seen by nobody, and the edge was compiled when it came."""
    words = r"is compiled only then: compiling it ahead ended in TypeError: 'int' object is not iterable"
    with pytest.warns(RuntimeWarning, match=words), compiling_ahead():
        min(1, *[])

"""What the C library keeps of freed memory."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, threading
from engine.xla import device

device.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]

def use(times):
    for _ in range(times):
        arrays = [libc.malloc(10 << 20) for _ in range(12)]
        for array in arrays:
            libc.memset(array, 1, 10 << 20)
        for array in arrays:
            libc.free(array)

def work():
    use(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(5)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
"""A thread that takes and frees twelve arrays of 10 MB, more than one heap of an arena holds."""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="of glibc alone is it asked"
)
def test_what_a_thread_frees_stays_for_its_next_arrays():
    """In an arena of its own each of these rounds faults all of its 30,000 pages in anew."""
    ended = subprocess.run([sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 300

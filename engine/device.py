"""jax's global switches for a process that computes, and the device in words. Entry points call `configure` first."""

import ctypes
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

from engine import compiled

# On CPUs, jaxlib 0.10 and 0.11 fuse float32 sums into YNNPACK calls that race: about one gradient in 300 comes back wrong in
# the third digit, some by 30 orders of magnitude. Without those fusions 4,000 of 4,000 were the same to the bit. Two programs that
# show it every time are in tests/test_formats.py. `formats` switches what is right on again.
SAFE_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type="
KNOWS_THE_FLAG = (0, 13)
"""jaxlib from which a flag may be gone; an unknown flag would end the process."""

MEMORY_FIRST = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""On CPUs, XLA orders what it computes for concurrency: what is computed again is then computed early, and kept after all."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_memory() -> None:
    """Have the C library keep freed memory for the next call, where it is glibc; elsewhere nothing changes.

    XLA allocates its temporaries anew in every call. Given back to the system in between, their pages fault in again each
    time: 30,000 faults and a quarter to a third of the time of a tracked step of the default preset.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def jaxlib_release() -> tuple[int, ...]:
    """jaxlib's version, as (major, minor)."""
    return tuple(int(part) for part in version("jaxlib").split(".")[:2])


def version_of(package: str) -> str:
    """The version of an installed package, else `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def correct_sums() -> None:
    """Switch the racing fusions off. Only before jax's first computation."""
    _set_unless_given(SAFE_FUSIONS)


def spare_memory() -> None:
    """Have XLA order what it computes for memory first. Only before jax's first computation."""
    _set_unless_given(MEMORY_FIRST)


def _set_unless_given(setting: str) -> None:
    """Add `--flag=value` to XLA_FLAGS, which jax reads once, where this jaxlib knows the flag and it is not set there."""
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib_release() < KNOWS_THE_FLAG and setting.strip("-").partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {setting}".strip()


def configure(sparing: bool = False) -> None:
    """float64 where asked, exact products, correct sums, compiled code kept on disk. Before the first computation.

    `sparing` puts memory first; a run that rematerializes wants it, and the processes of a group, which all are to compute alike.
    """
    if sys.platform == "linux":
        keep_memory()
    correct_sums()
    if sparing:
        spare_memory()

    import jax  # after XLA_FLAGS: they are read once

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # TF32 spoils the third digit of the sharpness
    cache = Path(os.environ.get("EOS_CACHE") or platformdirs.user_cache_dir("eos")) / "compiled"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        print(f"{cache}: compiled code cannot be kept there ({error.strerror}); every start compiles anew", file=sys.stderr)
        return
    compiled.keep_whole()
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def process_count() -> int:
    """How many processes share the run out."""
    import jax

    return jax.process_count()


def device_words() -> str:
    """The device in words: `CPU ×1`, `NVIDIA H100 ×1`, `NVIDIA H100 ×8 in 2 processes`."""
    import jax

    devices, processes = jax.devices(), jax.process_count()
    kind = devices[0].device_kind
    return f"{kind.upper() if kind == 'cpu' else kind} ×{len(devices)}{f' in {processes} processes' if processes > 1 else ''}"

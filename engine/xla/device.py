"""jax's global switches for a process that computes, and the device in words. Entry points call `configure` first."""

import ctypes
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from engine.base import folders, xla_flags
from engine.base.errors import UserError
from engine.xla import compile_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt."""
SWITCHES = {
    "jax_debug_nans": (False, "NaN is how a row has no value, and a loss that diverges is a result"),
    "jax_debug_infs": (False, "a loss that diverges is a result"),
    "jax_disable_jit": (False, "its loops are compiled"),
    "jax_numpy_dtype_promotion": ("standard", "float32 and float64 meet in a step"),
    "jax_numpy_rank_promotion": ("allow", "vectors and matrices meet in a step"),
    "jax_transfer_guard": ("allow", "what a step needs comes from the host"),
}
"""Switches of jax under which a run would fail in the midst of a step: what they are otherwise, and why."""
HEARD_OF = (None, "warn", "log", "log_explicit")
"""Where such a switch is not set, or does no more than say something."""


def keep_memory() -> None:
    """Have the C library keep freed memory for the next call, where it is glibc; elsewhere nothing changes.

    XLA allocates its temporaries anew in every call. Given back to the system in between, their pages fault in again each
    time: 30,000 faults and a quarter to a third of the time of a tracked step of the default preset. Of the arenas that threads begin of
    their own, whatever falls empty is given back whatever is set: all threads share the first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_memory_back() -> None:
    """Have the C library give freed arrays back to the system at once, where it is glibc, after `keep_memory`.

    For many parameters: what it keeps of them are pieces of all sizes, which no array of another size fits into. A tracked step of 1e6
    parameters then holds 1.8 to 1.9 times the memory that it needs. That their pages fault in anew makes such a step longer, by a fifth to
    two thirds of the 1.3 to 1.5 s that it takes with ten examples.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 20)


def version_of(package: str) -> str:
    """The version of an installed package, else `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def require_correct_sums(instead: str = "") -> None:
    """Raise UserError where sums would be wrong in this process, with the sentence that mends it; `instead` is another way out.

    Every function that computes for a script calls it.
    """
    if xla_flags.is_early(xla_flags.SAFE_FUSIONS) or xla_flags.jaxlib_release() >= xla_flags.KNOWS_THE_FLAG or sums_are_right():
        return
    jaxlib = f"jaxlib {version_of('jaxlib')}"
    if xla_flags.names_file():
        raise UserError(f"XLA_FLAGS: a file of flags, and {jaxlib} adds up wrong on a CPU without {xla_flags.SAFE_FUSIONS}; write it there")
    if (asked := xla_flags.given(xla_flags.SAFE_FUSIONS)) not in ("", xla_flags.SAFE_FUSIONS):
        raise UserError(f"XLA_FLAGS: has {asked}, with which {jaxlib} adds up wrong on a CPU; leave that out")
    raise UserError(
        f"jax has begun in this process before eos, and {jaxlib} would add up wrong on this CPU: write `import engine` before jax's first "
        f"computation, and start Python or the notebook's kernel anew{instead}"
    )


@cache
def sums_are_right() -> bool:
    """Whether a sum is left to XLA's own code, by what it is compiled to: what XLA_FLAGS says may have come too late. Starts the device."""
    import jax

    many = jax.ShapeDtypeStruct((1 << 21,), "float32")
    return "ynn_fusion" not in (jax.jit(lambda numbers: numbers.sum()).lower(many).compile().as_text() or "")


def require_switches() -> None:
    """Raise UserError where jax is to compute in a way that a run cannot: see `SWITCHES`."""
    import jax

    for name, (usual, why) in SWITCHES.items():
        given = getattr(jax.config, name, None)
        if given not in (usual, *HEARD_OF):
            raise UserError(
                f"{name} = {getattr(given, 'value', given)!r}: eos cannot compute so: {why}; leave {name.upper()} out of the "
                f"environment, or call jax.config.update({name!r}, {usual!r}) first"
            )


def configure(sparing: bool = False) -> None:
    """float64 where asked, exact products, correct sums, compiled code kept on disk. Before the first computation.

    `sparing` puts memory first; a run that rematerializes wants it, and the processes of a group, which all are to compute alike.
    Raises UserError where jax has begun and its sums would be wrong, where it is to compute as a run cannot, or the environment chooses
    what there is not.
    """
    if sys.platform == "linux":
        keep_memory()
    xla_flags.correct_sums()
    if sparing:
        xla_flags.spare_memory()
        if xla_flags.has_begun() and xla_flags.jaxlib_release() < xla_flags.KNOWS_THE_FLAG and not xla_flags.given(xla_flags.MEMORY_FIRST):
            print("jax has begun before eos: memory is not put first, so this may need more of it", file=sys.stderr)
    if xla_flags.has_begun():
        require_correct_sums()

    import jax  # after XLA_FLAGS: they are read once

    from engine.xla import small_matrices

    small_matrices.chosen()  # what is no choice is refused here, not in the midst of a step
    require_switches()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # TF32 spoils the third digit of the sharpness
    try:
        cache = folders.cache() / "compiled"
    except UserError as error:
        print(f"{error}; until then every start compiles anew", file=sys.stderr)
        return
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        print(f"{cache}: compiled code cannot be kept there ({error.strerror}); every start compiles anew", file=sys.stderr)
        return
    compile_cache.keep_whole()
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # the small ones are most: each costs a start 10 ms


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

"""XLA's flags. jax reads them once, at its first computation: `import engine` sets what makes sums right, so that whoever imports it
before that has no order to keep. Whether it came in time is asked at every door that computes (`device.require_correct_sums`).
"""

import os
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# On CPUs, jaxlib 0.10 and 0.11 fuse float32 sums into YNNPACK calls that race: about one gradient in 300 comes back wrong in
# the third digit, some by 30 orders of magnitude. Without those fusions 4,000 of 4,000 were the same to the bit. Two programs that
# show it every time are in tests/engine/xla/test_formats.py. `formats` switches what is right on again.
SAFE_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type="
KNOWS_THE_FLAG = (0, 13)
"""jaxlib from which a flag may be gone; an unknown flag would end the process."""

MEMORY_FIRST = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""On CPUs, XLA orders what it computes for concurrency: what is computed again is then computed early, and kept after all."""

VERSION = re.compile(r"""^_version = ["'](\d+)\.(\d+)""", re.MULTILINE)

early_settings: set[str] = set()
"""Settings that stood in XLA_FLAGS before jax was even imported."""


@cache
def jaxlib_release() -> tuple[int, ...]:
    """jaxlib's version, as (major, minor); one that knows no flag where there is none to read. Read from its own file: a view asks too,
    and neither jaxlib nor the metadata of packages are to be loaded before its first frame.
    """
    spec = find_spec("jaxlib")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        with suppress(OSError):
            if numbers := VERSION.search((Path(folder) / "version.py").read_text(encoding="utf-8")):
                return int(numbers[1]), int(numbers[2])
    return KNOWS_THE_FLAG


def correct_sums() -> None:
    """Switch the racing fusions off. Only before jax's first computation: after it nothing is changed."""
    _set_unless_given(SAFE_FUSIONS)


def spare_memory() -> None:
    """Have XLA order what it computes for memory first. Only before jax's first computation."""
    _set_unless_given(MEMORY_FIRST)


def is_early(setting: str) -> bool:
    """Whether jax has surely read this `--flag=value`, or surely will."""
    return setting in early_settings and setting in _given()


def has_begun() -> bool:
    """Whether jax has computed in this process, as far as it shows: a device is started."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    begun = getattr(bridge, "backends_are_initialized", None)  # of jax 0.10 to 0.12; another shows nothing
    return begun is not None and begun()


def given(setting: str) -> str:
    """What XLA_FLAGS says of the flag of `--flag=value`, as it stands there; empty where it says nothing."""
    return next((flag for flag in _given() if flag.partition("=")[0] == setting.partition("=")[0]), "")


def names_file() -> bool:
    """Whether XLA_FLAGS is no list of flags, but the path of a file that holds them. It is left alone then."""
    return bool(_given()) and not _given()[0].startswith("-")


def _given() -> list[str]:
    return os.environ.get("XLA_FLAGS", "").split()


def _set_unless_given(setting: str) -> None:
    """Add `--flag=value` to XLA_FLAGS, where this jaxlib knows the flag, it is not set there, and jax has not begun: compiled code is
    kept by what XLA_FLAGS says, so it is never to say what is not so."""
    if jaxlib_release() >= KNOWS_THE_FLAG or has_begun() or names_file():
        return
    if not given(setting):
        os.environ["XLA_FLAGS"] = " ".join([*_given(), setting])
    if "jax" not in sys.modules and setting in _given():
        early_settings.add(setting)

"""Where else a run may go: files of other programs, each by a package that is installed for it."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from engine.base.atomic import output
from engine.base.errors import UserError
from engine.record import hdf5, trackers
from engine.record.columns import Column
from engine.record.reader import Run


class Bridge(NamedTuple):
    """A way to another program."""

    package: str
    extra: str
    """The extra of eos that brings the package."""
    write: Callable[[Run, Sequence[Column], Path, bool], str]
    """Writes these columns of a run to a file or a folder, anew where the last says so; says what was made."""


def _hdf5(run: Run, columns: Sequence[Column], file: Path, force: bool) -> str:
    with output(file, force) as handle:
        hdf5.write(run, columns, handle)
    return str(file)


BRIDGES = {
    "hdf5": Bridge("h5py", "hdf5", _hdf5),
    "tensorboard": Bridge("tensorboardX", "tensorboard", trackers.tensorboard),
    "wandb-offline": Bridge("wandb", "wandb", trackers.wandb_offline),
}
"""By the option of `export`."""


def cross(option: str, run: Run, columns: Sequence[Column], place: Path, force: bool = False) -> str:
    """Write a run to where an option says; what was made. Raises UserError where its package is not installed."""
    bridge = BRIDGES[option]
    if find_spec(bridge.package) is None:
        raise UserError(f"--{option}: needs {bridge.package}; pip install 'eos-tui[{bridge.extra}]'")
    return bridge.write(run, columns, place, force)

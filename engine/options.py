"""Options that several commands of the command lines share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from engine import completing
from engine.hosts import Group, asked

PresetName = Annotated[str, Parameter(completer=completing.presets)]
RunName = Annotated[str, Parameter(completer=completing.runs)]
DataName = Annotated[str, Parameter(completer=completing.data_sets)]
FigureName = Annotated[str, Parameter(completer=completing.figures)]
RunNames = Annotated[tuple[str, ...], Parameter(completer=completing.runs)]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Overrides = Annotated[tuple[str, ...], Parameter("--set", negative=(), show_default=False, completer=completing.fields)]
DataDir = Annotated[str | None, Parameter("--data-dir", show_default=False, help=(
    "Folder of the data sets that do not ship with eos; $TFDS_DATA_DIR, else the platform's, when not given."))]  # fmt: skip

Trust = Annotated[bool, Parameter("--trust", negative=(), show_default=False, help=(
    "Execute code that a run from elsewhere names, without asking."))]  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class Meeting:
    """Where the processes meet that share out one run, and which of them this one is."""

    coordinator: Annotated[str | None, Parameter(show_default=False, help=(
        "HOST:PORT of process 0 where several processes share out one run, or slurm to take all from SLURM; $EOS_COORDINATOR "
        "when not given."))] = None  # fmt: skip
    processes: Annotated[int | None, Parameter(show_default=False, help="How many there are; $EOS_PROCESSES when not given.")] = None
    process: Annotated[int | None, Parameter(show_default=False, help="Which one this is, from 0; $EOS_PROCESS when not given.")] = None

    def group(self, environment: Mapping[str, str] = os.environ) -> Group | None:
        """The group that these options and the environment tell of; None where this process runs alone."""
        return asked(self.coordinator, self.processes, self.process, environment)


AS_TOLD = Meeting()
"""No options: what the environment says."""

"""Options that several commands of the command lines share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from engine.commands import completion
from engine.jobs.groups import ALONE, SLURM, Group, asked, refuse_copies

PresetName = Annotated[str, Parameter(completer=completion.presets)]
RunName = Annotated[str, Parameter(completer=completion.runs)]
DataName = Annotated[str, Parameter(completer=completion.data_sets)]
FigureName = Annotated[str, Parameter(completer=completion.figures)]
RunNames = Annotated[tuple[str, ...], Parameter(completer=completion.runs)]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Overrides = Annotated[tuple[str, ...], Parameter("--set", negative=(), show_default=False, completer=completion.fields)]
DataDir = Annotated[str | None, Parameter("--data-dir", show_default=False, help=(
    "Folder of the data sets that do not ship with eos; $TFDS_DATA_DIR, else the platform's, when not given."))]  # fmt: skip

Trust = Annotated[bool, Parameter("--trust", negative=(), show_default=False, help=(
    "Execute code that a run from elsewhere names, without asking."))]  # fmt: skip

HOW = f"--coordinator {SLURM}, or HOST:PORT, makes them one run, and --coordinator {ALONE} as many runs as there are tasks"
"""How several tasks learn what they are."""


@Parameter(name="*")
@dataclass(frozen=True)
class Meeting:
    """Where the processes meet that share out one run, and which of them this one is."""

    coordinator: Annotated[str | None, Parameter(show_default=False, help=(
        "HOST:PORT of process 0 where several processes share out one run, or slurm to take all from SLURM, or none where each of "
        "several tasks is at a run of its own; $EOS_COORDINATOR when not given."))] = None  # fmt: skip
    processes: Annotated[int | None, Parameter(show_default=False, help="How many there are; $EOS_PROCESSES when not given.")] = None
    process: Annotated[int | None, Parameter(show_default=False, help="Which one this is, from 0; $EOS_PROCESS when not given.")] = None

    def group(self, environment: Mapping[str, str] = os.environ) -> Group | None:
        """The group that these options and the environment tell of; None where this process runs alone. Raises UserError where it is one
        of several tasks and none of these says that they belong together.
        """
        group = asked(self.coordinator, self.processes, self.process, environment)
        if group is None and not self.coordinator:
            refuse_copies(HOW, environment)
        return group


FROM_ENVIRONMENT = Meeting()
"""No options: what the environment says."""

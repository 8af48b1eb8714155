"""Options that several commands of the command lines share."""

from typing import Annotated

from cyclopts import Parameter

Coordinator = Annotated[str | None, Parameter("--coordinator", show_default=False, help=(
    "HOST:PORT of process 0 where several processes share out one run, or slurm to take all from SLURM; $EOS_COORDINATOR "
    "when not given."))]  # fmt: skip
Processes = Annotated[int | None, Parameter("--processes", show_default=False, help="How many there are; $EOS_PROCESSES when not given.")]
Process = Annotated[int | None, Parameter("--process", show_default=False, help="Which one this is, from 0; $EOS_PROCESS when not given.")]
Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Overrides = Annotated[tuple[str, ...], Parameter("--set", negative=(), show_default=False)]
DataDir = Annotated[str | None, Parameter("--data-dir", show_default=False, help=(
    "Folder of the data sets that do not ship with eos; $TFDS_DATA_DIR, else the platform's, when not given."))]  # fmt: skip

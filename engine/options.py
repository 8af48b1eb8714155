"""Options that several commands of the command lines share."""

from typing import Annotated

from cyclopts import Parameter

Switch = Annotated[bool, Parameter(negative=(), show_default=False)]
Overrides = Annotated[tuple[str, ...], Parameter("--set", negative=(), show_default=False)]
DataDir = Annotated[str | None, Parameter("--data-dir", show_default=False, help=(
    "Folder of the data sets that do not ship with eos; $TFDS_DATA_DIR, else the platform's, when not given."))]  # fmt: skip

"""A run as one HDF5 file, laid out for programs that read runs of the centralflows repository (github.com/centralflows/centralflows).

That repository stores a run as `data.hdf5`: `step` (T,), and a group for each process, `discrete` (the optimizer), `midpoint`, `central`
(the central flow) and `stable` (the flow without it), whose datasets have a row a step. The same names stand here for the same quantities,
and every column of eos under `eos/`, float64. A dataset of the layout that is a column is that column, by a second name; `effective`
eigenvalues are those of P⁻¹H with η in P, so that the edge is 2, whatever the optimizer.
"""

import io
import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from engine.record import edges
from engine.record.columns import Column
from engine.record.reader import Run
from engine.record.threshold import threshold
from engine.spec import RunSpec, to_toml

SAME = {
    "discrete/train_loss": "gd.loss", "discrete/train_acc": "train.accuracy", "discrete/test_loss": "test.loss",
    "discrete/test_acc": "test.accuracy", "discrete/opt.lr": "learning_rate", "central/train_loss": "central.loss",
    "central/predicted_loss": "central.predicted_loss", "central/sigma_trace": "central.trace", "stable/train_loss": "flow.loss",
    "distances/central-discrete": "central.distance_run",
}  # fmt: skip
"""Names of that repository, and the columns that are the same quantity."""
SCALAR = {"discrete/opt.nu": "second_moment", "central/opt.nu": "central.second_moment"}
"""And where RMSProp has one ν; that of one for each parameter is a mean, which that repository has not."""
SQUARES = {"discrete/grad_norm_sq": "gd.gradient_norm"}
STACKED = {
    "discrete/hessian_eigs": ("gd.sharpness", "gd.lambda{}"), "midpoint/hessian_eigs": ("gd.midpoint_sharpness", ""),
    "central/hessian_eigs": ("central.sharpness", "central.lambda{}"), "stable/hessian_eigs": ("flow.sharpness", ""),
}  # fmt: skip
"""Eigenvalues (T, k) of the Hessian itself: the first column, and the name of those after it."""
PRECONDITIONED = {
    "discrete/effective_hessian_eigs": ("preconditioned.sharpness", "preconditioned.lambda{}"),
    "central/effective_hessian_eigs": ("central.sharpness", ""),
}  # fmt: skip
"""Eigenvalues as an adaptive optimizer's steps feel them."""


def write(run: Run, columns: Sequence[Column], handle: IO[bytes]) -> None:
    """Write these columns into an open file."""
    import h5py

    whole = run.table()
    table = {column.name: whole[column.name] for column in columns}
    body = io.BytesIO()  # HDF5 is written back and forth, which a pipe is not
    with h5py.File(body, "w", libver="latest") as file:  # which their readers open it as
        file.attrs.update({"eos.run": run.name, "eos.spec": to_toml(run.spec), "eos.provenance": json.dumps(run.provenance())})
        for column in columns:
            dataset = file.create_dataset(f"eos/{column.name}", data=table[column.name])
            dataset.attrs.update({key: value for key, value in column._asdict().items() if key != "name"})
        file["step"] = whole["step"].astype(np.int64)
        for name, column_name in same(run.spec).items():
            if column_name in table:
                file[name] = file[f"eos/{column_name}"]
        for name, values in computed(run.spec, whole, table).items():
            file[name] = values
    handle.write(body.getvalue())


def same(spec: RunSpec) -> dict[str, str]:
    """The names of the layout that are columns of a run of this specification."""
    return SAME | (SCALAR if getattr(spec.optimizer, "scalar", False) else {})


def computed(spec: RunSpec, whole: dict[str, Any], table: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the layout has of a run that is no column by itself: squares, and eigenvalues side by side, (T,) and (T, k)."""
    plain = edges.is_plain(spec.optimizer)
    stacked = STACKED if plain else {name: places for name, places in STACKED.items() if not name.startswith("central")}
    values = {name: table[column] ** 2 for name, column in SQUARES.items() if column in table}
    values |= {name: eigenvalues for name, places in stacked.items() if (eigenvalues := _side_by_side(table, *places)) is not None}
    if plain:
        effective = {name.replace("hessian", "effective_hessian"): values[name] for name in stacked if name in values}
    else:
        effective = {
            name: eigenvalues for name, places in PRECONDITIONED.items() if (eigenvalues := _side_by_side(table, *places)) is not None
        }  # fmt: skip
    return values | {name: 2 * eigenvalues / threshold(whole)[:, None] for name, eigenvalues in effective.items()}


def _side_by_side(table: dict[str, np.ndarray], first: str, further: str) -> np.ndarray | None:
    """Eigenvalues (T, k), of as many columns as there are; None without the first."""
    if first not in table:
        return None
    names = [first]
    while further and (name := further.format(len(names) + 1)) in table:
        names.append(name)
    return np.stack([table[name] for name in names], axis=1)

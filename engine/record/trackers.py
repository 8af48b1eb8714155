"""A run for TensorBoard and for Weights & Biases: files that those programs read. Nothing is sent anywhere."""

import os
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.base.atomic import check_output
from engine.base.errors import UserError
from engine.record.columns import Column
from engine.record.export import blocks
from engine.record.reader import Run
from engine.spec import to_toml

EVENTS = "events.out.tfevents.0.eos"
"""Found by TensorBoard for its second part. The usual name tells the host and a time; this one is replaced when written anew."""


def tag(column: str) -> str:
    """A column as TensorBoard and W&B name it: `gd/loss`, for what stands before a slash is a group of plots there."""
    return column.replace(".", "/", 1)


def tensorboard(run: Run, columns: Sequence[Column], folder: Path, force: bool = False) -> str:
    """Write an event file into the folder of the run's name in this one: a scalar for each value that there is, float64, at its step. Its
    time is when its row was written, as far as that is known. What was made.
    """
    from tensorboardX import RecordWriter
    from tensorboardX.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

    place = _folder(folder / run.name)
    check_output(place / EVENTS, force)
    metadata = summary_pb2.SummaryMetadata
    draft = place / f".{os.getpid()}.draft"
    writer = RecordWriter(str(draft.absolute()))
    try:
        began = _began(run)
        writer.write(event_pb2.Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        plugin, said = metadata.PluginData(plugin_name="scalars"), set[str]()
        text = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[f"```toml\n{to_toml(run.spec)}\n```".encode()])
        written = metadata(plugin_data=metadata.PluginData(plugin_name="text"))
        spec = summary_pb2.Summary.Value(tag="spec/text_summary", tensor=text, metadata=written)
        writer.write(event_pb2.Event(wall_time=began, summary=summary_pb2.Summary(value=[spec])).SerializeToString())
        for step, clock, row in _rows(run, columns, began):
            values = []
            for column, value in row:
                number = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[value])
                first = {} if column.name in said else {"metadata": metadata(
                    display_name=tag(column.name), summary_description=f"{column.symbol}: {column.words}", plugin_data=plugin)}  # fmt: skip
                said.add(column.name)
                values.append(summary_pb2.Summary.Value(tag=tag(column.name), tensor=number, **first))
            writer.write(event_pb2.Event(wall_time=clock, step=step, summary=summary_pb2.Summary(value=values)).SerializeToString())
        writer.close()
        os.replace(draft, place / EVENTS)
    finally:
        draft.unlink(missing_ok=True)
    return str(place / EVENTS)


def wandb_offline(run: Run, columns: Sequence[Column], folder: Path, force: bool = False) -> str:
    """Write a run that `wandb sync` sends when its user says so: every value that there is, float64, and the specification. What was made.

    wandb is told to be offline, and to keep to itself what it else gathers of this machine, its errors among it.
    """
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported, and by the process that it starts
    import wandb

    settings = wandb.Settings(
        mode="offline", silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True, save_code=False,
        symlink=False, host="", x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_disable_viewer=True,
        x_save_requirements=False,
    )  # fmt: skip
    made = wandb.init(dir=_folder(folder), name=run.name, project="eos", config=msgspec.to_builtins(run.spec), settings=settings)
    if not made.offline:
        made.finish()
        raise UserError("--wandb-offline: wandb does not stay offline here; leave it out, and look at its settings and WANDB_MODE")
    for step, _, row in _rows(run, columns, 0.0):
        made.log({tag(column.name): value for column, value in row}, step=step)
    place = Path(made.dir).parent
    made.finish()
    wandb.teardown()
    return str(place)


def _rows(run: Run, columns: Sequence[Column], clock: float) -> Any:
    """Step, time and the values that there are, of each row."""
    clocks = [column for column in run.columns if column.name in ("step", "cost.seconds")]
    for block in blocks(run, [*columns, *clocks]):
        for row in block.tolist():
            if len(clocks) > 1 and np.isfinite(row[-1]):
                clock += row[-1]
            known = [(column, value) for column, value in zip(columns, row, strict=False) if not np.isnan(value) and column.name != "step"]
            yield int(row[len(columns)]), clock, known


def _began(run: Run) -> float:
    """When the run began, in seconds since 1970; now where it does not say."""
    try:
        return datetime.strptime(str(run.provenance().get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return time.time()


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder can be made there ({error.strerror}); give another") from None
    return folder

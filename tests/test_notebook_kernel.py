"""The example notebook, as it is stored and as a kernel executes it; and a kernel that is interrupted in the middle of a run."""

import json
import os

import pytest

from engine.record import store

from places import ROOT, TESTS
from waiting import until

NOTEBOOK = TESTS / "examples" / "a_day.ipynb"
LONG = 'import engine\nrecord = engine.run("toy", steps=10**6, learning_rate=0.02, flow=False, name="cut")'
AFTER = {"kind": "record.outcome.kind", "rows": 'len(record["step"]) > 0'}


def environment() -> dict[str, str]:
    """That of a kernel which finds eos where this clone is."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_the_example_notebook_is_stored_with_what_its_cells_gave():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    kinds = {kind for cell in cells for output in cell["outputs"] for kind in (output["output_type"], *output.get("data", ()))}
    assert {"text/html", "image/svg+xml", "stream"} <= kinds
    assert "error" not in kinds
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_the_example_notebook_does_what_it_says(own_home, tmp_path):
    """Every cell, in order, in a kernel of its own; the assertions in them hold, and each gives outputs of the kinds that are stored."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    stored, executed = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    nbclient.NotebookClient(executed, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment())
    for before, after in zip(stored.cells, executed.cells, strict=True):
        kinds = [{output["output_type"] for output in cell.get("outputs", [])} for cell in (before, after)]
        assert kinds[0] == kinds[1], after["source"]


@pytest.mark.slow
def test_an_interrupted_kernel_stops_the_run_at_a_checkpoint_and_has_its_record(own_home):
    manager = pytest.importorskip("jupyter_client").KernelManager()
    manager.start_kernel(env=environment())
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        asked = client.execute(LONG)
        until(lambda: any(run.row_count() for run in store.all_runs()))
        manager.interrupt_kernel()
        replies = iter(lambda: client.get_shell_msg(timeout=60), None)  # the first may answer how the kernel was asked whether it is ready
        reply = next(each for each in replies if each["parent_header"]["msg_id"] == asked)
        assert reply["content"]["status"] == "ok"
        said = client.execute("", user_expressions=AFTER, reply=True, timeout=60)
        shown = {name: value["data"]["text/plain"] for name, value in said["content"]["user_expressions"].items()}
        assert shown == {"kind": "'stopped'", "rows": "True"}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert store.resolve("cut").checkpoints()

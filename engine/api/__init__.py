"""The engine for scripts: run a preset, a specification or what was just built, step through it, go on with it, load what is on disk.

    import engine
    record = engine.run("fashion", learning_rate=0.05, edge_steps=200)
    record["gd.sharpness"]            # float64, one value a step, NaN where there is none
    record.plot("gd.sharpness", "gd.x")
    for row in engine.stream("toy"):  # as it happens
        row["gd.x"]
    engine.load("fashion-20260101-120000").to_pandas()
"""

from engine.api.records import Record, RunEntry, load, runs
from engine.api.running import fork, resume, run, stream
from engine.api.stepping import Stepping
from engine.api.sweeps import Sweep
from engine.api.trees import unravel

__all__ = ["Record", "RunEntry", "Stepping", "Sweep", "fork", "load", "resume", "run", "runs", "stream", "unravel"]

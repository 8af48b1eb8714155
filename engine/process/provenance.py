"""What a reader needs to trust or repeat a run."""

import platform
import time
from typing import Any

from engine.base.clone import commit
from engine.spec import Phase, RunSpec, SharpnessTracking
from engine.xla import small_matrices
from engine.xla.device import device_words, process_count, version_of


def precision_words(spec: RunSpec) -> str:
    """The number formats in words: `f32 → f64, curvature f32`."""
    if isinstance(spec.problem, Phase):
        return "f64"
    short = {"float32": "f32", "float64": "f64"}
    chosen = spec.precision
    at_edge = "" if isinstance(spec.tracking, SharpnessTracking) else f" → {short[chosen.edge]}"
    products = "" if chosen.products == "float64" else f", products {chosen.products.replace('float', 'f')}"
    return f"{short[chosen.approach]}{at_edge}, curvature {short[chosen.curvature]}{products}"


def provenance(spec: RunSpec, facts: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs to trust or repeat a run."""
    source = commit()
    return {
        **({} if source is None else {"eos": source._asdict()}),
        "versions": {name: version_of(name) for name in ("eos-tui", "jax", "jaxlib", "flax", "numpy", "scipy", "tensorflow-datasets")},
        "python": platform.python_version(), "platform": platform.platform(), "device": device_words(),
        "processes": process_count(), "precision": precision_words(spec), "matmul_precision": "highest",
        "small_matrices": small_matrices.chosen(), "seed": spec.seed, "problem": facts, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }

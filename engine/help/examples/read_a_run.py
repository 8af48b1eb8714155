"""Run a preset, read what it recorded, and pass it on."""

import numpy as np

import engine

record = engine.run("toy", learning_rate=0.02, steps=300, flow=False)
print(record, "in", record.path)

at_edge = np.isfinite(record["constrained.sharpness"])  # columns are numpy arrays, NaN where there is no value
excess = record["gd.sharpness"][at_edge] * record.spec.optimizer.learning_rate / 2 - 1
print(f"S is within {np.abs(excess).max():.1%} of 2/η")
print("events:", [type(event).__name__ for event in record.events])
print("computed by jax", record.provenance["versions"]["jax"])

alpha, beta = record["constrained.alpha"][0], record["constrained.beta"][0]
g = engine.theory.conserved(record["gd.x"], record["gd.y"], alpha, beta)  # Lemma 3, along the real orbit
print(f"g grows from {g[0]:.4f} to {g[-1]:.4f}")

for row in engine.stream("toy", steps=3, flow=False):  # as it happens
    print(row["step"], row["gd.x"], row["transported.x"])

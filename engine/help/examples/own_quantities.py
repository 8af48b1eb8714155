"""Quantities of one's own, recorded at every step beside eos' own columns."""

import jax.numpy as jnp

import engine


def alignment(context):
    """Share of the gradient that lies along the top eigenvector."""
    return jnp.abs(context.gradient @ context.eigenvector) / jnp.linalg.norm(context.gradient)


def rayleigh(context):
    """Curvature of the loss along the gradient."""
    g = context.gradient / jnp.linalg.norm(context.gradient)
    return g @ context.problem.hvp(context.theta, g)


record = engine.run("toy", learning_rate=0.02, steps=120, flow=False, metrics=[alignment, rayleigh])
for name in ("metric.alignment", "metric.rayleigh"):
    words = next(column.words for column in record.run.columns if column.name == name)
    print(f"{words}: {record[name][0]:.3f} at first, {record[name][-1]:.3f} at last")
assert ((record["metric.alignment"] >= 0) & (record["metric.alignment"] <= 1)).all()

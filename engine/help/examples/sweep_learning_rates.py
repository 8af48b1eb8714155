"""A grid of learning rates and starts, each point a run of its own, and a table of what became of them."""

import engine

grid = {"optimizer.learning_rate": [0.01, 0.02], "problem.x0": [0.1, 0.2]}
sweep = engine.Sweep("toy", grid, overrides=["budget.steps=60", "tracking.flow=false"], name="starts").run(workers=2)
print(sweep)
for row in sweep.rows():
    print(f"η = {row['optimizer.learning_rate']}, x0 = {row['problem.x0']}: S·η/2 = {row['sharpness_over_threshold']:.4f}")

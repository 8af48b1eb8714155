"""A run that goes on from its checkpoint with another learning rate: the same weights, another edge."""

import engine

record = engine.run("toy", learning_rate=0.02, steps=100, flow=False)
branch = engine.fork(record, learning_rate=0.0198, steps=400)  # from the checkpoint at its end

edges = [event for event in branch.events if type(event).__name__ == "EdgeReached"]
print(f"{record.name}: 2/η = {record['threshold'][-1]:.2f}, edge at step {edges[0].step}")
print(f"{branch.name}: 2/η = {branch['threshold'][-1]:.2f}, edge at step {edges[-1].step}")
print(branch)

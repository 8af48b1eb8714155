"""The trajectories of the paper, each a pure step."""

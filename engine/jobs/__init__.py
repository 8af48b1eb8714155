"""Engines as processes: started, followed, forked, many over a grid, and on a cluster. Without jax."""

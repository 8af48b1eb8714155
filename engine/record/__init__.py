"""A run on disk: what its columns are, what is written and read, whose it is, and what is told to its engine. Without jax."""

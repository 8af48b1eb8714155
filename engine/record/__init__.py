"""A run on disk: what its columns are, what is written and read, whose it is, and the messages to and from its engine. Without jax."""

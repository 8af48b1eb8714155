"""The headless command line. Without jax but where a command computes by itself."""

"""The view: a terminal program that shows runs and tells the engine what to do. It never imports jax."""

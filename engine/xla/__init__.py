"""What jax and XLA are told, and the few array operations that they do not do as well by themselves."""

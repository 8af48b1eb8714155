"""What a record says: in numbers, side by side, in a sentence, and as gauges. Without jax."""

"""What everything else stands on: errors, words for a terminal, files, and how a process ends. Without jax."""

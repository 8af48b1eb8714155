"""The view's topics of `eos help`: the dashboard, the commands, the keys and the terminal."""

"""Presets: one commented TOML file each, read by `engine.spec.load_spec`."""

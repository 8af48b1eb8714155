"""The paper's figures, made anew: what each needs, the runs behind it, and how it is drawn.

`catalog` says which experiments a figure shows, `runs` carries them out and finds them again, `drawings` draws them with
matplotlib, and `reproduce` puts it together: SVG, PNG, CSV and a manifest. Without jax; the runs have their own processes.
"""

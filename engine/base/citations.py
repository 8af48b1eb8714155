"""Where the paper says each thing: the one table that columns, gauges and lessons cite from, and that a test holds docstrings to.

What has no number of its own there is cited by its section, and what is ours as "eos", by whoever speaks of it.
"""

PLACES = {
    "descent lemma": "descent lemma (1)",
    "θ†": "(2)",
    "M": "Section 3",
    "stable set": "Section 3",
    "map": "(3)",
    "flow": "(4)",
    "y⋆": "(5)",
    "β_{s→t}": "(5)",
    "v⋆": "Definition 7, (6)",
    "transported": "Definition 7, (6)",
    "α": "Definition 2",
    "ε": "Definition 6",
    "∇S": "Lemma 2",
    "g": "Lemma 3",
    "first guess": "Lemma 13",
    "α > 0": "Assumption 1",
    "progressive sharpening": "Assumption 1",
    "λ2": "Assumption 2",
    "ρ4/(ηρ3²)": "Assumption 3",
    "γ": "Assumption 4",
    "‖∇S⊥‖/ρ3": "Assumption 4",
    "v⊥": "Assumption 5",
    "g⊥": "Assumption 5",
    "stage": "Section 4.1",
    "F": "Appendix F",
    "toy": "Appendix B",
    "ρ3": "Appendix E",
    "ρ4": "Appendix E",
    "flow from θ†": "Figure 4",
    "distance": "Figure 4",
    "several eigenvalues": "Figure 5",
}
"""Symbol, or the words for it, -> where it is defined or claimed. A number in parentheses is an equation's. Assumptions are what the
theory asks of α, λ2, ρ4, γ and the rest: the eight plots of Appendix E show them in another order, under numbers of their own."""

"""The edge of each optimizer: the top eigenvalue of P^-½HP^-½ above which its steps are unstable on a quadratic, with its preconditioner P
frozen. Numbers or arrays.

With momentum a step along an eigenvector of eigenvalue λ is z² − (1+β−cλ)z + (β−dλ) = 0, and a root passes −1 first.
"""

from typing import Any

from engine.theory.simplified import threshold


def momentum_edge(learning_rate: Any, beta: float, nesterov: bool = False, ema: bool = False) -> Any:
    """(2+2β)/η for the heavy ball, (2+2β)/((1+2β)η) for Nesterov's form; 1/(1−β) of either where gradients are averaged."""
    return threshold(learning_rate) * (1 + beta) / ((1 + 2 * beta if nesterov else 1) * (1 - beta if ema else 1))


def sam_edge(learning_rate: Any, radius: float, gradient_norm: Any) -> Any:
    """(‖g‖/2ρ)(√(1+8ρ/(η‖g‖)) − 1): where ηλ(1 + ρλ/‖g‖) = 2 [arXiv 2309.12488]. 0 where ‖g‖ is, and 2/η where ρ/‖g‖ is.

    In the form (4/η)/(√(1+8ρ/(η‖g‖)) + 1), which loses no digits.
    """
    return 2 * threshold(learning_rate) / ((1 + 8 * radius / (learning_rate * gradient_norm)) ** 0.5 + 1)

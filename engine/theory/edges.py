"""The edge of each optimizer: the top eigenvalue of P^-½HP^-½ above which its steps are unstable on a quadratic, with its preconditioner P
frozen. Numbers or arrays.

With momentum a step along an eigenvector of eigenvalue λ is z² − (1+β−cλ)z + (β−dλ) = 0, and a root passes −1 first.
"""

from typing import Any, NamedTuple

from engine.theory.simplified import threshold


class Memory(NamedTuple):
    """What a step with momentum remembers: m ← βm + ∇L, then θ ← θ − η(own·∇L + carried·m). Numbers.

    Without m it is θ_{t+1} = θ_t + β(θ_t − θ_{t−1}) − c∇L_t + d∇L_{t−1}, with c = η(own + carried) and d = ηβ·own.
    """

    beta: Any
    own: Any
    carried: Any

    def gain(self, learning_rate: Any) -> Any:
        """c: by how much a step moves θ against a force of 1 that begins in it."""
        return learning_rate * (self.own + self.carried)

    @property
    def recalled(self) -> Any:
        """How much of m counts in a step as much as a gradient: θ − c(∇L + recalled·m) is the next θ."""
        return self.carried * self.beta / (self.own + self.carried)

    def drift(self, learning_rate: Any) -> Any:
        """The learning rate of gradient descent that goes as far along a gradient that stays: η/(1−β) for the heavy ball."""
        return learning_rate * (self.own + self.carried / (1 - self.beta))

    def growth(self, learning_rate: Any) -> Any:
        """By how much |x| grows in a step, as a share of it and to first order, for a sharpness of 1 above the edge: η/(1−β) for the heavy
        ball. It is −dz/dλ at the root z = −1 of z² − (1+β−cλ)z + (β−dλ)."""
        c = self.gain(learning_rate)
        both = c + learning_rate * self.beta * self.own
        return both / (3 + self.beta - (2 + 2 * self.beta) * c / both)


def memory_of(beta: float, nesterov: bool = False, ema: bool = False) -> Memory:
    """That of the heavy ball or of Nesterov's form; either may average gradients."""
    scale = 1 - beta if ema else 1
    return Memory(beta, scale if nesterov else 0, scale * beta if nesterov else scale)


def momentum_edge(learning_rate: Any, beta: float, nesterov: bool = False, ema: bool = False) -> Any:
    """(2+2β)/η for the heavy ball, (2+2β)/((1+2β)η) for Nesterov's form; 1/(1−β) of either where gradients are averaged."""
    return threshold(learning_rate) * (1 + beta) / ((1 + 2 * beta if nesterov else 1) * (1 - beta if ema else 1))


def sam_edge(learning_rate: Any, radius: float, gradient_norm: Any) -> Any:
    """(‖g‖/2ρ)(√(1+8ρ/(η‖g‖)) − 1): where ηλ(1 + ρλ/‖g‖) = 2 [arXiv 2309.12488]. 0 where ‖g‖ is, and 2/η where ρ/‖g‖ is.

    In the form (4/η)/(√(1+8ρ/(η‖g‖)) + 1), which loses no digits.
    """
    return 2 * threshold(learning_rate) / ((1 + 8 * radius / (learning_rate * gradient_norm)) ** 0.5 + 1)

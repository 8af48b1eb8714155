"""A full-batch training loss as a function of one flat vector of parameters, with derivatives of every order.

`Problem` is a jax pytree: its data are leaves, so that compiled functions take a problem as an argument and large data
sets are never baked into them. Number formats follow θ: a float32 θ gives float32 arithmetic throughout.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.base.errors import UserError
from engine.xla.device import require_correct_sums
from engine.xla.shares import Shares, laid_out
from engine.xla.split import take_apart


def _as_it_is(theta: Array) -> Any:
    return theta


MOST_SHOWN = 4
"""Arrays of data whose shapes a problem is printed with."""
MEANS = "engine.from_flax, or engine.from_loss(…, per_example=True)"
"""What makes problems of one's own that are means over examples."""
STATIC = ["loss_of", "label", "unravel", "examples", "linearized", "count", "shares"]
"""Fields of a problem that compiled functions are compiled for."""


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=STATIC, drop_fields=["readings", "notes"])
@dataclass(frozen=True)
class Problem:
    """A loss L(θ) on flat parameters θ of p numbers."""

    loss_of: Callable[[Array, Any], Array]
    """(θ, data) -> L(θ), a scalar in θ's number format."""
    data: Any
    """Whatever `loss_of` reads: a pytree of arrays."""
    label: str = "loss"
    unravel: Callable[[Array], Any] = _as_it_is
    """θ (p,) as the tree of parameters that it is made of."""
    examples: Callable[[Any, Array], Any] | None = None
    """(data, indices (n,)) -> the data of a mean over these examples alone; None where the data are not examples."""
    linearized: Callable[[Array, Array, Any], Array] | None = None
    """(φ, θ, data) -> L(φ) with the network replaced by its linearisation at θ; None where the loss is no criterion of a network's outputs.
    Its Hessian in φ is the Gauss–Newton matrix at θ."""
    count: int = 0
    """Examples that the loss is a mean over; 0 where the data are not examples."""
    shares: Shares | None = None
    """How vectors of p numbers lie on several devices; None where one has all of them, or each has."""
    readings: Mapping[str, "Problem"] = field(default_factory=dict)
    """Column -> another mean as a function of θ, read beside the loss: on held-out data, of the right answers. No compiled function has
    it, nor the notes."""
    notes: tuple[str, ...] = ()
    """What is to be known of the loss, a sentence each."""

    def __post_init__(self) -> None:
        require_correct_sums()

    def __repr__(self) -> str:
        leaves = [leaf for leaf in jax.tree.leaves(self.data) if hasattr(leaf, "shape")]
        shapes = ", ".join(f"({', '.join(map(str, leaf.shape))})" for leaf in leaves[:MOST_SHOWN])
        more = f" and {len(leaves) - MOST_SHOWN} more arrays" if len(leaves) > MOST_SHOWN else ""
        return f"<{type(self).__name__} {self.label}{f' on data {shapes}{more}' if leaves else ''}>"

    def named(
        self, label: str, unravel: Callable[[Array], Any], readings: Mapping[str, "Problem"], shares: Shares | None = None
    ) -> "Problem":
        """The same loss under a name, with the tree of its parameters, what is read beside it, and how vectors of p numbers lie."""
        return replace(self, label=label, unravel=unravel, readings=readings, shares=shares)

    def loss(self, theta: Array) -> Array:
        """L(θ)."""
        return self.loss_of(theta, self.data)

    def on(self, indices: Array) -> "Problem":
        """The same loss as the mean over these examples alone, by their indices (n,); a batch, where `batches.indices` draws them.

        Raises UserError where the loss is no mean over examples.
        """
        if self.examples is None:
            raise UserError(f"{self.label}: its loss is no mean over examples; a batch takes a network on data, or {MEANS}")
        return replace(self, data=self.examples(self.data, jnp.asarray(indices)), count=len(indices))

    def gradient(self, theta: Array) -> Array:
        """∇L(θ), shape (p,)."""
        return jax.grad(self.loss)(theta)

    def hvp(self, theta: Array, vector: Array) -> Array:
        """∇²L(θ)v, shape (p,)."""
        return jax.jvp(self.gradient, (theta,), (vector,))[1]

    def product_at(self, theta: Array) -> Callable[[Array], Array]:
        """v ↦ ∇²L(θ)v at one θ, (p,) each: what hangs on θ alone is computed once for all of its products."""
        return jax.linearize(self.gradient, theta)[1]

    def linearized_at(self, theta: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
        """L(θ), ∇L(θ) (p,) and v ↦ ∇²L(θ)v, which share what hangs on θ alone."""
        (loss, grad), tangent = jax.linearize(jax.value_and_grad(self.loss), theta)
        return loss, grad, lambda vector: tangent(vector)[1]

    def hessian(self, theta: Array) -> Array:
        """∇²L(θ), (p, p)."""
        return jax.jacfwd(self.gradient)(theta)

    def tangent(self, theta: Array, vector: Array) -> tuple[Array, Array, Array]:
        """L(θ), ∇L(θ) (p,) and ∇²L(θ)v (p,) by one pass: the product shares the gradient's own work."""
        (loss, grad), (_, image) = jax.jvp(jax.value_and_grad(self.loss), (theta,), (vector,))
        return loss, grad, image

    def derivative(self, theta: Array, order: int, *vectors: Array) -> Array:
        """∇^kL(θ)(v_1, …, v_{k−1}), shape (p,): the k-th derivative contracted with k−1 vectors."""
        if len(vectors) != order - 1:
            raise ValueError(f"the derivative of order {order} takes {order - 1} vectors, given {len(vectors)}")
        contracted: Callable[[Array], Array] = self.gradient
        for vector in vectors:
            contracted = _along(contracted, vector)
        return contracted(theta)

    def grad_sharpness(self, theta: Array, u: Array) -> Array:
        """∇S = ∇³L(u,u), shape (p,), for the unit top eigenvector u (Lemma 2).

        Forward over forward over reverse: a quarter cheaper on a CPU than the gradient of uᵀ∇²L(θ)u.
        """
        return self.derivative(theta, 3, u, u)


@partial(jax.tree_util.register_dataclass, data_fields=["data", "scale"], meta_fields=STATIC, drop_fields=["readings", "notes"])
@dataclass(frozen=True, repr=False)
class Preconditioned(Problem):
    """A loss whose Hessian is read in the coordinates P^½θ: as P^-½HP^-½, whose eigenvalues are those of P⁻¹H. Loss and gradient at θ are
    its own."""

    scale: Any = 1.0
    """P^-½, () or (p,)."""

    def hvp(self, theta: Array, vector: Array) -> Array:
        """P^-½∇²L(θ)P^-½v, shape (p,)."""
        return self.scale * super().hvp(theta, self.scale * vector)

    def product_at(self, theta: Array) -> Callable[[Array], Array]:
        """v ↦ P^-½∇²L(θ)P^-½v at one θ, (p,) each."""
        product = super().product_at(theta)
        return lambda vector: self.scale * product(self.scale * vector)

    def linearized_at(self, theta: Array) -> tuple[Array, Array, Callable[[Array], Array]]:
        """L(θ), ∇L(θ) (p,) and v ↦ P^-½∇²L(θ)P^-½v, which share what hangs on θ alone."""
        loss, grad, product = super().linearized_at(theta)
        return loss, grad, lambda vector: self.scale * product(self.scale * vector)

    def hessian(self, theta: Array) -> Array:
        """P^-½∇²L(θ)P^-½, (p, p)."""
        scale = jnp.broadcast_to(self.scale, theta.shape)
        return scale[:, None] * super().hessian(theta) * scale

    def tangent(self, theta: Array, vector: Array) -> tuple[Array, Array, Array]:
        """L(θ), ∇L(θ) (p,) and P^-½∇²L(θ)P^-½v (p,) by one pass."""
        loss, grad, image = super().tangent(theta, self.scale * vector)
        return loss, grad, self.scale * image


def preconditioned(problem: Problem, p: Array, dtype: Any) -> Preconditioned:
    """The problem with its Hessian read as P^-½HP^-½, P () or (p,), in a number format."""
    scale = (1 / jnp.sqrt(p)).astype(dtype)
    return Preconditioned(**{name: getattr(problem, name) for name in ("data", *STATIC)}, scale=scale)


def _along(function: Callable[[Array], Array], vector: Array) -> Callable[[Array], Array]:
    """The derivative of a function along a fixed vector."""
    return lambda theta: jax.jvp(function, (theta,), (vector.astype(theta.dtype),))[1]


def require_x64() -> None:
    """Raise UserError unless jax computes in float64 where asked, which entry points switch on, and adds up right."""
    require_correct_sums()
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise UserError('float64 is switched off in jax; call jax.config.update("jax_enable_x64", True) first')


def flatten(tree: Any, sparing: bool = False, shares: Shares | None = None) -> tuple[Array, Callable[[Array], Any]]:
    """The leaves of a tree of parameters as one float64 vector, in `shares` where there are any, and the way back, which keeps the vector's
    format.

    `sparing` puts memory first: layers that are computed again need less where jax itself takes the vector apart.
    """
    leaves, structure = jax.tree.flatten(tree)
    split = lax.split if sparing or jax.default_backend() != "cpu" else take_apart
    restore = _restorer(structure, tuple(leaf.shape for leaf in leaves), split, shares)
    return laid_out(np.concatenate([np.ravel(leaf) for leaf in leaves], dtype=np.float64), shares), restore


@cache
def _restorer(
    structure: Any, shapes: tuple[tuple[int, ...], ...], split: Callable[..., Any], shares: Shares | None
) -> Callable[[Array], Any]:
    """θ (p,) to a tree of this structure; the same function for equal ones, so that what is compiled of one problem serves its like."""
    sizes = tuple(math.prod(shape) for shape in shapes)
    count = sum(sizes)

    def restore(theta: Array) -> Any:
        if shares is None and theta.shape[-1:] != (count,):
            raise UserError(f"θ has shape {theta.shape}; expected {count} numbers, as many as its parameters have")
        parts = split(theta, sizes) if shares is None else take_apart(theta, sizes, shares)
        return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    return restore

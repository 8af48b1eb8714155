"""`jax.jit` that suits the number format: float64 products on a CPU are two to three times faster by the other of XLA's libraries.

XLA's own float64 products run at 35 GFLOP/s on two cores, YNNPACK's at 90; float32 ones run at 180 by either, small ones faster by
XLA's own. This program switches YNNPACK off, whose sums are wrong now and then (`flags.correct_sums`). Switched on again here, and for
float64 alone, are products by themselves: no sums, and nothing fused with a product.
"""

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from engine.base.xla_flags import KNOWS_THE_FLAG, jaxlib_release

Function = TypeVar("Function", bound=Callable)
LONE_PRODUCTS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "xla_disable_hlo_passes": "transpose-folding",
}
"""Options of the compiler, which stand in place of what XLA_FLAGS say of them. YNNPACK takes no product with a factor that lies
transposed; written out as it should lie, which XLA would undo, such a factor costs little beside the product."""
FORWARD_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""The same of a function whose derivatives are forward ones alone: it has such factors only where they are transposed twice."""


def jit_by_format(function: Function, place: int = 1, forward: bool = False, **options: Any) -> Function:
    """The function compiled as by `jax.jit` with these options; where the argument in this place is float64, with faster products on a CPU,
    faster yet where it is said that it takes no derivative but `forward` ones.

    Inside another compiled function it becomes a part of that one, compiled as that one is.
    """
    products = FORWARD_PRODUCTS if forward else LONE_PRODUCTS
    common, faster = jax.jit(function, **options), jax.jit(function, compiler_options=products, **options)

    @wraps(function)
    def chosen(*args: Any) -> Any:
        by_itself = not is_inside(args[place])
        return (faster if args[place].dtype == jnp.float64 and by_itself and lone_products() else common)(*args)

    return cast(Function, chosen)


def is_inside(array: Array) -> bool:
    """Whether an array is one inside a compiled function, as that is traced."""
    return isinstance(array, jax.core.Tracer)


def layer_product(inputs: Array, kernel: Array, dimensions: Any, precision: Any = None, **options: Any) -> Array:
    """`lax.dot_general` as a dense layer of flax calls it; of float64 matrices one whose derivative by the kernel is a product that
    YNNPACK takes.
    """
    if inputs.dtype != jnp.float64 or inputs.ndim != 2:
        return lax.dot_general(inputs, kernel, dimensions, precision=precision, **options)
    return _product(inputs, kernel)


@jax.custom_jvp
def _product(inputs: Array, kernel: Array) -> Array:
    return inputs @ kernel


@partial(_product.defjvp, symbolic_zeros=True)
def _(primals: tuple[Array, Array], tangents: tuple[Array | SymbolicZero, Array | SymbolicZero]) -> tuple[Array, Array]:
    """Its tangent, the inputs transposed in the term whose transpose is the kernel's derivative: inputsᵀ·δ. A zero tangent, as data have,
    takes no product."""
    (inputs, kernel), (moved, turned) = primals, tangents
    product = _product(inputs, kernel)
    terms = []
    if not isinstance(moved, SymbolicZero):
        terms.append(moved @ kernel)
    if not isinstance(turned, SymbolicZero):
        terms.append(lax.dot_general(inputs.T, turned, (((0,), (0,)), ((), ()))))
    return product, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(product)


@cache
def lone_products() -> bool:
    """Whether this jaxlib is known to take the option, and computes on a CPU."""
    return jax.default_backend() == "cpu" and jaxlib_release() < KNOWS_THE_FLAG

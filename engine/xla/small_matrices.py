"""Linear algebra of small matrices inside compiled code: of the platform's library where its calls are quick, else of `jacobi`.

A CPU takes LAPACK. On other platforms a call of the library for a dozen rows is many kernels, some of which wait for the host, and no
executable runs through it: there a matrix of up to `SMALL` rows is that of `jacobi`. EOS_SMALL_MATRICES says otherwise, for every platform:
`library` or `xla`.

Each function is one operation to jax, and becomes what it is on a platform where compiled code is made for it. `lax.platform_dependent`
chooses there, too, but traces both: 0.25 s more for one solver of eigenpairs, before it is compiled. No derivative is taken of any.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from engine.base.errors import UserError, one_of
from engine.xla import jacobi
from engine.xla.known_jax import unknown

try:
    from jax.extend.core import Primitive
    from jax.interpreters import batching, mlir
except ImportError as error:
    raise unknown(error, "linear algebra by platform") from None

VARIABLE, CHOICES = "EOS_SMALL_MATRICES", ("platform", "library", "xla")
SMALL = 64
"""Rows up to which a matrix is small."""


@cache
def chosen() -> str:
    """What the environment chooses, for as long as this process lasts: its compiled code stays. Raises UserError where it is no choice."""
    given = os.environ.get(VARIABLE) or CHOICES[0]
    if given not in CHOICES:
        raise UserError(f'{VARIABLE}: "{given}"; expected one of {one_of(CHOICES)}')
    return given


def eigh(matrix: Array, symmetrize: bool = True) -> tuple[Array, Array]:
    """Eigenvalues (n,) of a symmetric matrix (n, n), ascending, and eigenvectors as columns (n, n). Where its halves differ by rounding it
    is their mean, or, not to be `symmetrize`d, one of them."""
    values, vectors = _eigh((matrix + matrix.T) / 2 if symmetrize else matrix)
    return values, vectors


def eigvalsh(matrix: Array) -> Array:
    """Eigenvalues (…, n) of symmetric matrices (…, n, n), ascending."""
    return _eigvalsh(matrix)[0]


def singular_values(matrix: Array) -> Array:
    """Singular values (n,) of a square matrix (n, n), descending."""
    return _singular_values(matrix)[0]


def polar_factor(matrix: Array) -> Array:
    """The orthogonal UVᵀ (n, n) that is nearest to a square matrix UΣVᵀ (n, n)."""
    return _polar_factor(matrix)[0]


def cholesky(matrix: Array) -> Array:
    """The lower L (n, n) of a positive definite matrix LLᵀ (n, n); NaN throughout where it is not."""
    return _cholesky(matrix)[0]


def solve(matrix: Array, right: Array) -> Array:
    """X of AX = B for a matrix A (n, n), and B (n,) or (n, k)."""
    return _solve(matrix, right.reshape(len(matrix), -1))[0].reshape(right.shape)


def factored(matrix: Array) -> Callable[[Array], Array]:
    """b (n,) ↦ A⁻¹b (n,) for a positive definite matrix A (n, n), which is factored once."""
    (factor,) = _factor(matrix)
    return lambda right: _solve_by_factor(factor, right[:, None])[0][:, 0]


def pseudo_inverse(matrix: Array) -> Array:
    """A⁺ (n, n) of a symmetric matrix (n, n), of its eigenvalues above rounding."""
    return _pseudo_inverse(matrix)[0]


def _operation(name: str, library: Callable[..., Sequence[Array]], own: Callable[..., Sequence[Array]]) -> Callable[..., Sequence[Array]]:
    """One operation, of matrices and of stacks of them, by a function of the library for stacks and by an own one for single ones."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    def own_of_stacks(*matrices: Array) -> Sequence[Array]:
        function = own
        for _ in matrices[0].shape[2:]:
            function = jax.vmap(function)
        return function(*matrices)

    def lowered(own_here: bool) -> Callable[..., Any]:
        def rule(context: Any, *matrices: Any) -> Any:
            takes_own = {"platform": own_here, "library": False, "xla": True}[chosen()] and context.avals_in[0].shape[-1] <= SMALL
            return mlir.lower_fun(own_of_stacks if takes_own else library, multiple_results=True)(context, *matrices)

        return rule

    def of_shape(*matrices: Any) -> list[Any]:
        results = jax.eval_shape(library, *(jax.ShapeDtypeStruct(matrix.shape, matrix.dtype) for matrix in matrices))
        return [matrices[0].update(shape=result.shape, dtype=result.dtype) for result in results]

    def batched(matrices: Sequence[Array], axes: Sequence[int | None]) -> tuple[Sequence[Array], list[int]]:
        count = next(matrix.shape[axis] for matrix, axis in zip(matrices, axes, strict=True) if axis is not None)
        stacks = [
            jnp.broadcast_to(matrix, (count, *matrix.shape)) if axis is None else jnp.moveaxis(matrix, axis, 0)
            for matrix, axis in zip(matrices, axes, strict=True)
        ]
        results = primitive.bind(*stacks)
        return results, [0] * len(results)

    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(of_shape)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, lowered(True))
    mlir.register_lowering(primitive, lowered(False), platform="cpu")
    return primitive.bind


def _polar_factor_of_library(matrix: Array) -> tuple[Array]:
    left, _, right = jnp.linalg.svd(matrix)
    return (left @ right,)


def _pseudo_inverse_of_jacobi(matrix: Array) -> tuple[Array]:
    values, vectors = jacobi.eigh(matrix)
    size = jnp.abs(values)
    kept = size > 10 * len(matrix) * jnp.finfo(matrix.dtype).eps * jnp.max(size)  # as `jnp.linalg.pinv`
    return ((vectors * jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)) @ vectors.T,)


def _solve_by_inverse_factor(inverse: Array, right: Array) -> tuple[Array]:
    return (inverse.T @ (inverse @ right),)


_eigh = _operation("small_eigh", lambda a: tuple(jnp.linalg.eigh(a, symmetrize_input=False)), jacobi.eigh)
_eigvalsh = _operation("small_eigvalsh", lambda a: (jnp.linalg.eigvalsh(a),), lambda a: (jacobi.eigh(a)[0],))
_singular_values = _operation(
    "small_singular_values", lambda a: (jnp.linalg.svd(a, compute_uv=False),), lambda a: (jacobi.singular_values(a),)
)
_polar_factor = _operation("small_polar_factor", _polar_factor_of_library, lambda a: (jacobi.polar_factor(a),))
_cholesky = _operation("small_cholesky", lambda a: (jnp.linalg.cholesky(a),), lambda a: (jacobi.cholesky(a),))
_solve = _operation("small_solve", lambda a, b: (jnp.linalg.solve(a, b),), lambda a, b: (jacobi.solve(a, b),))
_factor = _operation("small_factor", lambda a: (cho_factor(a, lower=True)[0],), lambda a: (jacobi.inverse_factor(a),))
_solve_by_factor = _operation("small_solve_by_factor", lambda f, b: (cho_solve((f, True), b),), _solve_by_inverse_factor)
_pseudo_inverse = _operation("small_pseudo_inverse", lambda a: (jnp.linalg.pinv(a, hermitian=True),), _pseudo_inverse_of_jacobi)

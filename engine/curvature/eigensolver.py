"""The eigensolver: the top of the Hessian's spectrum at a point.

The solver is a block Davidson method without a preconditioner, thick-restarted. It keeps an orthonormal basis V and its image W = HV; the
Rayleigh–Ritz pairs of V are the candidates, and the basis grows by one residual at a time: that of the first pair that has not converged.
Each growth costs one Hessian–vector product (HVP); the residual itself costs none, since it is a combination of V and W. Started from one
vector this builds the Krylov space of Lanczos; started from eigenvectors extrapolated from the last steps (`coupled`) it mostly needs no
more than the one product for each pair that shows it: room for a larger basis is made only when that is not enough, and at once for a
look around, whose basis surely grows. Of many parameters the basis is smaller, and residuals are made one by one, since it is then the
basis that takes the memory of a step. It stops when the relative residual ‖Hu−Su‖/S of the top pair, or of as many as are asked for so,
is within `tolerance` and those of the others within `LOOSE`: by the Bauer–Fike and sin θ theorems that bounds the error of S by
S·tolerance (in practice by its square over the gap) and that of u by tolerance over the relative gap. Small problems are solved densely,
in the number format of θ.

What was tried and dropped: `lobpcg_standard` of jax, whose tolerance grows with p and whose every iteration costs 4 products.
Quadratic extrapolation of u, which starts at the same residual as linear (7e-5 on digits, where the last u has 1.2e-3): the noise
that the tolerance leaves in the vectors limits both. For gradient descent's u, extrapolation of u itself (of 40 steps 34 on digits
and 27 on fashion-1000 need a further product, for 17 and none by what u turns by from that of θ†), and a fit that takes the steps on
the other side of θ† in (37 and 34). Extrapolation of the second vector, whose noise is a hundred times larger: it starts worse than
the last one. The whole step in one compiled function: 27 s to compile where its parts take 7, and no faster on a CPU.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.base.errors import UserError
from engine.problems.problem import Problem
from engine.xla import small_matrices
from engine.xla.device import require_correct_sums
from engine.xla.jit import is_inside, jit_by_format
from engine.xla.reductions import along_each, inner_products, norms
from engine.xla.shares import Shares, numbers

DENSE_UP_TO = 64
"""Parameters up to which the Hessian is formed and diagonalised."""
BASIS = 12
"""Largest basis of the iterative solver for up to four pairs; a restart keeps a third of it. Small on purpose: every product
passes over the whole basis several times, and at 24 that took as long as the product."""
LARGE = 1 << 19
"""Parameters from which memory counts before passes over the basis."""
LARGE_ROOM = 2
"""How many rows the solver's basis has then beyond those that it is started from; where it needs more, the least Ritz vector goes."""
INDEPENDENT = 0.5
"""Least eigenvalue of the Gram matrix of unit vectors from which one pass makes them orthogonal to rounding."""
LOOSE_TOLERANCE = 1e-3
"""Relative residual asked of gradient descent and gradient flow: their eigenvalue is read, their eigenvector is not."""
MAX_HVPS = 400
"""Most products of one call."""
LOOSE = 1e-2
"""Relative residual (in units of the top eigenvalue) asked of all pairs but the first."""


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a Hessian and their unit eigenvectors."""

    values: Array  # (k,) descending; the first is the sharpness S
    vectors: Array  # (k, p)
    residuals: Array  # (k,) ‖Hu−λu‖/|λ1|
    hvps: Array  # () products taken

    @property
    def sharpness(self) -> Array:
        return self.values[0]

    def first(self, count: int) -> "Eigenpairs":
        """The first so many of the pairs; the products are those that all took."""
        return Eigenpairs(self.values[:count], self.vectors[:count], self.residuals[:count], self.hvps)


def random_start(seed: int, step: int, count: int, size: int, dtype: str, shares: Shares | None = None) -> Array:
    """Random vectors to start the solver from at a step, (count, p), the same for the same seed and step, however they lie on devices.

    Drawn by numpy: jax's generator takes longer to compile.
    """
    drawn = np.random.default_rng([seed, step]).standard_normal((count, numbers(size, shares)))
    return jnp.asarray(drawn, dtype) if shares is None else shares.place(drawn.astype(dtype))


def top_eigenpairs(problem: Problem, theta: Array, start: Array, tolerance: float = 1e-4, max_hvps: int = MAX_HVPS) -> Eigenpairs:
    """The k largest eigenpairs of ∇²L(θ), from `start` (k, p): old eigenvectors, or random vectors.

    Products are taken in θ's number format. Residuals beyond `tolerance` mean that `max_hvps` were not enough, or that the
    format cannot do better; the caller must look. Raises UserError where `start` is of another shape.
    """
    require_correct_sums()
    if start.ndim != 2 or start.shape[1] != theta.size or not 0 < len(start) <= theta.size:
        raise UserError(f"start: an array of shape {start.shape}; expected (k, {theta.size}) with k from 1 to {theta.size}")
    return solve(problem, theta, start, tolerance, max_hvps)[0]


def solve(
    problem: Problem, theta: Array, start: Array, tolerance: float | Array, max_hvps: int = MAX_HVPS, wanted: int | Array | None = None,
    looked: int | Array | None = None, explored: int | Array = 0, tight: int | Array | np.ndarray = 1, image: Array | None = None,
    product: Callable[[Array], Array] | None = None, grows: bool = False,
) -> tuple[Eigenpairs, Array]:
    """`top_eigenpairs`, and what the Hessian makes of their vectors, (k, p). The first `tight` pairs come within the tolerance, the others
    within `LOOSE`.

    Where fewer pairs than `start` has rows are `wanted`, the others are not waited for. They are started from where more rows are
    `looked` at: what they show that is larger takes its place among the wanted; else they are of no meaning. From the least of the rows
    looked at the basis is then grown by so many products more as are to be `explored` with. Where the `image` (p,) of the first row is
    known, which is then of unit length, it costs no product. A `product` with the Hessian at θ that is at hand is taken for its own. Where
    the basis surely `grows` it has room for that at once, and one loop for all of its rows: two thirds to compile.
    """
    if forms_hessian(theta):
        return _dense(problem, theta, start.shape[0])
    wanted = start.shape[0] if wanted is None else wanted
    looked = wanted if looked is None else looked
    product = problem.product_at(theta) if product is None else product
    return _davidson(product, start.astype(theta.dtype), tolerance, max_hvps, wanted, looked, explored, tight, image, grows)


def forms_hessian(theta: Array) -> bool:
    """Whether the Hessian at θ is small enough to be formed."""
    return theta.size <= DENSE_UP_TO


def _dense(problem: Problem, theta: Array, count: int) -> tuple[Eigenpairs, Array]:
    hessian = problem.hessian(theta)
    values, vectors = small_matrices.eigh(hessian, symmetrize=False)  # it is, but for rounding
    count = min(count, theta.size)
    values, vectors = values[::-1][:count], vectors.T[::-1][:count]
    images = vectors @ hessian
    residuals = jnp.linalg.norm(images - values[:, None] * vectors, axis=1) / jnp.abs(values[0])
    return Eigenpairs(values, vectors, residuals, jnp.array(theta.size)), images


class _Shown(NamedTuple):
    """The Rayleigh–Ritz pairs of a basis."""

    coefficients: Array  # (most, most) of its eigenvectors, as rows, those of the largest eigenvalues first
    pairs: Eigenpairs  # of `LARGE` parameters without their vectors, which are made at the end: (0, p),
    images: Array  # (k, p) of those under the Hessian, likewise
    worst: Array  # (p,) residual of the first pair that has not converged, or of the last row looked at where all have
    left: Array  # products to explore with
    converged: Array


class _Basis(NamedTuple):
    v: Array  # (most, p) orthonormal rows, zero beyond `size`
    w: Array  # (most, p) their images under the Hessian
    t: Array  # (most, most) V W^T
    size: Array
    shown: _Shown
    exhausted: Array

    def combined(self, rows: Array) -> Array:
        """The combinations of v, or of w, that the Ritz vectors are, or their images, (k, p)."""
        return self.shown.coefficients[: len(self.shown.pairs.values)] @ rows


def _davidson(
    product: Callable[[Array], Array], start: Array, tolerance: float | Array, max_hvps: int, wanted: int | Array, looked: int | Array,
    explored: int | Array, tight: int | Array | np.ndarray, image: Array | None, grows: bool,
) -> tuple[Eigenpairs, Array]:
    if start.shape[1] < LARGE:
        return _grown(product, start, len(start), tolerance, max_hvps, wanted, looked, explored, tight, image, grows)
    basis = _grown(product, with_room(start), len(start), tolerance, max_hvps, wanted, looked, explored, tight, image)
    return basis.shown.pairs._replace(vectors=basis.combined(basis.v)), basis.combined(basis.w)


def _grown(
    product: Callable[[Array], Array], start: Array, count: int, tolerance: float | Array, max_hvps: int, wanted: int | Array,
    looked: int | Array, explored: int | Array, tight: int | Array | np.ndarray, image: Array | None, grows: bool = False,
) -> Any:
    """The pairs that the first `count` rows of the start lead to, and their images; of `LARGE` parameters the basis that they are
    combinations of, which lies where the start did, `with_room`."""
    size, large = start.shape[1], start.shape[1] >= LARGE
    most = basis_rows(count, size)
    keep = max(most // 3, count + 2)
    asked = jnp.where(jnp.arange(count) < tight, tolerance, jnp.maximum(tolerance, LOOSE))
    tolerances = jnp.where(jnp.arange(count) < wanted, asked, jnp.inf).astype(start.dtype)

    def added(new: Array, v: Array, w: Array, t: Array, filled: Array) -> tuple[Array, Array, Array]:
        """One row more, a unit vector that is orthogonal to the first `filled`."""
        image = product(new)
        v, w = _with_row(v, filled, new), _with_row(w, filled, image)
        row = along_first(v, image, filled) if grows else _along_each(v, image)
        return v, w, _with_row(_with_row(t, filled, row), filled, row, 1)

    def ritz(v: Array, w: Array, t: Array, size: Array, hvps: Array, left: Array) -> _Shown:
        """Rayleigh–Ritz on the first `size` rows; rows beyond get a value below every Ritz value and drop out."""
        inside = jnp.arange(len(t)) < size
        below = -1.5 * jnp.linalg.norm(t) - jnp.finfo(t.dtype).tiny
        every, coefficients = _eigh(t + jnp.diag(jnp.where(inside, 0, below)))
        values, mix = every[:count], coefficients[:count]

        def remainder(combination: Array, value: Array) -> Array:
            """Hu − λu of a Ritz pair, (p,), by its coefficients (most,) and its value ()."""
            return combination @ w - value * (combination @ v)

        if large:
            vectors, images, remainders = start[:0], start[:0], None
            sizes = lax.map(lambda pair: norms(remainder(*pair))[0], (mix, values))
        else:
            vectors, images = mix @ v, mix @ w
            remainders = images - values[:, None] * vectors
            sizes = jnp.sqrt(inner_products(*((each, each) for each in remainders)))
        residuals = sizes / jnp.abs(values[0])
        missing = residuals > tolerances
        converged = ~jnp.any(missing)
        chosen = jnp.where(converged, jnp.maximum(looked - 1, 0), jnp.argmax(missing))
        worst = remainder(mix[chosen], values[chosen]) if remainders is None else remainders[chosen]
        pairs = Eigenpairs(values, vectors, residuals, hvps)
        return _Shown(coefficients, pairs, images, worst, left, converged)

    def restart(basis: _Basis) -> tuple[Array, Array, Array, Array]:
        """The `keep` best Ritz vectors as a new basis; costs no product."""
        mix = jnp.where(jnp.arange(most)[:, None] < keep, basis.shown.coefficients, 0)
        return mix @ basis.v, mix @ basis.w, mix @ basis.t @ mix.T, jnp.array(keep)

    def with_last_free(basis: _Basis) -> tuple[Array, Array, Array, Array]:
        """The basis with room for a row at its end: a full one is reflected so that its last row is the Ritz vector of the least value. All
        rows lie where they did."""
        last = basis.shown.coefficients[-1]
        mirror = last.at[-1].add(jnp.where(last[-1] < 0, -1, 1))
        mirror = mirror / jnp.linalg.norm(mirror)
        full = (basis.size == most).astype(int)

        def reflected(_: Array, parts: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            v, w, t = (rows - 2 * mirror[:, None] * (mirror @ rows) for rows in parts)
            return v, w, t - 2 * (t @ mirror)[:, None] * mirror

        return *lax.fori_loop(0, full, reflected, (basis.v, basis.w, basis.t)), basis.size - full

    def along_first(v: Array, image: Array, filled: Array) -> Array:
        """v @ image, where the first rows of v are all there are while these are looked at."""
        return lax.cond(filled < count, lambda: jnp.pad(_along_each(v[:count], image), (0, most - count)), lambda: _along_each(v, image))

    def begun_with(filled: Array, basis: _Basis, v: Array) -> tuple[Array, Array]:
        """The next row of a basis that grows from nothing: one of those looked at while there are any, and then along the residual."""
        begins, whole = jnp.asarray(filled < looked), jnp.ones((), start.dtype)
        vector = jnp.where(begins, start[filled], basis.shown.worst)
        new, left = lax.cond(begins & independent, lambda: (v[filled], whole), lambda: _orthogonalise(vector, v))
        return new, jnp.where(begins, whole, left)

    def grow(basis: _Basis) -> _Basis:
        if large:
            v, w, t, filled = with_last_free(basis)
        else:
            v, w, t, filled = lax.cond(basis.size == most, restart, lambda b: (b.v, b.w, b.t, b.size), basis)
        shown = basis.shown
        new, left = begun_with(filled, basis, v) if grows else _orthogonalise(shown.worst, v)
        v, w, t = added(new, v, w, t, filled)
        filled, hvps = filled + 1, shown.pairs.hvps + 1
        not_yet = shown._replace(pairs=shown.pairs._replace(hvps=hvps))

        def paired() -> _Shown:
            return ritz(v, w, t, filled, hvps, shown.left - shown.converged)

        now = lax.cond(filled < looked, lambda: not_yet, paired) if grows else paired()
        return _Basis(v, w, t, filled, now, left < 10 * jnp.finfo(start.dtype).eps)  # of rounding alone nothing new is to be added

    def unfinished(basis: _Basis) -> Array:
        shown = basis.shown
        finite = jnp.all(jnp.isfinite(shown.pairs.values))
        return (~shown.converged | (shown.left > 0)) & ~basis.exhausted & (shown.pairs.hvps < max_hvps) & finite

    def ended(basis: _Basis) -> tuple[Eigenpairs, Array]:
        shown = lax.while_loop(unfinished, grow, basis).shown
        return shown.pairs, shown.images

    def onward() -> tuple[Eigenpairs, Array]:
        v, w = (jnp.zeros((most, size), start.dtype).at[:count].set(rows) for rows in (begun.v, begun.w))
        small = (begun.t, begun.shown.coefficients)
        t, coefficients = (jnp.zeros((most, most), start.dtype).at[:count, :count].set(each) for each in small)
        return ended(_Basis(v, w, t, begun.size, begun.shown._replace(coefficients=coefficients), begun.exhausted))

    no = jnp.array(False)
    if grows:
        independent, mix = _nearest(start, looked)
        v = jnp.pad(jnp.where(independent, mix, 0), ((0, most - count), (0, 0))).astype(start.dtype) @ start
        w, t = jnp.zeros_like(v), jnp.zeros((most, most), start.dtype)
        nothing = Eigenpairs(t[0, :count], v[:count], t[0, :count], jnp.array(0))
        shown = _Shown(t, nothing, w[:count], w[0], jnp.asarray(explored), jnp.asarray(looked) == 0)
        return ended(_Basis(v, w, t, jnp.array(0), shown, no))
    orthonormal = _orthonormal_in_place if large else _orthonormal if image is None else _one_by_one
    v = orthonormal(start, looked)
    w, t, first = jnp.zeros_like(v), jnp.zeros((len(v), len(v)), start.dtype), 0
    if image is not None:
        w, t, first = w.at[0].set(image), t.at[:, 0].set(_along_each(v, image)), 1
        t = t.at[0].set(t[:, 0])

    def imaged(k: Array, rows: tuple[Array, Array]) -> tuple[Array, Array]:
        image = product(v[k])
        return _with_row(rows[0], k, image), _with_row(rows[1], k, _along_each(v, image))

    w, t = lax.fori_loop(first, looked, imaged, (w, t))
    taken = jnp.asarray(looked)
    begun = _Basis(v, w, t, taken, ritz(v, w, t, taken, taken - first, jnp.asarray(explored)), no)
    if large:  # room made only where it is needed would stand beside the rows that it is made from
        return lax.while_loop(unfinished, grow, begun)
    return lax.cond(unfinished(begun), onward, lambda: (begun.shown.pairs, begun.shown.images))


@jax.jit
def with_room(*starts: Array) -> Array:
    """The rows of starts (k, p), one after the other, of many parameters with room for the solver's basis after them."""
    count, size = sum(map(len, starts)), starts[0].shape[1]
    room = [jnp.zeros((basis_rows(count, size) - count, size), starts[0].dtype)] if size >= LARGE else []
    return jnp.concatenate([*starts, *room])


def basis_rows(count: int, size: int) -> int:
    """Most rows of the solver's basis, and of its image, when it is started from `count` vectors of `size` numbers: of many parameters room
    for the products that a step mostly takes."""
    return count + LARGE_ROOM if size >= LARGE else max(BASIS, 2 * count + 4)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues of a small symmetric matrix, descending, and eigenvectors as rows; float64 inside, since it costs nothing."""
    values, vectors = small_matrices.eigh(((matrix + matrix.T) / 2).astype(jnp.float64))
    return values[::-1].astype(matrix.dtype), vectors.T[::-1].astype(matrix.dtype)


def _along_each(rows: Array, vector: Array) -> Array:
    """rows @ vector. Not as a product: XLA's on a CPU adds up one after the other, which in float32 loses 3e-6 of what 2e5 numbers come
    to and 2e-4 of what 5e6 do, and the residual of an eigenpair would not get under that.

    Rows that a loop leaves as they are XLA would keep in float64 for all of it, twice their memory, but for the barrier."""
    rows, vector = lax.optimization_barrier((rows, vector))
    return along_each(rows, vector)


def _with_row(rows: Array, k: Array, row: Array, axis: int = 0) -> Array:
    """The rows, or the columns, with another one in place k, which is one of theirs: XLA then writes this one and copies none."""
    return lax.dynamic_update_index_in_dim(rows, row, k, axis)


def _orthonormal(start: Array, wanted: int | Array) -> Array:
    """Orthonormal rows that span the first `wanted` of `start` (k, p), with rows of zeros after them.

    All at once where the rows are as independent as the eigenvectors of the last step; else one by one.
    """
    independent, mix = _nearest(start, wanted)
    return lax.cond(independent, lambda: mix @ start, lambda: _one_by_one(start, wanted))


def _nearest(start: Array, wanted: int | Array) -> tuple[Array, Array]:
    """Whether the first `wanted` rows of `start` (k, p) are independent, and the mix (k, k) of rows that gives the nearest orthonormal ones
    (Löwdin's), with rows of zeros after them."""
    inside = jnp.arange(len(start)) < wanted
    gram = _gram(start).astype(jnp.float64)
    size = jnp.sqrt(jnp.diag(gram))
    weight = jnp.where(inside & (size > 0), 1 / size, 0)
    squares, axes = small_matrices.eigh(jnp.where(jnp.outer(inside, inside), gram * jnp.outer(weight, weight), jnp.eye(len(start))))
    return squares[0] > INDEPENDENT, ((axes / jnp.sqrt(squares)) @ axes.T * weight).astype(start.dtype)


def _one_by_one(start: Array, wanted: int | Array) -> Array:
    """Orthonormal rows, the first of them along the first of `start` (k, p)."""
    return lax.fori_loop(0, wanted, lambda k, rows: _with_row(rows, k, _orthogonalise(start[k], rows)[0]), jnp.zeros_like(start))


def _orthonormal_in_place(start: Array, wanted: int | Array) -> Array:
    """`_one_by_one` of rows (k, p) that lie where the start did."""

    def row(k: Array, rows: Array) -> Array:
        before = (jnp.arange(len(rows)) < k).astype(rows.dtype)
        return _with_row(rows, k, jnp.where(k < wanted, _orthogonalise(rows[k], rows, before)[0], 0))

    return lax.fori_loop(0, len(start), row, start)


def _gram(rows: Array) -> Array:
    """rows @ rowsᵀ, as sums."""
    first, second = np.triu_indices(len(rows))
    place = np.zeros((len(rows), len(rows)), int)
    place[first, second] = place[second, first] = np.arange(len(first))
    return inner_products(*((rows[a], rows[b]) for a, b in zip(first, second, strict=True)))[place]


def _orthogonalise(vector: Array, basis: Array, chosen: Array | None = None) -> tuple[Array, Array]:
    """The unit vector along what the orthonormal rows of `basis` leave of `vector`, and the fraction they leave; those `chosen` alone,
    by ones and zeros (k,).

    Classical Gram–Schmidt, twice: the residual of a nearly converged pair is small against the rounding in it.
    """
    tiny = jnp.finfo(vector.dtype).tiny

    def across(vector: Array) -> Array:
        along = basis @ vector
        return vector - (along if chosen is None else chosen * along) @ basis

    rest = across(vector)
    whole, left = norms(vector, rest)
    rest = across(rest / jnp.maximum(left, tiny))
    return rest / jnp.maximum(norms(rest)[0], tiny), left / jnp.maximum(whole, tiny)


def sharpness_at(problem: Problem, theta: Array, start: Array, tolerance: float, curvature_dtype: str) -> Eigenpairs:
    """The top eigenpairs at θ alone."""
    return solve_at(problem, theta, start, tolerance, curvature_dtype)[0]


def solve_at(
    problem: Problem, theta: Array, start: Array, tolerance: float, curvature_dtype: str, wanted: int | Array | None = None,
    looked: int | Array | None = None, explored: int | Array = 0, tight: int | Array = 1, overwrites: bool = False,
    count: int | None = None,
) -> tuple[Eigenpairs, Array]:
    """`solve` in `curvature_dtype`, compiled once for each number of rows. Where it `overwrites` the start, as a look does, that is none
    any more, and the basis surely grows. Of a start that has room for the basis after its first `count` rows (`with_room`) only these are
    rows."""
    wanted = (count or start.shape[0]) if wanted is None else wanted
    looked = wanted if looked is None else looked
    start = start if count is None or start.shape[1] >= LARGE else start[:count]
    at, start, several = theta.astype(curvature_dtype), start.astype(curvature_dtype), _as_array(tight)
    if theta.size < LARGE or is_inside(theta):
        chosen = _solve_over if overwrites else _solve_at
        return chosen(problem, at, start, tolerance, wanted, looked, explored, several)
    # Pairs and images are made in turn, once products need no memory: at the most there is the basis, and what a product takes.
    count, rows = count or len(start), with_room(start) if count is None else start
    basis = _grown_over(problem, at, rows, tolerance, wanted, looked, explored, several, count)
    mix, v, w, pairs = basis.shown.coefficients[:count], basis.v, basis.w, basis.shown.pairs
    del basis
    vectors = _mixed(mix, v)
    del v
    return pairs._replace(vectors=vectors), _mixed(mix, w)


@jax.jit
def _mixed(mix: Array, rows: Array) -> Array:
    return mix @ rows


def _as_array(number: int | Array) -> Array | np.ndarray:
    """The same in one number format, for one compilation."""
    return number if isinstance(number, Array) else np.array(number)


def _solved(
    problem: Problem, theta: Array, start: Array, tolerance: float, wanted: int | Array, looked: int | Array, explored: int | Array,
    tight: Array | np.ndarray, grows: bool = False,
) -> tuple[Eigenpairs, Array]:
    return solve(problem, theta, start, tolerance, wanted=wanted, looked=looked, explored=explored, tight=tight, grows=grows)


def _based(
    problem: Problem, theta: Array, rows: Array, tolerance: float, wanted: int | Array, looked: int | Array, explored: int | Array,
    tight: Array | np.ndarray, count: int,
) -> _Basis:
    basis = _grown(problem.product_at(theta), rows, count, tolerance, MAX_HVPS, wanted, looked, explored, tight, None)
    return basis._replace(shown=basis.shown._replace(worst=basis.t[0]))  # of no use any more


_solve_at, _solve_over = jit_by_format(_solved), jit_by_format(partial(_solved, grows=True), donate_argnums=2)
_grown_over = jit_by_format(_based, donate_argnums=2, static_argnums=8)

"""Products of float64 matrices, and float64 convolutions, as sums of float32 ones: for devices on which float64 is slow.

A consumer card multiplies float64 numbers at 1/32 or 1/64 of its rate for float32. A product of n×k and k×m numbers takes nkm
multiplications, while its arguments and its result have few numbers: all the rest of a network's float64 arithmetic stays as it is.

The numbers of A are cut, each row scaled to 1, into digits of β bits, A = A₁ + … + A_{s−1} + rest, and those of B likewise (Ozaki, Ogita,
Oishi and Rump, Numer. Algorithms 59, 95 (2012)). Two digits have a float32 product of 2β − 2 bits, so that a sum of b of them is exact, in
whatever order, where 2β − 2 + log₂b ≤ 24. Those of s(s − 1)/2 pairs of digits are added up in float64, then the s products

    A_l·(B − B₁ − … − B_{s−l}),  l = 1, …, s,  with A_s the rest of A,

each at most 2^(−β(s−1)) of the whole, for which float32's own rounding does: s(s + 1)/2 products in all, six for s = 3. For longer sums
than `BLOCK` the digits are those of one block, and blocks are added up in float64. What is computed differs from the exact product of a row
a and a column c of b numbers by at most `bound`, and as a rule by about b·2^(−β(s−1)−24) of max|a|·max|c|: 5e-11 for b = 200, β = 9.

`in_float32_products` does it to a function, by rewriting the operations that jax traces of it. They stay bilinear to jax: derivatives of
every order are made of the same products, and no digit is differentiated. A product that would not gain stays float64 (`gains`), and so do
those that `jax.custom_vjp` holds.
"""

import math
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.xla.known_jax import unknown

try:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive, jaxpr_as_fun, subjaxprs
    from jax.extend.core.primitives import conv_general_dilated_p, custom_jvp_call_p, custom_vjp_call_p, dot_general_p
    from jax.extend.linear_util import wrap_init
    from jax.interpreters import ad, batching, mlir
except ImportError as error:
    raise unknown(error, "float64 products as float32 ones") from None

BLOCK = 1024
"""Numbers of a sum whose digits are cut together: digits of 8 bits. A shorter sum has longer ones, 9 bits up to 256 and 10 up to 64."""
WINDOWS = 1 << 14
"""The same of a convolution, whose weights' derivative is a sum over whole images: digits of 6 bits."""
LONGEST = 1 << 16
"""The longest sum that is cut as a whole, of grouped convolutions and large images: digits of 5 bits. A longer one stays float64."""
LEAST_GAIN = 2
"""How many times the float64 operations of cutting and adding up a product must have for the float32 ones to be taken."""
PRODUCTS = (dot_general_p, conv_general_dilated_p)
SLICES = 3
"""s, the parts of each number: six products. With two they are three, and off by a hundred times as much."""


@cache
def in_float32_products(function: Callable[..., Any], slices: int = SLICES) -> Callable[..., Any]:
    """The function of arrays, or trees of them, with each float64 product in it as a sum of s(s + 1)/2 float32 ones; `__wrapped__` is the
    function itself. It is the same for the same function, so that jax compiles it once."""
    return _sliced(function, slices)


def _sliced(function: Callable[..., Any], slices: int) -> Callable[..., Any]:
    @wraps(function)
    def sliced(*args: Any) -> Any:
        body, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        results = jaxpr_as_fun(_closed(body, slices))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return sliced


class Count(NamedTuple):
    """Of the products of matrices and convolutions in a function of float64 numbers, each counted once however often a loop takes it."""

    in_float32: int
    in_float64: int


def count(function: Callable[..., Any], *args: Any) -> Count:
    """How many of a function's products at such arguments are made of float32 ones; nothing is computed."""
    return _counted(jax.make_jaxpr(function)(*args).jaxpr)


def _counted(body: Jaxpr) -> Count:
    inner = [_counted(each) for each in subjaxprs(body)]
    ours = sum(each.primitive is _product for each in body.eqns)
    others = sum(each.primitive in PRODUCTS and _shaped(each)[-1].dtype == jnp.float64 for each in body.eqns)
    return Count(ours + sum(each.in_float32 for each in inner), others + sum(each.in_float64 for each in inner))


def _shaped(operation: JaxprEqn) -> list[Any]:
    """What is known of the arrays that an operation reads and gives."""
    return [value.aval for value in (*operation.invars, *operation.outvars)]


def _closed(body: ClosedJaxpr, slices: int) -> ClosedJaxpr:
    return body.replace(jaxpr=_rewritten(body.jaxpr, slices))


def _rewritten(body: Jaxpr, slices: int) -> Jaxpr:
    """The same operations, with products in float32."""
    return body.replace(eqns=[_operation(each, slices) for each in body.eqns])


def _operation(operation: JaxprEqn, slices: int) -> JaxprEqn:
    if operation.primitive in PRODUCTS:
        left, right, given = _shaped(operation)
        sums = _sums(operation.primitive, left, right, operation.params)
        in_float64 = left.dtype == right.dtype == given.dtype == jnp.float64
        if not in_float64 or not gains(left.size + right.size, given.size, sums, slices):
            return operation
        params = {"operation": operation.primitive, "params": _Params.of(operation.params), "slices": slices}
        return operation.replace(primitive=_product, params=params)
    if operation.primitive is custom_vjp_call_p:
        return operation
    params = {name: _parameter(each, slices) for name, each in operation.params.items()}
    if operation.primitive is custom_jvp_call_p:
        params["jvp_jaxpr_fun"] = _rule(params["jvp_jaxpr_fun"], slices)
    return operation.replace(params=params)


def _parameter(value: Any, slices: int) -> Any:
    """A parameter of an operation that holds others: the branches of `cond`, the body of a loop."""
    if isinstance(value, ClosedJaxpr):
        return _closed(value, slices)
    if isinstance(value, Jaxpr):
        return _rewritten(value, slices)
    if isinstance(value, tuple) and any(isinstance(each, ClosedJaxpr | Jaxpr) for each in value):
        return tuple(_parameter(each, slices) for each in value)
    return value


def _rule(derivative: Any, slices: int) -> Any:
    """The rule of a `jax.custom_jvp` with its products in float32: the derivative is traced when it is asked for."""

    def traced(*zeros: bool) -> Any:
        body, constants, out_zeros = derivative.call_wrapped(*zeros)
        return _rewritten(body, slices), constants, out_zeros

    return wrap_init(traced, debug_info=derivative.debug_info)


class Sums(NamedTuple):
    """How many products are added up for each number that a product of matrices or a convolution gives."""

    length: int
    block: int
    """Of these, how many are cut together."""

    @property
    def blocks(self) -> int:
        """In how many blocks."""
        return -(-self.length // self.block)


def _sums(operation: Primitive, left: Any, right: Any, params: dict[str, Any]) -> Sums:
    if operation is dot_general_p:
        (contracted, _), _ = params["dimension_numbers"]
        length = math.prod(left.shape[axis] for axis in contracted)
        return Sums(length, _even(length, BLOCK))
    features, *sides = (right.shape[axis] for axis in params["dimension_numbers"].rhs_spec[1:])
    window = math.prod(sides)
    grouped = params["feature_group_count"] > 1 or params["batch_group_count"] > 1
    return Sums(features * window, window * (features if grouped else _even(features, max(1, WINDOWS // max(1, window)))))


def _even(count: int, most: int) -> int:
    """So many in blocks of one size, of at most so many: that size."""
    return -(-count // -(-count // most)) if count else 0


def gains(read: int, given: int, sums: Sums, slices: int) -> bool:
    """Whether a product that reads so many numbers and gives so many has enough float64 operations for those that its parts need to be few
    beside: four for each number that is cut, and s(s − 1)/2 + 3 for each block of each number that is given."""
    if not given * sums.length or sums.block > LONGEST:
        return False
    return given * sums.length >= LEAST_GAIN * (4 * read + (slices * (slices - 1) // 2 + 3) * given * sums.blocks)


def digit_bits(block: int) -> int:
    """β: the bits of digits of which a sum of so many products is exact in float32, 2β − 2 + log₂b ≤ 24."""
    return (26 - math.ceil(math.log2(block))) // 2


def bound(block: int, slices: int) -> float:
    """How far a sum of b products a·c may be off, in max|a|·max|c|: b·2^(−β(s−1)−24)·(s(b + 1) + s² + 1).

    Of s float32 products, with terms of at most 2^(−β(s−1)), each is off by b·2^-24 of the sum of its b terms, and by the rounding of
    their factors; adding the s up rounds s − 1 times. Sums of digits are exact, and the scales round in float64, each factor by 2^-53.
    """
    return block * 2.0 ** (-digit_bits(block) * (slices - 1) - 24) * (slices * (block + 1) + slices**2 + 1) + block * 2.0**-52


class Digits(NamedTuple):
    """Float64 numbers of at most 1 in float32 parts."""

    digits: list[Array]
    """s − 1 parts, whole multiples of 2^(1−βl) for l = 1, 2, …"""
    rests: list[Array]
    """The numbers less the first 0, 1, …, s − 1 digits."""


def _digits(numbers: Array, bits: int, slices: int) -> Digits:
    """Float64 numbers of at most 1 in parts. A float32 number less its first digit is exact in float32."""
    # XLA may leave out a conversion to float32 and back, as of needless loss; a reduced precision it may not.
    high = lax.reduce_precision(numbers, exponent_bits=8, mantissa_bits=23)
    low, rest = (numbers - high).astype(jnp.float32), high.astype(jnp.float32)
    digits, rests = list[Array](), [rest]
    for level in range(1, slices):
        unit = 2.0 ** (1 - bits * level)
        digits.append(lax.round(rest / unit, lax.RoundingMethod.TO_NEAREST_EVEN) * unit)
        rest = rest - digits[-1]
        rests.append(rest + low)
    return Digits(digits, rests)


def _scaled(numbers: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Float64 numbers over the largest of them along these axes, and that one; where it is NaN or infinite, so is their every product."""
    largest = jnp.max(jnp.abs(numbers), axis=axes, keepdims=True, initial=0)
    largest = jnp.where(largest == 0, 1, largest)
    return numbers / largest, largest


def _added_up(product: Callable[[Array, Array], Array], left: Array, right: Array, bits: int, slices: int) -> Array:
    """The product of float64 numbers of at most 1, from float32 products of their parts, in float64."""
    a, c = _digits(left, bits, slices), _digits(right, bits, slices)
    rounded = [*zip(a.digits, reversed(c.rests[1:]), strict=True), (a.rests[-1], c.rests[0])]
    total = sum(product(*pair) for pair in rounded).astype(jnp.float64)  # type: ignore[union-attr]
    for level in range(slices - 2, -1, -1):  # the smallest first
        for first in range(level + 1):
            total = total + product(a.digits[first], c.digits[level - first]).astype(jnp.float64)
    return total


def _dot_general(left: Array, right: Array, slices: int, params: dict[str, Any]) -> Array:
    """`lax.dot_general` of float64 numbers: both as (batch, blocks, numbers, block), blocks added up last."""
    (contracted, batch), sums = params["dimension_numbers"], _sums(dot_general_p, left, right, params)
    free = [[axis for axis in range(each.ndim) if axis not in (*contracted[k], *batch[k])] for k, each in enumerate((left, right))]
    shapes = [[each.shape[axis] for axis in free[k]] for k, each in enumerate((left, right))]

    missing = sums.blocks * sums.block - sums.length

    def arranged(numbers: Array, k: int) -> Array:
        ordered = numbers.transpose(*batch[k], *free[k], *contracted[k])
        flat = ordered.reshape(math.prod(numbers.shape[axis] for axis in batch[k]), math.prod(shapes[k]), sums.length)
        filled = jnp.pad(flat, ((0, 0), (0, 0), (0, missing))) if missing else flat
        return filled.reshape(*flat.shape[:2], sums.blocks, sums.block).swapaxes(1, 2)

    (a, rows), (c, columns) = (_scaled(arranged(each, k), (3,)) for k, each in enumerate((left, right)))

    def product(first: Array, second: Array) -> Array:
        return lax.dot_general(first, second, (((3,), (3,)), ((0, 1), (0, 1))), precision=lax.Precision.HIGHEST)

    parts = _added_up(product, a, c, digit_bits(sums.block), slices) * rows * columns.swapaxes(2, 3)
    return parts.sum(axis=1).reshape(*(left.shape[axis] for axis in batch[0]), *shapes[0], *shapes[1])


def _convolution(left: Array, right: Array, slices: int, params: dict[str, Any]) -> Array:
    """`lax.conv_general_dilated` of float64 numbers: images scaled each by itself and kernels by their output, blocks of features one
    after the other."""
    numbers, sums = params["dimension_numbers"], _sums(conv_general_dilated_p, left, right, params)
    (images, features, *_), (outputs, inputs, *_) = numbers.lhs_spec, numbers.rhs_spec
    at_once = sums.block * right.shape[inputs] // sums.length
    together = tuple(range(left.ndim)) if params["batch_group_count"] > 1 else tuple(axis for axis in range(left.ndim) if axis != images)

    def product(first: Array, second: Array) -> Array:
        settings = params | {"precision": (lax.Precision.HIGHEST,) * 2, "preferred_element_type": jnp.dtype(jnp.float32)}
        return conv_general_dilated_p.bind(first, second, **settings)

    def one(left: Array, right: Array) -> Array:
        kernel_axes = tuple(axis for axis in range(right.ndim) if axis != outputs)
        (a, image_scale), (c, kernel_scale) = _scaled(left, together), _scaled(right, kernel_axes)
        given = _added_up(product, a, c, digit_bits(sums.block), slices)
        along = [1] * given.ndim, [1] * given.ndim
        along[0][numbers.out_spec[0]], along[1][numbers.out_spec[1]] = image_scale.size, kernel_scale.size
        return given * image_scale.reshape(along[0]) * kernel_scale.reshape(along[1])

    if sums.blocks == 1:
        return one(left, right)

    def cut(array: Array, axis: int) -> Array:
        filled = jnp.pad(array, [(0, sums.blocks * at_once - array.shape[axis] if k == axis else 0) for k in range(array.ndim)])
        return jnp.moveaxis(filled.reshape(*array.shape[:axis], sums.blocks, at_once, *array.shape[axis + 1 :]), axis, 0)

    parts = cut(left, features), cut(right, inputs)
    begun = jnp.zeros(jax.eval_shape(one, *(each[0] for each in parts)).shape, jnp.float64)
    return lax.scan(lambda total, pair: (total + one(*pair), None), begun, parts)[0]


class _Params:
    """An operation's parameters, to be compared and hashed as one of another's."""

    def __init__(self, items: tuple[tuple[str, Any], ...]):
        self.items = items

    @classmethod
    def of(cls, params: dict[str, Any]) -> "_Params":
        """Those of an operation."""
        return cls(tuple(sorted(params.items())))

    def __hash__(self) -> int:
        return hash(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Params) and self.items == other.items

    def __repr__(self) -> str:
        return repr(dict(self.items))


def _computed(left: Array, right: Array, *, operation: Primitive, params: _Params, slices: int) -> Array:
    return (_dot_general if operation is dot_general_p else _convolution)(left, right, slices, dict(params.items))


def _exact(operation: Primitive, params: _Params) -> Callable[[Array, Array], Array]:
    """The float64 operation that the products stand for."""
    return lambda left, right: operation.bind(left, right, **dict(params.items))


def _transposed(known_first: bool) -> Callable[..., Array]:
    """The transpose in one argument, by the operation's own: products again, of the cotangent and the other argument."""

    def rule(cotangent: Array, left: Any, right: Any, *, operation: Primitive, params: _Params, slices: int) -> Array:
        known, wanted = (left, right) if known_first else (right, left)

        def back(cotangent: Array, known: Array) -> Array:
            exact = _exact(operation, params)
            along = partial(exact, known) if known_first else lambda moved: exact(moved, known)
            return jax.linear_transpose(along, jax.ShapeDtypeStruct(wanted.aval.shape, wanted.aval.dtype))(cotangent)[0]

        return _sliced(back, slices)(cotangent, known)

    return rule


def _batched(operands: Any, axes: Any, *, operation: Primitive, params: _Params, slices: int) -> tuple[Array, int]:
    return _sliced(jax.vmap(_exact(operation, params), axes), slices)(*operands), 0


_product = Primitive("float64_product_of_float32")
_product.def_impl(jax.jit(_computed, static_argnames=("operation", "params", "slices")))
_product.def_abstract_eval(lambda left, right, *, operation, params, slices: operation.abstract_eval(left, right, **dict(params.items))[0])
ad.defbilinear(_product, _transposed(False), _transposed(True))
batching.primitive_batchers[_product] = _batched
mlir.register_lowering(_product, mlir.lower_fun(_computed, multiple_results=False))

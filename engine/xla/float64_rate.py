"""How fast a device multiplies float64 numbers beside float32 ones: as NVIDIA states it of its cards, and as measured here.

A data-centre card (P100, V100, A100, H100, B200) has a float64 unit to every two of float32. The others have one to 32 or 64, so that
their programs run at all: GeForce and RTX, and T4, A10, A40, L4, L40, too.
"""

import time
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from engine.spec import RunSpec
from engine.xla.jit import jit_by_format

OF_CAPABILITY = {
    "5.0": Fraction(1, 32), "5.2": Fraction(1, 32), "5.3": Fraction(1, 32),
    "6.0": Fraction(1, 2), "6.1": Fraction(1, 32), "6.2": Fraction(1, 32),
    "7.0": Fraction(1, 2), "7.2": Fraction(1, 2), "7.5": Fraction(1, 32),
    "8.0": Fraction(1, 2), "8.6": Fraction(1, 64), "8.7": Fraction(1, 64), "8.9": Fraction(1, 64),
    "9.0": Fraction(1, 2), "10.0": Fraction(1, 2), "10.3": Fraction(1, 64), "12.0": Fraction(1, 64), "12.1": Fraction(1, 64),
}  # fmt: skip
"""Compute capability -> float64 multiply-adds for one of float32, by the throughput of arithmetic instructions in NVIDIA's CUDA C++
Programming Guide. 6.1 is GeForce GTX 10, 7.5 RTX 20 and T4, 8.6 RTX 30, A10 and A40, 8.9 RTX 40, L4 and L40, 12.0 RTX 50."""
SLOW = Fraction(1, 12)
"""The rate below which six float32 products take half as long as one of float64."""
ADVICE = '[precision] products = "float32x6" makes each of six float32 ones, to 1e-10 of it (`eos help gpu`)'
SIDE = {"cpu": 512}
"""Rows of the square matrices that are multiplied to measure it, by platform."""
SIDE_ELSEWHERE = 2048
REPEATS = 3


def stated(device: Any) -> Fraction | None:
    """Float64 multiply-adds of a device for one of its float32 ones, as its maker states it; 0 where it has none in hardware, as a TPU,
    and None where nothing is known of it."""
    if device.platform == "tpu":
        return Fraction(0)
    return OF_CAPABILITY.get(str(getattr(device, "compute_capability", "")))  # of a card by AMD that is a name, gfx942


def products_words(spec: RunSpec, device: Any) -> str:
    """What is to be known of a run's float64 products on this device, in a sentence: that they are slow, or that they are to be made of
    float32 ones where they were not. Empty where there is nothing, or nothing is known of the device."""
    if not spec.computes_in_float64:
        return ""
    rate, chosen = stated(device), spec.precision.products
    if chosen != "float64":
        given = f'[precision] products = "{chosen}"'
        if device.platform == "tpu":
            return f"{given}: not tried on a TPU, which makes its float32 products of bfloat16 ones"
        fast = device.platform == "cpu" or (rate is not None and rate >= SLOW)
        name = device.device_kind.upper() if device.platform == "cpu" else device.device_kind
        return f"{given}: on this device, {name}, products in float64 take less time" if fast else ""
    if rate is None or rate >= SLOW:
        return ""
    if not rate:
        return f"{device.device_kind} has no float64 in hardware: products of matrices in float64 take many times as long as in float32"
    return (
        f"{device.device_kind} multiplies float64 numbers at {rate} of its rate for float32: products of matrices in float64 take up to "
        f"{1 / rate} times as long as in float32; {ADVICE}"
    )


def measured_words(spec: RunSpec, rate: float) -> str:
    """The measured rate in words, with what would do where it is slow and the run computes in float64."""
    words = f"products of matrices at {rate:.2g} of the rate of float32, measured here"
    return f"{words}; {ADVICE}" if is_slow(spec, rate) else words


def is_slow(spec: RunSpec, rate: float) -> bool:
    """Whether a run computes its products in float64 at a rate at which six float32 ones take less."""
    return rate < SLOW and spec.computes_in_float64 and spec.precision.products == "float64"


def measured() -> float:
    """The rate of a float64 product of square matrices on the first device, over that of a float32 one: each the best of three."""
    side = SIDE.get(jax.default_backend(), SIDE_ELSEWHERE)
    seconds = {dtype: _seconds(jnp.ones((side, side), dtype)) for dtype in (jnp.float32, jnp.float64)}
    return seconds[jnp.float32] / seconds[jnp.float64]


@jit_by_format
def _square(matrix: Array, same: Array) -> Array:
    return matrix @ same


def _seconds(matrix: Array) -> float:
    _square(matrix, matrix).block_until_ready()  # compiled

    def once() -> float:
        began = time.perf_counter()
        _square(matrix, matrix).block_until_ready()
        return time.perf_counter() - began

    return min(once() for _ in range(REPEATS))

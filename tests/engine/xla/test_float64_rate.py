"""A card on which float64 is slow is known by its compute capability, and a run and `check` say what that costs and what would do."""

from fractions import Fraction
from types import SimpleNamespace

import jax
import pytest

from engine.base.errors import UserError
from engine.spec import load_spec
from engine.xla import float64_rate
from engine.xla.float64_rate import is_slow, measured, measured_words, products_words, stated

CARDS = {
    "NVIDIA GeForce RTX 4090": ("8.9", Fraction(1, 64)), "NVIDIA L40S": ("8.9", Fraction(1, 64)), "NVIDIA A10": ("8.6", Fraction(1, 64)),
    "NVIDIA RTX A6000": ("8.6", Fraction(1, 64)), "NVIDIA GeForce RTX 5090": ("12.0", Fraction(1, 64)),
    "NVIDIA B300 SXM6 AC": ("10.3", Fraction(1, 64)), "Tesla T4": ("7.5", Fraction(1, 32)),
    "NVIDIA GeForce GTX 1080 Ti": ("6.1", Fraction(1, 32)), "Tesla P100-PCIE-16GB": ("6.0", Fraction(1, 2)),
    "Tesla V100-SXM2-16GB": ("7.0", Fraction(1, 2)), "NVIDIA A100-SXM4-40GB": ("8.0", Fraction(1, 2)),
    "NVIDIA H200": ("9.0", Fraction(1, 2)), "NVIDIA B200": ("10.0", Fraction(1, 2)),
}  # fmt: skip
"""device_kind -> compute capability and rate."""


def card(kind, platform="gpu"):
    """A device as jax has it."""
    return SimpleNamespace(platform=platform, device_kind=kind, compute_capability=CARDS[kind][0])


@pytest.mark.parametrize("kind", CARDS)
def test_the_rate_of_a_card_is_stated_and_said_where_it_is_slow(kind):
    rate, spec = CARDS[kind][1], load_spec("fashion")
    assert stated(card(kind)) == rate
    words = products_words(spec, card(kind))
    if rate == Fraction(1, 2):
        assert words == ""
    else:
        assert words.startswith(f"{kind} multiplies float64 numbers at {rate} of its rate for float32: ")
        assert f"in float64 take up to {rate.denominator} times as long as in float32" in words
        assert '[precision] products = "float32x6"' in words
        assert products_words(load_spec("fashion", ["precision.products=float32x6"]), card(kind)) == ""
        assert products_words(load_spec("fashion", ["precision.edge=float32"]), card(kind)) == ""
        assert products_words(load_spec("phase"), card(kind)) == ""


def test_a_tpu_has_no_float64_and_of_another_device_nothing_is_said():
    spec, tpu = load_spec("fashion"), SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert products_words(spec, tpu).startswith("TPU v5 lite has no float64 in hardware: ")
    assert "not tried on a TPU" in products_words(load_spec("fashion", ["precision.products=float32x6"]), tpu)
    for kind, capability in (("NVIDIA of tomorrow", "13.7"), ("AMD Instinct MI300X", "gfx942")):
        assert products_words(spec, SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)) == ""


@pytest.mark.parametrize("device", [jax.devices()[0], card("NVIDIA H200")])
def test_float32_products_are_not_taken_silently_where_float64_is_fast(device):
    words = products_words(load_spec("fashion", ["precision.products=float32x6"]), device)
    assert words.startswith('[precision] products = "float32x6": on this device, ')
    assert words.endswith("products in float64 take less time")


def test_products_of_a_run_without_float64_are_refused():
    with pytest.raises(UserError, match=r'\[precision\] products = "float32x6"; nothing is computed in float64 here'):
        load_spec("fashion", ["precision.products=float32x6", "precision.edge=float32"])
    with pytest.raises(UserError, match=r'products = "float32"; expected one of "float64", "float32x6"'):
        load_spec("fashion", ["precision.products=float32"])
    assert load_spec("sgd", ["precision.products=float32x6", "precision.curvature=float64"]).computes_in_float64
    assert not load_spec("sgd").computes_in_float64


@pytest.mark.usefixtures("x64")
def test_check_measures_the_rate(monkeypatch):
    monkeypatch.setitem(float64_rate.SIDE, "cpu", 64)
    assert measured() > 0
    spec = load_spec("fashion")
    assert measured_words(spec, 0.5) == "products of matrices at 0.5 of the rate of float32, measured here"
    assert measured_words(spec, 1 / 60).endswith("six float32 ones, to 1e-10 of it (`eos help gpu`)")
    assert not is_slow(load_spec("fashion", ["precision.products=float32x6"]), 1 / 60)

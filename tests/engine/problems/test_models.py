"""The networks: derivatives of every order against differences, initial weights, and the number format of θ."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from engine import data
from engine import spec as specs
from engine.data.words import PAD
from engine.problems import networks
from engine.problems.build import network
from engine.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("x64")

DIGITS = specs.Data(name="digits", examples=4, classes=(3, 8))
SENTENCES = specs.Data(name="sentences", examples=4, classes=(0, 1), standardize="none")
TRANSFORMER = specs.Transformer(layers=1, hidden=8)
RESNET = specs.ResNet(widths=(2, 4), blocks=1, groups=2)
INVARIANT = specs.Mlp(widths=(6, 5), activation="tanh", normalized=True)
SMOOTH = ("tanh", "swish", "gelu", "elu")
HASTE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compile a function that runs three times in a quarter of the time."""


@cache
def problem_of(model: specs.Model) -> tuple[Problem, jax.Array]:
    """A tiny problem, and a θ away from its start: the transformer starts with a head of zeros, blind to all else."""
    part = SENTENCES if isinstance(model, specs.Transformer) else DIGITS
    problem, theta, _ = network(specs.Network(data=part, model=model, criterion="half_mse"), 0)
    return problem, jnp.asarray(theta + 0.05 * np.random.default_rng(1).normal(size=theta.shape))


def unit(theta: jax.Array) -> jax.Array:
    direction = np.random.default_rng(2).normal(size=theta.shape)
    return jnp.asarray(direction / np.linalg.norm(direction), theta.dtype)


@partial(jax.jit, compiler_options=HASTE)
def all_derivatives(problem: Problem, theta: jax.Array, u: jax.Array) -> tuple[jax.Array, ...]:
    """L(θ), ∇L(θ), ∇²L(θ)u and ∇³L(u,u): compiled once for all tests of a model."""
    return problem.loss(theta), problem.gradient(theta), problem.hvp(theta, u), problem.derivative(theta, 3, u, u)


@pytest.mark.parametrize(
    "model",
    [
        *(pytest.param(specs.Mlp(widths=(6, 5), activation=name), marks=[pytest.mark.slow] * (name != "tanh")) for name in SMOOTH),
        INVARIANT, specs.Cnn(widths=(3, 4)), *(pytest.param(model, marks=pytest.mark.slow) for model in (RESNET, TRANSFORMER)),
    ],
    ids=[*SMOOTH, "normalized", "cnn", "resnet", "transformer"],
)
def test_the_third_derivative_is_the_slope_of_the_second(model):
    problem, theta = problem_of(model)
    u, h = np.asarray(unit(theta)), 1e-5  # the difference is off by h²/6 of a fifth derivative and by rounding of 1e-16/h
    third = np.asarray(all_derivatives(problem, theta, jnp.asarray(u))[3])
    above, below = (np.asarray(all_derivatives(problem, theta + step * u, jnp.asarray(u))[2]) for step in (h, -h))
    difference = (above - below) / (2 * h)
    assert np.linalg.norm(third) > 1e-3
    assert np.linalg.norm(third - difference) < 1e-6 * np.linalg.norm(third)


DEEP = specs.Mlp(widths=(6, 5, 4, 5, 6), activation="tanh")


@pytest.mark.parametrize(
    "model",
    [DEEP, *(pytest.param(model, marks=pytest.mark.slow) for model in (INVARIANT, specs.Cnn(widths=(3, 4)), RESNET, TRANSFORMER))],
    ids=["mlp", "normalized", "cnn", "resnet", "transformer"],
)
def test_what_is_computed_again_is_the_same_to_rounding(model):
    """Loss, gradient, ∇²Lu and ∇³L(u,u) within 1e-10 of their size, and the same start in the same order."""
    part = specs.Network(data=SENTENCES if isinstance(model, specs.Transformer) else DIGITS, model=model, criterion="half_mse")
    derivatives = []
    for rematerialize in (False, True):
        problem, start, _ = network(msgspec.structs.replace(part, rematerialize=rematerialize), 0)
        theta = jnp.asarray(start + 0.05 * np.random.default_rng(1).normal(size=start.shape))
        u = unit(theta)
        derivatives.append([start, *all_derivatives(problem, theta, u)])
    np.testing.assert_array_equal(derivatives[0][0], derivatives[1][0])
    for kept, again in zip(*derivatives, strict=True):
        np.testing.assert_allclose(again, kept, rtol=1e-10, atol=1e-10 * float(jnp.max(jnp.abs(kept))))


def test_a_relu_network_has_finite_second_derivatives():
    problem, theta = problem_of(specs.Mlp(widths=(6, 5), activation="relu"))
    product = jax.jit(Problem.hvp)(problem, theta, unit(theta))
    assert np.isfinite(product).all()
    assert np.linalg.norm(product) > 0


@pytest.mark.parametrize("model", [specs.Mlp(widths=(6, 5), activation="tanh"), INVARIANT, specs.Cnn(widths=(3, 4)), RESNET, TRANSFORMER])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_loss_and_derivatives_have_the_number_format_of_theta(model, precision):
    problem, theta = problem_of(model)
    theta = theta.astype(precision)
    for function, arguments in ((Problem.loss, ()), (Problem.derivative, (3, unit(theta), unit(theta)))):
        shape = jax.eval_shape(lambda theta, f=function, a=arguments: f(problem, theta, *a), theta)
        assert shape.dtype == precision


def leaves(model: specs.Model, part: specs.Data = DIGITS) -> dict[str, np.ndarray]:
    """The initial parameters by path."""
    tree = networks.build(model, data.load(part)).init(jax.random.key(0))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("model", [specs.Mlp(widths=(60, 50), head_scale=0.1), specs.Cnn(widths=(16, 16), head_scale=0.1)])
def test_weights_start_uniform_on_one_over_root_fan_in_and_biases_at_zero(model):
    initial = leaves(model)
    kernels = [leaf for name, leaf in initial.items() if "kernel" in name]
    assert len(kernels) == 3
    assert [kernel.shape[1] for kernel in kernels].count(1) == 1  # the head
    for kernel in kernels:
        bound = (model.head_scale if kernel.shape[1] == 1 else 1) / np.sqrt(kernel.shape[0])
        assert 0.8 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
    assert all((leaf == 0).all() for name, leaf in initial.items() if "bias" in name)


def test_head_scale_multiplies_the_last_layer_alone():
    plain, scaled = (leaves(specs.Mlp(widths=(6, 5), head_scale=scale)) for scale in (1.0, 0.25))
    for name, leaf in plain.items():
        factor = 0.25 if leaf.shape == (5, 1) else 1
        np.testing.assert_array_equal(scaled[name], factor * leaf)


def test_padding_does_not_change_the_output_of_the_transformer():
    dataset = data.load(SENTENCES)
    model = networks.build(TRANSFORMER, dataset)
    noise = np.random.default_rng(1)
    initial = model.init(jax.random.key(0))
    parameters = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * noise.normal(size=leaf.shape)), initial)
    row = min(dataset.inputs, key=lambda ids: (ids != PAD).sum())
    short = row[row != PAD][None]
    longer = np.pad(short, ((0, 0), (0, 7)), constant_values=PAD)
    apply = jax.jit(model.apply)
    alone, padded = apply(parameters, short), apply(parameters, longer)
    assert abs(alone.item()) > 1e-3
    np.testing.assert_allclose(padded, alone, rtol=1e-12)


def test_the_transformer_starts_at_the_output_zero():
    dataset = data.load(SENTENCES)
    model = networks.build(TRANSFORMER, dataset)
    np.testing.assert_array_equal(jax.jit(model.apply)(model.init(jax.random.key(0)), dataset.inputs), 0)


def test_a_convolution_is_that_of_lax():
    random = np.random.default_rng(0)
    maps, kernel, bias = random.normal(size=(2, 5, 6, 3)), random.normal(size=(3, 3, 3, 4)), random.normal(size=4)
    parameters = {"params": {"Dense_0": {"kernel": kernel.reshape(27, 4), "bias": bias}}}
    convolved = jax.jit(networks.Conv(4).apply)(parameters, maps)
    wanted = jax.lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(convolved, wanted + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("side", "stride"), [(3, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_a_strided_convolution_is_that_of_lax(side, stride, shape):
    random = np.random.default_rng(0)
    maps, kernel = random.normal(size=(2, *shape, 3)), random.normal(size=(side, side, 3, 4))
    parameters = {"params": {"Dense_0": {"kernel": kernel.reshape(-1, 4)}}}
    convolved = networks.Conv(4, side, stride, bias=False).apply(parameters, maps)
    edge = (side // 2, side // 2)
    wanted = jax.lax.conv_general_dilated(maps, kernel, (stride, stride), (edge, edge), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(convolved, wanted, rtol=1e-12, atol=1e-12)


def test_a_group_norm_leaves_each_group_with_mean_zero_and_variance_one():
    maps = 3 + 2 * np.random.default_rng(0).normal(size=(2, 4, 5, 6))
    norm = networks.group_norm(2, 6)
    normed = np.asarray(norm.apply(norm.init(jax.random.key(0), maps), maps)).reshape(2, 20, 2, 3)
    np.testing.assert_allclose(normed.mean(axis=(1, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(normed.var(axis=(1, 3)), 1, atol=1e-5)  # the norm adds 1e-6 to the variance
    assert networks.group_norm(16, 6).num_groups == 6


def test_a_convolution_before_a_norm_starts_at_variance_one_over_fan_in():
    initial = leaves(specs.ResNet(widths=(16,), blocks=1))
    kernels = [leaf for name, leaf in initial.items() if "kernel" in name and leaf.shape[0] == 9 * 16]
    assert len(kernels) == 2
    for kernel in kernels:
        assert kernel.std() == pytest.approx(1 / np.sqrt(9 * 16), rel=0.05)
    assert not any("bias" in name for name in initial if "Conv" in name)


def shapes(model: specs.Model, part: specs.Data) -> list[tuple[str, tuple[int, ...]]]:
    """The parameters by path and their shapes, none of them drawn."""
    tree = jax.eval_shape(networks.build(model, data.load(part)).init, jax.random.key(0))
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def test_the_default_residual_network_is_resnet18_at_a_quarter_of_its_width():
    leaves = shapes(specs.ResNet(), specs.Data(name="fashion", examples=10, pad_to=32))
    kernels = [shape for name, shape in leaves if "kernel" in name]
    shortcuts = [shape for shape in kernels if shape in ((16, 32), (32, 64), (64, 128))]
    assert len(shortcuts) == 3
    assert len(kernels) - len(shortcuts) == 18
    assert kernels.count((9 * 128, 128)) == 3  # and one from 64 channels
    assert sum(int(np.prod(shape)) for _, shape in leaves) == 701_178


def test_depth_and_width_of_the_residual_network_are_those_asked_for():
    leaves = shapes(specs.ResNet(widths=(4, 6, 8), blocks=3, groups=2), DIGITS)
    kernels = [shape for name, shape in leaves if "kernel" in name]
    assert len(kernels) == 1 + 3 * 3 * 2 + 2 + 1  # stem, blocks, shortcuts, head
    assert kernels.count((9 * 8, 8)) == 5


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_every_model_takes_every_activation(activation):
    for model in (specs.Mlp(widths=(3,)), specs.Cnn(widths=(3,)), RESNET, TRANSFORMER):
        chosen = msgspec.structs.replace(model, activation=activation)
        part = SENTENCES if isinstance(model, specs.Transformer) else DIGITS
        dataset = data.load(part)
        built = networks.build(chosen, dataset)
        assert jax.eval_shape(built.apply, jax.eval_shape(built.init, jax.random.key(0)), dataset.inputs).shape == (4, 1)


def test_the_residual_network_starts_at_the_output_zero():
    dataset = data.load(DIGITS)
    model = networks.build(RESNET, dataset)
    np.testing.assert_array_equal(jax.jit(model.apply)(model.init(jax.random.key(0)), dataset.inputs), 0)


def test_a_normalized_network_depends_on_the_direction_of_its_parameters_alone():
    problem, theta = problem_of(INVARIANT)
    c = 3.7
    loss, gradient = jax.jit(jax.value_and_grad(problem.loss))(theta)
    scaled_loss, scaled_gradient = jax.jit(jax.value_and_grad(problem.loss))(c * theta)
    assert abs(scaled_loss - loss) < 1e-12
    assert abs(theta @ gradient) < 1e-12 * np.linalg.norm(theta) * np.linalg.norm(gradient) + 1e-13
    np.testing.assert_allclose(c * scaled_gradient, gradient, atol=1e-12)
    v = unit(theta)
    product = jax.jit(Problem.hvp)
    np.testing.assert_allclose(c**2 * product(problem, c * theta, v), product(problem, theta, v), atol=1e-11)
    np.testing.assert_allclose(product(problem, theta, theta), -gradient, atol=1e-11)  # Euler: ∇L is of degree −1
    *_, second, third = all_derivatives(problem, theta, v)
    assert float(theta @ third) == pytest.approx(float(-2 * v @ second), rel=1e-10)  # and ∇²L of degree −2, so θ·∇S = −2S


def test_a_normalized_network_reads_an_input_of_zeros():
    dataset = data.load(DIGITS)
    model = networks.build(INVARIANT, dataset)
    outputs = jax.jit(model.apply)(model.init(jax.random.key(0)), np.zeros_like(dataset.inputs))
    assert np.isfinite(outputs).all()


def test_average_pool_leaves_out_an_odd_last_row():
    maps = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_array_equal(networks.average_pool(maps)[0, :, :, 0], [[3.0, 5.0]])


def test_the_default_network_has_88701_parameters():
    part = specs.load_spec("fashion").problem
    shapes = jax.eval_shape(networks.build(part.model, data.load(part.data)).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 88_701

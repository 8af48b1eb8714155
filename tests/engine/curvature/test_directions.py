"""The directions at the edge: their basis, and the normals of the stable set along them, against dense derivatives and differences."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature import directions
from engine.curvature.eigensolver import random_start
from engine.curvature.expansion import measure_all, normals
from engine.theory import pairs

from small import chebyshev_problem, dense_hessian, gradient_at, third_at

pytestmark = pytest.mark.usefixtures("x64")


def measured(problem, theta, number, room):
    """The directions at θ in the basis nearest to a random one, with their normals; the point, and what is known of eigh there."""
    start = random_start(0, 0, room + 1, theta.size, "float64")
    point, images = measure_all(problem, theta, start, 1e-10, "float64", tight=number)
    known = directions.around(jnp.asarray(np.linalg.qr(np.asarray(random_start(1, 0, number, theta.size, "float64")).T)[0].T), room)
    there, along = directions.turned(point.eigen, images, known)
    return directions.normals_along(problem, point, there, "float64"), point, along


@pytest.mark.parametrize(("number", "room"), [(1, 2), (2, 2), (3, 4)])
def test_the_third_derivatives_are_those_of_dense_tensors_in_any_basis_of_the_space(number, room):
    problem, theta = chebyshev_problem()
    there, point, along = measured(problem, theta, number, room)
    basis = there.basis[:number]
    np.testing.assert_allclose(basis @ basis.T, np.eye(number), atol=1e-12)
    np.testing.assert_allclose(there.hessian[:number, :number], basis @ along[:number].T, atol=1e-12)
    np.testing.assert_allclose(there.values[:number], point.eigen.values[:number], rtol=1e-12)
    for entry, (i, j) in enumerate(zip(*pairs(room), strict=True)):
        if j < number:
            exact = third_at(problem, theta, basis[i], basis[j])
            np.testing.assert_allclose(there.third[entry], exact, atol=1e-10 * float(jnp.linalg.norm(exact)))
        else:
            assert not there.third[entry].any()
    assert not there.basis[number:].any()
    assert not there.tilts[number:].any()


def test_the_tilts_are_what_the_turning_space_takes_of_the_gradient():
    problem, theta = chebyshev_problem()
    hessian = dense_hessian(problem, theta)
    values, vectors = np.linalg.eigh(hessian)
    there, _, along = measured(problem, theta, 2, 2)
    grad, basis = gradient_at(problem, theta), there.basis
    tops, others = vectors[:, -2:].T, vectors[:, :-2]
    for i in range(2):  # a_i = Hu_i + Σ over the eigenvectors a of the space of ∇³L(u_a,(λ_a − H)⁺g) where H is known in full
        exact = np.zeros(theta.size)
        for a, value in zip(tops, values[-2:], strict=True):
            w = others @ ((others.T @ grad) / (value - values[:-2]))
            exact += (a @ basis[i]) * third_at(problem, theta, a, w)
        rest = np.linalg.norm(there.tilts[i] - exact) / np.linalg.norm(exact)
        assert rest < 0.3  # 1/λ stands in for 1/(λ − λ_j) of what is not among the eigenvectors at hand
    step = 1e-5 * np.random.default_rng(0).standard_normal(theta.size)
    exactly = []
    for sign in (1, -1):
        turned = np.linalg.eigh(dense_hessian(problem, theta + sign * step))[1][:, -2:].T
        left, _, right = np.linalg.svd(np.asarray(basis) @ turned.T)
        exactly.append(left @ right @ turned @ gradient_at(problem, theta + sign * step))
    linear = (along + there.tilts) @ step
    assert np.linalg.norm((exactly[0] - exactly[1]) / 2 - linear) < 0.05 * np.linalg.norm(linear)


def test_one_direction_has_the_normals_of_one():
    problem, theta = chebyshev_problem()
    there, point, _ = measured(problem, theta, 1, 2)
    one = normals(problem, point, "float64")
    u, dS, tilt = one.u, one.dS, one.tilt
    sign = jnp.sign(u @ there.basis[0])
    alone = directions.first(there)
    top = jnp.sign(alone.u @ u)
    np.testing.assert_allclose(there.third[0], dS, rtol=1e-9, atol=1e-12 * float(jnp.linalg.norm(dS)))
    assert jnp.linalg.norm(sign * there.tilts[0] - tilt) < 0.1 * jnp.linalg.norm(tilt)  # with one eigenvector more at hand
    np.testing.assert_allclose(alone.dS, dS, rtol=1e-9, atol=1e-12 * float(jnp.linalg.norm(dS)))
    np.testing.assert_allclose(top * alone.u, u, atol=1e-12)


def test_the_basis_turns_as_little_as_it_can_where_eigenvectors_are_any():
    """Two equal eigenvalues: whatever vectors the solver gives, the basis is the one nearest to that before."""
    random = np.random.default_rng(3)
    space = np.linalg.qr(random.standard_normal((9, 2)))[0].T
    angle = 1.1
    others = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]) @ space  # mirrored, too
    turn = directions.aligned(jnp.asarray(others), jnp.asarray(space), 2)
    np.testing.assert_allclose(turn @ others, space, atol=1e-13)
    near = np.linalg.qr((space + 1e-3 * random.standard_normal(space.shape)).T)[0].T
    basis = directions.aligned(jnp.asarray(near), jnp.asarray(space), 2) @ near
    overlap = np.asarray(basis @ space.T)
    np.testing.assert_allclose(overlap, overlap.T, atol=1e-13)  # symmetric and positive: a polar factor of 1
    assert (np.linalg.eigvalsh(overlap) > 0.99).all()

"""Targets that a criterion takes are taken as what they are; the first that it would take for something else is named."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import engine
from engine.base.errors import UserError
from engine.problems.targets import require_finite, suited

X = np.linspace(-1, 1, 6)[:, None]
CLASSES = np.arange(6) % 3
SIGNS = np.sign(X)


@pytest.mark.parametrize(("criterion", "width", "targets"), [
    ("cross_entropy", 3, CLASSES), ("cross_entropy", 3, CLASSES.astype(np.uint8)), ("cross_entropy", 2, CLASSES % 2),
    ("mse", 3, CLASSES), ("half_mse", 3, CLASSES), ("mse", 3, X * np.ones(3)), ("mse", 3, np.eye(3, dtype=int)[CLASSES]),
    ("mse", 1, X), ("mse", 1, CLASSES[:, None] - 7), ("mse", 1, CLASSES + 1), ("half_mse", 1, X[:, 0]), ("mse", 1, X > 0),
    ("logistic", 1, SIGNS), ("logistic", 1, SIGNS[:, 0].astype(int)),
])  # fmt: skip
def test_targets_that_a_criterion_takes_stay_what_they_are(criterion, width, targets):
    taken = suited(criterion, (6, width), targets)
    np.testing.assert_array_equal(taken.ravel(), targets.ravel())
    assert taken.dtype == targets.dtype
    assert taken.shape == ((6, width) if targets.ndim == 2 or width == 1 else (6,))


@pytest.mark.parametrize(("criterion", "width", "targets", "said"), [
    ("logistic", 1, (X > 0).astype(float), r"targets\[0, 0\] = 0.0: logistic takes −1 and 1; if 0 and 1 are two classes, write −1 and 1 "
                                           r"for them, 2·targets − 1; if they are numbers, use mse"),
    ("logistic", 1, X > 0, r"targets\[0, 0\] = False: logistic takes −1 and 1; if 0 and 1 are two classes"),
    ("logistic", 1, CLASSES % 2 + 1, r"targets\[1, 0\] = 2: .* if 1 and 2 are two classes, write −1 and 1 for them; if they are numbers"),
    ("logistic", 1, CLASSES - 1, r"targets\[1, 0\] = 0: .* class labels go with cross_entropy, an output for each class; numbers go with"),
    ("logistic", 1, np.zeros(6), r"targets\[0, 0\] = 0.0: .* if it is a class, write −1 or 1 for it; if it is a number, use mse"),
    ("logistic", 2, SIGNS * np.ones(2), r"targets: 2 outputs of each example; logistic takes one, and its sign"),
    ("cross_entropy", 3, CLASSES - 1, r"targets\[0\] = -1: cross_entropy takes class labels from 0 to 2 with 3 outputs; if the labels "
                                      r"begin at -1, add 1; if −1 marks an example without a label, leave that example out"),
    ("cross_entropy", 3, CLASSES + 1, r"targets\[2\] = 3: .* if the labels begin at 1, subtract 1; if there are 4 classes, give the"),
    ("cross_entropy", 2, CLASSES, r"targets\[2\] = 2: .* from 0 to 1 with 2 outputs; if there are 3 classes, give the module 3 outputs"),
    ("cross_entropy", 3, 10 * CLASSES - 5, r"targets\[0\] = -5: .*; number the classes from 0"),
    ("cross_entropy", 3, CLASSES * 1.0, r"shape \(6,\) and format float64; cross_entropy expects integer class labels \(6,\)"),
    ("cross_entropy", 1, CLASSES, r"targets: one output of each example; cross_entropy takes one for each class, and logistic one for two"),
    ("mse", 3, CLASSES + 1, r"targets\[2\] = 3: mse takes class labels from 0 to 2 with 3 outputs; if the labels begin at 1, subtract 1; .*"
                            r"; if they are numbers, an array of the shape of the outputs, \(6, 3\), holds them"),
    ("half_mse", 3, -CLASSES, r"targets\[1\] = -1: half_mse takes class labels"),
    ("mse", 3, CLASSES * 1.0, r"mse expects \(6, 3\), as the outputs, or integer class labels \(6,\)"),
    ("mse", 1, np.ones((6, 2)), r"shape \(6, 2\) and format float64; mse expects \(6, 1\), as the outputs,$"),
    ("mse", 1, np.array([0, 1, np.nan, 3, 4, 5]), r"targets\[2, 0\] = nan: expected a finite number"),
    ("mse", 1, np.array([0, 1, 2, 3, -np.inf, 5]), r"targets\[4, 0\] = -inf: expected a finite number"),
    ("mse", 1, np.array([0, 1e300, 2, 3, 4, 5]), r"targets\[1, 0\] = 1e\+300: beyond the largest number of float32"),
])  # fmt: skip
def test_the_first_target_that_will_not_do_is_named_with_what_it_may_mean(criterion, width, targets, said):
    with pytest.raises(UserError, match=said):
        suited(criterion, (6, width), targets)


@pytest.mark.usefixtures("x64")
class TestFlax:
    """What `from_flax` makes of them."""

    def test_whole_numbers_with_one_output_are_real_targets(self):
        problem, theta = engine.from_flax(linen.Dense(1), X, CLASSES + 1, "mse")
        kernel, bias = (float(theta[k]) for k in (1, 0))
        np.testing.assert_allclose(problem.loss(theta), np.mean((kernel * X[:, 0] + bias - CLASSES - 1) ** 2), rtol=1e-12)
        assert problem.loss(theta) == engine.from_flax(linen.Dense(1), X, (CLASSES[:, None] + 1.0), "mse").problem.loss(theta)

    def test_labels_out_of_range_are_refused(self):
        with pytest.raises(UserError, match=r"targets\[2\] = 3"):
            engine.from_flax(linen.Dense(3), X, CLASSES + 1, "cross_entropy")

    @pytest.mark.parametrize(("inputs", "targets", "said"), [
        (np.where(X > 0.5, np.nan, X), X, r"inputs\[4, 0\] = nan: expected a finite number"),
        (X, list("abcdef"), r"targets: a list of format <U1; expected an array of numbers"),
        (X, np.ones(()), r"targets: an array of shape \(\)"),
        (np.ones((0, 1)), np.ones((0, 1)), r"inputs: an array of shape \(0, 1\); expected an example in each row"),
        ({"image": "abc"}, X, r"inputs\['image'\]: a str of format <U3; expected an array of numbers"),
        ((X, X[:2]), X, r"inputs and targets: arrays of shapes \(6, 1\), \(2, 1\); expected as many rows in each"),
    ])  # fmt: skip
    def test_what_are_no_numbers_are_refused(self, inputs, targets, said):
        with pytest.raises(UserError, match=said):
            engine.from_flax(linen.Dense(1), inputs, targets, "mse")

    def test_outputs_that_are_no_rows_are_refused(self):
        class Pair(linen.Module):
            @linen.compact
            def __call__(self, x):
                return linen.Dense(1)(x), x

        with pytest.raises(UserError, match=r"Pair: its outputs are tuple; mse expects \(6, …\), a row an example"):
            engine.from_flax(Pair(), X, X, "mse")
        with pytest.raises(UserError, match=r"its outputs are \(\); mse expects \(6, …\)"):
            engine.from_flax(linen.Sequential([linen.Dense(1), jnp.sum]), X, X, "mse")


def test_tokens_are_never_too_large():
    require_finite(np.array([2**62]), "inputs")

"""Which targets a criterion takes. The rest is refused by the first one that will not do, with what it may have been meant as.

For n examples and k outputs of each:
- `mse`, `half_mse`: real numbers in the shape of the outputs, whole ones too; with two outputs or more also class labels (n,), integers
  from 0 to k−1, which stand for one-hot vectors.
- `cross_entropy`: class labels (n,), integers from 0 to k−1, with two outputs or more.
- `logistic`: −1 or 1, in the shape of the outputs, of which there is one.
Where there is one output, (n,) is as good as (n, 1).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from engine.base.errors import UserError


def suited(criterion: str, outputs: tuple[int, ...], targets: np.ndarray, name: str = "targets") -> np.ndarray:
    """The targets, in the shape in which the criterion goes with outputs of this shape, (n, k). Raises UserError for others."""
    count, width = outputs[0], outputs[-1] if len(outputs) == 2 else 0
    if criterion == "cross_entropy" and width == 1:
        raise UserError(f"{name}: one output of each example; cross_entropy takes one for each class, and logistic one for two classes")
    if width == 1 and targets.shape == (count,):
        targets = targets[:, None]
    same = targets.shape == outputs
    labels = targets.shape == (count,) and np.issubdtype(targets.dtype, np.integer) and width > 1
    if not {"cross_entropy": labels, "logistic": same}.get(criterion, labels or same):
        numbers = {"cross_entropy": "", "logistic": f"{outputs}, −1 or 1"}.get(criterion, f"{outputs}, as the outputs,")
        choices = " or ".join(filter(None, [numbers, f"integer class labels ({count},)" if criterion != "logistic" and width > 1 else ""]))
        raise UserError(f"{name}: an array of shape {targets.shape} and format {targets.dtype}; {criterion} expects {choices}")
    if criterion == "logistic" and width > 1:
        raise UserError(f"{name}: {width} outputs of each example; logistic takes one, and its sign. For classes use cross_entropy or mse")
    require_finite(targets, name)
    if criterion == "logistic":
        _first_outside(np.abs(targets) != 1, targets, name, "logistic takes −1 and 1", _of_two)
    elif labels:
        takes = f"{criterion} takes class labels from 0 to {width - 1} with {width} outputs"
        _first_outside((targets < 0) | (targets >= width), targets, name, takes, lambda values: _of_labels(values, criterion, outputs))
    return targets


def require_finite(array: np.ndarray, name: str) -> None:
    """Raise UserError naming the first number of an array that is none, or that float32 cannot hold."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(array.astype(np.float32, copy=False))
    if (at := first(wrong)) is not None:
        why = "expected a finite number" if not np.isfinite(array[at]) else "beyond the largest number of float32"
        raise UserError(f"{place(name, at)} = {array[at]!s}: {why}")


def first(wrong: np.ndarray) -> tuple[int, ...] | None:
    """Where the first of some is that are wrong; None where there is none."""
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape)) if wrong.any() else None


def place(name: str, at: tuple[int, ...]) -> str:
    """`name[2, 0]`; the name alone for a single number."""
    return f"{name}[{', '.join(map(str, at))}]" if at else name


def _first_outside(wrong: np.ndarray, targets: np.ndarray, name: str, takes: str, meant: Callable[[np.ndarray], list[str]]) -> None:
    if (at := first(wrong)) is not None:
        raise UserError(f"{place(name, at)} = {targets[at]!s}: {takes}; {'; '.join(meant(np.unique(targets)))}")


def _of_two(values: np.ndarray) -> list[str]:
    """What targets with these values may have been meant as, where logistic finds them."""
    if len(values) > 2:
        return ["class labels go with cross_entropy, an output for each class; numbers go with mse"]
    if len(values) == 1:
        return ["if it is a class, write −1 or 1 for it", "if it is a number, use mse"]
    low, high = (_written(value) for value in (values[0], values[-1]))
    classes = f"if {low} and {high} are two classes, write −1 and 1 for them{', 2·targets − 1' if (low, high) == ('0', '1') else ''}"
    return [classes, "if they are numbers, use mse"]


def _of_labels(values: np.ndarray, criterion: str, outputs: tuple[int, ...]) -> list[str]:
    """What these labels, some of them out of range, may have been meant as."""
    low, high, width = int(values[0]), int(values[-1]), outputs[-1]
    meant = []
    if low and high - low < width:
        meant.append(f"if the labels begin at {low}, {'subtract' if low > 0 else 'add'} {abs(low)}")
    if low == -1:
        meant.append("if −1 marks an example without a label, leave that example out")
    if low >= 0:
        meant.append(f"if there are {high + 1} classes, give the module {high + 1} outputs")
    if criterion != "cross_entropy":
        meant.append(f"if they are numbers, an array of the shape of the outputs, {outputs}, holds them")
    return meant or ["number the classes from 0"]


def _written(value: Any) -> str:
    return f"{float(value):g}"

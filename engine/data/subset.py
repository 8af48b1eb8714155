"""Which examples of a data set are trained on and tested on, and the rule in words."""

from typing import Any, NamedTuple

import numpy as np

from engine.base.errors import UserError
from engine.data.embedded import Pool
from engine.spec import Data

_FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CLASS_NAMES = {
    "fashion": _FASHION,
    "digits": tuple("0123456789"),
    "sentences": ("against", "for"),
    "fashion_mnist": _FASHION,
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "sst2": ("against", "for"),
}


class Chosen(NamedTuple):
    """A subset of a pool: its inputs as they were, and their targets."""

    inputs: Any
    targets: np.ndarray


def choose(part: Data, pool: Pool) -> tuple[Chosen, Chosen, str]:
    """The training examples, the test examples, and the rule in words. Raises UserError for what is not there."""
    classes = _classes(part)
    train, count = _first(part, "examples", part.examples, pool.labels, classes)
    rule = f"the first {count} {_of(part, classes)} in file order"
    trained = _taken(part, pool.inputs, pool.labels, train, classes)
    if not part.test_examples:
        return trained, _taken(part, pool.inputs, pool.labels, train[:0], classes), rule
    inputs, labels, used, source = pool.test_inputs, pool.test_labels, train[:0], "of the test set"
    if inputs is None or labels is None:
        inputs, labels, used, source = pool.inputs, pool.labels, train, "after them"
    test, count = _first(part, "test_examples", part.test_examples, labels, classes, used)
    each = " a class" if part.order == "by_class" else ""
    return trained, _taken(part, inputs, labels, test, classes), f"{rule}, tested on the first {count}{each} {source}"


def _classes(part: Data) -> tuple[int, ...]:
    """The labels that are kept, in the order they were asked for."""
    names = CLASS_NAMES[part.name]
    classes = part.classes or tuple(range(len(names)))
    given = f"[problem.data] classes = {list(part.classes)}"
    for label in classes:
        if not 0 <= label < len(names):
            raise UserError(f'{given}: "{part.name}" has no class {label}; its labels are 0 to {len(names) - 1}')
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(f"{given}: expected two different labels or more, or [] for all of them")
    return classes


def _of(part: Data, classes: tuple[int, ...]) -> str:
    names = CLASS_NAMES[part.name]
    if len(part.classes) == 2:
        return f"of {names[classes[0]]} (−1) and {names[classes[1]]} (+1)"
    return f"of {'' if part.order == 'file' else 'each of '}{len(classes)} classes"


def _first(part: Data, field: str, count: int, labels: np.ndarray, classes: tuple[int, ...], used: Any = ()) -> tuple[np.ndarray, int]:
    """Places of the first `count` examples of these classes that are not used yet; and how many they are, of all or a class."""
    free = np.isin(labels, classes)
    free[np.asarray(used, int)] = False
    left = " left" if len(used) else ""
    if part.order == "file":
        places = np.flatnonzero(free)
        if count > len(places):
            raise UserError(f'[problem.data] {field} = {count}: "{part.name}" has {len(places)}{left} of {len(classes)} classes')
        return places[:count], count
    share, rest = divmod(count, len(classes))
    if rest or not share:
        better = max(1, share) * len(classes)
        raise UserError(f"[problem.data] {field} = {count}: {len(classes)} classes take equal shares; {better} would do")
    by_class = [np.flatnonzero(free & (labels == label)) for label in classes]
    fewest = min(map(len, by_class))
    if share > fewest:
        raise UserError(
            f'[problem.data] {field} = {count}: "{part.name}" has {fewest} a class{left}, so at most '
            f"{fewest * len(classes)} of {len(classes)} classes"
        )
    return np.concatenate([places[:share] for places in by_class]), share


def _taken(part: Data, inputs: Any, labels: np.ndarray, places: np.ndarray, classes: tuple[int, ...]) -> Chosen:
    """The examples at these places; classes are numbered in the order they were asked for, two of them −1 and +1."""
    number = np.zeros(max(classes) + 1, np.int32)
    number[list(classes)] = np.arange(len(classes))
    index = number[labels[places]]
    taken = inputs[places] if isinstance(inputs, np.ndarray) else [inputs[k] for k in places]
    return Chosen(taken, (2 * index - 1).astype(np.float32)[:, None] if len(part.classes) == 2 else index)

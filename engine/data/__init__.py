"""Training data as arrays: which examples of which data set, and how they became inputs and targets.

Full-batch gradient descent sees one fixed subset: the first examples of each class in file order, in equal shares, class by
class. `Dataset.rule` says in a sentence what was done, and `Dataset.sha256` identifies the result.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev

from engine.data import embedded, words
from engine.data.embedded import Pool
from engine.errors import UserError, one_of
from engine.spec import Data


class Dataset(NamedTuple):
    """Inputs and targets of a full-batch training problem."""

    name: str
    inputs: np.ndarray
    """float32 (n, …), images as (n, height, width, channels); or int32 token ids (n, length)."""
    targets: np.ndarray
    """float32 (n, 1): ±1 for two classes, real numbers for a regression; else int32 class labels (n,) from 0."""
    classes: int
    """Number of classes; 0 for a regression."""
    rule: str
    """How the examples were chosen and prepared, in a sentence."""
    vocabulary: tuple[str, ...] = ()
    """The word of each token id; empty unless the inputs are tokens."""
    test_inputs: np.ndarray | None = None
    """Inputs to test on, (m, …), prepared with the statistics of the training inputs; None where none were asked for."""
    test_targets: np.ndarray | None = None

    @property
    def outputs(self) -> int:
        """Outputs a network needs: one for two classes or a regression, else one a class."""
        return 1 if self.targets.ndim == 2 else self.classes

    @property
    def sha256(self) -> str:
        """The SHA-256 sum of the bytes of the training inputs and targets."""
        return hashlib.sha256(self.inputs.tobytes() + self.targets.tobytes()).hexdigest()


CLASS_NAMES = {
    "fashion": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    "digits": tuple("0123456789"),
    "sentences": ("against", "for"),
}


def load(part: Data) -> Dataset:
    """The data set of a specification. Raises UserError when it asks for what is not there."""
    if part.name == "chebyshev":
        return _chebyshev(part)
    if part.name == "sentences":
        return _sentences(part)
    return _images(part)


def _images(part: Data) -> Dataset:
    pool = embedded.fashion() if part.name == "fashion" else embedded.digits()
    train, test, rule = _choose(part, pool)
    images, test_images = (_padded(np.asarray(chosen.inputs).astype(float), part.pad_to) for chosen in (train, test))
    (inputs, test_inputs), how = _standardized(part.standardize, images, test_images)
    size = f"padded to {part.pad_to}×{part.pad_to}, " if part.pad_to else ""
    return _dataset(part, f"{rule}; {size}{how}", inputs, train.targets, test_inputs, test.targets)


def _sentences(part: Data) -> Dataset:
    _refuse_images(part)
    if part.standardize != "none":
        raise UserError(
            f'[problem.data] standardize = "{part.standardize}": the tokens of "sentences" are no quantities; use "none"'
        )
    train, test, rule = _choose(part, embedded.sentences())
    vocabulary = words.vocabulary(train.inputs)
    how = f"{len(vocabulary)} words that occur twice or more, at most {words.MAX_TOKENS} tokens"
    inputs, test_inputs = (words.tokens(chosen.inputs, vocabulary) for chosen in (train, test))
    return _dataset(part, f"{rule}; {how}", inputs, train.targets, test_inputs, test.targets)._replace(vocabulary=vocabulary)


def _dataset(part: Data, rule: str, inputs: np.ndarray, targets: np.ndarray, *test: np.ndarray) -> Dataset:
    classes = len(part.classes) or len(CLASS_NAMES[part.name])
    found = Dataset(part.name, inputs, targets, classes, rule)
    return found._replace(test_inputs=test[0], test_targets=test[1]) if part.test_examples else found


def _chebyshev(part: Data) -> Dataset:
    _refuse_images(part)
    if part.classes:
        raise UserError(f'[problem.data] classes = {list(part.classes)}: "chebyshev" is a regression and has no classes; use []')
    if part.test_examples:
        raise UserError(f'[problem.data] test_examples = {part.test_examples}: "chebyshev" has none to test on; use 0')
    points = np.linspace(-1, 1, part.examples)[:, None]
    targets = Chebyshev.basis(part.degree)(points).astype(np.float32)
    (inputs,), how = _standardized(part.standardize, points)
    rule = f"{part.examples} evenly spaced points on [−1, 1], targets T{part.degree}; {how}"
    return Dataset(part.name, inputs, targets, 0, rule)


class Chosen(NamedTuple):
    """A subset of a pool: its inputs as they were, and their targets."""

    inputs: Any
    targets: np.ndarray


def _choose(part: Data, pool: Pool) -> tuple[Chosen, Chosen, str]:
    """The training examples, the test examples, and the rule in words."""
    names = CLASS_NAMES[part.name]
    classes = part.classes or tuple(range(len(names)))
    given = f"[problem.data] classes = {list(part.classes)}"
    for label in classes:
        if not 0 <= label < len(names):
            raise UserError(f'{given}: "{part.name}" has no class {label}; its labels are 0 to {len(names) - 1}')
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(f"{given}: expected two different labels or more, or [] for all of them")
    share = _share(part, "examples", part.examples, pool.labels, classes)
    signs = f"{names[classes[0]]} (−1) and {names[classes[1]]} (+1)"
    which = f"{share} of {signs}" if len(part.classes) == 2 else f"{share} of each of {len(classes)} classes"
    rule = f"the first {which} in file order"
    train = _subset(part, pool.inputs, pool.labels, classes, 0, share)
    if not part.test_examples:
        return train, _subset(part, pool.inputs, pool.labels, classes, 0, 0), rule
    if pool.test_inputs is not None and pool.test_labels is not None:
        held = _share(part, "test_examples", part.test_examples, pool.test_labels, classes)
        test = _subset(part, pool.test_inputs, pool.test_labels, classes, 0, held)
        return train, test, f"{rule}, tested on the first {held} a class of the test set"
    held = _share(part, "test_examples", part.test_examples, pool.labels, classes, used=share)
    test = _subset(part, pool.inputs, pool.labels, classes, share, share + held)
    return train, test, f"{rule}, tested on the {held} a class after them"


def _share(part: Data, field: str, count: int, labels: np.ndarray, classes: tuple[int, ...], used: int = 0) -> int:
    """Examples a class, for `count` of all classes, where the first `used` of each are taken already."""
    share, rest = divmod(count, len(classes))
    if rest or not share:
        better = max(1, share) * len(classes)
        raise UserError(f"[problem.data] {field} = {count}: {len(classes)} classes take equal shares; {better} would do")
    fewest = min(int(np.sum(labels == label)) for label in classes) - used
    if share > fewest:
        raise UserError(
            f'[problem.data] {field} = {count}: "{part.name}" has {fewest} a class{" left" if used else ""}, so at most '
            f"{fewest * len(classes)} of {len(classes)} classes"
        )
    return share


def _subset(part: Data, inputs: Any, labels: np.ndarray, classes: tuple[int, ...], start: int, stop: int) -> Chosen:
    """Examples `start` to `stop` of each class, class by class."""
    chosen = np.concatenate([np.flatnonzero(labels == label)[start:stop] for label in classes])
    index = np.repeat(np.arange(len(classes), dtype=np.int32), stop - start)
    taken = inputs[chosen] if isinstance(inputs, np.ndarray) else [inputs[k] for k in chosen]
    return Chosen(taken, (2 * index - 1).astype(np.float32)[:, None] if len(part.classes) == 2 else index)


def _padded(images: np.ndarray, side: int) -> np.ndarray:
    """Images (n, h, w, c) in the middle of zeros, (n, side, side, c); a side of 0 leaves them as they are."""
    if not side:
        return images
    height, width = images.shape[1:3]
    if side < max(height, width):
        raise UserError(f"[problem.data] pad_to = {side}: the images are {height}×{width}; use 0 or a larger side")
    above, left = (side - height) // 2, (side - width) // 2
    return np.pad(images, ((0, 0), (above, side - height - above), (left, side - width - left), (0, 0)))


def _standardized(how: str, inputs: np.ndarray, *others: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Inputs, and others after them, less the mean of the inputs and divided by their spread, in float32; and how, in words."""
    if how == "none":
        return [array.astype(np.float32) for array in (inputs, *others)], "not standardized"
    mean = inputs.mean(axis=0) if how == "mean_image" else inputs.mean()
    spread = (inputs - mean).std()
    if spread == 0:
        raise UserError(f'[problem.data] standardize = "{how}": all inputs are equal; use more examples, or "none"')
    removed = "mean image" if how == "mean_image" else "mean"
    prepared = [((array - mean) / spread).astype(np.float32) for array in (inputs, *others)]
    return prepared, f"{removed} removed, divided by the standard deviation"


def _refuse_images(part: Data) -> None:
    if part.pad_to:
        with_images = one_of(["fashion", "digits"])
        raise UserError(f'[problem.data] pad_to = {part.pad_to}: "{part.name}" has no images; use 0, or one of {with_images}')

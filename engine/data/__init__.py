"""Training data as arrays: which examples of which data set, and how they became inputs and targets.

Full-batch gradient descent sees one fixed subset: the first examples of each class in file order, in equal shares, class by
class. `Dataset.rule` says in a sentence what was done, and `Dataset.sha256` identifies the result.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev

from engine.data import embedded, words
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

    @property
    def outputs(self) -> int:
        """Outputs a network needs: one for two classes or a regression, else one a class."""
        return 1 if self.targets.ndim == 2 else self.classes

    @property
    def sha256(self) -> str:
        """The SHA-256 sum of the bytes of inputs and targets."""
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
    images, labels = embedded.fashion() if part.name == "fashion" else embedded.digits()
    chosen, targets, rule = _choose(part, labels)
    padded = _padded(images[chosen].astype(float), part.pad_to)
    inputs, how = _standardized(padded, part.standardize)
    size = f"padded to {part.pad_to}×{part.pad_to}, " if part.pad_to else ""
    return Dataset(part.name, inputs, targets, len(part.classes) or 10, f"{rule}; {size}{how}")


def _sentences(part: Data) -> Dataset:
    _refuse_images(part)
    if part.standardize != "none":
        raise UserError(
            f'[problem.data] standardize = "{part.standardize}": the tokens of "sentences" are no quantities; use "none"'
        )
    sentences, labels = embedded.sentences()
    chosen, targets, rule = _choose(part, labels)
    kept = [sentences[k] for k in chosen]
    vocabulary = words.vocabulary(kept)
    how = f"{len(vocabulary)} words that occur twice or more, at most {words.MAX_TOKENS} tokens"
    return Dataset(part.name, words.tokens(kept, vocabulary), targets, 2, f"{rule}; {how}", vocabulary)


def _chebyshev(part: Data) -> Dataset:
    _refuse_images(part)
    if part.classes:
        raise UserError(f'[problem.data] classes = {list(part.classes)}: "chebyshev" is a regression and has no classes; use []')
    points = np.linspace(-1, 1, part.examples)[:, None]
    targets = Chebyshev.basis(part.degree)(points).astype(np.float32)
    inputs, how = _standardized(points, part.standardize)
    rule = f"{part.examples} evenly spaced points on [−1, 1], targets T{part.degree}; {how}"
    return Dataset(part.name, inputs, targets, 0, rule)


def _choose(part: Data, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Indices of the chosen examples, their targets, and the rule in words."""
    names = CLASS_NAMES[part.name]
    classes = part.classes or tuple(range(len(names)))
    given = f"[problem.data] classes = {list(part.classes)}"
    for label in classes:
        if not 0 <= label < len(names):
            raise UserError(f'{given}: "{part.name}" has no class {label}; its labels are 0 to {len(names) - 1}')
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(f"{given}: expected two different labels or more, or [] for all of them")
    share, rest = divmod(part.examples, len(classes))
    if rest or not share:
        better = max(1, share) * len(classes)
        raise UserError(
            f"[problem.data] examples = {part.examples}: {len(classes)} classes take equal shares; {better} would do"
        )
    places = [np.flatnonzero(labels == label) for label in classes]
    fewest = min(map(len, places))
    if share > fewest:
        raise UserError(
            f'[problem.data] examples = {part.examples}: "{part.name}" has {fewest} a class, so at most '
            f"{fewest * len(classes)} of {len(classes)} classes"
        )
    chosen = np.concatenate([place[:share] for place in places])
    index = np.repeat(np.arange(len(classes), dtype=np.int32), share)
    if len(part.classes) == 2:
        signs = f"{names[classes[0]]} (−1) and {names[classes[1]]} (+1)"
        return chosen, (2 * index - 1).astype(np.float32)[:, None], f"the first {share} of {signs} in file order"
    return chosen, index, f"the first {share} of each of {len(classes)} classes in file order"


def _padded(images: np.ndarray, side: int) -> np.ndarray:
    """Images (n, h, w, c) in the middle of zeros, (n, side, side, c); a side of 0 leaves them as they are."""
    if not side:
        return images
    height, width = images.shape[1:3]
    if side < max(height, width):
        raise UserError(f"[problem.data] pad_to = {side}: the images are {height}×{width}; use 0 or a larger side")
    above, left = (side - height) // 2, (side - width) // 2
    return np.pad(images, ((0, 0), (above, side - height - above), (left, side - width - left), (0, 0)))


def _standardized(inputs: np.ndarray, how: str) -> tuple[np.ndarray, str]:
    """Inputs in float32, less a mean and divided by the standard deviation of all of them; and how, in words."""
    if how == "none":
        return inputs.astype(np.float32), "not standardized"
    mean = inputs.mean(axis=0) if how == "mean_image" else inputs.mean()
    spread = (inputs - mean).std()
    if spread == 0:
        raise UserError(f'[problem.data] standardize = "{how}": all inputs are equal; use more examples, or "none"')
    removed = "mean image" if how == "mean_image" else "mean"
    return ((inputs - mean) / spread).astype(np.float32), f"{removed} removed, divided by the standard deviation"


def _refuse_images(part: Data) -> None:
    if part.pad_to:
        with_images = one_of(["fashion", "digits"])
        raise UserError(f'[problem.data] pad_to = {part.pad_to}: "{part.name}" has no images; use 0, or one of {with_images}')

"""Training data as arrays: which examples of which data set, and how they became inputs and targets.

Full-batch gradient descent sees one fixed subset, the first examples in the order the specification asks for. `Dataset.rule`
says in a sentence what was done, and `Dataset.sha256` identifies the result.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev

import engine
from engine.base.errors import UserError, one_of
from engine.data import catalog, compact, embedded, images, words
from engine.data.embedded import Pool
from engine.data.subset import CLASS_NAMES, choose
from engine.spec import TEXTS, Data


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
    origin: str = "ships with eos"
    """Where the examples come from, with versions and folder."""

    @property
    def outputs(self) -> int:
        """Outputs a network needs: one for two classes or a regression, else one a class."""
        return 1 if self.targets.ndim == 2 else self.classes

    @property
    def sha256(self) -> str:
        """The SHA-256 sum of the bytes of the training inputs and targets."""
        return hashlib.sha256(self.inputs.tobytes() + self.targets.tobytes()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What a run's provenance says of its data."""
        facts: dict[str, Any] = {
            "data": self.name, "rule": self.rule, "sha256": self.sha256, "origin": self.origin, "examples": len(self.inputs),
        }  # fmt: skip
        if self.test_inputs is not None:
            facts["test_examples"] = len(self.test_inputs)
        if self.vocabulary:
            listed = hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest()
            facts |= {"vocabulary": len(self.vocabulary), "vocabulary_sha256": listed}
        return facts


EMBEDDED = {"fashion": embedded.fashion, "digits": embedded.digits, "sentences": embedded.sentences}
IMAGES = [name for name in CLASS_NAMES if name not in TEXTS]


def load(part: Data) -> Dataset:
    """The data set of a specification. Raises UserError when it asks for what is not there."""
    if part.name == "chebyshev":
        return _chebyshev(part)
    pool, origin = _pool(part)
    found = _sentences(part, pool) if part.name in TEXTS else _images(part, pool)
    return found._replace(origin=origin)


def _pool(part: Data) -> tuple[Pool, str]:
    """All examples of a data set, and where they come from."""
    if part.name in EMBEDDED:
        return EMBEDDED[part.name](), f"ships with eos {engine.__version__}"
    entry, where = catalog.ENTRIES[part.name], catalog.folder(part.data_dir)
    if not catalog.is_prepared(entry, where):
        raise catalog.unavailable(entry, where, f"not prepared in {where}")
    found = compact.read(entry, where)
    if found is None:
        from engine.data import upstream  # imports tensorflow-datasets: seconds

        found = upstream.read(entry, where)
    return found[0], f"{found[1]}, in {where}"


def _images(part: Data, pool: Pool) -> Dataset:
    if part.vocab_file:
        raise UserError(f'[problem.data] vocab_file = "{part.vocab_file}": "{part.name}" has no words; use ""')
    train, test, rule = choose(part, pool)
    coloured = (images.coloured(chosen.inputs, part.channels) for chosen in (train, test))
    pixels, test_pixels = (images.padded(chosen.astype(float), part.pad_to) for chosen in coloured)
    (inputs, test_inputs), how = images.standardized(part.standardize, pixels, test_pixels)
    size = f"padded to {part.pad_to}×{part.pad_to}, " if part.pad_to else ""
    colour = f"grey repeated in {part.channels} channels, " if part.channels > train.inputs.shape[-1] else ""
    return _dataset(part, f"{rule}; {size}{colour}{how}", inputs, train.targets, test_inputs, test.targets)


def _sentences(part: Data, pool: Pool) -> Dataset:
    _refuse_images(part)
    if part.standardize != "none":
        raise UserError(
            f'[problem.data] standardize = "{part.standardize}": the tokens of "{part.name}" are no quantities; use "none"'
        )
    train, test, rule = choose(part, pool)
    if part.vocab_file:
        vocabulary = words.read_pieces(part.vocab_file)
        how = f"{len(vocabulary)} word pieces of {Path(part.vocab_file).name}"
    else:
        vocabulary = words.vocabulary(train.inputs)
        how = f"{len(vocabulary)} words that occur twice or more"
    tokens = words.piece_tokens if part.vocab_file else words.tokens
    inputs, test_inputs = (tokens(chosen.inputs, vocabulary) for chosen in (train, test))
    rule = f"{rule}; {how}, at most {words.MAX_TOKENS} tokens"
    return _dataset(part, rule, inputs, train.targets, test_inputs, test.targets)._replace(vocabulary=vocabulary)


def _dataset(part: Data, rule: str, inputs: np.ndarray, targets: np.ndarray, *test: np.ndarray) -> Dataset:
    classes = len(part.classes) or len(CLASS_NAMES[part.name])
    found = Dataset(part.name, inputs, targets, classes, rule)
    return found._replace(test_inputs=test[0], test_targets=test[1]) if part.test_examples else found


def _chebyshev(part: Data) -> Dataset:
    _refuse_images(part)
    if part.classes:
        raise UserError(f'[problem.data] classes = {list(part.classes)}: "chebyshev" is a regression and has no classes; use []')
    for field, given, use in (("test_examples", part.test_examples, "0"), ("vocab_file", part.vocab_file, '""')):
        if given:
            raise UserError(f'[problem.data] {field} = {given}: "chebyshev" has no such thing; use {use}')
    if part.order == "file":
        raise UserError('[problem.data] order = "file": "chebyshev" comes from no file; use "by_class"')
    points = np.linspace(-1, 1, part.examples)[:, None]
    targets = Chebyshev.basis(part.degree)(points).astype(np.float32)
    (inputs,), how = images.standardized(part.standardize, points)
    rule = f"{part.examples} evenly spaced points on [−1, 1], targets T{part.degree}; {how}"
    return Dataset(part.name, inputs, targets, 0, rule, origin="computed")


def _refuse_images(part: Data) -> None:
    for field, value in (("pad_to", part.pad_to), ("channels", part.channels)):
        if value:
            raise UserError(f'[problem.data] {field} = {value}: "{part.name}" has no images; use 0, or one of {one_of(IMAGES)}')

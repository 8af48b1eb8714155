"""The data sets that ship inside the package, read from their files and checked against their sums.

Where each comes from and under which licence: `NOTICE.md` beside this file.
"""

import gzip
import hashlib
import io
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from engine.base.errors import UserError

SHA256 = {
    "fashion_mnist_5k.npz": "5de05f4efcbb2713f7dbeeb1ba7286288c73937220f24d8e0c5b9212aa3732cb",
    "digits.npz": "6f801551877abf69fbf3711373bb642a18dc933430a3385cd6febc235225ea6f",
    "movie_sentences.tsv.gz": "53f1a3f50b6560b198464f552cd8891bf352adf8fd2978c2e82ed0fde73b702a",
}


class Pool(NamedTuple):
    """The examples that subsets are taken from, in file order."""

    inputs: np.ndarray | list[str]
    """Images (n, height, width, channels), uint8; or n sentences."""
    labels: np.ndarray
    """Class labels (n,) from 0."""
    test_inputs: np.ndarray | list[str] | None = None
    """The same for the test examples; None where the data set has none of its own."""
    test_labels: np.ndarray | None = None


def fashion() -> Pool:
    """Fashion-MNIST: images (5000, 28, 28, 1) of 0 to 255, 500 a class, and 100 a class to test on."""
    arrays = np.load(io.BytesIO(_checked("fashion_mnist_5k.npz")), allow_pickle=False)
    return Pool(arrays["x_train"][..., None], arrays["y_train"], arrays["x_test"][..., None], arrays["y_test"])


def digits() -> Pool:
    """Handwritten digits: images (1797, 8, 8, 1) of 0 to 16; no test examples of their own."""
    arrays = np.load(io.BytesIO(_checked("digits.npz")), allow_pickle=False)
    return Pool(arrays["x"][..., None], arrays["y"])


def sentences() -> Pool:
    """Sentences on films and whether each is for (1) or against (0): 2,000, and 400 to test on; balanced."""
    lines = gzip.decompress(_checked("movie_sentences.tsv.gz")).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]  # the first line names the columns

    def part(name: str) -> tuple[list[str], np.ndarray]:
        kept = [(text, int(label)) for split, label, text in rows if split == name]
        return [text for text, _ in kept], np.array([label for _, label in kept])

    return Pool(*part("train"), *part("test"))


def check() -> tuple[str, ...]:
    """The names of the embedded files, once each has been compared with its sum. Raises UserError at the first that differs."""
    for name in SHA256:
        _checked(name)
    return tuple(SHA256)


def _checked(name: str) -> bytes:
    """The bytes of an embedded file. Raises UserError when it is missing or not the file that was packed."""
    path = files("engine.data") / name
    try:
        body = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the embedded data cannot be read ({error.strerror}); install eos-tui again") from None
    if hashlib.sha256(body).hexdigest() != SHA256[name]:
        raise UserError(f"{path}: not the file that eos-tui ships (its SHA-256 sum differs); install eos-tui again")
    return body

"""Sentences as rows of token ids: a vocabulary of whole words, taken from the training subset alone, or of word pieces.

The same sentences always give the same vocabulary: words are sorted by falling count, then by spelling. A WordPiece
vocabulary is a user's own file; a word becomes the longest piece it begins with, then the longest of the rest, and so on.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engine.base.errors import UserError
from engine.base.files import read_plain

SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
PAD, UNKNOWN, START = range(3)
MAX_TOKENS = 64
MAX_VOCABULARY_BYTES = 64 * 1024**2
MIN_COUNT = 2
MAX_WORD = 100
"""Letters of the longest word that is cut into pieces."""

_PIECED = re.compile(r"[^\W_]+|[^\w\s]|_")  # letters and digits, or one mark
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[^\sa-z0-9]")


def split(sentence: str) -> list[str]:
    """The lower-case words and punctuation marks of a sentence."""
    return _WORD.findall(sentence.lower())


def vocabulary(sentences: list[str]) -> tuple[str, ...]:
    """The special tokens, then every word that occurs at least `MIN_COUNT` times."""
    counts = Counter(word for sentence in sentences for word in split(sentence))
    frequent = [word for word, count in counts.items() if count >= MIN_COUNT]
    return SPECIAL + tuple(sorted(frequent, key=lambda word: (-counts[word], word)))


def tokens(sentences: list[str], words: tuple[str, ...]) -> np.ndarray:
    """[CLS] and the words of each sentence as ids, at most `MAX_TOKENS`, filled up with [PAD]: (n, longest), int32."""
    index = {word: k for k, word in enumerate(words)}
    return _filled(START, ((index.get(word, UNKNOWN) for word in split(sentence)) for sentence in sentences))


def read_pieces(path: str) -> tuple[str, ...]:
    """A WordPiece vocabulary: one piece a line, those inside a word beginning with ##. Raises UserError for anything else."""
    try:
        pieces = tuple(read_plain(Path(path), MAX_VOCABULARY_BYTES, follow=True).decode("utf-8").splitlines())
    except OSError as error:
        raise UserError(f"{path}: the vocabulary cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; a vocabulary has one piece a line") from None
    missing = [special for special in SPECIAL if special not in pieces]
    if missing or pieces[PAD] != SPECIAL[PAD]:
        raise UserError(f"{path}: not a WordPiece vocabulary: expected [PAD] on the first line, and [UNK] and [CLS]")
    if len(set(pieces)) < len(pieces):
        twice = next(piece for piece, count in Counter(pieces).items() if count > 1)
        raise UserError(f"{path}: {twice!a} stands there twice; a vocabulary has each piece once")
    return pieces


def piece_tokens(sentences: list[str], words: tuple[str, ...]) -> np.ndarray:
    """[CLS] and the word pieces of each sentence as ids, at most `MAX_TOKENS`, filled up with [PAD]: (n, longest), int32."""
    index = {piece: k for k, piece in enumerate(words)}
    cut: dict[str, list[int]] = {}
    rows = []
    for sentence in sentences:
        plain = "".join(c for c in unicodedata.normalize("NFD", sentence.lower()) if unicodedata.category(c) != "Mn")
        found = _PIECED.findall(plain)
        rows.append([k for word in found for k in cut.setdefault(word, _pieces(word, index))])
    return _filled(index[SPECIAL[START]], rows)


def _pieces(word: str, index: dict[str, int]) -> list[int]:
    """A word as the longest piece it begins with, then the longest of the rest; [UNK] where one of them is not known."""
    found, start = [], 0
    while start < len(word):
        inside = "##" if start else ""
        ends = (end for end in range(len(word), start, -1) if inside + word[start:end] in index)
        end = next(ends, 0)
        if not end or len(word) > MAX_WORD:
            return [index[SPECIAL[UNKNOWN]]]
        found.append(index[inside + word[start:end]])
        start = end
    return found


def _filled(start: int, sentences: Iterable[Iterable[int]]) -> np.ndarray:
    rows = [[start, *ids][:MAX_TOKENS] for ids in sentences]
    filled = np.full((len(rows), max(map(len, rows), default=0)), PAD, np.int32)  # longer rows of [PAD] would change nothing
    for k, row in enumerate(rows):
        filled[k, : len(row)] = row
    return filled

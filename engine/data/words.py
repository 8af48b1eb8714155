"""Sentences as rows of token ids: a vocabulary of whole words, taken from the training subset alone.

The same sentences always give the same vocabulary: words are sorted by falling count, then by spelling.
"""

import re
from collections import Counter

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
PAD, UNKNOWN, START = range(3)
MAX_TOKENS = 64
MIN_COUNT = 2

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
    rows = [[START, *(index.get(word, UNKNOWN) for word in split(sentence))][:MAX_TOKENS] for sentence in sentences]
    filled = np.full((len(rows), max(map(len, rows), default=0)), PAD, np.int32)  # longer rows of [PAD] would change nothing
    for k, row in enumerate(rows):
        filled[k, : len(row)] = row
    return filled

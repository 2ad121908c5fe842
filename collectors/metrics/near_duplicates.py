"""Texts that nearly repeat each other, so that a split for routers keeps them together.

Owns the likeness: the share of common word triples (Jaccard), without the triples of many texts. A few-shot context
stands before every question of a task and would make them all alike. Knows no tasks and no splits.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Texts with at least this share of common triples belong together.
LIKENESS = 0.8
#: A triple in more texts than this is part of a template. A family of near-duplicates that is larger is one, too.
COMMON = 50

_WORD = re.compile(r"\w+")
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))

Groups = npt.NDArray[np.int64]


def near_groups(texts: Sequence[str]) -> Groups:
    """(texts,): equal numbers for texts that are equal but for case, spaces and punctuation, or nearly repeat each
    other.

    Likeness is passed on: if a is like b and b like c, all three belong together. The numbers follow the first text of
    each group. Needs SciPy.
    """
    from scipy.sparse.csgraph import connected_components

    words = [_WORD.findall(text.casefold()) for text in texts]
    plain = {" ".join(one): row for row, one in reversed(list(enumerate(words)))}
    first = np.array([plain[" ".join(one)] for one in words], np.int64)
    kept = np.unique(first)
    _, labels = connected_components(_alike([words[row] for row in kept]), directed=False)
    of_kept = np.zeros(len(texts), np.int64)
    of_kept[kept] = labels
    return _in_order(of_kept[first])


def _alike(words: list[list[str]]) -> object:
    """(texts, texts): a sparse matrix with an entry for each pair that is alike."""
    from scipy.sparse import csr_array

    rows, triples = _triples(words)
    names, columns = np.unique(triples, return_inverse=True)
    pairs = np.unique(np.stack([rows, columns]), axis=1) if len(rows) else np.zeros((2, 0), np.int64)
    counts = np.bincount(pairs[1], minlength=len(names))
    pairs = pairs[:, counts[pairs[1]] <= COMMON]
    sizes = np.bincount(pairs[0], minlength=len(words))
    shared = pairs[:, counts[pairs[1]] > 1]
    has = csr_array(
        (np.ones(shared.shape[1], np.int32), (shared[0], shared[1])), shape=(len(words), max(1, len(names)))
    )
    common = (has @ has.T).tocoo()
    together = sizes[common.row] + sizes[common.col] - common.data
    is_alike = common.data >= LIKENESS * together
    return csr_array(
        (np.ones(int(is_alike.sum()), np.int8), (common.row[is_alike], common.col[is_alike])),
        shape=(len(words), len(words)),
    )


def _triples(words: list[list[str]]) -> tuple[Groups, npt.NDArray[np.uint64]]:
    """The row and a number of each word triple; a text of fewer words is one triple."""
    numbers: dict[str, int] = {}
    rows, triples = [], []
    for row, text in enumerate(words):
        for word in text:
            if word not in numbers:
                numbers[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        padded = [numbers[word] for word in text] + [0] * max(0, 3 - len(text))
        codes = np.array(padded, np.uint64)
        with np.errstate(over="ignore"):
            parts = [factor * (codes[at : len(codes) - 2 + at] + np.uint64(1)) for at, factor in enumerate(_FACTORS)]
            mixed = parts[0] ^ (parts[1] >> np.uint64(7)) ^ (parts[2] << np.uint64(3))
        triples.append(mixed)
        rows.append(np.full(len(mixed), row, np.int64))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    return np.concatenate(rows), np.concatenate(triples)


def _in_order(labels: Groups) -> Groups:
    """The labels numbered by their first place."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]

"""Columns of pandas frames that are not numpy arrays: Arrow's texts and numbers, nullable numbers, arrays of texts.

Owns their stand-ins in pickles, and how values are read out of Arrow's buffers. Neither pandas nor Arrow sees a byte of
a file: an offset that points elsewhere would make them read memory that is not the file's.
"""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.importers.files import BadFile

#: Arrow's names of types of numbers -> numpy's.
_NUMBERS = {
    **{
        f"{sign}int{bits}": f"<{letter}{bits // 8}"
        for sign, letter in (("", "i"), ("u", "u"))
        for bits in (8, 16, 32, 64)
    },
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
}
#: Arrow's names of types of texts -> numpy's type of their offsets.
_TEXTS = {"string": "<i4", "utf8": "<i4", "large_string": "<i8", "large_utf8": "<i8"}


class ExtensionColumn:
    """One of pandas' extension arrays, by its state alone."""

    def __init__(self, *_: Any) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and ("_pa_array" in state or "_data" in state):
            self.values = _of_arrow_or_mask(state)
            return
        # StringArray: a pair of its type and its texts, in either order.
        arrays = [part for part in state if isinstance(part, np.ndarray)] if isinstance(state, tuple) else []
        if len(arrays) != 1 or arrays[0].ndim != 1:
            raise BadFile("damaged", "a column of an unknown form: save the frame as CSV or Parquet")
        self.values = arrays[0].tolist()


def ndarray_backed(kind: Any, _: Any, state: Any = None) -> ExtensionColumn:
    """pandas' __pyx_unpickle_NDArrayBacked: the texts come by __setstate__."""
    if kind is not ExtensionColumn:
        raise BadFile("forbidden", "a column of more than texts")
    column = ExtensionColumn()
    if state is not None:
        column.__setstate__(state)
    return column


def _of_arrow_or_mask(state: dict[str, Any]) -> list[Any]:
    data: Any = state.get("_pa_array", state.get("_data"))
    if isinstance(data, ArrowValues):
        return data.values
    mask: Any = state.get("_mask")
    arrays = all(isinstance(part, np.ndarray) and part.ndim == 1 for part in (data, mask))
    if not arrays or len(data) != len(mask):
        raise BadFile("damaged", "a column of numbers without a mask of its length")
    return [None if is_missing else value for value, is_missing in zip(data.tolist(), mask.tolist(), strict=True)]


class PandasType:
    """One of pandas' types of columns, which the values show as well."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class ArrowType:
    """Arrow's type of a column, by its name."""

    def __init__(self, name: Any) -> None:
        self.name = str(name)


class ArrowValues:
    """The values of an Arrow array, or of several one after another."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values


def as_bytes(data: Any, encoding: Any = None) -> bytes:
    """Stands for bytearray and for Arrow's py_buffer. A number, which would ask for that many bytes, is refused."""
    if isinstance(data, str) and encoding in ("latin-1", "latin1"):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray | pickle.PickleBuffer):
        raise BadFile("forbidden", "a buffer that is not made of bytes")
    return bytes(data)


def chunked(chunks: Any, _: Any = None) -> ArrowValues:
    """Arrow's chunked_array."""
    if not isinstance(chunks, list | tuple) or not all(isinstance(chunk, ArrowValues) for chunk in chunks):
        raise BadFile("damaged", "a column whose parts are not Arrow's")
    return ArrowValues([value for chunk in chunks for value in chunk.values])


def restored(data: Any) -> ArrowValues:
    """Arrow's _restore_array: (type, length, nulls, offset, buffers, children, dictionary, …)."""
    kind, length, _, offset, buffers, children, dictionary, *_ = data
    if not isinstance(kind, ArrowType) or children or dictionary is not None or not isinstance(buffers, list):
        raise BadFile("forbidden", "a column of more than texts and numbers: save the frame as CSV or Parquet")
    if not all(type(number) is int and 0 <= number < 2**40 for number in (length, offset)):
        raise BadFile("damaged", "a column of no valid length")
    parts = [part if isinstance(part, bytes) else None for part in buffers]
    if kind.name in _TEXTS and len(parts) == 3:
        values: list[Any] = _texts(parts[1], parts[2], _TEXTS[kind.name], offset, length)
    elif kind.name in _NUMBERS and len(parts) == 2:
        values = _array(parts[1], _NUMBERS[kind.name], offset, length).tolist()
    elif kind.name == "bool" and len(parts) == 2:
        values = _bits(parts[1], offset, length)
    else:
        raise BadFile("forbidden", f"a column of {kind.name[:40]}: only texts and numbers are read")
    if parts[0] is not None:
        there = _bits(parts[0], offset, length)
        values = [value if is_there else None for value, is_there in zip(values, there, strict=True)]
    return ArrowValues(values)


def _array(data: bytes | None, dtype: str, offset: int, length: int) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if not length:
        return np.empty(0, kind)
    if data is None or len(data) < (offset + length) * kind.itemsize:
        raise BadFile("damaged", "a column that is longer than its bytes")
    return np.frombuffer(data, kind, length, offset * kind.itemsize)


def _bits(data: bytes | None, offset: int, length: int) -> list[bool]:
    if not length:
        return []
    if data is None or len(data) * 8 < offset + length:
        raise BadFile("damaged", "a column that is longer than its bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little", count=offset + length)
    flags: list[bool] = bits[offset:].astype(bool).tolist()
    return flags


def _texts(ends: bytes | None, data: bytes | None, dtype: str, offset: int, length: int) -> list[str]:
    if not length:
        return []
    edges, text = _array(ends, dtype, offset, length + 1), data or b""
    # Each text begins where the last ended, or a few bytes would be a text of every row.
    if edges[0] < 0 or edges[-1] > len(text) or (np.diff(edges) < 0).any():
        raise BadFile("damaged", "a column whose texts overlap or lie outside it")
    places = edges.tolist()
    return [text[start:end].decode() for start, end in itertools.pairwise(places)]

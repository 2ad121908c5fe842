"""Pickles read without running what is in them: containers of numbers and texts, numpy arrays and pandas frames only.

Owns which globals a pickle may name. A pickle is a program; whatever else it names is refused before it is called.
"""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any

import numpy as np

from collectors.importers.files import BadFile, SourceFile
from schemas.failures import one_line

#: Module -> what a pickle may name of it. Constructors of values: none reads a file, imports or calls what it is given.
_ALLOWED = {
    "builtins": {"slice", "set", "frozenset", "list", "dict", "tuple", "bytearray", "complex", "range"},
    "collections": {"OrderedDict", "defaultdict"},
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": {"scalar"},
    "numpy._core.multiarray": {"scalar"},
    "pandas": {"DataFrame", "Series", "Index", "RangeIndex", "StringDtype"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.series": {"Series"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.indexes.numeric": {"Int64Index", "Float64Index"},
    "pandas.core.internals.managers": {"BlockManager", "SingleBlockManager"},
    "pandas.core.internals.blocks": {"new_block"},
    "pandas._libs.internals": {"_unpickle_block", "BlockPlacement"},
    "pandas.core.arrays.string_": {"StringDtype", "StringArray"},
    "pandas._libs.arrays": {"__pyx_unpickle_NDArrayBacked"},
}


def load_pickle(file: SourceFile) -> Any:
    """The value in `file`. Raises BadFile where it names what is not allowed, or is damaged."""
    data = file.read()
    try:
        return _Reader(io.BytesIO(data), encoding="latin1").load()
    except BadFile:
        raise
    except MemoryError as error:
        raise BadFile("bomb", "asks for more memory than there is") from error
    except Exception as error:  # a damaged pickle fails in whatever its bytes happen to mean
        raise BadFile("damaged", f"no whole pickle: {one_line(error, 160)}") from error


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as protocols up to 2 call it
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):
            return _array_of
        if (module, name) == ("_codecs", "encode"):
            return _encoded
        if name not in _ALLOWED.get(module, ()):
            raise BadFile(
                "forbidden",
                f"names {module}.{name}, which is no plain container of numbers or texts: nothing was run; if you "
                "trust the file, save it as CSV or Parquet with the program that wrote it",
            )
        try:
            return getattr(importlib.import_module(module.replace("numpy.core", "numpy._core")), name)
        except (ImportError, AttributeError) as error:
            raise BadFile(
                "damaged", f"was written by a release that has {module}.{name}: save it as CSV there"
            ) from error


def _empty_array(kind: type, shape: tuple[int, ...], _: Any) -> np.ndarray[Any, Any]:
    """numpy's _reconstruct, which pickles call with an empty shape: any other would only take memory."""
    if kind is not np.ndarray or shape != (0,):
        raise BadFile("forbidden", f"makes an array of shape {shape} without its numbers")
    return np.ndarray((0,), "b")


def _array_of(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _encoded(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise BadFile("forbidden", f"encodes text as {encoding}")
    return text.encode("latin1")

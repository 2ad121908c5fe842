"""Reads pickles without running them: containers of numbers and texts, numpy arrays and pandas frames only.

Owns the globals that a pickle may name, and a stand-in for each. A pickle is a program: any other name is refused
before it is called. The values of a file never reach numpy or pandas either, because arrays that these make may point
anywhere: arrays are made here from checked bytes, and frames are taken apart without pandas.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from collectors.importers.files import BadFile, SourceFile
from collectors.importers.pickled_columns import (
    ArrowType,
    ArrowValues,
    ExtensionColumn,
    PandasType,
    as_bytes,
    chunked,
    ndarray_backed,
    restored,
)
from schemas.failures import one_line

#: Containers in each other.
_DEEPEST = 100


def load_pickle(file: SourceFile) -> Any:
    """The value in `file`; a pandas frame is a Frame. Raises BadFile for a file that names more, or is damaged."""
    data = file.read()
    try:
        value = _Reader(io.BytesIO(data), encoding="latin1").load()
        _check_size(value, 1000 + 4 * len(data))
        return value
    except BadFile:
        raise
    except MemoryError as error:
        raise BadFile("bomb", "asks for more memory than there is") from error
    except Exception as error:  # a damaged pickle fails anywhere
        raise BadFile("damaged", f"not a whole pickle: {one_line(error, 160)}") from error


class _Type:
    """numpy's dtype of plain numbers, texts and objects, by its name alone."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = str(name), "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = {"<": "<", ">": ">"}.get(str(state[1]), "=")

    @property
    def real(self) -> np.dtype[Any]:
        dtype = np.dtype(self.name)
        if dtype.kind not in "biufSUO" or dtype.hasobject != (dtype.kind == "O") or dtype.names:
            raise BadFile("forbidden", f"holds an array of {self.name[:40]}: only numbers, texts and objects are read")
        return dtype.newbyteorder(self.order)  # type: ignore[arg-type]


#: Stands for numpy.ndarray, and cannot be called.
_NDARRAY = "numpy.ndarray"


class _Array(np.ndarray[Any, Any]):
    """An array whose numbers are set once and completely."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        super().__setstate__((1, *_checked(shape, kind, data), bool(is_fortran), data))  # type: ignore[arg-type]


def _checked(shape: Any, kind: Any, data: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not isinstance(kind, _Type) or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadFile("forbidden", "holds an array without a valid type and shape")
    dtype, many = kind.real, math.prod(shape)
    if not dtype.itemsize or (not many and max(shape) > 10**6):
        raise BadFile("forbidden", f"holds an array of shape {shape} without content")
    whole = isinstance(data, list) and len(data) == many if dtype.kind == "O" else len(data) == many * dtype.itemsize
    if not whole or (dtype.kind != "O" and not isinstance(data, bytes | bytearray)):
        raise BadFile("forbidden", f"holds an array of shape {shape} without its numbers")
    return shape, dtype


def _empty(kind: Any, shape: Any, _: Any) -> _Array:
    """numpy's _reconstruct: the numbers come by __setstate__."""
    if kind is not _NDARRAY or shape != (0,):
        raise BadFile("forbidden", f"makes an array of shape {shape} without its numbers")
    return np.empty((0,), "b").view(_Array)


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    data = bytes(data) if isinstance(data, bytes | bytearray | pickle.PickleBuffer) else b""
    shape, dtype = _checked(shape, kind, data)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: Any, data: Any) -> Any:
    _, dtype = _checked((), kind, data)
    return np.frombuffer(data, dtype)[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise BadFile("forbidden", f"encodes text as {encoding}")
    return str(text).encode("latin1")


# ---- pandas, taken apart


class _Index:
    """Labels of an axis, of any of pandas' index classes."""

    def __init__(self, *_: Any) -> None:
        self.labels: Any = None


def _new_index(_: Any, state: Mapping[str, Any]) -> _Index:
    index = _Index()
    if "data" in state:
        index.labels = state["data"]
    elif {"start", "stop", "step"} <= state.keys():
        index.labels = range(state["start"], state["stop"], state["step"])
        if len(index.labels) > 10**8:
            raise BadFile("bomb", f"an axis of {len(index.labels):,} labels")
    return index


class _Placement:
    """Which columns a block holds."""

    def __init__(self, where: Any) -> None:
        self.where = where


class _FrameBlock:
    def __init__(self, values: Any, placement: Any, ndim: Any = 2) -> None:
        self.values = values
        self.where = placement.where if isinstance(placement, _Placement) else placement


class _Manager:
    def __init__(self, blocks: Any = (), axes: Any = (), *_: Any) -> None:
        self.blocks, self.axes = list(blocks), list(axes)

    def __setstate__(self, state: Any) -> None:
        newest = next((one for one in reversed(state) if isinstance(one, dict) and "0.14.1" in one), None)
        if newest is None:
            raise BadFile("damaged", "a pandas frame of an unknown release: save it as CSV or Parquet there")
        parts = newest["0.14.1"]
        self.axes = list(parts["axes"])
        self.blocks = [_FrameBlock(block["values"], block["mgr_locs"]) for block in parts["blocks"]]


class Frame:
    """A pandas frame's columns: name -> values."""

    def __init__(self, data: Any = None, *_: Any) -> None:
        """`data`: columns of a frame that is pickled as pandas.DataFrame({name: values}), as our exports are."""
        self.columns: dict[str, list[Any]] = {} if data is None else _plain_columns(data)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        manager = state.get("_mgr", state.get("_data"))
        if not isinstance(manager, _Manager) or len(manager.axes) != 2:
            raise BadFile("damaged", "a pandas frame of an unknown form: save it as CSV or Parquet there")
        names = [str(label) for label in _listed(manager.axes[0].labels)]
        columns: dict[str, list[Any]] = {}
        for block in manager.blocks:
            for row, place in zip(_rows(block.values), _places(block.where, len(names)), strict=True):
                if names[place] in columns:
                    raise BadFile("damaged", f"a pandas frame with two columns {names[place][:60]}")
                columns[names[place]] = row
        self.columns = {name: columns[name] for name in names}


def _rows(values: Any) -> list[list[Any]]:
    """The columns of a block."""
    if isinstance(values, ExtensionColumn):
        return [values.values]
    if not isinstance(values, np.ndarray):
        raise BadFile("damaged", "a pandas frame that holds more than arrays: save it as CSV or Parquet there")
    return [row.tolist() for row in np.atleast_2d(values)]


def _plain_columns(data: Any) -> dict[str, list[Any]]:
    columns: list[Any] = list(data.values()) if isinstance(data, dict) else [None]
    are_lists = all(isinstance(values, list) for values in columns)
    if not are_lists or len({len(values) for values in columns}) > 1:
        raise BadFile("damaged", "a pandas frame whose columns differ in length")
    if not all(value is None or isinstance(value, str | int | float) for values in columns for value in values):
        raise BadFile("forbidden", "a pandas frame of more than numbers and texts")
    return {str(name): values for name, values in data.items()}


def _listed(labels: Any) -> list[Any]:
    if isinstance(labels, ExtensionColumn):
        return labels.values
    return labels.tolist() if isinstance(labels, np.ndarray) else list(labels)


def _places(where: Any, many: int) -> list[int]:
    return list(range(many))[where] if isinstance(where, slice) else [int(place) for place in where]


#: Module and name -> its stand-in. numpy 2 and pandas 1 to 3 name the same things in several places.
_STAND_INS: dict[tuple[str, str], Any] = {
    **{("builtins", kind.__name__): kind for kind in (slice, set, frozenset, list, dict, tuple)},
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytearray"): as_bytes,
    ("pyarrow.lib", "_restore_array"): restored,
    ("pyarrow.lib", "chunked_array"): chunked,
    ("pyarrow.lib", "py_buffer"): as_bytes,
    ("pyarrow.lib", "type_for_alias"): ArrowType,
    ("pandas", "NA"): None,
    ("pandas._libs.missing", "NA"): None,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): ndarray_backed,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Type,
    ("pandas", "DataFrame"): Frame,
    ("pandas.core.frame", "DataFrame"): Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas.core.internals", "BlockManager"): _Manager,
    ("pandas._libs.internals", "_unpickle_block"): _FrameBlock,
    ("pandas._libs.internals", "BlockPlacement"): _Placement,
    ("pandas.core.internals.blocks", "new_block"): _FrameBlock,
    ("pandas.core.indexes.base", "_new_Index"): _new_index,
}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = _empty
    _STAND_INS[f"{_module}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _from_buffer
for _name in (
    "ArrowStringArray",
    "ArrowExtensionArray",
    "StringArray",
    "IntegerArray",
    "FloatingArray",
    "BooleanArray",
):
    for _module in ("arrays", "core.arrays"):
        _STAND_INS[f"pandas.{_module}", _name] = ExtensionColumn
for _module, _name in (
    ("string_arrow", "ArrowStringArray"),
    ("string_arrow", "ArrowStringArrayNumpySemantics"),
    ("string_", "StringArray"),
    ("string_", "StringArrayNumpySemantics"),
    ("arrow.array", "ArrowExtensionArray"),
    ("integer", "IntegerArray"),
    ("floating", "FloatingArray"),
    ("boolean", "BooleanArray"),
):
    _STAND_INS[f"pandas.core.arrays.{_module}", _name] = ExtensionColumn
_INTEGERS = [f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)]
for _name in (*_INTEGERS, "Float32Dtype", "Float64Dtype", "BooleanDtype", "StringDtype", "ArrowDtype"):
    for _module in (
        "pandas",
        *(f"pandas.core.arrays.{part}" for part in ("string_", "integer", "floating", "boolean", "arrow.dtype")),
        "pandas.core.dtypes.dtypes",
    ):
        _STAND_INS[_module, _name] = PandasType
for _module, _name in (("base", "Index"), ("range", "RangeIndex"), ("numeric", "Int64Index")):
    _STAND_INS[f"pandas.core.indexes.{_module}", _name] = _Index
    _STAND_INS["pandas", _name] = _Index


#: Types of keys of mappings and of members of sets: to hash nested tuples can take for ever.
_KEYS = (str, bytes, int, float, bool, type(None))


#: The unpickler that is written in Python: the one in C offers no way to refuse a step.
_InPython: Any = pickle._Unpickler


class _Reader(_InPython):  # type: ignore[misc]
    dispatch: ClassVar[dict[int, Any]] = dict(_InPython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # as protocols up to 2 call it
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise BadFile(
                "forbidden",
                f"names {module}.{name}, and only plain containers of numbers and texts are read: nothing was run; if "
                "you trust the file, save it as CSV or Parquet with the program that wrote it",
            ) from None

    def load_build(self) -> None:
        if callable(self.stack[-2]):  # a stand-in: a state would change it for all files
            raise BadFile("forbidden", "gives a state to a name")
        super().load_build()

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    def load_reduce(self) -> None:
        function, args = self.stack[-2:]
        given: Any = args[0] if args and type(args[0]) in (list, tuple) else ()
        if function in (set, frozenset):
            _check_keys(given)
        elif function in (dict, collections.OrderedDict):
            _check_keys([pair[0] for pair in given])
        super().load_reduce()


for _code, _step in {
    pickle.BUILD: _Reader.load_build,
    pickle.SETITEM: _Reader.load_setitem,
    pickle.SETITEMS: _Reader.load_setitems,
    pickle.ADDITEMS: _Reader.load_additems,
    b"d": _Reader.load_dict,
    pickle.FROZENSET: _Reader.load_frozenset,
    pickle.REDUCE: _Reader.load_reduce,
}.items():
    _Reader.dispatch[ord(_code)] = _step


def _check_keys(keys: Sequence[Any]) -> None:
    if not all(type(key) in _KEYS for key in keys):
        raise BadFile("forbidden", "has a key that is neither text nor number")


def _check_size(value: Any, limit: int) -> None:
    """Raises BadFile where `value` is more than `limit` values, each counted as often as it stands somewhere."""
    waiting: list[Iterator[Any]] = [iter([value])]
    seen = 0
    while waiting:
        for inner in waiting[-1]:
            seen += 1
            if seen > limit or len(waiting) > _DEEPEST:
                raise BadFile("bomb", "holds far more values than bytes: it repeats itself")
            parts = _parts_of(inner)
            if parts is not None:
                waiting.append(parts)
                break
        else:
            waiting.pop()


def _parts_of(value: Any) -> Iterator[Any] | None:
    if isinstance(value, dict):
        return iter(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return iter(value)
    if isinstance(value, np.ndarray):
        return iter(value.ravel().tolist()) if value.dtype == object else None
    if isinstance(value, ExtensionColumn | ArrowValues):
        return iter(value.values)
    return iter([value.columns]) if isinstance(value, Frame) else None

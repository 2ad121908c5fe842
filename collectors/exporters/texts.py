"""Texts and names that other programs' readers would mistake for something else.

Owns rules that several formats share. Knows no lake.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.extras import take_pandas
from schemas.failures import ConfigError

#: Texts that pandas' read_csv takes for a missing value, quoted or not.
PANDAS_MISSING = frozenset(["", "NA", "N/A", "n/a", "<NA>", "NULL", "null", "NaN", "nan", "-NaN", "-nan", "None"]) | {
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
}


def check_names(kind: str, names: Iterable[str], wrong: Callable[[str], str | None]) -> None:
    """Raises ConfigError that names all for which `wrong` gives a reason."""
    reasons = [f"{name!r} {why}" for name in names if (why := wrong(name))]
    if reasons:
        more = f", and {len(reasons) - 10} more" if len(reasons) > 10 else ""
        plural = f"{kind}s" if len(reasons) > 1 else kind
        way = "--pool" if kind == "model" else "--task"
        raise ConfigError(
            f"the format cannot hold {len(reasons)} {plural}: {'; '.join(reasons[:10])}{more}: leave out by {way}"
        )


def wrong_path_part(name: str) -> str | None:
    """Why `name` cannot be the name of a file or folder."""
    if name in (".", "..") or not name or "/" in name or "\\" in name:
        return "cannot be a file's name"
    if not name.isprintable() or len(name.encode()) > 120:
        return "is too long or holds control characters"
    return None


def wrong_pandas_text(text: str) -> str | None:
    """Why pandas' read_csv would not give `text` back from a column of texts."""
    if text in PANDAS_MISSING:
        return "reads as missing in pandas"
    return "holds a null character" if "\x00" in text else None


def wrong_pandas_name(name: str) -> str | None:
    """The same for a name, which may be the only value of its column."""
    try:
        float(name)
    except ValueError:
        is_number = name.lower() in ("true", "false")
    else:
        is_number = name not in PANDAS_MISSING
    return "reads as a number or a boolean in pandas" if is_number else wrong_pandas_text(name)


#: Signs that begin a formula in a spreadsheet.
_FORMULA = ("=", "+", "-", "@")


def guarded(name: str) -> str:
    """A name for a CSV file: behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{name}" if name.startswith(_FORMULA) else name


def guard_notes(names: Iterable[str]) -> list[str]:
    """A line for the user on the names that a CSV file changes."""
    if changed := [name for name in names if guarded(name) != name]:
        return [
            f"{len(changed):,} names begin like a formula of a spreadsheet, such as {changed[0]!r}: they stand behind "
            "an apostrophe"
        ]
    return []


#: What str.splitlines takes for the end of a line and json.dumps leaves as it is.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def json_line(value: Any) -> str:
    """`value` as one line of JSON, with its end, for readers that split lines at any line end of Unicode.

    Outside of a text JSON has no such character, so that they can be escaped wherever they stand.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n"


def references(target: str | None) -> list[str]:
    """The reference answers of an item as texts: of a choice its number, as the lake holds it."""
    value = None if target is None else json.loads(target)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values]


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """JSON lines; see json_line."""
    with open(path, "x", encoding="utf-8", newline="") as file:
        file.writelines(map(json_line, values))


def as_python_list(texts: Sequence[str]) -> str:
    """RouterBench's encoding of a text: a Python list of it, which it reads back by ast.literal_eval."""
    return str(list(texts))


def is_python_list(text: str) -> bool:
    """Whether `text` is in that encoding, with at least one text."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


#: A column of a file: texts or numbers.
Values = Sequence[Any] | npt.NDArray[Any]
#: Rows of a CSV file of which there are objects at a time.
_CSV_ROWS = 1 << 10


def listed(values: Values) -> Sequence[Any]:
    """The values as plain objects."""
    return list(values.tolist()) if isinstance(values, np.ndarray) else values


def write_csv(path: Path, columns: Mapping[str, Values], names: Collection[str] = ()) -> None:
    """A CSV file of these columns, as csv_file writes it."""
    with csv_file(path, names) as write:
        write(columns)


@contextlib.contextmanager
def csv_file(path: Path, names: Collection[str] = ()) -> Iterator[Callable[[Mapping[str, Values]], None]]:
    """Yields a function that writes rows of columns to a new CSV file, for portions with the same columns.

    Every text is quoted: line ends within one, and texts that look like numbers, stay as they are. The header and the
    columns `names` are guarded.
    """
    with open(path, "x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")

        def write(columns: Mapping[str, Values]) -> None:
            if not file.tell():
                writer.writerow(map(guarded, columns))
            rows = len(next(iter(columns.values())))
            for first in range(0, rows, _CSV_ROWS):
                part = slice(first, first + _CSV_ROWS)
                plain = [map(guarded, of[part]) if name in names else listed(of[part]) for name, of in columns.items()]
                writer.writerows(zip(*plain, strict=True))

        yield write


class _Frame:
    """Pickles as the call pandas.DataFrame({column: values}), of plain lists of numbers and texts.

    A pickle that pandas writes names its own inner parts, which move from release to release: one by pandas 3 fails in
    2.1. This one names nothing but the class, and every pandas knows that.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = {name: list(values) for name, values in columns.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        take_pandas()
        import pandas as pd  # half a second

        return pd.DataFrame, (self.columns,)


def write_frame_pickle(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A pickle that `pandas.read_pickle` of any release makes a frame of."""
    with open(path, "xb") as file:
        pickle.dump(_Frame(columns), file, protocol=4)

"""The matrix in the least bytes that load at once: bits of verdicts, lengths of answers, prompts by tokenizer.

Owns the packed form: four Parquet tables that any reader opens. Knows nothing of lakes or of where the files go.

    models    one row per model of the matrix's axis (collectors.arrays.COLUMN_KEY)
    blocks    one row per block (collectors.arrays.BLOCK_KEY) with its items and the models that were to answer, by
              their place on the axis; `prompts`: for each of these the number of a row of the table prompts
    prompts   one row per block and way to count its prompts (a tokenizer's): the tokens of each item, -1 unknown
    items     one row per item of a block: bits and lengths over the block's models, in their order

Bits are little-endian: model i is bit i % 8 of byte i // 8. In `items`, a null stands for the common case. `valid`: all
are; `prompted`: of all it is known how many tokens they read; `score`: the scores are the bits of `right`;
`completion`: unknown for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.arrays import BLOCK_KEY, Matrix, empty_matrix

ITEMS = pa.schema(
    [
        pa.field("block", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("right", pa.binary(), nullable=False),
        pa.field("valid", pa.binary()),
        pa.field("prompted", pa.binary()),
        #: float32 each, NaN where not valid.
        pa.field("score", pa.binary()),
        #: Tokens + 1 each, 0 unknown: all low bytes, then all next ones, as many as the largest needs.
        pa.field("completion", pa.binary()),
    ]
)
PROMPTS = pa.schema(
    [
        pa.field("block", pa.int32(), nullable=False),
        pa.field("prompts", pa.int32(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
    ]
)
#: Items packed at a time, and in a row group.
PACKED_ITEMS = 512
#: Table -> its file.
FILES = {name: f"packed/{name}.parquet" for name in ("models", "blocks", "prompts", "items")}


def write_packed(matrices: Iterable[Matrix], models: pa.Table, folder: Path) -> None:
    """Writes the tables of the whole matrix below `folder`; each of `matrices` holds whole blocks, in their order.

    `models` is the axis of the whole. The same matrices give the same bytes.
    """
    (folder / "packed").mkdir(parents=True, exist_ok=True)
    axis = {tuple(row.values()): place for place, row in enumerate(models.to_pylist())}
    blocks: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    with pq.ParquetWriter(folder / FILES["items"], ITEMS, compression="zstd", compression_level=19) as writer:
        for matrix in matrices:
            places = [axis[tuple(row.values())] for row in matrix.models.to_pylist()]
            for key, rows in _blocks(matrix.items):
                number = len(blocks)
                of_model, tokens = _prompts(matrix.prompt_tokens[rows])
                prompts += [{"block": number, "prompts": i, "tokens": counts} for i, counts in enumerate(tokens)]
                size = rows.stop - rows.start
                blocks.append({"block": number, **key, "items": size, "models": places, "prompts": of_model})
                for start in range(rows.start, rows.stop, PACKED_ITEMS):
                    some = slice(start, min(start + PACKED_ITEMS, rows.stop))
                    writer.write_table(_pack(matrix, number, some, rows.start))
    schema = pa.schema([("block", pa.int32()), *((n, matrix.items.schema.field(n).type) for n in BLOCK_KEY)])
    for name, dtype in (("items", pa.int32()), ("models", pa.list_(pa.int32())), ("prompts", pa.list_(pa.int32()))):
        schema = schema.append(pa.field(name, dtype))
    _write(pa.Table.from_pylist(blocks, schema=schema), folder / FILES["blocks"])
    _write(pa.Table.from_pylist(prompts, schema=PROMPTS), folder / FILES["prompts"])
    _write(models, folder / FILES["models"])


def read_packed(
    files: Mapping[str, Any],
    tasks: list[str] | None = None,
    models: list[str] | None = None,
    *,
    tokens: bool = True,
) -> Matrix:
    """The matrix, or some of its tasks and models by name. `files`: for each of FILES what pyarrow reads."""
    every = pq.read_table(files["models"])
    table = pq.read_table(files["blocks"])
    blocks = [block for block in table.to_pylist() if tasks is None or block["task"] in tasks]
    chosen = np.zeros(len(every), np.bool_)
    for block in blocks:
        chosen[block["models"]] = True
    if models is not None:
        chosen &= np.isin(every["model"].to_pylist(), models)
    #: Place on the whole axis -> column; -1: not wanted.
    columns = np.where(chosen, np.cumsum(chosen) - 1, -1)
    blocks = [block for block in blocks if (columns[block["models"]] >= 0).any()]
    numbers = pc.field("block").isin([block["block"] for block in blocks])
    wanted = ["block", "item", "right", "valid", "score", *(["prompted", "completion"] if tokens else [])]
    rows = pq.read_table(files["items"], columns=wanted, filters=None if tasks is None and models is None else numbers)
    prompts = pq.read_table(files["prompts"], filters=numbers) if tokens else None
    key = {name: [block[name] for block in blocks for _ in range(block["items"])] for name in BLOCK_KEY}
    axis = pa.table({n: pa.array(v, table.schema.field(n).type) for n, v in key.items()} | {"item": rows["item"]})
    whole = all((columns[block["models"]] >= 0).sum() == chosen.sum() for block in blocks)
    matrix = empty_matrix(axis, every.filter(pa.array(chosen)), tokens=tokens, filled=not whole)
    start = 0
    for block in blocks:
        counts = None
        if prompts is not None:
            mine = prompts.filter(pc.equal(prompts["block"], block["block"]))["tokens"].combine_chunks()
            counts = mine.flatten().to_numpy().reshape(-1, block["items"])
        _unpack(matrix, start, rows.slice(start, block["items"]), block, columns, counts)
        start += block["items"]
    return matrix


# ---- packing


def _blocks(items: pa.Table) -> Iterable[tuple[dict[str, Any], slice]]:
    """Each block's key and rows."""
    runs: list[list[Any]] = []
    for row, values in enumerate(zip(*(items[name].to_pylist() for name in BLOCK_KEY), strict=True)):
        if not runs or runs[-1][0] != values:
            runs.append([values, row, row])
        runs[-1][2] = row + 1
    return [(dict(zip(BLOCK_KEY, key, strict=True)), slice(first, stop)) for key, first, stop in runs]


def _prompts(counts: npt.NDArray[np.int32]) -> tuple[list[int], list[list[int]]]:
    """For each column (items × models) the number of its way to count, and these ways.

    Columns share one where they agree on every item that both know: so no count is changed, and none that is unknown
    is read back, because `prompted` says which are known.
    """
    ways: list[npt.NDArray[np.int32]] = []
    numbers = [-1] * counts.shape[1]
    known: dict[bytes, int] = {}
    for column in np.argsort(-(counts >= 0).sum(axis=0), kind="stable"):  # whole ones first: gaps fit into them
        mine = counts[:, column]
        number = known.get(mine.tobytes(), -1)
        if number < 0:
            agree = (i for i, way in enumerate(ways) if ((mine == way) | (mine < 0) | (way < 0)).all())
            number = next(agree, len(ways))
            if number == len(ways):
                ways.append(mine.copy())
            np.copyto(ways[number], mine, where=ways[number] < 0)
            known[mine.tobytes()] = number
        numbers[column] = number
    return numbers, [way.tolist() for way in ways]


def _pack(matrix: Matrix, block: int, rows: slice, first: int) -> pa.Table:
    scores, valid = matrix.scores[rows], matrix.valid[rows]
    right = valid & (scores == 1)
    plain: npt.NDArray[np.bool_] = np.all(~valid | (scores == 0) | (scores == 1), axis=1)
    prompted = matrix.prompt_tokens[rows] >= 0
    lengths = matrix.completion_tokens[rows] + 1
    width = np.maximum((np.ceil(np.log2(lengths.max(axis=1, initial=0) + 1) / 8)).astype(int), 1)
    data = {
        "block": np.full(len(right), block, np.int32),
        "item": np.arange(rows.start - first, rows.stop - first, dtype=np.int32),
        "right": _bits(right),
        "valid": [None if all_are else bits for all_are, bits in zip(np.all(valid, axis=1), _bits(valid), strict=True)],
        "prompted": [None if known.all() else bits for known, bits in zip(prompted, _bits(prompted), strict=True)],
        "score": [None if is_plain else row.tobytes() for is_plain, row in zip(plain, scores, strict=True)],
        "completion": [
            row.astype("<u4").view(np.uint8).reshape(-1, 4).T[:bytes_each].tobytes() if row.any() else None
            for row, bytes_each in zip(lengths, width, strict=True)
        ],
    }
    return pa.table(data, schema=ITEMS)


def _bits(flags: npt.NDArray[np.bool_]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(flags, axis=1, bitorder="little")]


def _write(table: pa.Table, path: Path) -> None:
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    lists = [f"{f.name}.list.element" for f in table.schema if pa.types.is_list(f.type)]
    texts = [f.name for f in table.schema if pa.types.is_string(f.type)]
    encoding = dict.fromkeys([*integers, *lists], "DELTA_BINARY_PACKED")
    pq.write_table(table, path, compression="zstd", use_dictionary=texts, column_encoding=encoding)


# ---- unpacking


def _unpack(
    matrix: Matrix,
    start: int,
    rows: pa.Table,
    block: dict[str, Any],
    columns: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int32] | None,
) -> None:
    size, into = len(block["models"]), columns[block["models"]]
    known = into >= 0

    lines = slice(start, start + len(rows))

    def lay(array: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        if size == array.shape[1] and known.all() and (np.diff(into) == 1).all():
            array[lines] = values
        else:
            array[lines, into[known]] = values[:, known]

    scores: npt.NDArray[Any] = _flags(rows["right"], size, False)
    if rows["valid"].null_count == rows["score"].null_count == len(rows):  # most blocks: bits say all
        lay(matrix.scores, scores)
        matrix.valid[lines, into[known]] = True
    else:
        valid = _flags(rows["valid"], size, True)
        scores = np.where(valid, scores, np.float32(np.nan)).astype(np.float32)
        for line, values in enumerate(rows["score"].to_pylist()):
            if values is not None:
                scores[line] = np.frombuffer(values, "<f4")
        lay(matrix.scores, scores)
        lay(matrix.valid, valid)
    if counts is None:
        return
    prompts = np.take(counts.T, block["prompts"], axis=1)
    prompted = _flags(rows["prompted"], size, True)
    lay(matrix.prompt_tokens, prompts if prompted.all() else np.where(prompted, prompts, -1))
    lengths = np.zeros((len(rows), size), np.int32)
    for line, values in enumerate(rows["completion"].to_pylist()):
        for byte in range(len(values) // size if values else 0):
            lengths[line] |= np.frombuffer(values, np.uint8, size, byte * size).astype(np.int32) << (8 * byte)
    lay(matrix.completion_tokens, lengths - 1)


def _flags(column: pa.ChunkedArray, size: int, default: bool) -> npt.NDArray[np.bool_]:
    """Bits of each row as booleans, rows × size; `default` where a row is null."""
    if column.null_count == len(column):
        return np.full((len(column), size), default)
    width = (size + 7) // 8
    fill = (b"\xff" if default else b"\x00") * width
    data = np.frombuffer(b"".join(fill if value is None else value for value in column.to_pylist()), np.uint8)
    return np.unpackbits(data.reshape(-1, width), axis=1, count=size, bitorder="little").view(np.bool_)

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

Lengths of equal answers stand side by side: in each row of `completion` first those of the models that are right, then
the others; among these by `prompts`, then in the order of the block's models. A choice of some tokens, which all that
are right make, takes 0.10 bytes so and 0.23 in the models' own order (8,500 synthetic models).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
#: Items unpacked at a time: those of 8,500 models fit into a core's cache as booleans.
_UNPACKED_ITEMS = 128
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
                    writer.write_table(_pack(matrix, number, some, rows.start, of_model))
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
    jobs, start = [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in blocks:
            part = _Block(columns[block["models"]], np.asarray(block["prompts"]), len(matrix.models))
            counts = None
            if prompts is not None:
                mine = prompts.filter(pc.equal(prompts["block"], block["block"]))["tokens"].combine_chunks()
                counts = mine.flatten().to_numpy().reshape(-1, block["items"])
            done = 0
            for batch in rows.slice(start, block["items"]).to_batches(_UNPACKED_ITEMS):
                some = counts[:, done : done + len(batch)] if counts is not None else None
                jobs.append(pool.submit(_unpack, matrix, start + done, batch, part, some))
                done += len(batch)
            start += block["items"]
        for job in jobs:
            job.result()
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


def _pack(matrix: Matrix, block: int, rows: slice, first: int, prompts: list[int]) -> pa.Table:
    scores, valid = matrix.scores[rows], matrix.valid[rows]
    right = valid & (scores == 1)
    plain: npt.NDArray[np.bool_] = np.all(~valid | (scores == 0) | (scores == 1), axis=1)
    prompted = matrix.prompt_tokens[rows] >= 0
    lengths = matrix.completion_tokens[rows] + 1
    lengths = np.take_along_axis(lengths, _length_order(right, np.asarray(prompts)), axis=1)
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


def _length_order(right: npt.NDArray[np.bool_], prompts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each row of `right`, items × models, the models in the order of their lengths in `completion`."""
    ways = np.unique(prompts, return_inverse=True)[1].astype(np.int16)
    return np.argsort(ways - np.where(right, np.int16(len(ways)), np.int16(0)), axis=1, kind="stable")


def _bits(flags: npt.NDArray[np.bool_]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(flags, axis=1, bitorder="little")]


def _write(table: pa.Table, path: Path) -> None:
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    lists = [f"{f.name}.list.element" for f in table.schema if pa.types.is_list(f.type)]
    texts = [f.name for f in table.schema if pa.types.is_string(f.type)]
    encoding = dict.fromkeys([*integers, *lists], "DELTA_BINARY_PACKED")
    pq.write_table(table, path, compression="zstd", use_dictionary=texts, column_encoding=encoding)


# ---- unpacking


class _Block:
    """Where one block's models stand in the arrays that are asked for."""

    def __init__(self, into: npt.NDArray[np.int64], prompts: npt.NDArray[np.int64], columns: int) -> None:
        """`into`: the column of each of the block's models, -1 not wanted. `columns`: how many the arrays have."""
        self.size = len(into)
        self.prompts = prompts
        self.known = into >= 0
        self.into = into[self.known]
        self.is_whole = self.size == columns and bool((into == np.arange(columns)).all())

    def lay(self, array: npt.NDArray[Any], lines: slice, values: npt.NDArray[Any] | bool) -> None:
        """`values`: items × the block's models, or one for all."""
        if self.is_whole:
            array[lines] = values
        elif isinstance(values, bool):
            array[lines, self.into] = values
        else:
            array[lines, self.into] = values[:, self.known]


def _unpack(
    matrix: Matrix, start: int, rows: pa.RecordBatch, block: _Block, counts: npt.NDArray[np.int32] | None
) -> None:
    """Lays `rows`, of one block, into the lines of the arrays from `start` on. `counts`: the ways × these items."""
    lines = slice(start, start + len(rows))
    right = _flags(rows["right"], block.size, default=False)
    if rows["valid"].null_count == rows["score"].null_count == len(rows):  # most blocks: bits say all
        block.lay(matrix.scores, lines, right)
        block.lay(matrix.valid, lines, True)
    else:
        valid = _flags(rows["valid"], block.size, default=True)
        scores = np.where(valid, right, np.float32(np.nan)).astype(np.float32)
        for line, values in enumerate(rows["score"].to_pylist()):
            if values is not None:
                scores[line] = np.frombuffer(values, "<f4")
        block.lay(matrix.scores, lines, scores)
        block.lay(matrix.valid, lines, valid)
    if counts is None:
        return
    prompts = np.take(counts.T, block.prompts, axis=1)
    prompted = _flags(rows["prompted"], block.size, default=True)
    block.lay(matrix.prompt_tokens, lines, prompts if prompted.all() else np.where(prompted, prompts, -1))
    lengths = np.zeros((len(rows), block.size), np.int32)
    for line, values in enumerate(rows["completion"].to_pylist()):
        for byte in range(len(values) // block.size if values else 0):
            lengths[line] |= np.frombuffer(values, np.uint8, block.size, byte * block.size).astype(np.int32) << (
                8 * byte
            )
    if (lengths[:, :1] != lengths).any():
        sorted_lengths, order = lengths.copy(), _length_order(right, block.prompts)
        np.put_along_axis(lengths, order, sorted_lengths, axis=1)
    block.lay(matrix.completion_tokens, lines, lengths - 1)


def _flags(column: pa.BinaryArray, size: int, *, default: bool) -> npt.NDArray[np.bool_]:
    """Bits of each row as booleans, rows × size; `default` where a row is null."""
    if column.null_count == len(column):
        return np.full((len(column), size), default)
    width = (size + 7) // 8
    if column.null_count:
        fill = (b"\xff" if default else b"\x00") * width
        column = pa.array([fill if value is None else value for value in column.to_pylist()], pa.binary())
    _, places, values = column.buffers()
    ends = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(values, np.uint8)[ends[0] : ends[-1]]
    return np.unpackbits(data.reshape(-1, width), axis=1, count=size, bitorder="little").view(np.bool_)

"""The matrix in the least bytes that load at once: bits of verdicts, lengths of answers, prompts by tokenizer.

Owns the packed form: four Parquet tables that any reader opens. Knows nothing of lakes or of where the files go.

    models    one row per model of the matrix's axis (collectors.arrays.COLUMN_KEY)
    blocks    one row per block (collectors.arrays.BLOCK_KEY) with its items and the models that were to answer, by
              their place on the axis; `prompts`: for each of these the number of a row of the table prompts
    prompts   one row per block and way to count its prompts (a tokenizer's): the tokens of each item, -1 unknown
    items     one row per item of a block: bits and lengths over the block's models, in their order

Bits are little-endian: model i is bit i % 8 of byte i // 8. In `items`, a null stands for the common case. `valid`: all
are; `prompted`: of all it is known how many tokens they read; `score`: the scores are the bits of `right`;
`low` or `high`: 0 for all.

Completion tokens + 1, 0 unknown, are 16 `high` + `low`: columns of their own, because each is coded by how often its
values come, take 1.00 bytes for generated texts where one integer takes 1.03. Lengths of equal answers stand side by
side: in each row first those of the models that are right, then the others; among these by `prompts`, then in the order
of the block's models. A choice of some tokens, which all that are right make, takes 0.10 bytes so and 0.23 in the
models' own order (8,500 synthetic models).
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
from schemas.identity import is_imported

ITEMS = pa.schema(
    [
        pa.field("block", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("right", pa.binary(), nullable=False),
        pa.field("valid", pa.binary()),
        pa.field("prompted", pa.binary()),
        #: float32 each, NaN where not valid.
        pa.field("score", pa.binary()),
        #: A byte each.
        pa.field("low", pa.binary()),
        #: All low bytes, then all next ones, as many as the largest needs.
        pa.field("high", pa.binary()),
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
    include: str = "all",
) -> Matrix:
    """The matrix, or some of its tasks and models by name. `files`: for each of FILES what pyarrow reads.

    `include`: which cells, a key of schemas.views.INCLUDED.
    """
    every, table = (pq.ParquetFile(files[name]).read() for name in ("models", "blocks"))
    blocks = [block for block in table.to_pylist() if tasks is None or block["task"] in tasks]
    if include != "all":
        blocks = [block for block in blocks if is_imported(block["prompting"]) == (include == "imported")]
    chosen = np.zeros(len(every), np.bool_)
    for block in blocks:
        chosen[block["models"]] = True
    if models is not None:
        chosen &= np.isin(every["model"].to_pylist(), models)
    #: Place on the whole axis -> column; -1: not wanted.
    columns = np.where(chosen, np.cumsum(chosen) - 1, -1)
    blocks = [block for block in blocks if (columns[block["models"]] >= 0).any()]
    numbers = pa.array([block["block"] for block in blocks], pa.int32())
    prompts = pq.ParquetFile(files["prompts"]).read() if tokens else None
    lengths = [block["items"] for block in blocks]
    axis = (
        table.filter(pc.is_in(table["block"], numbers))
        .select(list(BLOCK_KEY))
        .take(np.repeat(np.arange(len(blocks)), lengths))
    )
    item = np.arange(len(axis)) - np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
    axis = axis.append_column("item", pa.array(item.astype(np.int32)))
    whole = all((columns[block["models"]] >= 0).sum() == chosen.sum() for block in blocks)
    matrix = empty_matrix(axis, every.filter(pa.array(chosen)), tokens=tokens, filled=not whole)
    reader = _Items(files["items"], [block["items"] for block in table.to_pylist()], tokens=tokens)
    jobs, start = [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in blocks:
            part = _Block(columns[block["models"]], np.asarray(block["prompts"]), len(matrix.models))
            counts = None
            if prompts is not None:
                mine = prompts.filter(pc.equal(prompts["block"], block["block"]))["tokens"].combine_chunks()
                counts = mine.flatten().to_numpy().reshape(-1, block["items"])
            for group in reader.groups(block["block"]):
                jobs.append(pool.submit(reader.unpack, matrix, start, block["block"], group, part, counts))
            start += block["items"]
        for job in jobs:
            job.result()
    return matrix


class _Items:
    """The table `items`, read by row group, several at once."""

    def __init__(self, source: Any, sizes: list[int], *, tokens: bool) -> None:
        """`sizes`: the items of each block. Raises ValueError where the table has not as many."""
        self.source = source if isinstance(source, str | Path) else pa.py_buffer(source.getbuffer())
        self.columns = ["right", "valid", "score", *(["prompted", "low", "high"] if tokens else [])]
        with self._open() as file:
            self.metadata = file.metadata
        rows = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
        #: First row of each group and of each block, and the end.
        self.group_rows, self.block_rows = np.cumsum([0, *rows]), np.cumsum([0, *sizes])
        if self.group_rows[-1] != self.block_rows[-1]:
            raise ValueError(f"{self.group_rows[-1]} items are not the {self.block_rows[-1]} of the blocks")

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        source = self.source if isinstance(self.source, str | Path) else pa.BufferReader(self.source)
        return pq.ParquetFile(source, metadata=metadata, memory_map=True)

    def groups(self, block: int) -> range:
        """Numbers of the row groups with items of the block."""
        first, end = self.block_rows[block : block + 2]
        return range(np.searchsorted(self.group_rows, first, "right") - 1, np.searchsorted(self.group_rows, end))

    def unpack(
        self,
        matrix: Matrix,
        start: int,
        number: int,
        group: int,
        block: _Block,
        counts: npt.NDArray[np.int32] | None,
    ) -> None:
        """Lays what one row group holds of block `number` into the lines of the arrays from `start` on."""
        with self._open(self.metadata) as file:
            table = file.read_row_group(group, columns=self.columns, use_threads=False)
        first = max(self.group_rows[group], self.block_rows[number])
        end = min(self.group_rows[group + 1], self.block_rows[number + 1])
        item = int(first - self.block_rows[number])
        for rows in table.slice(first - self.group_rows[group], end - first).to_batches(_UNPACKED_ITEMS):
            some = counts[:, item : item + len(rows)] if counts is not None else None
            _unpack(matrix, start + item, rows, block, some)
            item += len(rows)


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
    high = lengths >> 4
    width = np.ceil(np.log2(high.max(axis=1, initial=0) + 1) / 8).astype(int)
    data = {
        "block": np.full(len(right), block, np.int32),
        "item": np.arange(rows.start - first, rows.stop - first, dtype=np.int32),
        "right": _bits(right),
        "valid": [None if all_are else bits for all_are, bits in zip(np.all(valid, axis=1), _bits(valid), strict=True)],
        "prompted": [None if known.all() else bits for known, bits in zip(prompted, _bits(prompted), strict=True)],
        "score": [None if is_plain else row.tobytes() for is_plain, row in zip(plain, scores, strict=True)],
        "low": [row.tobytes() if row.any() else None for row in (lengths & 15).astype(np.uint8)],
        "high": [
            row.astype("<u4").view(np.uint8).reshape(-1, 4).T[:bytes_each].tobytes() if bytes_each else None
            for row, bytes_each in zip(high, width, strict=True)
        ],
    }
    return pa.table(data, schema=ITEMS)


def _length_order(right: npt.NDArray[np.bool_], prompts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each row of `right`, items × models, the models in the order of their lengths."""
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
    block.lay(matrix.completion_tokens, lines, _lengths(rows, right, block.prompts) - 1)


def _lengths(
    rows: pa.RecordBatch, right: npt.NDArray[np.bool_], prompts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Completion tokens + 1, 0 unknown, of `rows`, items × models."""
    size = right.shape[1]
    found = np.zeros(right.shape, np.int32)
    for line, (low, high) in enumerate(zip(rows["low"].to_pylist(), rows["high"].to_pylist(), strict=True)):
        if low:
            found[line] = np.frombuffer(low, np.uint8, size)
        for byte in range(len(high) // size if high else 0):
            found[line] |= np.frombuffer(high, np.uint8, size, byte * size).astype(np.int32) << (8 * byte + 4)
    mixed = np.flatnonzero((found != found[:, :1]).any(axis=1))
    if len(mixed):
        in_order = found[mixed]
        np.put_along_axis(in_order, _length_order(right[mixed], prompts), found[mixed], axis=1)
        found[mixed] = in_order
    return found


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

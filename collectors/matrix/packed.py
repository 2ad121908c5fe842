"""The packed matrix: the smallest form that still loads at once. Bits of verdicts, lengths of answers, prompt tokens.

Owns the packed form: four Parquet tables that any reader can open. Knows nothing of lakes or of the files' place.

    models    one row for each model on the matrix's axis (schemas.identity.COLUMN_KEY)
    blocks    one row for each block (schemas.identity.BLOCK_KEY), with its number of items and its planned models, by
              their place on the axis; `prompts` has for each of these models the number of a row in the table prompts
    prompts   one row for each block and each way to count its prompts (a tokenizer's): the tokens of each item, -1 for
              unknown
    items     one row for each item of a block: bits and lengths over the block's models, in their order

Bits are little-endian: model i is bit i % 8 of byte i // 8. In `items` a null stands for the common case. `valid`: all
models are valid. `prompted`: all counts of prompt tokens are known. `score`: the scores are the bits of `right`. `low`
and `high`: all are 0.

Completion tokens + 1, with 0 for unknown, are 16 `high` + `low`. Two columns compress better than one, by the frequency
of their values: 1.00 bytes for generated texts, against 1.03 for one integer. A row is sorted so that lengths of equal
answers are neighbours: first the models with a right answer, then the others, each by `prompts` and then in the order
of the block's models. The choice of a few tokens, which is the same for all right models, takes 0.10 bytes this way and
0.23 in the models' own order (8,500 synthetic models).
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
import pyarrow.parquet as pq

from collectors.lake.layout import PACKED, packed_name
from collectors.matrix.arrays import Matrix, empty_matrix
from schemas.identity import BLOCK_KEY, is_imported

ITEMS = pa.schema(
    [
        pa.field("block", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("right", pa.binary(), nullable=False),
        pa.field("valid", pa.binary()),
        pa.field("prompted", pa.binary()),
        #: float32 for each model; NaN if not valid.
        pa.field("score", pa.binary()),
        #: A byte for each model.
        pa.field("low", pa.binary()),
        #: The lowest byte of each model, then the next byte of each, as many as the largest value needs.
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
#: Items in a row group, which are packed at once.
PACKED_ITEMS = 512
#: Items unpacked at once. The booleans of 8,500 models on so many items fit into a core's cache.
_UNPACKED_ITEMS = 128
#: Table -> its file.
FILES = {name: packed_name(name) for name in ("models", "blocks", "prompts", "items")}


def write_packed(matrices: Iterable[Matrix], models: pa.Table, folder: Path) -> None:
    """Writes the tables of the whole matrix below `folder`. Each of `matrices` holds whole blocks, in order.

    `models` is the axis of models of the whole matrix. The same matrices give the same bytes.
    """
    (folder / PACKED).mkdir(parents=True, exist_ok=True)
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
    """The matrix, or its tasks and models with these names.

    `files` maps each table of FILES to a path or buffer that pyarrow reads. `include` is a key of
    schemas.views.INCLUDED. Raises ValueError if the tables do not fit together.
    """
    import pyarrow.compute as pc  # 75 ms

    every, table = (pq.ParquetFile(files[name]).read() for name in ("models", "blocks"))
    blocks = [block for block in table.to_pylist() if tasks is None or block["task"] in tasks]
    if include != "all":
        blocks = [block for block in blocks if is_imported(block["prompting"]) == (include == "imported")]
    chosen = np.zeros(len(every), np.bool_)
    for block in blocks:
        chosen[block["models"]] = True
    if models is not None:
        chosen &= np.isin(every["model"].to_pylist(), models)
    #: Place on the whole axis -> column; -1 if not wanted.
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
            part = _TaskBlock(columns[block["models"]], np.asarray(block["prompts"]), len(matrix.models))
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
    """The table `items`. Threads read its row groups in parallel."""

    def __init__(self, source: Any, sizes: list[int], *, tokens: bool) -> None:
        """`sizes` are the items of each block. Raises ValueError if the table has another number of items."""
        self.source = source if isinstance(source, str | Path) else pa.py_buffer(source.getbuffer())
        self.columns = ["right", "valid", "score", *(["prompted", "low", "high"] if tokens else [])]
        with self._open() as file:
            self.metadata = file.metadata
        rows = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
        #: The first row of each row group and of each block, and the end of the table.
        self.group_rows, self.block_rows = np.cumsum([0, *rows]), np.cumsum([0, *sizes])
        if self.group_rows[-1] != self.block_rows[-1]:
            raise ValueError(f"{self.group_rows[-1]} items are not the {self.block_rows[-1]} of the blocks")

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        source = self.source if isinstance(self.source, str | Path) else pa.BufferReader(self.source)
        return pq.ParquetFile(source, metadata=metadata, memory_map=True)

    def groups(self, block: int) -> range:
        """The numbers of the row groups with items of the block."""
        first, end = self.block_rows[block : block + 2]
        return range(np.searchsorted(self.group_rows, first, "right") - 1, np.searchsorted(self.group_rows, end))

    def unpack(
        self,
        matrix: Matrix,
        start: int,
        number: int,
        group: int,
        block: _TaskBlock,
        counts: npt.NDArray[np.int32] | None,
    ) -> None:
        """Lays the items of block `number` in one row group into the arrays; the block begins at the line `start`."""
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
    """The key and the rows of each block."""
    runs: list[list[Any]] = []
    for row, values in enumerate(zip(*(items[name].to_pylist() for name in BLOCK_KEY), strict=True)):
        if not runs or runs[-1][0] != values:
            runs.append([values, row, row])
        runs[-1][2] = row + 1
    return [(dict(zip(BLOCK_KEY, key, strict=True)), slice(first, stop)) for key, first, stop in runs]


def _prompts(counts: npt.NDArray[np.int32]) -> tuple[list[int], list[list[int]]]:
    """For each column of `counts` (items, models) the number of its way to count, and the ways.

    Columns share a way if they agree on every item with a count in both. So no count changes, and `prompted` marks the
    unknown ones, so that they are not read back as known.
    """
    ways: list[npt.NDArray[np.int32]] = []
    numbers = [-1] * counts.shape[1]
    numbered: dict[bytes, int] = {}
    for column in np.argsort(
        -(counts >= 0).sum(axis=0), kind="stable"
    ):  # columns without gaps first, so that gaps fit in
        mine = counts[:, column]
        number = numbered.get(mine.tobytes(), -1)
        if number < 0:
            agree = (i for i, way in enumerate(ways) if ((mine == way) | (mine < 0) | (way < 0)).all())
            number = next(agree, len(ways))
            if number == len(ways):
                ways.append(mine.copy())
            np.copyto(ways[number], mine, where=ways[number] < 0)
            numbered[mine.tobytes()] = number
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
        "prompted": [None if flags.all() else bits for flags, bits in zip(prompted, _bits(prompted), strict=True)],
        "score": [None if is_plain else row.tobytes() for is_plain, row in zip(plain, scores, strict=True)],
        "low": [row.tobytes() if row.any() else None for row in (lengths & 15).astype(np.uint8)],
        "high": [
            row.astype("<u4").view(np.uint8).reshape(-1, 4).T[:bytes_each].tobytes() if bytes_each else None
            for row, bytes_each in zip(high, width, strict=True)
        ],
    }
    return pa.table(data, schema=ITEMS)


def _length_order(right: npt.NDArray[np.bool_], prompts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(items, models): for each row of `right` the models in the order of their stored lengths."""
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


class _TaskBlock:
    """The columns of one block's models in the requested arrays."""

    def __init__(self, into: npt.NDArray[np.int64], prompts: npt.NDArray[np.int64], columns: int) -> None:
        """`into` has the column of each of the block's models, -1 if not wanted; the arrays have `columns` columns."""
        self.size = len(into)
        self.prompts = prompts
        self.wanted = into >= 0
        self.into = into[self.wanted]
        self.is_whole = self.size == columns and bool((into == np.arange(columns)).all())

    def lay(self, array: npt.NDArray[Any], lines: slice, values: npt.NDArray[Any] | bool) -> None:
        """Sets `lines` of `array` to `values`: (items, the block's models), or one value for all."""
        if self.is_whole:
            array[lines] = values
        elif isinstance(values, bool):
            array[lines, self.into] = values
        else:
            array[lines, self.into] = values[:, self.wanted]


def _unpack(
    matrix: Matrix, start: int, rows: pa.RecordBatch, block: _TaskBlock, counts: npt.NDArray[np.int32] | None
) -> None:
    """Lays `rows` of one block into the arrays from line `start`. `counts` is (ways, these items)."""
    lines = slice(start, start + len(rows))
    right = _flags(rows["right"], block.size, default=False)
    if rows["valid"].null_count == rows["score"].null_count == len(rows):  # true for most blocks
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
    """(items, models): completion tokens + 1 of `rows`, 0 for unknown."""
    size = right.shape[1]
    lengths = np.zeros(right.shape, np.int32)
    for line, (low, high) in enumerate(zip(rows["low"].to_pylist(), rows["high"].to_pylist(), strict=True)):
        if low:
            lengths[line] = np.frombuffer(low, np.uint8, size)
        for byte in range(len(high) // size if high else 0):
            lengths[line] |= np.frombuffer(high, np.uint8, size, byte * size).astype(np.int32) << (8 * byte + 4)
    mixed = np.flatnonzero((lengths != lengths[:, :1]).any(axis=1))
    if len(mixed):
        in_order = lengths[mixed]
        np.put_along_axis(in_order, _length_order(right[mixed], prompts), lengths[mixed], axis=1)
        lengths[mixed] = in_order
    return lengths


def _flags(column: pa.BinaryArray, size: int, *, default: bool) -> npt.NDArray[np.bool_]:
    """(rows, size): the bits of each row as booleans; a null row is all `default`."""
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

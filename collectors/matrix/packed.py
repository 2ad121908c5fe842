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
from collectors.matrix.arrays import Arrays, Blocks
from collectors.matrix.laying import Inexact, Placement, clear, put
from schemas.identity import BLOCK_KEY, COLUMN_KEY

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


def write_packed(matrices: Iterable[Blocks], models: pa.Table, folder: Path) -> None:
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


def lay_packed(files: Mapping[str, Any], arrays: Arrays, placement: Placement) -> bool:
    """Lays cells into `arrays`, and unknown values elsewhere; False if the packed form lacks one of the cells.

    `files` maps each table of FILES to a path or buffer that pyarrow reads. `placement.cells` has the columns of
    BLOCK_KEY and COLUMN_KEY, too. Raises Inexact for a block with other scores than 0 and 1, which this form rounds;
    ValueError if the tables do not fit together.
    """
    import pyarrow.compute as pc  # 75 ms

    every, table = (pq.ParquetFile(files[name]).read() for name in ("models", "blocks"))
    # An older version lacks the later columns of the key.
    axis = {tuple(row.get(name) for name in COLUMN_KEY): place for place, row in enumerate(every.to_pylist())}
    numbers = {tuple(row.values()): row_number for row_number, row in enumerate(table.select(BLOCK_KEY).to_pylist())}
    #: Row of the table blocks -> the number in placement.rows, and place on the axis of models -> column.
    wanted: dict[int, tuple[int, dict[int, int]]] = {}
    for row in placement.cells.to_pylist():
        block = numbers.get(tuple(row[name] for name in BLOCK_KEY))
        model = axis.get(tuple(row[name] for name in COLUMN_KEY))
        if block is None or model is None:
            return False
        wanted.setdefault(block, (row["block"], {}))[1][model] = row["model_column"]
    blocks = table.to_pylist()
    parts = {number: _TaskBlock(arrays, placement.rows[of], blocks[number], by) for number, (of, by) in wanted.items()}
    if any(part.lacks_some for part in parts.values()):
        return False
    tokens = bool(arrays.prompt_tokens.size)
    prompts = pq.ParquetFile(files["prompts"]).read() if tokens else None
    reader = _Items(files["items"], [block["items"] for block in blocks], tokens=tokens)
    if sum(part.elements for part in parts.values()) < arrays.scores.size:
        clear(arrays)
    jobs = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, part in parts.items():
            counts = None
            if prompts is not None:
                mine = prompts.filter(pc.equal(prompts["block"], blocks[number]["block"]))["tokens"].combine_chunks()
                counts = mine.flatten().to_numpy().reshape(-1, blocks[number]["items"])
            jobs += [pool.submit(reader.unpack, number, group, part, counts) for group in reader.groups(number)]
        for job in jobs:
            job.result()
    return True


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

    def unpack(self, number: int, group: int, block: _TaskBlock, counts: npt.NDArray[np.int32] | None) -> None:
        """Lays the items of block `number` in one row group into the arrays."""
        with self._open(self.metadata) as file:
            table = file.read_row_group(group, columns=self.columns, use_threads=False)
        first = max(self.group_rows[group], self.block_rows[number])
        end = min(self.group_rows[group + 1], self.block_rows[number + 1])
        item = int(first - self.block_rows[number])
        for rows in table.slice(first - self.group_rows[group], end - first).to_batches(_UNPACKED_ITEMS):
            some = counts[:, item : item + len(rows)] if counts is not None else None
            _unpack(block, slice(item, item + len(rows)), rows, some)
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


def _pack(matrix: Blocks, block: int, rows: slice, first: int, prompts: list[int]) -> pa.Table:
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
    """The places of one block's models and items in arrays."""

    def __init__(
        self, arrays: Arrays, rows: npt.NDArray[np.int64], block: dict[str, Any], columns: dict[int, int]
    ) -> None:
        """`rows` has the row of each item; `columns` maps places on the axis of models, not all, to columns."""
        self.arrays = arrays
        self.rows = rows[: block["items"]]
        self.size = len(block["models"])
        self.prompts = np.asarray(block["prompts"])
        into = np.array([columns.get(model, -1) for model in block["models"]], np.int64)
        self.wanted = into >= 0
        self.into = into[self.wanted]
        #: Whether the block has no column for one of the models.
        self.lacks_some = len(self.into) < len(columns)
        self.elements = len(self.rows) * len(self.into)

    def lay(self, array: npt.NDArray[Any], items: slice, values: npt.NDArray[Any]) -> None:
        """Sets the rows of `items` in `array` to `values`: (items, the block's models)."""
        rows = self.rows[items]
        put(array, rows, self.into, (values if self.wanted.all() else values[:, self.wanted])[: len(rows)])


def _unpack(block: _TaskBlock, items: slice, rows: pa.RecordBatch, counts: npt.NDArray[np.int32] | None) -> None:
    """Lays `rows`, the `items` of one block, into its arrays. `counts` is (ways, these items)."""
    if rows["score"].null_count < len(rows):
        raise Inexact
    arrays = block.arrays
    right = _flags(rows["right"], block.size, default=False)
    if rows["valid"].null_count == len(rows):  # true for most blocks
        block.lay(arrays.scores, items, right)
    else:
        valid = _flags(rows["valid"], block.size, default=True)
        block.lay(arrays.scores, items, np.where(valid, right, np.float32(np.nan)))
    if counts is None:
        return
    prompts = np.take(counts.T, block.prompts, axis=1)
    prompted = _flags(rows["prompted"], block.size, default=True)
    block.lay(arrays.prompt_tokens, items, prompts if prompted.all() else np.where(prompted, prompts, -1))
    block.lay(arrays.completion_tokens, items, _lengths(rows, right, block.prompts) - 1)


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

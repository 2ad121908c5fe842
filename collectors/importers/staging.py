"""The rows of an import on disk: a DuckDB database that sorts, counts and joins them.

Owns that database. Knows nothing of formats, nor of how the lake is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile
from collectors.importers.processes import Job, JobResult, Reader, few_collections, is_worth, read_apart
from collectors.importers.raw_tables import RAW_TABLES
from collectors.importers.sources import Sink
from collectors.importers.text_tables import text_of_json, texts_of_json
from collectors.importers.unwrapping import list_of_text, text_of_list
from schemas.failures import one_line
from schemas.identity import content_hash

#: Rows of whole tables that are stored at a time.
_BATCH = 200_000


class Staging(Sink):
    """Stores the rows of importers in a folder of this machine, on disk where they exceed its memory."""

    def __init__(self, folder: Path, files: Sequence[SourceFile]) -> None:
        super().__init__(files)
        self.folder = folder
        self.con = duckdb.connect(config={"python_enable_replacements": "false"})
        self.con.execute("SET memory_limit = '1GB'")
        self.con.execute("SET temp_directory = ?", [str(folder / "spill")])
        self.con.execute("SET enable_progress_bar = false")
        # Tables are joined as queries name them. DuckDB's order joins cells with items before the verdicts, as they
        # share run and task, and so makes a row for each pair.
        self.con.execute("SET disabled_optimizers = 'join_order'")
        self.con.execute("SET TimeZone = 'UTC'")  # a time that is a key is the same text on every machine
        for function, call, given, returned in (
            ("content_hash_of", _content_hash, ["VARCHAR", "VARCHAR[]"], "VARCHAR"),
            ("text_of_json", text_of_json, ["VARCHAR"], "VARCHAR"),
            ("texts_of_json", texts_of_json, ["VARCHAR"], "VARCHAR[]"),
            ("text_of_list", text_of_list, ["VARCHAR"], "VARCHAR"),
            ("list_of_text", list_of_text, ["VARCHAR"], "VARCHAR"),
        ):
            kinds = {"null_handling": "special", "return_type": returned, "parameters": given}
            self.con.create_function(function, call, **kinds)  # type: ignore[call-overload]
        for name, schema in RAW_TABLES.items():
            self.con.register("empty", schema.empty_table())
            self.con.execute(f"CREATE TABLE {name} AS FROM empty")
            self.con.unregister("empty")
        #: Texts of tables that stand in place of numbers, with their columns.
        self.con.execute("CREATE TABLE odd_values (file INTEGER, row BIGINT, what VARCHAR)")
        self._tables: list[pa.Table] = []

    def put(self, name: str, table: pa.Table | pa.RecordBatchReader) -> None:
        with self.con.cursor() as con:  # others may be reading a result
            con.register("given", table)
            con.execute(f"INSERT INTO {name} FROM given")

    def read_files(self, read: Reader, jobs: Sequence[Job]) -> None:
        """Calls `read` for each job's file, in order, in several processes where that is faster.

        `read` must be a function of a module, and use of its first argument only the methods of Sink.
        """
        if is_worth([self.files[number] for number, _ in jobs]):
            for result in read_apart(read, self.files, jobs, Path(tempfile.mkdtemp(dir=self.folder))):
                self._take(result)
            return
        for number, args in jobs:
            with self.one_file(number), few_collections():
                read(self, number, *args)

    def _take(self, result: JobResult) -> None:
        self.descriptions |= result.descriptions
        self.format_version[result.number] = result.format_version or self.format_version[result.number]
        self.counts[result.number].rejected += result.rejected
        self.describing |= {result.number} if result.is_describing else set()
        self.counts[result.number].folded += result.folded
        for name, path in result.tables.items():
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
                self.put(name, reader)
            path.unlink()

    def rows(self, table: pa.Table) -> None:
        """Takes many verdicts: a table of RAW_VERDICT."""
        self._tables.append(table)
        if sum(map(len, self._tables)) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        super().flush()
        if self._tables:
            table = pa.concat_tables(self._tables)
            self._tables.clear()
            self.put("raw_verdicts", table)

    def select(self, sql: str) -> None:
        """Takes the verdicts that a SELECT returns: columns of RAW_VERDICT, among them file, row, model, task and key.

        Raises BadFile where one cannot be read, and then takes none.
        """
        self._insert("raw_verdicts", sql)

    def select_items(self, sql: str) -> None:
        """Takes the items that a SELECT returns: run, task, key, content_hash, prompt, target, choices, subject.

        Raises BadFile where one cannot be read.
        """
        texts = "prompt, target, choices, subject"
        self._insert(
            "raw_texts", f"SELECT *, md5(({texts})::VARCHAR) AS text FROM (SELECT DISTINCT {texts} FROM ({sql}))"
        )
        self._insert("raw_items", f"SELECT * EXCLUDE ({texts}), md5(({texts})::VARCHAR) AS text FROM ({sql})")

    def select_suspects(self, sql: str) -> None:
        """Takes note of the rows that a SELECT returns, which look wrong: columns of RAW_SUSPECT."""
        self._insert("raw_suspects", sql)

    def _insert(self, table: str, sql: str) -> None:
        try:
            self.con.execute(f"INSERT INTO {table} BY NAME {sql}")
        except duckdb.Error as error:
            raise BadFile("damaged", one_line(error, 300)) from error

    def close(self) -> None:
        self.con.close()


def _content_hash(question: str | None, choices: Sequence[str | None] | None) -> str | None:
    """schemas.identity.content_hash for SQL; null without a question."""
    if question is None or not question.strip():
        return None
    return content_hash(question, [choice for choice in choices or () if choice is not None])


def name_of(names: Iterable[str], *wanted: str) -> str | None:
    """The first of `wanted` that is among `names`."""
    there = set(names)
    return next((name for name in wanted if name in there), None)

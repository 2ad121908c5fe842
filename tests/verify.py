"""Recomputes published figures of others from their own records: a row a figure, exit 1 if any is off.

The records are real ones that are not part of the repository (--data names their folder); each goes through ingest, the
price table that ships with routerlake, and the views, as a user's would.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import find_files
from collectors.importers.ingest import ingest
from collectors.importers.registry import FORMATS
from collectors.importers.sources import ImportSource
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.matrix.token_counts import encoding_counter, tokens_of
from collectors.prices.tables import add_prices, read_prices, shipped_path

#: tiktoken's cl100k_base vocabulary by the name that its cache gives it, and the wheel that carries a copy.
VOCABULARY = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
VOCABULARY_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
WHEEL = "litellm==1.80.0"

#: RouterBench, 5-shot rows of three tasks: mean performance of each model, and of the oracle.
ROUTERBENCH = {
    "gpt-3.5-turbo-1106": (0.8340, 0.6534, 0.6409),
    "claude-instant-v1": (0.8286, 0.6042, 0.5170),
    "claude-v1": (0.9082, 0.5972, 0.5620),
    "claude-v2": (0.5871, 0.6417, 0.4775),
    "gpt-4-1106-preview": (0.9544, 0.6862, 0.8587),
    "meta/llama-2-70b-chat": (0.8034, 0.3302, 0.5028),
    "mistralai/mixtral-8x7b-chat": (0.8544, 0.5410, 0.6788),
    "zero-one-ai/Yi-34B-Chat": (0.9034, 0.3864, 0.7537),
    "WizardLM/WizardLM-13B-V1.2": (0.6592, 0.3700, 0.5288),
    "meta/code-llama-instruct-34b-chat": (0.6605, 0.5176, 0.5848),
    "mistralai/mistral-7b-chat": (0.6701, 0.3443, 0.5659),
}
TASKS = ("arc-challenge", "mbpp", "winogrande")
#: Mean of the oracle's performance, and USD of all that it chose.
ORACLE = {"arc-challenge": (0.9852, 0.333), "mbpp": (0.8665, 0.203), "winogrande": (0.9992, 0.136)}
#: RouteLLM: (task, model) -> accuracy; model None: the better of the two on each item.
ROUTELLM = {
    ("gsm8k", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6384,
    ("gsm8k", "gpt-4-1106-preview"): 0.8567,
    ("mmlu", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6808,
    ("mmlu", "gpt-4-1106-preview"): 0.8058,
    ("mmlu", None): 0.8586,
}


#: Of an item that nobody solves RouterBench routes to no model, but only where it has a score of every model.
_ROUTED = "best_score > 0 OR models_scored < models"


class Report:
    def __init__(self) -> None:
        self.good = True

    def row(self, what: str, published: float, ours: float, digits: int = 4) -> None:
        """Equal: to as many decimal places as were published."""
        ok = abs(ours - published) <= 0.5 * 10**-digits + 1e-12
        self.good &= ok
        print(f"{what:<74} {published:>10.{digits}f} {ours:>14.6f}  {'ok' if ok else 'off'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[2] / "shared/data/records"
    parser.add_argument("--data", type=Path, default=default, help="folder with routerbench_sub and routellm")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"verify: no records at {args.data}: name their folder with --data")
        return 2
    report = Report()
    print(f"{'':<74} {'published':>10} {'ours':>14}")
    with tempfile.TemporaryDirectory(prefix="rl-verify-") as folder:
        verify_routerbench(report, args.data / "routerbench_sub", Path(folder))
        verify_routellm(report, args.data / "routellm", Path(folder))
    return 0 if report.good else 1


# ---- RouterBench


def verify_routerbench(report: Report, data: Path, folder: Path) -> None:
    lake = Lake(str(folder / "routerbench"))
    path = folder / "routerbench.parquet"
    pq.write_table(with_tokens(data, folder), path)
    columns = {"model": "model", "task": "task", "key": "item_id", "score": "score", "usd": "cost_usd"}
    columns |= {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens"}
    import_table(lake, path, columns)
    with shipped_path("routerbench") as prices:
        add_prices(lake, *read_prices(prices))
    with connect(lake) as con:
        [(stated, equal)] = con.execute(
            "SELECT count(stated_usd), count(*) FILTER (abs(serving_usd / stated_usd - 1) < 1e-12) FROM costs"
        ).fetchall()
        report.row("RouterBench: published costs equal tokens × prices, of 34,958", 34_958, equal, 0)
        report.row("RouterBench: rows with a published cost", 34_958, stated, 0)
        query = "SELECT source, task, score FROM leaderboard JOIN (SELECT cell_id, source FROM cells) USING (cell_id)"
        means = {(model, task): score for model, task, score in con.execute(query).fetchall()}
        for model, published in ROUTERBENCH.items():
            for task, value in zip(TASKS, published, strict=True):
                report.row(f"RouterBench {task}: {model}", value, means[model, task])
        for task, (score, usd) in ORACLE.items():
            [(mean, cost)] = con.execute(
                f"SELECT avg(best_score), sum(usd) FILTER ({_ROUTED}) FROM oracle_items WHERE task = ?", [task]
            ).fetchall()
            report.row(f"RouterBench {task}: oracle", score, mean)
            report.row(f"RouterBench {task}: oracle, USD", usd, cost, 3)
        verify_oracle_models(report, con, data)


def verify_oracle_models(report: Report, con: duckdb.DuckDBPyConnection, data: Path) -> None:
    """The model that the file routes to, where it names one, is our cheapest of the best."""
    [(given, equal)] = con.execute(
        f"""
        SELECT count(*), count(*) FILTER (
            CASE WHEN {_ROUTED} THEN cells.source ELSE 'no_model_correct' END = oracle_model_to_route_to
        )
        FROM (
            SELECT task, {_KEY} AS item_id, oracle_model_to_route_to FROM ({_numbered(data, "items")})
            WHERE oracle_model_to_route_to IS NOT NULL
        ) AS theirs
        JOIN items ON items.task = theirs.task AND source_key = item_id
        JOIN oracle_items ON oracle_items.task = items.task AND oracle_items.item = items.item
        JOIN cells ON cells.cell_id = oracle_items.cell_id
        """
    ).fetchall()
    report.row("RouterBench: items whose oracle model is the one that the file names", given, equal, 0)


def with_tokens(data: Path, folder: Path) -> pa.Table:
    """The records with prompt and completion tokens as RouterBench counts them: by cl100k_base, for any model."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabulary(folder))
    counter = encoding_counter("cl100k_base")
    records, items = _numbered(data, "records", "model, "), _numbered(data, "items")
    rows = duckdb.sql(
        f"SELECT records.* REPLACE ({_KEY} AS item_id), prompt FROM ({records}) AS records "
        f"JOIN ({items}) AS items USING (task, item_id, turn)"
    ).to_arrow_table()
    for name, column in (("prompt_tokens", "prompt"), ("completion_tokens", "response")):
        texts = [[] if text is None else [text] for text in rows[column].to_pylist()]
        counts = zip(texts, tokens_of(texts, [True] * len(texts), counter), strict=True)
        rows = rows.append_column(name, pa.array([count if text else None for text, count in counts], pa.int32()))
    return rows.drop_columns(["prompt", "response", "turn"])


#: Fourteen ids stand on two rows each, with the scores of some models on the one and of the others on the other: two
#: items. The second gets an id of its own.
_KEY = "CASE WHEN turn = 1 THEN item_id ELSE item_id || '#' || turn END"


def _numbered(data: Path, table: str, of: str = "") -> str:
    """The table with a column `turn`: which of the rows of its id, in the order of the file."""
    turn = f"row_number() OVER (PARTITION BY {of}task, item_id ORDER BY file_row_number)"
    rows = f"read_parquet('{data}/{table}.parquet', file_row_number = true)"
    return f"SELECT * EXCLUDE (file_row_number), {turn} AS turn FROM {rows}"


def vocabulary(folder: Path) -> Path:
    """A folder with tiktoken's cl100k_base, from a wheel of the package index: its own host may be out of reach."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), WHEEL], check=True)
    with zipfile.ZipFile(next(folder.glob("litellm-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(VOCABULARY))
        data = wheel.read(name)
    assert hashlib.sha256(data).hexdigest() == VOCABULARY_SHA256, f"the vocabulary in {WHEEL} is another one"
    (folder / "tiktoken").mkdir()
    (folder / "tiktoken" / VOCABULARY).write_bytes(data)
    return folder / "tiktoken"


# ---- RouteLLM


def verify_routellm(report: Report, data: Path, folder: Path) -> None:
    lake = Lake(str(folder / "routellm"))
    columns = {"model": "model", "task": "task", "key": "item_id", "score": "score"}
    import_table(lake, data / "records.parquet", columns)
    with connect(lake) as con:
        for (task, model), value in ROUTELLM.items():
            if model:
                query = "SELECT avg(score) FROM matrix WHERE model = ? AND starts_with(task, ?)"
                [(mean,)] = con.execute(query, [model, task]).fetchall()
            else:
                query = "SELECT avg(best_score) FROM oracle_items WHERE starts_with(task, ?)"
                [(mean,)] = con.execute(query, [task]).fetchall()
            report.row(f"RouteLLM {task}: {model or 'oracle'}", value, mean if mean is not None else math.nan)


def import_table(lake: Lake, path: Path, columns: dict[str, str]) -> None:
    source = ImportSource("published", "table", options=columns)
    ingest(FORMATS["table"].read, find_files([str(path)], FORMATS["table"].patterns), source, lake)


if __name__ == "__main__":
    sys.exit(main())

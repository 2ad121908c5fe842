"""The site: pages of 8,500 models × 12 tasks in Chromium, and the time, memory and size of a database by records."""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from collectors.lake.compaction import compact
from collectors.lake.store import Lake
from collectors.publish.card import Description
from collectors.publish.version import build_version
from collectors.website import building
from collectors.website.building import build_site
from collectors.website.database import write_database
from collectors.website.reading import Tables
from collectors.website.serving import server
from collectors.website.tables import question_fragment
from schemas.identity import digest
from schemas.records import ITEM
from schemas.sql import quoted
from tests.benchmarks.bench_lake import MODELS, Report
from tests.benchmarks.synthetic import TASKS, Synthetic
from tests.helpers.browser import Browser, browser
from tests.helpers.sites import asked_lake

#: As many models and tasks as RouterEval has.
WIDE, WIDE_TASKS = 8500, len(TASKS)
#: The largest version of the goal, with its most minutes and memory, and the CPU-seconds that two cores have in them,
#: of which DuckDB's waiting takes some.
LARGEST, MINUTES, GIB, CPU_SECONDS = 200e6, 10, 6, 1150


def widened(path: Path) -> None:
    """Makes the tables behind the pages as wide as RouterEval's, from the rows of one cell."""
    names = f"(SELECT 'maker-' || i % 400 || '/model-' || i AS new_model, i FROM range({WIDE}) AS r(i))"
    tasks = f"(SELECT 'task-' || t AS new_task, t FROM range({WIDE_TASKS}) AS r(t))"
    score = "(hash(i, t) % 1000) / 1000"
    number = "* EXCLUDE (new_model, new_task, i, t)"
    of_cell = "task: new_task, model: new_model, cell_id: md5(i || '-' || t)[:16]"
    replaced = {
        "leaderboard": f"{of_cell}, score: {score}, "
        "ci_low: greatest(0, score - 0.05), ci_high: least(1, score + 0.05), "
        "rank: row_number() OVER (PARTITION BY t ORDER BY score DESC), usd_per_1000: hash(i) % 900 / 100, "
        "mean_latency_s: hash(t, i) % 90 / 10",
        "candidates": f"{of_cell}, candidate: new_model",
        "cells": of_cell,
        "coverage": of_cell,
    }
    with contextlib.closing(duckdb.connect(config={"threads": 2})) as con:
        con.execute(f"ATTACH {quoted(str(path))} AS site; USE site")
        for table, columns in replaced.items():
            changes = ", ".join(f"({value}) AS {name}" for name, value in _pairs(columns).items())
            rows = f"SELECT * REPLACE ({changes}) FROM (FROM {table} LIMIT 1), {names}, {tasks}"
            con.execute(f"CREATE TABLE wide AS {rows}")
            con.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {number} FROM wide ORDER BY task, model")
            con.execute("DROP TABLE wide")
        one = f"(SELECT new_model, i FROM {names})"
        con.execute(
            "CREATE OR REPLACE TABLE models AS SELECT * EXCLUDE (new_model, i) REPLACE (new_model AS model, "
            "(1 + i % 70) * 1000000000 AS parameters, ['mit', 'apache-2.0', 'llama'][1 + i % 3] AS licence) "
            f"FROM (FROM models LIMIT 1), {one} ORDER BY model"
        )
        con.execute(
            "CREATE OR REPLACE TABLE overall AS SELECT * EXCLUDE (new_model, i) REPLACE (new_model AS candidate, "
            "new_model AS model, 12 AS tasks, hash(i) % 100000 / 100000 AS score, i + 1 AS rank) "
            f"FROM (FROM overall LIMIT 1), {one} ORDER BY rank"
        )


def _pairs(columns: str) -> dict[str, str]:
    """`a: x, b: f(y, z)` as a dict: a comma inside brackets separates nothing."""
    pairs, depth, start = {}, 0, 0
    for place, letter in enumerate([*columns, ","]):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            name, _, value = columns[start:place].strip().partition(": ")
            pairs[name] = value
            start = place + 1
    return pairs


def bench_pages(report: Report, work: Path) -> None:
    lake = asked_lake(str(work / "lake"), models=2, items=2).lake.uri
    written = building.write_database

    def wide(uri: str, path: Path, include: str = "all") -> None:
        written(uri, path, include)
        widened(path)

    building.write_database = wide
    started = time.monotonic()
    site = build_site(lake, work / "site", draw=False)
    building.write_database = written
    report.row("pages of 8,500 models × 12 tasks, s", time.monotonic() - started, MINUTES * 60)
    report.row("files of it, MiB", sum(entry["bytes"] for entry in site.files.values()) / 2**20, None)
    with browser(work / "profile") as chromium:
        _opened(report, chromium, site.folder, "start", "index.html", 2)
        _opened(report, chromium, site.folder, "leaderboard", "leaderboard.html", 2)
        _sorted(report, chromium, "leaderboard, 8,500 models", "score")
        _sorted(report, chromium, "leaderboard, 8,500 models, by name", "candidate")
        _opened(report, chromium, site.folder, "heat map", "heat.html", 4)
        _sorted(report, chromium, "heat map, 8,500 × 12", "t3")


def bench_questions(report: Report, work: Path, items: int) -> None:
    """What a page of one question with 8,500 answers fetches: the first hundred, and the next."""
    lake = Lake(str(work / "asked"))
    Synthetic(WIDE, engine=True, texts=True, tasks={"gsm8k": items}).write(lake, 2)
    _write_questions(lake, items)
    (work / "version").mkdir()
    started = time.monotonic()
    build_version(lake.open_for_reading(), work / "version", Description())
    report.row(f"version of {WIDE * items:,} answers, s", time.monotonic() - started, None)
    site = build_site(str(work / "version"), work / "large", draw=False, sql=True)
    (site.folder / "version").symlink_to(work / "version")
    fragment = question_fragment("gsm8k", digest({"items": "gsm8k"}), items // 2)
    with browser(work / "profile-of-questions") as chromium, server(site.folder, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        started = time.perf_counter()
        chromium.open(f"http://127.0.0.1:{serving.server_port}/{fragment}")
        _read(report, chromium, started, f"a question of {WIDE:,} models, its first hundred answers", 100)
        before, started = chromium.received, time.perf_counter()
        chromium.value("document.getElementById('more').click()")
        chromium.received -= before
        _read(report, chromium, started, "its next hundred", 200)
        assert f" of {WIDE} right." in chromium.value("document.getElementById('counts').textContent")
        _chosen(report, chromium, "its answers by tokens, the first twenty", order="fewest")
        _chosen(report, chromium, "the wrong ones of some models, the first twenty", verdict="wrong", model="llama")
        serving.shutdown()
        thread.join()
    assert chromium.faults == [], chromium.faults


def _read(report: Report, chromium: Browser, started: float, what: str, answers: int) -> None:
    chromium.wait(f"document.querySelectorAll('article').length >= {answers}")
    report.row(f"{what}, s", time.perf_counter() - started, None)
    report.row(f"{what}, MB fetched", chromium.received / 1e6, 1)


def _chosen(report: Report, chromium: Browser, what: str, **fields: str) -> None:
    """Fills in the form above the answers, until the first that fit are there."""
    chromium.value("void (window.before = document.querySelector('article'))")
    before, started = chromium.received, time.perf_counter()
    for name, value in fields.items():
        field = f"document.getElementById('choice').elements.{name}"
        event = "dispatchEvent(new Event('input', {bubbles: true}))"
        chromium.value(f"{field}.value = {json.dumps(value)}; {field}.{event}")
    chromium.wait("!window.before.isConnected && document.querySelectorAll('article').length")
    chromium.received -= before
    _read(report, chromium, started, what, 1)


def _write_questions(lake: Lake, items: int) -> None:
    place = {"task": "gsm8k", "items_digest": digest({"items": "gsm8k"})}
    hashes = Synthetic(1, tasks={"gsm8k": items}).item_hashes("gsm8k")
    rows = [
        {**place, "item": i, "item_hash": hashes[i], "prompt": f"Question {i}: " + "how many? " * 40, "target": str(i)}
        for i in range(items)
    ]
    lake.create_table(f"items/task=gsm8k/{place['items_digest']}.parquet", pa.Table.from_pylist(rows, ITEM))


def _opened(report: Report, chromium: Browser, folder: Path, what: str, page: str, mib: float) -> None:
    started = time.perf_counter()
    chromium.open((folder / page).as_uri())
    seconds = time.perf_counter() - started
    report.row(f"{what} page loads, s", seconds, 2)
    names = {address.rpartition(f"{folder}/")[2] for address in chromium.asked if address.startswith("file:")}
    report.row(
        f"{what} page and what it loads, MiB", sum((folder / name).stat().st_size for name in names) / 2**20, mib
    )
    assert chromium.faults == [], chromium.faults


def _sorted(report: Report, chromium: Browser, what: str, key: str) -> None:
    """Until the sorted rows are drawn: a frame later."""
    times = chromium.value(
        f"(async button => {{ const times = []; for (let i = 0; i < 5; i++) {{ const from = performance.now(); "
        "button.click(); document.body.offsetHeight; times.push(performance.now() - from); } return times; })"
        f"(document.querySelector('th[data-key={json.dumps(key)}] button'))"
    )
    report.row(f"sort: {what}, ms", max(times), 200)


def bench_database(report: Report, work: Path, sizes: list[str]) -> None:
    """CPU-seconds by size: a busy machine changes them little. The last line through two sizes says more than one."""
    found: list[tuple[int, float]] = []
    for size in sorted(sizes, key=MODELS.__getitem__):
        lake = work / f"lake-{size}"
        synthetic = Synthetic(MODELS[size])
        synthetic.write(Lake(str(lake)), 2)
        compact(Lake(str(lake)).open_for_writing())  # as a published version holds its records
        path = work / f"{size}.duckdb"
        started, before = time.monotonic(), _cpu_seconds()
        write_database(str(lake), path)
        found.append((synthetic.records, _cpu_seconds() - before))
        report.row(f"database of {size} records, s", time.monotonic() - started, None)
        tables = Tables(path)
        assert tables.row("SELECT count(*) AS n FROM matrix")["n"] == synthetic.records
        tables.close()
        report.row(f"database of {size} records, CPU-s", found[-1][1], None)
        report.row(f"database of {size} records, bytes a record", path.stat().st_size / synthetic.records, None)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        report.row(f"database of {size} records, most memory, GiB", peak, GIB)
    report.row(f"by {', '.join(sizes)}: CPU-s at 200M records", _at_largest(found), CPU_SECONDS)


def _cpu_seconds() -> float:
    """CPU time of the processes that have ended, in which databases are written."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _at_largest(found: list[tuple[int, float]]) -> float:
    """The line through the last two sizes at LARGEST; of one size, in proportion."""
    (records, seconds), (fewer, less) = found[-1], found[-2] if len(found) > 1 else (0, 0.0)
    return seconds + (LARGEST - records) * (seconds - less) / (records - fewer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=["2M"], choices=MODELS, help="records of the lakes")
    parser.add_argument("--no-pages", action="store_true", help="the databases alone")
    parser.add_argument("--questions", action="store_true", help="the page of a question alone")
    parser.add_argument("--items", type=int, default=48, help="questions of the large version, 8,500 answers each")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="routerlake-bench-site-") as folder:
        if not args.no_pages:
            if not args.questions:
                bench_pages(report, Path(folder))
            bench_questions(report, Path(folder), args.items)
        if not args.questions:
            bench_database(report, Path(folder), args.sizes)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())

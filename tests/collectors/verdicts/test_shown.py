"""The chosen judge is shown everywhere and named, and a published version carries the judges' identities."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from collectors.lake import layout
from collectors.lake.compaction import compact
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pool_files import choose_pool
from collectors.matrix.pools import load_pools
from collectors.routers.questions import load_questions
from collectors.verdicts.answers import Source
from collectors.verdicts.judging import Choice, Tasks, judge_batches
from pipelines import export, matrix, plot, publish
from schemas.failures import ConfigError
from schemas.views import PoolChoice, named_in
from tests.helpers.judged_lakes import ITEMS, collected_lake
from tests.helpers.mini_tasks import own_caches
from tests.helpers.runs import TEXT

__all__ = ["own_caches"]
pytestmark = pytest.mark.slow
GOLD = "SELECT item, target FROM items WHERE task = 'gsm8k' ORDER BY item"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Judged by two filters; then every second verdict is set to right: the stub's answers are all wrong."""
    lake = collected_lake(tmp_path_factory.mktemp("shown") / "lake")
    with Tasks() as tasks:
        source = Source(lake)
        for name in ("strict-match", "flexible-extract"):
            judge = Choice(name.split("-")[0], filter=name)
            judge_batches(lake, source, source.batches([TEXT]), judge, tasks)
    for name in lake.names(layout.VERDICTS):
        if not layout.parse_verdicts(name):
            continue
        table = pq.read_table(Path(lake.root, name))
        scores = [float(item % 2) for item in table["item"].to_pylist()]
        rows = [
            {**row, "score": score, "correct": score == 1} for row, score in zip(table.to_pylist(), scores, strict=True)
        ]
        lake.remove([name])
        lake.create_table(name, type(table).from_pylist(rows, schema=table.schema))
    return lake


def asked(lake: Lake, sql: str, judge: str | None = None) -> list[tuple[Any, ...]]:
    return ask(lake, lambda con, _: con.execute(sql).fetchall(), only=named_in(sql), choice=PoolChoice(judge=judge))


def test_matrix_and_all_on_it_show_the_chosen_judge(lake: Lake) -> None:
    sql = f"SELECT item, score, correct, outcome FROM matrix WHERE task = '{TEXT}' AND model = 'stub/a' ORDER BY item"
    assert [row[1] for row in asked(lake, sql)] == [0.0] * ITEMS
    assert [(row[1], row[2]) for row in asked(lake, sql, "flexible")] == [(i % 2, i % 2 == 1) for i in range(ITEMS)]
    board = f"SELECT score, scored, failed FROM leaderboard WHERE task = '{TEXT}' ORDER BY model"
    assert asked(lake, board, "flexible") == [(0.5, ITEMS, 0)] * 2
    pool = load_pools(lake, [TEXT], PoolChoice(judge="flexible")).of_task(TEXT)
    assert pool.scores[:, 0].tolist() == [float(i % 2) for i in range(ITEMS)]


def test_tasks_that_the_judge_never_saw_are_not_judged(lake: Lake) -> None:
    sql = f"SELECT DISTINCT score, outcome, failure FROM matrix WHERE task <> '{TEXT}'"
    assert asked(lake, sql, "flexible") == [(None, "judge", "not_judged")]
    with pytest.raises(ConfigError, match="--judge no_such: no answer was judged by it; there are flexible, strict"):
        asked(lake, sql, "no_such")


def test_commands_name_the_judge_that_they_show(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT count(*) FROM matrix WHERE correct"
    assert matrix.main(["--lake", lake.root, "--judge", "flexible", "--sql", sql]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["count_star()", str(ITEMS)]
    line = r"verdicts by judge flexible \([0-9a-f]{16}, task, version 3.0, [-0-9]+\), metric exact_match: gsm8k"
    assert re.search(line, shown.err)
    args = [
        "--lake",
        lake.root,
        "--format",
        "huggingface",
        "--out",
        str(tmp_path / "mine.parquet"),
        "--judge",
        "flexible",
    ]
    assert export.main([*args, "--task", TEXT]) == 0
    assert re.search(line, capsys.readouterr().out)
    plotted = ["--lake", lake.root, "--out", str(tmp_path), "--task", TEXT, "--judge", "flexible"]
    assert plot.main(plotted) == 0
    assert re.search(line, capsys.readouterr().out)
    chosen = choose_pool(lake, None, None, {})
    again = dataclasses.replace(chosen, choice=PoolChoice(judge="flexible"))
    assert re.search(line, load_questions(lake, again, [TEXT]).notes[0])
    as_collected = load_questions(lake, chosen, [TEXT]).notes[0]
    assert as_collected == "verdicts as collected; judged again by flexible, strict: --judge shows theirs"
    assert matrix.main(["--lake", lake.root, "--judge", "lost", "--sql", sql]) == 2
    assert "--judge lost: no answer was judged by it" in capsys.readouterr().err


def test_published_version_carries_judges_and_verdicts(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compact(lake)
    assert publish.main(["--lake", lake.root, "--to", str(tmp_path / "out"), "--version", "1.0.0"]) == 0
    version = Lake(str(tmp_path / "out" / "1.0.0"))
    assert publish.main(["verify", version.root]) == 0
    capsys.readouterr()
    manifest = json.loads(version.read(layout.PUBLISHED_MANIFEST))
    judges = {one["judge"]: one for one in manifest["provenance"]["judges"]}
    assert judges.keys() == {"flexible", "strict"}
    assert f"`flexible` ({judges['flexible']['judge_id']}) of `gsm8k`" in version.read("README.md").decode()
    sql = f"SELECT avg(score) FROM matrix WHERE task = '{TEXT}'"
    assert (asked(version, sql), asked(version, sql, "flexible")) == ([(0.0,)], [(0.5,)])
    pool = load_pools(version, [TEXT], PoolChoice(judge="flexible")).of_task(TEXT)
    assert pool.scores.mean() == 0.5

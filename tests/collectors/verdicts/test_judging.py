"""Stored answers judged again: equal verdicts in tables of their own, by shard; a check names what was changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake import layout
from collectors.lake.compaction import compact
from collectors.lake.damage import record_damage
from collectors.lake.pruning import prune
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.verdicts.answers import Source
from collectors.verdicts.checking import check
from collectors.verdicts.groups import write_groups
from collectors.verdicts.judging import Choice, Report, Sum, Tasks, judge_batches
from schemas.records import AGGREGATE
from schemas.views import PoolChoice, named_in
from tests.helpers.filled_lakes import NOW
from tests.helpers.judged_lakes import ITEMS, collected_lake, rewrite, shards_of
from tests.helpers.judged_tasks import write_task
from tests.helpers.mini_tasks import own_caches
from tests.helpers.runs import CHOICE, TEXT
from tests.helpers.thorough import long_only

__all__ = ["own_caches"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(collected_lake(tmp_path_factory.mktemp("made") / "lake").root)


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Lake:
    shutil.copytree(made, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def verdicts(lake: Lake) -> list[dict[str, object]]:
    names = [name for name in lake.names(layout.VERDICTS) if layout.parse_verdicts(name)]
    rows = pa.concat_tables([pq.read_table(Path(lake.root, name)) for name in names]).to_pylist()
    return sorted(rows, key=lambda row: json.dumps(row, default=str))


@pytest.fixture(scope="module")
def tasks() -> Iterator[Tasks]:
    with Tasks() as tasks:
        yield tasks


def judge(lake: Lake, tasks: Tasks, **keys: str) -> Report:
    source = Source(lake)
    return judge_batches(lake, source, source.batches([TEXT] if keys else None), Choice("again", **keys), tasks)


def test_answers_judged_again_have_their_verdicts_and_change_no_stored_byte(lake: Lake, tasks: Tasks) -> None:
    before = {name: lake.read(name) for name in lake.every_name()}
    report = judge(lake, tasks)
    assert (report.judged, report.failed, report.unjudged) == (4 * ITEMS, {}, 0)
    stored = {}
    for name in (*shards_of(lake, CHOICE), *shards_of(lake, TEXT)):
        for row in pq.read_table(Path(lake.root, name)).to_pylist():
            stored[row["cell_id"], row["item"], row["filter"], row["repeat"]] = row
    rows = verdicts(lake)
    assert len(rows) == len(stored) == 2 * ITEMS * (1 + 2)
    for row in rows:
        of = stored[row["cell_id"], row["item"], row["filter"], row["repeat"]]  # type: ignore[index]
        names = ("score", "correct", "metrics", "filtered", "failure", "outcome", "item_hash")
        assert {name: row[name] for name in names} == {name: of[name] for name in names}
    assert before.items() <= {name: lake.read(name) for name in lake.every_name()}.items()


def test_judging_reports_all_records_of_a_lake_whether_they_were_judged_before(lake: Lake, tasks: Tasks) -> None:
    seen: list[tuple[int, int]] = []
    source, records = Source(lake), 2 * ITEMS * (1 + 2)
    for _ in range(2):
        seen.clear()
        batches = source.batches()
        counted = Sum(sum(batch.rows for batch in batches), lambda done, of: seen.append((done, of)))
        judge_batches(lake, source, batches, Choice("again"), tasks, counted)
        assert seen == sorted(seen)
        assert seen[-1] == (records, records)


def test_judge_writes_the_value_of_each_whole_cell_once_and_the_board_shows_it(lake: Lake, tasks: Tasks) -> None:
    judge(lake, tasks)
    written = set(lake.names(layout.AGGREGATES))
    judge(lake, tasks)
    assert set(lake.names(layout.AGGREGATES)) == written
    query = "SELECT task, model, metric, filter, value FROM aggregates WHERE problem IS NULL AND stale IS NULL"

    def read(sql: str, judge: str | None) -> list[tuple[object, ...]]:
        choice = PoolChoice(judge=judge)
        return ask(lake, lambda con, _: con.execute(sql).fetchall(), only=named_in(sql), choice=choice)

    assert read(query, None) == [], "nobody aggregated the records' own verdicts"
    rows = read(query, "again")
    assert len(rows) == len({row[:4] for row in rows}) == 2 * 2 + 2 * 2  # acc and acc_norm; two filters
    scores = "SELECT task, model, metric, avg(score) FROM matrix GROUP BY ALL ORDER BY ALL"
    values = {row[:3]: row[4] for row in rows if row[3] in ("none", "strict-match")}
    for *key, score in read(scores, None):
        assert values[tuple(key)] == pytest.approx(score, abs=1e-9)
    board = read("SELECT DISTINCT task, value IS NOT NULL FROM leaderboard ORDER BY ALL", "again")
    assert board == sorted([(CHOICE, True), (TEXT, True)])


def group_of_all(lake: Lake, tasks: Tasks) -> tuple[list[dict[str, Any]], pa.Table]:
    """The values of both cells with choices by the judge, and the row of a group of them by the records' own."""
    judge(lake, tasks)
    names = [name for name in lake.names(layout.AGGREGATES) if "schema" not in name]
    rows = [row for name in names for row in pq.read_table(Path(lake.root, name)).to_pylist()]
    members = sorted((row for row in rows if row["metric"] == "acc"), key=lambda row: row["cell_id"])
    assert len(members) == 2
    covers = ",".join(f"{row['cell_id']}:{row['covers']}" for row in members)
    group = {**members[0], "task": "both", "is_group": True, "cell_id": None, "judge_id": None, "value": 0.125}
    group |= {"members": [row["cell_id"] for row in members], "aggregation": "mean of items"}
    group |= {"covers": hashlib.md5(covers.encode()).hexdigest()}
    return members, pa.Table.from_pylist([group], schema=AGGREGATE)


def test_judging_that_fails_for_every_task_names_the_reason_in_a_lake_with_groups(
    lake: Lake, tasks: Tasks, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.judge import main

    lake.create_table(layout.aggregates_name("a-run"), group_of_all(lake, tasks)[1])
    assert main(["--lake", lake.root, "--judge", "new", "--task", CHOICE, "--metric", "no_such"]) == 1
    shown = capsys.readouterr().out
    assert f"not judged: {CHOICE}: " in shown
    assert "no_such" in shown


def test_groups_of_the_lake_have_values_by_the_judge_once(lake: Lake, tasks: Tasks) -> None:
    members, group = group_of_all(lake, tasks)
    assert write_groups(lake, "again") == 0
    lake.create_table(layout.aggregates_name("a-run"), group)
    assert [write_groups(lake, "again"), write_groups(lake, "again")] == [1, 0]
    query = "SELECT value, items FROM aggregates WHERE is_group AND stale IS NULL"

    def shown(name: str | None) -> list[tuple[float, int]]:
        return ask(
            lake, lambda con, _: con.execute(query).fetchall(), only=["aggregates"], choice=PoolChoice(judge=name)
        )

    assert shown(None) == [(0.125, ITEMS)]
    assert shown("again") == [(pytest.approx(sum(row["value"] for row in members) / 2), 2 * ITEMS)]


def values(lake: Lake) -> list[tuple[object, ...]]:
    """Cell, filter, items and value of each stored row, none left out."""
    names = [name for name in lake.names(layout.AGGREGATES) if "schema" not in name]
    rows = [row for name in names for row in pq.read_table(Path(lake.root, name)).to_pylist()]
    return sorted((row["cell_id"], row["filter"], row["items"], row["value"]) for row in rows)


def test_cell_without_a_verdict_on_each_item_has_no_value_until_it_has_them(lake: Lake, tasks: Tasks) -> None:
    judge(lake, tasks, filter="strict-match")
    whole = values(lake)
    lake.remove([name for name in lake.names(layout.AGGREGATES) if "schema" not in name])
    name = next(name for name in lake.names(layout.VERDICTS) if layout.parse_verdicts(name))
    path, cell_id = Path(lake.root, name), layout.parse_verdicts(name)[1].cell_id  # type: ignore[index]
    path.write_bytes(path.read_bytes()[:-40])
    record_damage(lake, name, "it is cut")
    judge(lake, tasks, filter="strict-match")
    assert values(lake) == [row for row in whole if row[0] != cell_id]
    lake.remove([name])  # compact.py --prune sets it aside
    judge(lake, tasks, filter="strict-match")
    assert values(lake) == whole


def test_values_of_a_new_cell_are_computed_without_the_others(lake: Lake, tasks: Tasks) -> None:
    source = Source(lake)
    [batch] = source.batches([TEXT])
    first = dataclasses.replace(batch, cells=dict([next(iter(batch.cells.items()))]))
    judge_batches(lake, source, [first], Choice("again"), tasks)
    assert len(values(lake)) == 2
    judge_batches(lake, source, [batch], Choice("again"), tasks)
    assert len(values(lake)) == len({row[:2] for row in values(lake)}) == 4


@long_only
def test_value_that_fails_in_passing_is_computed_again(tmp_path: Path) -> None:
    """Only the item's own values are 0.5: planning tries the aggregation on others."""
    flag = tmp_path / "flag"
    code = f"""
def process_results(doc, results):
    return {{"points": 0.5}}
def least(values):
    if set(values) == {{0.5}} and os.path.exists({str(flag)!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return min(values)
"""
    metric = {"metric": "points", "aggregation": "!function judged_code.least", "higher_is_better": True}
    folder = write_task(tmp_path / "tasks", code, metric_list=[metric])
    keys = {"tasks": ["judged"], "include_tasks": [str(folder)], "allow_code": True, "limit": 4}
    lake = collected_lake(tmp_path / "lake", **keys)
    flag.touch()
    with Tasks([str(folder)]) as tasks:
        for is_failing in (True, False):
            source = Source(lake)
            judge_batches(lake, source, source.batches(), Choice("again", include=(str(folder),)), tasks)
            assert [row[3] for row in values(lake)] == ([] if is_failing else [0.5, 0.5])
            flag.unlink(missing_ok=True)


def test_judging_goes_on_where_it_was_stopped_and_a_second_time_does_nothing(lake: Lake, tasks: Tasks) -> None:
    judge(lake, tasks)
    whole, names = verdicts(lake), [n for n in lake.names(layout.VERDICTS) if layout.parse_verdicts(n)]
    assert len(names) == 8  # two shards of each of four cells
    lake.remove(names[1:4])
    again = judge(lake, tasks)
    assert (again.shards, again.known) == (3, 4 * ITEMS - 3 * ITEMS // 2)
    assert verdicts(lake) == whole
    assert judge(lake, tasks).shards == 0


def test_other_filter_and_metric_are_other_judges_of_the_same_answers(lake: Lake, tasks: Tasks) -> None:
    first, second = judge(lake, tasks, filter="strict-match"), judge(lake, tasks, filter="flexible-extract")
    ids = [*first.judges, *second.judges]
    assert len(set(ids)) == 2
    rows = pq.read_table(Path(lake.root, layout.judge_name(ids[1]))).to_pylist()
    assert [(row["judge"], row["kind"], row["task"], row["filter"]) for row in rows] == [
        ("again", "task", TEXT, "flexible-extract")
    ]
    assert judge(lake, tasks, metric="no_such").failed.keys() == {TEXT}


def test_folded_and_pruned_answers_are_judged_alike(lake: Lake, tasks: Tasks, tmp_path: Path) -> None:
    judge(lake, tasks)
    shutil.copytree(lake.root, tmp_path / "folded", ignore=shutil.ignore_patterns("verdicts", "judges"))
    other = Lake(str(tmp_path / "folded")).open_for_writing()
    compact(other)
    prune(other, NOW)
    assert not shards_of(other, TEXT)
    judge(other, tasks)
    assert verdicts(other) == verdicts(lake)
    source = Source(other)
    assert check(source, source.batches(), tasks).is_equal


def test_check_of_a_lake_finds_all_equal(lake: Lake, tasks: Tasks) -> None:
    source = Source(lake)
    checked = check(source, source.batches(), tasks)
    assert (checked.is_equal, checked.items, checked.rows) == (True, 4 * ITEMS, 2 * ITEMS * 3)


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({"responses": ["The answer is 7.\n#### 7"]}, {"filtered", "score", "metrics", "correct"}),
        ({"score": 1.0}, {"score"}),
        ({"metrics": '{"exact_match": 1.0}'}, {"metrics"}),
        ({"filtered": '["7"]'}, {"filtered"}),
    ],
)
def test_check_names_a_tampered_record(lake: Lake, tasks: Tasks, changes: dict[str, object], columns: set[str]) -> None:
    name = shards_of(lake, TEXT)[0]
    rewrite(lake, name, **changes)
    source = Source(lake)
    checked = check(source, source.batches(), tasks)
    assert checked.differing > 0
    assert {found.task for found in checked.named} == {TEXT}
    assert {found.item for found in checked.named} == {pq.read_table(Path(lake.root, name))["item"][0].as_py()}
    assert set().union(*(found.columns for found in checked.named)) <= columns


def test_check_names_a_task_whose_document_was_changed(lake: Lake, tasks: Tasks) -> None:
    [name] = [name for name in lake.names("items") if f"task={TEXT}/" in name]
    doc = json.loads(pq.read_table(Path(lake.root, name))["doc"][0].as_py())
    rewrite(lake, name, doc=json.dumps({**doc, "answer": "#### 8"}))
    source = Source(lake)
    checked = check(source, source.batches(), tasks)
    assert "is not the one that was asked" in checked.failed[TEXT]


def test_check_of_a_judge_names_a_tampered_verdict_and_an_answer_that_it_did_not_see(lake: Lake, tasks: Tasks) -> None:
    judge(lake, tasks)
    source = Source(lake)
    assert check(source, source.batches(), tasks, Choice("again")).is_equal
    name = next(n for n in lake.names(layout.VERDICTS) if layout.parse_verdicts(n))
    rewrite(lake, name, score=0.25)
    assert check(source, source.batches(), tasks, Choice("again")).differing == 1
    rewrite(lake, shards_of(lake, CHOICE)[0], loglikelihoods=[-1.0, -2.0, -3.0, -4.0])
    checked = check(source, source.batches(), tasks, Choice("again"))
    assert any("answer" in found.columns for found in checked.named)


@long_only
def test_command_checks_judges_and_says_what_it_did(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.judge import main

    assert main(["--lake", lake.root, "--check"]) == 0
    assert f"{6 * ITEMS} verdicts on {4 * ITEMS} answers derived again: 0 differ" in capsys.readouterr().out
    assert main(["--lake", lake.root, "--judge", "flexible", "--task", TEXT, "--filter", "flexible-extract"]) == 0
    shown = capsys.readouterr().out
    assert f"{2 * ITEMS} answers judged in 4 shards" in shown
    assert "metric exact_match, filter flexible-extract" in shown
    rewrite(lake, shards_of(lake, TEXT)[0], score=0.5)
    assert main(["--lake", lake.root, "--check"]) == 1
    assert "score 0.5, derived" in capsys.readouterr().out
    assert main(["--lake", lake.root, "--judge", "x", "--task", "no_such"]) == 2

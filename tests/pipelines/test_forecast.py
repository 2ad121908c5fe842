"""forecast.py: bands beside measured scores, apart from all views of records; kills, copies, a lake that changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.forecasts import fitting
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.publish.card import Description
from collectors.publish.publishing import publish
from collectors.publish.verifying import verify
from collectors.publish.version import build_version
from pipelines import forecast
from schemas.views.order import view_files, with_dependencies
from tests.helpers.foretold_worlds import World, world
from tests.helpers.importing import imported, rows, table
from tests.helpers.thorough import long_only

#: Models from here on were asked every fifth item only, the last one the first task alone.
SPARSE = 100
ANSWERED = world(models=120, items=(50, 40), seed=11)


def verdicts(answered: World, *, without: int | None = None) -> list[tuple[str, str, str, float]]:
    return [
        (answered.names[model], str(answered.tasks[item]), f"q{item}", float(answered.answers[model, item]))
        for model in range(len(answered.names))
        if model != without
        for item in range(len(answered.tasks))
        if model < SPARSE or item % 5 == 0
        if model < 119 or answered.tasks[item] == "task0"
    ]


def built(folder: Path, **changes: int) -> Path:
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(folder / "rows.parquet", verdicts(ANSWERED, **changes)), folder / "lake", options=options)
    return folder / "lake"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("foretold"))


@pytest.fixture(scope="module")
def foretold(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("with") / "lake"
    shutil.copytree(original, lake)
    assert run(lake) == 0
    return lake


@pytest.fixture
def lake(foretold: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(foretold, tmp_path / "lake"))


def run(lake: Path, *argv: str) -> int:
    return forecast.main(["--lake", str(lake), "--include", "all", *argv])


def objects(lake: Path) -> dict[str, bytes]:
    return {str(path.relative_to(lake)): path.read_bytes() for path in sorted(lake.rglob("*.parquet"))}


def test_forecast_leaderboard_has_each_model_measured_or_within_a_band(foretold: Path) -> None:
    board = rows(
        foretold,
        "SELECT task, model, value, low, high, is_measured, asked, items, stale FROM forecast_leaderboard ORDER BY ALL",
    )
    assert len([row for row in board if row[0] != "all"]) == 2 * 120
    truths = {
        (f"task{task}", name): ANSWERED.answers[model, ANSWERED.tasks == f"task{task}"].mean()
        for task in (0, 1)
        for model, name in enumerate(ANSWERED.names)
    }
    held = []
    for task, model, value, low, high, is_measured, asked, items, stale in board:
        assert stale is None
        if task == "all":
            continue
        truth = truths[task, model]
        if is_measured:
            assert (value, low, high, asked) == (pytest.approx(truth), value, value, items)
        else:
            assert 0 <= low <= value <= high <= 1
            assert asked < items
            held.append(low <= truth <= high)
    assert len(held) == 2 * 20
    assert np.mean(held) >= 0.75  # 90 % of 40, which come in families of four


def test_forecast_leaderboard_ranks_by_what_can_be_told_apart(foretold: Path) -> None:
    board = rows(foretold, "SELECT task, rank, rank_best, rank_worst, low, high FROM forecast_leaderboard")
    for task in ("task0", "task1", "all"):
        own = [row[1:] for row in board if row[0] == task]
        for rank, best, worst, low, high in own:
            assert rank == best == 1 + sum(1 for other in own if other[3] > high)
            assert worst == sum(1 for other in own if other[4] >= low)


@long_only
def test_forecast_leaderboard_with_an_unasked_model_ranks_the_measured_ones(original: Path, tmp_path: Path) -> None:
    """A model without an answer has a band over nearly all others, and chains none of them."""
    lake = Path(shutil.copytree(original, tmp_path / "lake"))
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    other = [("lab0/kin0-99b", "task0", f"q{item}", None if item else 1.0) for item in range(50)]
    imported("table", table(tmp_path / "more.parquet", other), lake, options=options)
    assert run(lake, "--task", "task0", "--no-items") == 0
    board = rows(
        lake,
        "SELECT rank, value FROM forecast_leaderboard WHERE is_measured AND task = 'task0' ORDER BY rank, value DESC",
    )
    scores = sorted(
        (ANSWERED.answers[model, ANSWERED.tasks == "task0"].mean() for model in range(SPARSE)), reverse=True
    )
    assert [value for _, value in board] == pytest.approx(scores)
    assert board[0][0] == 1
    assert board[-1][0] > 50


@long_only
def test_forecast_leaderboard_of_all_tasks_has_the_measured_models(foretold: Path) -> None:
    board = rows(
        foretold,
        "SELECT model, value, low, high, asked, items FROM forecast_leaderboard WHERE task = 'all' AND is_measured",
    )
    means = {
        name: np.mean([ANSWERED.answers[model, ANSWERED.tasks == task].mean() for task in ("task0", "task1")])
        for model, name in enumerate(ANSWERED.names[:SPARSE])
    }
    assert {row[0]: row[1] for row in board} == pytest.approx(means)
    assert all(value == low == high and asked == items == 90 for _, value, low, high, asked, items in board)
    assert rows(foretold, "SELECT count(*) FROM forecast_leaderboard WHERE task = 'all'") == [(120,)]


@long_only
def test_forecast_leaderboard_without_the_imports_names_the_include(foretold: Path) -> None:
    query = "SELECT DISTINCT stale FROM forecast_leaderboard"
    collected = ask(Lake(str(foretold)), lambda con, _: con.execute(query).fetchall(), include="collected")
    assert collected == [("its records are imported and not shown here: add --include imported",)]
    imports = ask(Lake(str(foretold)), lambda con, _: con.execute(query).fetchall(), include="imported")
    assert imports == [(None,)]


@pytest.mark.few(1)
@pytest.mark.parametrize("damage", ["lost", "foreign"])
def test_forecast_part_that_is_not_whole_is_named_and_made_anew(
    lake: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = objects(lake)
    [part] = [path for path in (lake / "forecasts").glob("*.parquet") if "schema" not in path.name]
    if damage == "lost":
        part.unlink()
    else:
        stored = pq.read_table(part)
        place = stored.schema.get_field_index("value")
        pq.write_table(
            stored.set_column(place, stored.schema.field(place), pa.array([float("nan")] * len(stored))), part
        )
        assert rows(lake, "SELECT count(*) FROM forecast_leaderboard WHERE NOT is_measured") == [(0,)]
    assert run(lake, "--check") == 1
    assert f"forecasts/{part.name}: it is " in capsys.readouterr().out
    assert run(lake) == 0
    assert "its lost or damaged objects were made anew" in capsys.readouterr().out
    assert whole.items() <= objects(lake).items()  # beside failures that name the damage
    assert run(lake, "--check") == 0


@long_only
def test_forecast_basis_of_other_answers_with_the_same_means_differs(tmp_path: Path) -> None:
    """The same models, scores and means, other items right."""
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    basis, means = [], []
    for name, right in (("first", "q0 q1 q5"), ("again", "q5 q1 q0"), ("other", "q1 q2 q3")):
        answered = [("lab/one", "quiz", f"q{item}", float(f"q{item}" in right)) for item in range(8)]
        lake = tmp_path / name
        imported("table", table(tmp_path / f"{name}.parquet", answered), lake, options=options)
        means += rows(lake, "SELECT score FROM leaderboard")
        basis += rows(lake, "SELECT basis FROM _forecast_basis")
    assert means == [(0.375,)] * 3
    assert basis[0] == basis[1] != basis[2]


def test_forecast_matrix_has_every_item_once_and_no_other_view_changes(original: Path, foretold: Path) -> None:
    counts = "SELECT is_measured, count(*), count(DISTINCT (cell_id, item)) FROM forecast_matrix GROUP BY 1 ORDER BY 1"
    (_, open_items, distinct), (_, measured, _) = rows(foretold, counts)
    # The last model has no cell of the second task: no item of it is foretold.
    assert (open_items, distinct, measured) == (19 * 72 + 40, 19 * 72 + 40, 100 * 90 + 19 * 18 + 10)
    [(low, high)] = rows(foretold, "SELECT min(probability), max(probability) FROM forecast_matrix")
    assert 0 <= low < high <= 1
    query = "SELECT * FROM matrix ORDER BY ALL"
    assert rows(foretold, query) == rows(original, query)


def test_views_of_records_read_no_forecast() -> None:
    """By the text of all views: what an export, a pool or an oracle reads has no forecast in it."""
    of_forecasts = {name for name, file in view_files().items() if "{forecasts}" in file.sql}
    readers = {name for name in view_files() if of_forecasts & with_dependencies([name])}
    assert {name for name in readers if not name.startswith("_")} == {
        "forecasts",
        "forecast_leaderboard",
        "forecast_matrix",
    }


def test_forecast_fits_state_what_was_learned_and_how_it_did(foretold: Path) -> None:
    fits = rows(
        foretold,
        "SELECT task, split, verdict, models, coverage, len(trained_on), brier < brier_of_mean, is_shown, stale "
        "FROM forecast_fits ORDER BY ALL",
    )
    assert [row[:2] for row in fits] == [(t, s) for t in ("all", "task0", "task1") for s in ("family", "random")]
    for task, _, verdict, models, coverage, trained, is_better, is_shown, stale in fits:
        assert (verdict in ("kept", "widened"), models, is_shown, stale) == (True, 100, True, None)
        assert 0.8 <= coverage <= 1
        assert (trained, is_better) == ((None, None) if task == "all" else (100, True))


def test_forecast_twice_and_after_a_kill_is_the_same(
    original: Path, foretold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = Path(shutil.copytree(original, tmp_path / "again"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitted, "fit_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    assert any("forecasts/" in name and "schema" not in name for name in objects(again))
    assert rows(again, "SELECT count(*) FROM forecasts") == [(0,)]
    assert rows(again, "SELECT count(*) FROM forecast_leaderboard") == [(0,)]
    assert run(again) == 0
    before = objects(again)
    assert before == objects(foretold)
    assert run(again) == 0
    assert objects(again) == before
    assert "the lake had it already" in capsys.readouterr().out


def test_forecast_of_a_lake_that_changed_is_stale_until_it_is_made_again(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lake, "--check") == 0
    new = [("lab99/new", "task0", f"q{item}", 1.0) for item in range(50)]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "more.parquet", new), lake, options=options)
    assert rows(lake, "SELECT DISTINCT task, stale FROM forecast_leaderboard ORDER BY 1") == [
        ("all", "cells or their scores changed since it was made"),
        ("task0", "cells or their scores changed since it was made"),
        ("task1", None),
    ]
    capsys.readouterr()
    assert run(lake, "--check") == 1
    assert "task0, all: stale: cells or their scores changed since it was made; run forecast.py again" in (
        capsys.readouterr().out
    )
    assert run(lake) == 0
    assert rows(lake, "SELECT count(*) FROM forecast_leaderboard WHERE stale IS NOT NULL") == [(0,)]
    assert rows(lake, "SELECT count(DISTINCT number) FROM forecast_fits") == [(2,)]


@long_only
def test_forecast_leaderboard_of_a_stale_forecast_has_a_model_that_was_measured_since_once(
    lake: Path, tmp_path: Path
) -> None:
    """The last model had no cell of the second task."""
    model, own = ANSWERED.names[119], ANSWERED.tasks == "task1"
    query = f"SELECT is_measured, value FROM forecast_leaderboard WHERE task = 'task1' AND model = '{model}'"
    [(before, _)] = rows(lake, query)
    items = np.flatnonzero(own).tolist()
    verdicts = [(model, "task1", f"q{item}", float(ANSWERED.answers[119, item])) for item in items]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "more.parquet", verdicts), lake, options=options)
    assert not before
    assert rows(lake, query) == [(True, pytest.approx(ANSWERED.answers[119, own].mean()))]
    assert rows(lake, "SELECT max(rank_worst), count(*) FROM forecast_leaderboard WHERE task = 'task1'") == [(120, 120)]


@long_only
def test_forecast_of_a_task_with_the_name_all_is_apart_from_the_mean_over_tasks(tmp_path: Path) -> None:
    lake, made = tmp_path / "lake", world(models=28, items=(30, 30), seed=3, members=1)
    named = np.where(made.tasks == "task0", "all", "quiz")
    answered = [
        (name, str(named[item]), f"q{item}", float(made.answers[model, item]))
        for model, name in enumerate(made.names)
        for item in range(60)
        if model < 25 or item % 5 == 0
    ]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "rows.parquet", answered), lake, options=options)
    run(lake, "--no-items")
    query = "SELECT items_digest = '', model, value FROM forecast_leaderboard WHERE task = 'all' AND is_measured"
    values = {row[:2]: row[2] for row in rows(lake, query)}
    assert values == pytest.approx(
        {
            (is_mean, name): made.answers[model, np.full(60, True) if is_mean else named == "all"].mean()
            for is_mean in (True, False)
            for model, name in enumerate(made.names[:25])
        }
    )
    more = [("lab99/new", "quiz", f"q{item}", 1.0) for item in range(30, 60)]
    imported("table", table(tmp_path / "more.parquet", more), lake, options=options)
    stale = "SELECT DISTINCT task, items_digest = '', stale IS NOT NULL FROM forecast_fits ORDER BY ALL"
    assert rows(lake, stale) == [("all", False, False), ("all", True, True), ("quiz", False, True)]


@long_only
def test_forecast_that_a_later_one_hides_is_named(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [(first,)] = rows(lake, "SELECT DISTINCT forecast FROM forecasts")
    assert run(lake, "--level", "0.8", "--no-items") == 0
    [(shown,)] = rows(lake, "SELECT DISTINCT forecast FROM forecast_leaderboard")
    assert "is not shown" not in capsys.readouterr().out
    assert run(lake) == 0
    line = f"forecast {first} is not shown: {shown}, with bands of 80%, was made later"
    assert line in capsys.readouterr().out


def test_forecast_of_a_lake_without_whole_models_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [(f"m{model}", "quiz", f"q{(model + item) % 30}", 1.0) for model in range(9) for item in range(12)]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "rows.parquet", some), tmp_path / "lake", options=options)
    assert run(tmp_path / "lake") == 2
    error = capsys.readouterr().err
    assert "has no model with all answers to these tasks: collect some models whole first" in error
    assert not [name for name in objects(tmp_path / "lake") if "forecasts/" in name and "schema" not in name]


def test_forecast_of_few_whole_models_is_refused_and_has_no_band(tmp_path: Path) -> None:
    few = [row for row in verdicts(ANSWERED) if row[0] in (*ANSWERED.names[:6], *ANSWERED.names[100:103])]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "rows.parquet", few), tmp_path / "lake", options=options)
    assert run(tmp_path / "lake") == 1
    fits = rows(tmp_path / "lake", "SELECT DISTINCT verdict, reason FROM forecast_fits")
    assert fits == [("refused", "6 complete models can be held out, and bands need 20")]
    assert rows(tmp_path / "lake", "SELECT count(*) FROM forecasts") == [(0,)]


def test_forecast_of_a_lake_without_an_open_answer_stores_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [(f"m{model}", "quiz", f"q{item}", float(item % 2)) for model in range(3) for item in range(4)]
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    imported("table", table(tmp_path / "rows.parquet", whole), tmp_path / "lake", options=options)
    assert run(tmp_path / "lake") == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 forecast not made: every model has all answers, and the view leaderboard has the scores"
    ]
    assert forecast.main(["--lake", str(tmp_path / "lake")]) == 2
    assert "it has imported records: --include imported reads them" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["-1", "1e3", str(10**30)])
def test_forecast_seed_that_is_no_whole_number_is_wrong_input(given: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        forecast.parse(["--seed", given])
    assert exit_.value.code == 2


def test_forecast_check_without_a_forecast_says_what_to_run(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(original, "--check") == 2
    assert "has no forecast: run" in capsys.readouterr().err


def version_of(lake: Path, folder: Path) -> Any:
    folder.mkdir()
    return build_version(Lake(str(lake)), folder, Description(), include="all")


def test_published_version_carries_measured_and_foretold_apart(foretold: Path, tmp_path: Path) -> None:
    made = version_of(foretold, tmp_path / "with")
    [(count,)] = rows(foretold, "SELECT count(*) FROM forecasts")
    assert made.manifest["counts"]["forecasts"] == count
    assert f"9,352 records are measured. {count:,} values are foretold" in (tmp_path / "with/README.md").read_text()
    query = "SELECT task, model, value, low, high, is_measured FROM forecast_leaderboard ORDER BY ALL"
    assert rows(tmp_path / "with", query) == rows(foretold, query)
    assert verify(publish(made, str(tmp_path / "to"))[0]).faults == []


@long_only  # test_forecast_matrix_has_every_item_once_and_no_other_view_changes holds it for the lake
def test_matrix_of_a_version_is_that_without_a_forecast(original: Path, foretold: Path, tmp_path: Path) -> None:
    made = [version_of(original, tmp_path / "without"), version_of(foretold, tmp_path / "with")]
    assert "forecasts" not in made[0].manifest["counts"]
    assert "foretold" not in (tmp_path / "without" / "README.md").read_text()
    kept = ("matrix/", "packed/", "compact/")
    before, after = ({name: of["sha256"] for name, of in one.files.items() if name.startswith(kept)} for one in made)
    assert before == after

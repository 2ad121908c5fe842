"""The rows of a forecast: models without answers, scores that go beyond 0 and 1, and what gives a forecast its id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from collectors.forecasts.expecting import SAMPLING, expected_error
from collectors.forecasts.fitting import ALL, ANSWERS, METADATA, Fitted, Settings, fits_of
from collectors.forecasts.foretelling import REFUSED, Goal
from collectors.forecasts.lake_answers import Block, LakeAnswers
from schemas.records import FORECAST, FORECAST_FIT
from tests.helpers.foretold_worlds import world

MODELS, WHOLE = 64, 60


@pytest.fixture(scope="module")
def source() -> LakeAnswers:
    """60 whole models, three with every fourth answer and one without any; the second task is scored from -1 to 3."""
    made = world(models=MODELS, items=(40, 30), seed=2)
    answers = made.answers.copy()
    answers[WHOLE:] = np.where(np.arange(70) % 4 == 0, answers[WHOLE:], np.nan)
    answers[-1] = np.nan
    blocks = [Block("a", "ia", "p", "acc", 0, 1, "basis"), Block("b", "ib", "p", "points", -1, 3, "basis")]
    cells = np.array([[f"c{model}a", f"c{model}b"] for model in range(MODELS)], object)
    return LakeAnswers(
        answers,
        blocks,
        np.repeat([0, 1], [40, 30]),
        np.concatenate([np.arange(40), np.arange(30)]),
        made.names,
        [None] * MODELS,
        np.full(MODELS, np.nan),
        cells,
        [],
        {"lab0/kin0-70b": (None, float("nan")), "nobody/new": (None, float("nan"))},
    )


def rows_of(fitted: Fitted) -> list[dict[str, object]]:
    return [row for part in fitted.parts() for row in part.to_pylist()]


def test_rows_keep_the_scale_of_their_metric(source: LakeAnswers) -> None:
    rows = [row for row in rows_of(Fitted(source)) if row["method"] == ANSWERS]
    means = [row for row in rows if row["item"] is None]
    # No mean over all tasks: one of them has no score from 0 to 1.
    assert [(row["task"], row["asked"], row["items"]) for row in means] == [("a", 10, 40), ("b", 8, 30)] * 3
    for row in rows:
        low, high = (0, 1) if row["task"] == "a" else (-1, 3)
        assert low <= row["value"] <= high
        assert row["item"] is not None or low <= row["low"] <= row["value"] <= row["high"] <= high
    assert len(rows) - len(means) == 3 * (30 + 22)
    assert max(row["value"] for row in rows if row["task"] == "b") > 1.5


def test_rows_of_a_model_without_answers_have_a_wider_band(source: LakeAnswers) -> None:
    rows = rows_of(Fitted(source, Settings(catalog=True)))
    placed = [row for row in rows if row["method"] == METADATA]
    assert {(row["model"], row["cell_id"], row["asked"]) for row in placed} == {
        (source.names[-1], "c63a", 0),
        (source.names[-1], "c63b", 0),
        ("lab0/kin0-70b", None, 0),
        ("nobody/new", None, 0),
    }
    width = {
        method: np.mean(
            [
                row["high"] - row["low"]
                for row in rows
                if row["method"] == method and row["item"] is None and row["task"] == "a"
            ]
        )
        for method in (ANSWERS, METADATA)
    }
    assert width[METADATA] > 1.1 * width[ANSWERS]
    # Four of its series were measured; of the other nothing is there but the mean of all.
    values = {row["model"]: row["value"] for row in placed if row["task"] == "a"}
    assert values["nobody/new"] == pytest.approx(source.answers[:WHOLE, :40].mean(), abs=1e-4)
    kin = source.answers[:4, :40].mean()
    assert abs(values["lab0/kin0-70b"] - kin) < abs(values["nobody/new"] - kin)
    assert not [row for row in rows_of(Fitted(source)) if row["model"] == "nobody/new"]


def test_fit_rows_have_a_check_for_each_task_and_split(source: LakeAnswers) -> None:
    table = Fitted(source).fit_rows(4)
    assert table.schema == FORECAST_FIT
    fits = table.to_pylist()
    assert [(row["task"], row["split"]) for row in fits] == [(t, s) for t in "ab" for s in ("random", "family")]
    assert {(row["number"], row["models"], len(row["trained_on"])) for row in fits} == {(4, WHOLE, WHOLE)}
    # Errors and widths of the second task are on its own scale.
    assert all(row["error"] < row["width"] < (1 if row["task"] == "a" else 4) for row in fits)


def test_forecast_id_is_of_what_it_learned_and_of_its_settings(source: LakeAnswers) -> None:
    same = Fitted(replace(source, answers=source.answers.copy()))
    assert same.forecast == Fitted(source).forecast
    changed = replace(source, blocks=[replace(source.blocks[0], basis="other"), source.blocks[1]])
    others = [
        Fitted(changed),
        Fitted(source, Settings(level=0.8)),
        Fitted(source, Settings(seed=1)),
        Fitted(source, Settings(items=False)),
    ]
    assert len({one.forecast for one in (same, *others)}) == 5
    # A model's base and size place it.
    sized = replace(source, parameters=np.where(np.arange(MODELS) == 0, 7e9, np.nan))
    based = replace(source, bases=["lab/base", *source.bases[1:]])
    assert len({Fitted(one).forecast for one in (source, sized, based)}) == 3


def test_rows_of_a_refused_task_are_none_for_models_without_answers_too(
    source: LakeAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The goals are those of a and b, and of their mean."""
    both = replace(source, blocks=[source.blocks[0], replace(source.blocks[1], low=0, high=1)])
    fitted = Fitted(both, Settings(catalog=True, items=False))
    refused, kept = Goal(REFUSED, "why", (), {}), fitted.forecaster.goals
    monkeypatch.setattr(fitted.forecaster, "goals", [refused, *kept[1:]])
    rows = rows_of(fitted)
    assert {(row["method"], row["task"]) for row in rows} == {(m, t) for m in (ANSWERS, METADATA) for t in ("b", "all")}
    monkeypatch.setattr(fitted.forecaster, "goals", [*kept[:-1], refused])
    assert {row["task"] for row in rows_of(fitted)} == {"a", "b"}


def test_rows_of_the_mean_over_tasks_are_there_for_models_that_the_lake_only_describes(source: LakeAnswers) -> None:
    both = replace(source, blocks=[source.blocks[0], replace(source.blocks[1], low=0, high=1)])
    rows = rows_of(Fitted(both, Settings(catalog=True, items=False)))
    placed = {(row["model"], row["task"]): row["value"] for row in rows if row["method"] == METADATA}
    for name in (source.names[-1], "lab0/kin0-70b", "nobody/new"):
        assert placed[name, "all"] == pytest.approx((placed[name, "a"] + placed[name, "b"]) / 2, abs=1e-5)


def test_rows_of_a_task_that_is_better_the_lower_have_no_mean_over_all(source: LakeAnswers) -> None:
    blocks = [source.blocks[0], replace(source.blocks[1], metric="wer", low=0, high=1, higher_is_better=False)]
    fitted = Fitted(replace(source, blocks=blocks), Settings(catalog=True, items=False))
    assert {row["task"] for row in (*rows_of(fitted), *fitted.fit_rows(1).to_pylist())} == {"a", "b"}
    assert fitted.no_mean is not None
    assert "a lower wer of b is better" in fitted.no_mean
    assert Fitted(source).no_mean is not None
    assert Fitted(source.of_block(1)).no_mean is None


def test_fit_of_one_family_alone_is_refused(source: LakeAnswers) -> None:
    kin = replace(source, names=[f"lab/kin-{model}b" for model in range(MODELS)])
    reasons = {row["reason"] for row in Fitted(kin).fit_rows(1).to_pylist()}
    assert reasons == {"all 60 complete models are of one family, and bands need models of another family"}
    assert sum(part.num_rows for part in Fitted(kin).parts()) == 0
    answers = np.where(np.isnan(source.answers[:WHOLE]), 0, source.answers[:WHOLE])
    assert [one.method for one in expected_error(answers, (0.1,), names=kin.names[:WHOLE])] == [SAMPLING]


def test_fit_of_a_level_that_the_models_cannot_show_is_refused(source: LakeAnswers) -> None:
    """A half of the models needs 999 for the 99.9th percentile of a thousand."""
    fits = Fitted(source, Settings(level=0.999)).fit_rows(1).to_pylist()
    assert {(row["verdict"], row["reason"]) for row in fits} == {
        ("refused", "60 complete models can be held out, and bands of 99.9% need 1,998")
    }


def test_fits_of_tasks_that_few_models_share_are_apart(source: LakeAnswers) -> None:
    assert len(fits_of(source, Settings())) == 1
    answers = source.answers.copy()
    answers[::2, :40] = np.nan
    answers[1::2, 40:] = np.nan
    apart = fits_of(replace(source, answers=answers), Settings())
    assert [[block.task for block in one.source.blocks] for one in apart] == [["a"], ["b"]]
    assert {row["task"] for one in apart for row in rows_of(one)} == {"a", "b"}


def test_parts_without_items_have_means_alone(source: LakeAnswers) -> None:
    tables = list(Fitted(source, Settings(items=False)).parts())
    assert all(table.schema == FORECAST for table in tables)
    assert all(row["item"] is None for table in tables for row in table.to_pylist())
    assert ALL[0] not in {row["task"] for table in tables for row in table.to_pylist()}

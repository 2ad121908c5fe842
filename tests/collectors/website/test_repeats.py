"""Cells that asked a part of the items several times stand apart: no page counts a model twice."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from collectors.website.building import BuiltSite, build_site
from collectors.website.reading import Tables
from collectors.website.tables import model_page, task_page
from tests.helpers.lake_builder import LakeBuilder
from tests.helpers.sites import Links
from tests.schemas.test_heldout_view import HOT, beside, once

PART = [3, 5, 8]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    """Three models right on every item, asked once; ten more answers of each to PART, all wrong."""
    folder = tmp_path_factory.mktemp("repeats")
    builder = LakeBuilder(str(folder / "lake"))
    once(builder, np.ones((3, 40)))
    beside(builder, "p1", np.zeros((3, 40, 10)), PART, {**HOT, "repeats": 10})
    (folder / "site").mkdir()
    return build_site(builder.lake.uri, folder / "site", draw=False)


def text(site: BuiltSite, page: str) -> str:
    return " ".join(" ".join(Links((site.folder / page).read_text()).texts).split())


def test_site_start_page_counts_several_answers_to_a_question_apart(site: BuiltSite) -> None:
    shown = text(site, "index.html")
    assert "records 120 one model's answer to one question each" in shown
    assert "repeated 9 records of 10 answers of one model to one question" in shown


def test_site_leaderboards_list_cells_of_several_answers_below(site: BuiltSite) -> None:
    for page in (task_page("quiz"), model_page("m0")):
        board, _, several = text(site, page).partition("Asked several times, a part of the questions: 10 answers each")
        assert ("1.000" in board.split(), "0.000" in board.split()) == (True, False), page
        several = several.partition("Pairs: what each")[0]
        assert ("1.000" in several.split(), "0.000" in several.split()) == (False, True), page


def test_site_questions_count_each_model_once(site: BuiltSite) -> None:
    tables = Tables(site.folder / "site.duckdb")
    counts = tables.rows("SELECT DISTINCT scored, solved, judged FROM questions")
    assert [tuple(one.values()) for one in counts] == [(3, 3, 3)]
    page = next(name for name in site.files if name.startswith("question/") and name.endswith("/5.html"))
    own, _, several = text(site, page).partition("Answered several times")
    assert "3 of 3 right" in own
    assert (own.count("✓ right"), own.count("✗ wrong"), several.count("✗ wrong")) == (3, 0, 3)
    assert several.count("10 answers each") == 3
    addresses = map(unquote, Links((site.folder / page).read_text()).addresses)
    [sql] = [one.partition("#sql=")[2] for one in addresses if "correct IS NOT NULL" in one]
    assert len(tables.rows(sql)) == 3
    tables.close()


def test_site_has_the_heldout_oracle_where_the_lake_has_repeats_alone(site: BuiltSite, tmp_path: Path) -> None:
    tables = Tables(site.folder / "site.duckdb")
    assert tables.row("SELECT draws, oracle_score FROM oracle_heldout") == {"draws": 10, "oracle_score": 0.0}
    tables.close()
    assert "(view oracle_heldout)" in text(site, "query.html")
    builder = LakeBuilder(str(tmp_path / "lake"))
    once(builder, np.ones((3, 40)))
    (tmp_path / "site").mkdir()
    plain = build_site(builder.lake.uri, tmp_path / "site", draw=False)
    assert "oracle_heldout" not in text(plain, "query.html")
    assert "repeated" not in json.dumps(sorted(plain.files))
    assert "repeated" not in text(plain, "index.html")

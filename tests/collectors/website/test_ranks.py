"""Who has a rank over all tasks, and where foretold numbers stand."""

from __future__ import annotations

import pytest

from collectors.lake.layout import forecast_fit_name, forecasts_name
from collectors.website.building import BuiltSite, build_site
from collectors.website.reading import Tables
from schemas.identity import digest
from schemas.records import FORECAST, FORECAST_FIT
from tests.helpers.foretold_rows import foretold_row
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.sites import Links

RIGHT = {"whole": [1.0, 0.0, 1.0, 0.0], "better": [1.0, 1.0, 1.0, 0.0], "parts": [1.0, 1.0, 1.0, None]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("ranks")
    builder = LakeBuilder(str(folder / "lake"))
    for task in ("t", "u"):
        cells = [(BuiltCell(model=name, task=task, items=4), scores) for name, scores in RIGHT.items()]
        builder.run(*(cell for cell, _ in cells), planned=4)
        for cell, scores in cells:
            builder.scores(cell, scores)
    name = digest("forecast")
    place = {"forecast": name, "task": "all", "items_digest": "", "prompting": "", "metric": "", "level": 0.9}
    foretold = foretold_row(FORECAST, **place, model="parts", value=0.87, low=0.61, high=0.93)
    builder.lake.create_table(forecasts_name(name, 0), foretold)
    builder.lake.create_table(forecast_fit_name(name), foretold_row(FORECAST_FIT, **place, coverage=0.91))
    return build_site(builder.lake.uri, folder / "site", draw=False)


def test_overall_model_with_missing_items_stands_below_without_a_rank(site: BuiltSite) -> None:
    tables = Tables(site.folder / "site.duckdb")
    rows = tables.rows("SELECT candidate, rank, score, scored_items, items FROM overall")
    tables.close()
    assert [tuple(one.values()) for one in rows] == [
        ("better", 1, 0.75, 8, 8),
        ("whole", 2, 0.5, 8, 8),
        ("parts", None, 1.0, 6, 8),
    ]
    assert "A model that lacks items has no rank" in (site.folder / "leaderboard.html").read_text()


def test_forecasts_have_a_page_that_the_start_page_links_and_stand_on_no_other(site: BuiltSite) -> None:
    texts = Links((site.folder / "foretold.html").read_text()).texts
    assert {"parts", "0.870", "0.610–0.930", "foretold"} <= {text.strip() for text in texts}
    assert "foretold.html" in Links((site.folder / "index.html").read_text()).addresses
    others = [path for path in site.folder.rglob("*.html") if path.name != "foretold.html"]
    assert not [path for path in others if "0.870" in path.read_text()]

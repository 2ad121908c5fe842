"""A site in headless Chromium: no error on any page, hostile texts stay text, tables sort, and SQL answers.

Skipped with a line where no Chromium is installed; SQL also where npm cannot bring DuckDB-WASM.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.website.building import BuiltSite, build_site
from collectors.website.scripts import NoScriptsError, scripts
from collectors.website.serving import server
from tests.helpers.browser import Browser, browser
from tests.helpers.sites import asked_lake, built, hostile_lake
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("hostile")
    return built(hostile_lake(str(folder / "lake")), folder / "site")


def one_of_each(site: BuiltSite) -> list[str]:
    """The single pages, and the first of each folder."""
    pages = [name for name in sorted(site.files) if name.endswith(".html")]
    firsts = {name.partition("/")[0]: name for name in reversed(pages) if "/" in name}
    return [*(name for name in pages if "/" not in name), *firsts.values()]


def test_pages_open_as_files_without_an_error_and_run_nothing_of_a_name(chromium: Browser, hostile: BuiltSite) -> None:
    for name in one_of_each(hostile):
        chromium.open((hostile.folder / name).as_uri())
        assert chromium.faults == [], name
        assert chromium.value("window.hit ?? null") is None, name
        assert all(address.startswith(("file:", "data:")) for address in chromium.asked), name


@pytest.mark.parametrize(("width", "dark"), [(360, True), (3840, False)])
def test_pages_fit_the_width_of_a_phone_and_of_4k(
    width: int, dark: bool, chromium: Browser, hostile: BuiltSite
) -> None:
    chromium.screen(width, 900, dark=dark)
    for name in one_of_each(hostile):
        chromium.open((hostile.folder / name).as_uri())
        assert chromium.value("document.documentElement.scrollWidth - innerWidth") <= 0, name


def test_table_sorts_by_its_heads_and_filters(chromium: Browser, hostile: BuiltSite) -> None:
    chromium.open((hostile.folder / "leaderboard.html").as_uri())
    head = "document.querySelector('th[data-key=candidate]')"
    names = f"Array.from({head}.closest('table').querySelectorAll('tbody th'), cell => cell.textContent.trim())"
    chromium.value(f"{head}.querySelector('button').click()")
    rising = chromium.value(names)
    assert chromium.value(f"{head}.getAttribute('aria-sort')") == "ascending"
    chromium.value(f"{head}.querySelector('button').click()")
    assert chromium.value(f"{head}.getAttribute('aria-sort')") == "descending"
    assert chromium.value(names) == rising[::-1]
    chromium.value(
        "(box => { box.value = 'JAVASCRIPT:'; box.dispatchEvent(new Event('input', {bubbles: true})); })"
        "(document.querySelector('input[data-key=candidate]'))"
    )
    assert chromium.value(names) == ["javascript:window.hit=1"]
    assert chromium.faults == []


@long_only
def test_query_page_answers_by_ranges_and_loads_nothing_from_elsewhere(chromium: Browser, tmp_path: Path) -> None:
    try:
        scripts()
    except NoScriptsError as error:
        pytest.skip(f"no DuckDB-WASM: {error}")
    site = build_site(asked_lake(str(tmp_path / "lake")).lake.uri, tmp_path / "site", sql=True)
    with server(site.folder, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{serving.server_port}/"
        sql = "SELECT model, avg(score) AS score FROM matrix WHERE task = 't' GROUP BY model ORDER BY model"
        chromium.open(f"{address}query.html#sql={sql}")
        chromium.value("document.querySelector('#ask button').click()")
        chromium.wait("/ in |error/i.test(document.getElementById('state').textContent + state.className)")
        rows = "Array.from(document.querySelectorAll('#result tbody tr'), row => row.innerText.split(/\\s+/))"
        serving.shutdown()
        thread.join()
    # (item + cell) % 3 == 0 for items 0 to 3 of cells 0, 2 and 4
    assert chromium.value(rows) == [["m0000", "0.5"], ["m0001", "0.25"], ["m0002", "0.25"]]
    assert chromium.faults == []
    assert all(one.startswith((address, "data:")) for one in chromium.asked)

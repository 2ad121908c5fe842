"""The page of any question in headless Chromium: each answer as the pages of single questions show it, from ranges.

Skipped with a line where Chromium or npm's packages are missing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from collectors.website import building
from collectors.website.building import BuiltSite, build_site
from collectors.website.reading import Tables
from collectors.website.scripts import NoScriptsError, scripts
from collectors.website.serving import server
from collectors.website.tables import item_page, question_fragment, question_key
from tests.helpers.browser import Browser, browser
from tests.helpers.sites import QUIZ, published, varied_lake
from tests.helpers.thorough import long_only

pytestmark = [pytest.mark.slow, long_only]

#: All that a page says of a question: its texts, and each answer with its parts and where its links lead.
SHOWN = """(() => {
  const plain = one => one.textContent.replace(/\\s+/g, " ").trim();
  const end = one => decodeURIComponent(one.href.replace(/^.*\\/(model\\/|query\\.html)/, "$1"));
  const all = (within, selector, of) => Array.from(within.querySelectorAll(selector), of);
  const answer = one => [one.className, ...Array.from(one.children, plain), ...all(one, "a", end)];
  const answers = all(document, "article", answer);
  const texts = all(document, "main > :is(.facts, h1, pre, ol, .note), #question > *, #answers > .note", plain);
  return {answers, texts: texts.filter(text => text), sql: end(document.querySelector(".sql a"))};
})()"""
READY = "document.getElementById('state').textContent !== 'Reading …' && !document.getElementById('question').hidden"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltSite, BuiltSite]:
    """One version as a site with a page each question, and as one with a page for all."""
    try:
        scripts()
    except NoScriptsError as error:
        pytest.skip(f"no reader of Parquet: {error}")
    folder = tmp_path_factory.mktemp("varied")
    uri = published(varied_lake(str(folder / "lake")), folder / "version")
    small = build_site(uri, folder / "small", draw=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "MOST_ANSWERS", 0)
        large = build_site(uri, folder / "large", draw=False, sql=True)
    (large.folder / "version").symlink_to(folder / "version")
    return small, large


@contextmanager
def served(site: BuiltSite) -> Iterator[str]:
    with server(site.folder, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


def shown(chromium: Browser) -> dict[str, Any]:
    said: dict[str, Any] = chromium.value(SHOWN)
    return {**said, "answers": sorted(said["answers"])}


def test_each_answer_is_as_on_the_page_of_its_question(chromium: Browser, sites: tuple[BuiltSite, BuiltSite]) -> None:
    small, large = sites
    tables = Tables(small.folder / "site.duckdb")
    questions = tables.rows("SELECT task, items_digest, item, judged, solved FROM questions ORDER BY ALL")
    counts = tables.rows("SELECT task, items_digest, item, count(*) AS n FROM matrix GROUP BY ALL ORDER BY ALL")
    tables.close()
    with served(large) as address:
        for question, count in zip(questions, counts, strict=True):
            place = (question["task"], question["items_digest"], question["item"])
            chromium.open((small.folder / item_page(*place)).as_uri())
            expected = shown(chromium)
            chromium.open("about:blank")
            chromium.open(address + question_fragment(*place))
            chromium.wait(READY)
            if count["n"] > 100:
                assert chromium.value("document.querySelectorAll('article').length") == 100
                assert chromium.value("document.getElementById('state').textContent") == "100 of 103 answers are shown."
                chromium.value("document.getElementById('more').click()")
                chromium.wait(READY)
            found = shown(chromium)
            assert found["answers"] == expected["answers"], place
            assert len(found["answers"]) == count["n"]
            assert f"{question['solved']} of {question['judged']} right." in found["texts"]
            assert found["sql"] == expected["sql"]
            assert [text for text in expected["texts"] if text not in found["texts"]] == []
            assert chromium.value("document.getElementById('more').hidden")
            assert chromium.value("window.hit ?? null") is None
            assert chromium.faults == [], place
            assert all(one.startswith((address, "data:", "about:")) for one in chromium.asked)
            assert len(expected["answers"]) > 5


#: Sets fields of the form by a person's way: values, then the event that a hand makes.
CHOOSE = """(values => {
  const form = document.getElementById("choice");
  form.reset();
  for (const name in values) form.elements[name].value = values[name];
  document.getElementById("state").textContent = "Reading …";
  form.elements.model.dispatchEvent(new Event("input", {bubbles: true}));
})"""


@pytest.mark.parametrize("task", [QUIZ, "many"])
def test_answers_are_ordered_and_chosen_as_on_the_page_of_their_question(
    task: str, chromium: Browser, sites: tuple[BuiltSite, BuiltSite]
) -> None:
    small, large = sites
    with served(large) as address:
        found = {}
        for kind, page in (
            ("small", (small.folder / item_page(task, "i0", 0)).as_uri()),
            ("large", address + question_fragment(task, "i0", 0)),
        ):
            chromium.open("about:blank")
            chromium.open(page)
            chromium.wait("!document.getElementById('choice').hidden")
            of_kind = found.setdefault(kind, [])
            for values in (
                {"order": "right"},
                {"order": "wrong", "model": "M00"},
                {"order": "most", "verdict": "right"},
                {"order": "fewest", "from": "1", "to": "2"},
                {"order": "cheapest", "from": "3"},
                {"model": "nobody"},
            ):
                chromium.value(f"{CHOOSE}({json.dumps(values)})")
                chromium.wait(READY.replace("question'", "list'"))
                while kind == "large" and chromium.value("!document.getElementById('more').hidden"):
                    chromium.value("document.getElementById('more').click()")
                    chromium.wait(READY)
                chromium.value("document.querySelectorAll('article > button').forEach(one => one.click())")
                chromium.wait("!document.querySelector('article > button')")
                kinds = chromium.value("Array.from(document.querySelectorAll('article'), one => one.classList[1])")
                firsts = [kind == values.get("order") for kind in kinds]
                of_kind.append((firsts, sorted(chromium.value(SHOWN)["answers"])))
            assert chromium.faults == []
    assert found["large"] == found["small"]
    counts = [len(answers) for _, answers in found["small"]]
    assert counts[0] > 5
    assert counts[-1] == 0
    if task == "many":
        assert counts == [103, 10, 51, 103, 0, 0]
        assert found["small"][0][0] == [True] * 51 + [False] * 52


def test_page_follows_its_address_and_says_what_is_not_there(
    chromium: Browser, sites: tuple[BuiltSite, BuiltSite]
) -> None:
    _, large = sites
    key = next(name for name in large.files if name.startswith("data/question-")).split("-")[1]
    with served(large) as address:
        for lost in ("", "#", f"#{key}/999999", "#../x/1", "#%3Cimg%3E/1"):
            chromium.open("about:blank")
            chromium.open(f"{address}question.html{lost}")
            chromium.wait("!document.getElementById('lost').hidden")
            assert chromium.value("document.querySelectorAll('article').length") == 0
            assert {urlsplit(one).path.rpartition("/")[0] for one in chromium.asked if "data/" in one} <= {"/data"}
        chromium.value(f"location.hash = '#{key}/0'")
        chromium.wait(READY)
        assert chromium.value("document.querySelectorAll('article').length") > 5
        assert chromium.faults == []


def test_page_from_a_file_shows_the_question_and_says_how_to_see_answers(
    chromium: Browser, sites: tuple[BuiltSite, BuiltSite]
) -> None:
    _, large = sites
    chromium.open("about:blank")
    chromium.open(f"{(large.folder / 'question.html').as_uri()}#{question_key(QUIZ, 'i0')}/0")
    chromium.wait("!document.getElementById('question').hidden")
    assert "--serve" in chromium.value("document.getElementById('server').innerText")
    assert chromium.value("document.querySelector('#question h2').textContent") == "Question"
    assert chromium.faults == []


def test_page_without_the_versions_files_says_where_they_belong(
    chromium: Browser, sites: tuple[BuiltSite, BuiltSite]
) -> None:
    _, large = sites
    (large.folder / "version").rename(large.folder.parent / "aside")
    try:
        with served(large) as address:
            chromium.open("about:blank")
            chromium.open(f"{address}question.html#{question_key(QUIZ, 'i0')}/0")
            chromium.wait("document.getElementById('state').className === 'error'")
            assert "at version/" in chromium.value("document.getElementById('state').textContent")
    finally:
        (large.folder.parent / "aside").rename(large.folder / "version")

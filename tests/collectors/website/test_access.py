"""What a reader with a screen reader, a keyboard or weak eyes needs, in headless Chromium.

Every control has a name and every table a caption, headings come in order, focus is seen, text stands out (WCAG 2.2:
1.3.1, 1.4.3, 2.4.7, 4.1.2). Skipped with a line where no Chromium is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from collectors.website import building
from collectors.website.building import BuiltSite
from collectors.website.tables import question_key
from tests.collectors.website.test_in_browser import one_of_each
from tests.helpers.browser import Browser, browser
from tests.helpers.sites import QUIZ, built, hostile_lake, varied_lake
from tests.helpers.thorough import long_only

pytestmark = [pytest.mark.slow, long_only]

NAMED = {
    *("button", "link", "textbox", "combobox", "spinbutton", "searchbox", "checkbox"),
    *("region", "navigation", "table", "image", "DisclosureTriangle"),
}
FOCUSED = """(() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  return one === document.body ? null : [one.outerHTML.slice(0, 80), style.outlineStyle, parseFloat(style.outlineWidth), box.top < innerHeight && box.bottom > 0];
})()"""  # noqa: E501
#: Texts whose colour stands out too little from what is behind it: 4.5 to 1, or 3 for large letters.
FAINT = """(() => {
  const parsed = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number), n = text.startsWith("color") ? 255 : 1; return [r * n, g * n, b * n, a]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = colour => colour.slice(0, 3).map(v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const faint = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement, style = getComputedStyle(one), size = parseFloat(style.fontSize);
    if (!texts.currentNode.textContent.trim() || !one.getClientRects().length || one.closest(":disabled")) continue;
    let opacity = 1, behind = [255, 255, 255, 1];
    const around = [];
    for (let at = one; at; at = at.parentElement) { opacity *= getComputedStyle(at).opacity; around.unshift(parsed(getComputedStyle(at).backgroundColor)); }
    for (const colour of around) behind = over(colour, behind);
    const own = parsed(style.color), [high, low] = [light(over([...own.slice(0, 3), own[3] * opacity], behind)), light(behind)].sort((a, b) => b - a);
    if ((high + .05) / (low + .05) < (size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5)) faint.add(one.outerHTML.slice(0, 80));
  }
  return [...faint];
})()"""  # noqa: E501


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A page of each kind, and that of any question."""
    folder = tmp_path_factory.mktemp("pages")
    small = built(hostile_lake(str(folder / "lake")), folder / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "MOST_ANSWERS", 0)
        (folder / "varied").mkdir()
        large: BuiltSite = built(varied_lake(str(folder / "varied" / "lake")), folder / "large")
    question = f"{(large.folder / 'question.html').as_uri()}#{question_key(QUIZ, 'i0')}/0"
    return [*((small.folder / name).as_uri() for name in one_of_each(small)), question]


def opened(chromium: Browser, page: str) -> None:
    chromium.open(page)
    if "question.html" in page:
        chromium.wait("!document.getElementById('question').hidden")


def test_controls_and_tables_have_names_and_headings_come_in_order(chromium: Browser, pages: list[str]) -> None:
    for page in pages:
        opened(chromium, page)
        nodes = chromium.accessible()
        assert [(role, told) for role, name, told in nodes if role in NAMED and not name.strip()] == [], page
        levels = [told["level"] for role, _, told in nodes if role == "heading"]
        assert levels[0] == 1, page
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), (page, levels)
        assert len([role for role, *_ in nodes if role == "main"]) == 1


def test_keyboard_focus_is_seen_and_its_first_stop_leads_to_the_content(chromium: Browser, pages: list[str]) -> None:
    chromium.screen(1280, 900)
    for page in pages:
        opened(chromium, page)
        stops = []
        for _ in range(40):
            chromium.press("Tab")
            stop = chromium.value(FOCUSED)
            if stop is None:
                break
            stops.append(stop)
        assert 'class="skip"' in stops[0][0], page
        assert len(stops) > 8, page
        assert [what for what, style, width, is_seen in stops if style == "none" or width < 2 or not is_seen] == [], (
            page
        )


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_what_is_behind_them(dark: bool, chromium: Browser, pages: list[str]) -> None:
    chromium.screen(360, 900, dark=dark)
    for page in pages:
        opened(chromium, page)
        assert chromium.value(FAINT) == [], page
        assert chromium.value("document.documentElement.scrollWidth - innerWidth") <= 0, page

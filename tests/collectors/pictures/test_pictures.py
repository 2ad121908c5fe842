"""The drawings and the page: their contents, and that the page needs no other file."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collectors.pictures.draw import draw_cost, draw_scaling, new_axes, short, titled
from collectors.pictures.headline import Headline, headline
from collectors.pictures.page import page, script_json

NASTY = '</script><img src="http://example.com/x.png">'


def made(models: int, *, spread: float = 3.0, names: list[str] | None = None, task: str = "quiz") -> Headline:
    generator = np.random.default_rng(models)
    skill = generator.random(models)
    scores = (generator.random((200, models)) < skill).astype(np.float32)
    usd = np.exp(spread * skill) * 1e-4 * (1 + generator.random((200, models)))
    names = names or [f"owner/model-{number:04d}" for number in range(models)]
    return headline(task, "acc", names, scores, {"usd": usd}, reference=0.9, draws=10)


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of the numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.numbers = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1] == ("script", {"type": "application/json", "id": "numbers"}):
            self.numbers += data


def numbers_of(html: str) -> dict[str, Any]:
    """As the page's script reads them: names in place of their numbers."""
    numbers: dict[str, Any] = json.loads(Elements(html).numbers)
    for task in numbers["tasks"]:
        for models in (task["models"], task["cost"] and task["cost"]["models"]):
            if models:
                models["model"] = [numbers["names"][place] for place in models["model"]]
    return numbers


@pytest.mark.parametrize("models", [1, 2, 11, 700])
def test_drawings_are_png_and_svg_with_the_same_text(models: int) -> None:
    one = made(models)
    for drawing in (draw_scaling(one), draw_cost(one)):
        with Image.open(io.BytesIO(drawing.png)) as image:
            assert image.format == "PNG"
            assert image.size == (1140, 750)
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50  # something is drawn
        shown = texts(drawing.svg)
        assert any(f"{models:,} models" in text for text in shown)
        left, top, right, bottom = drawing.box
        _, _, width, height = map(float, ET.fromstring(drawing.svg).attrib["viewBox"].split())
        assert 0 < left < right < width
        assert 0 < top < bottom < height


def test_drawing_twice_gives_the_same_bytes() -> None:
    one = made(11)
    assert draw_cost(one) == draw_cost(one)
    assert draw_scaling(one) == draw_scaling(one)


def test_scaling_drawing_marks_the_reference_and_ends_at_the_pool() -> None:
    drawing = draw_scaling(made(11))
    assert "reference accuracy 0.9" in texts(drawing.svg)
    assert (drawing.x, drawing.x_is_log) == ((1, 11), True)
    assert "reference" not in "".join(texts(draw_scaling(headline("t", "acc", ["a"], np.ones((1, 1)), {})).svg))


@pytest.mark.parametrize(("spread", "is_log"), [(0.1, False), (6.0, True)])
def test_cost_axis_is_logarithmic_where_costs_span_far(spread: float, is_log: bool) -> None:
    one = made(11, spread=spread)
    drawing = draw_cost(one)
    assert one.cost is not None
    assert drawing.x_is_log is is_log
    assert drawing.x[0] <= 1000 * one.cost.plane.points[:, 0].min()
    assert drawing.x[1] > 1000 * one.cost.plane.points[:, 0].max()
    assert f"USD per 1,000 items{' (log scale)' if is_log else ''}" in texts(drawing.svg)


def test_cost_drawing_names_models_once_and_of_many_only_the_frontier() -> None:
    few = texts(draw_cost(made(8)).svg)
    named = [text for text in few if text.startswith("model-")]
    assert len(named) == len(set(named)) >= 6
    many = made(400)
    assert many.cost is not None
    frontier = {short(many.cost.models[model]) for model in many.cost.frontier}
    named = [text for text in texts(draw_cost(many).svg) if text.startswith("model-")]
    assert set(named) <= frontier
    assert named


@pytest.mark.fast
def test_cost_drawing_takes_free_models_and_equal_costs() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 1.0]])
    for usd in (np.zeros((2, 2)), np.array([[0.0, 5.0], [0.0, 5.0]])):
        drawing = draw_cost(headline("quiz", "acc", ["a", "b"], scores, {"usd": usd}))
        assert not drawing.x_is_log
        assert drawing.x[1] > usd.max()


def test_cost_drawing_of_thousands_is_small_and_needs_no_other_file() -> None:
    svg = draw_cost(made(3000)).svg
    assert len(svg) < 200_000
    links = re.findall(r'href="([^"]*)"', svg)
    assert any(link.startswith("data:image/png;base64,") for link in links)
    assert all(link.startswith(("data:", "#")) for link in links)


@pytest.mark.fast
def test_cost_drawing_without_costs_is_an_error() -> None:
    one = headline("quiz", "acc", ["a"], np.ones((1, 1)), {"usd": None})
    with pytest.raises(ValueError, match="no cost is known"):
        draw_cost(one)


@pytest.mark.fast
def test_names_are_shown_without_owner_and_math() -> None:
    assert short("owner/model") == "model"
    assert short("x" * 99) == "x" * 29 + "…"
    assert "a$_b$" in texts(draw_cost(made(2, names=["a$_b$", "c"])).svg)


def test_page_needs_nothing_but_itself() -> None:
    one, other = made(11), made(3, names=[NASTY, "b", 'c,\n"d'], task=NASTY)
    html = page(NASTY, [(each, [draw_scaling(each), draw_cost(each)]) for each in (one, other)], [NASTY])
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "source", "image"}
        assert attributes.keys().isdisjoint({"src", "srcset", "data", "action", "ping", "poster"})
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not re.search(r"url\((?!#)", attributes.get("style") or "")
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html
    assert [tag for tag, _ in elements.found].count("svg") == 4
    assert numbers_of(html)["tasks"][1]["models"]["model"][0] == NASTY


@pytest.mark.slow
def test_page_numbers_are_those_that_were_computed() -> None:
    one = made(11)
    html = page("title", [(one, [draw_scaling(one), draw_cost(one)])])
    [task] = numbers_of(html)["tasks"]
    drawings = task.pop("drawings")
    assert task == one.record()
    assert drawings[0]["x"] == [1, 11]
    for value in (*one.scaling.oracle, *one.scaling.best_single):
        assert f"<td>{value:.4g}</td>" in html


def test_page_without_costs_says_so() -> None:
    one = headline("quiz", "acc", ["a"], np.ones((1, 1)), {"usd": None, "latency_s": None})
    html = page("title", [(one, [draw_scaling(one)])])
    assert "No figure of cost and quality: no cost and no latency is known." in html
    assert numbers_of(html)["tasks"][0]["cost"] is None


def test_script_json_ends_no_script_and_refuses_what_is_no_json() -> None:
    text = script_json({"a": NASTY, "b": "\u2028"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": NASTY, "b": "\u2028"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


def test_line_under_a_title_stays_in_the_picture_however_long_it_is() -> None:
    under = (
        "8,497 models, 23,529 items; 1,234 models without a known cost are left out; AIQ 0.6592 as in RouterBench's "
    )
    for text in (under[:104], f"{under}paper, 0.5563 as in its code"):
        with new_axes() as (figure, _):
            titled(figure, "quiz", text)
            box = figure.texts[-1].get_window_extent(figure.canvas.get_renderer())
            assert box.x1 <= figure.bbox.x1

"""Sites of small lakes for tests: plain ones, and one whose names and answers try to leave the page's text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from collectors.publish.version import build_version
from collectors.website.building import BuiltSite, build_site
from tests.helpers.equal_lakes import put_prices
from tests.helpers.filled_lakes import DESCRIPTION
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: Texts that would be markup, a path, an attribute, or turn the text around.
HOSTILE = (
    "<script>window.hit=1</script>",
    '"onmouseover="window.hit=1"',
    "../../../etc/passwd",
    "\u202egnp.exe",
    "nul\x00led",
    "</script><img src=x onerror=window.hit=1>",
    "{{7*7}}",
    "javascript:window.hit=1",
)


def hostile_lake(uri: str) -> LakeBuilder:
    """Models, tasks, questions, answers, licences and reasons of failures that are HOSTILE."""
    builder = LakeBuilder(uri)
    cells = [BuiltCell(model=name, task="quiz", items=3) for name in HOSTILE]
    cells += [BuiltCell(model=HOSTILE[0], task=f"{HOSTILE[5]} t", items=3)]
    builder.run(*cells)
    for number, cell in enumerate(cells):
        answers = [HOSTILE[(number + item) % len(HOSTILE)] for item in range(3)]
        rows = [cell.record(item, score=float((item + number) % 2), responses=[answers[item]]) for item in range(3)]
        builder.shard(cell, rows)
    texts = list(HOSTILE[:3])
    builder.items("quiz", "i0", 3, prompt=texts, target=texts, subject=texts, choices=[texts] * 3)
    builder.failure("run-0001", "no_weights", HOSTILE[0], model=HOSTILE[1])
    builder.model("plain", "r0", licence=HOSTILE[0])
    return builder


def asked_lake(uri: str, models: int = 3, items: int = 4) -> LakeBuilder:
    """Whole cells of two tasks with questions, right answers and texts."""
    builder = LakeBuilder(uri)
    cells = [BuiltCell(model=f"m{i:04d}", task=task, items=items) for i in range(models) for task in ("t", "u")]
    builder.run(*cells)
    for number, cell in enumerate(cells):
        rows = [
            cell.record(item, score=float((item + number) % 3 == 0), responses=[f"{cell.model} says {item}"])
            for item in range(items)
        ]
        builder.shard(cell, rows)
    for task in ("t", "u"):
        prompts = [f"question {item} of {task}?" for item in range(items)]
        builder.items(task, "i0", items, prompt=prompts, target=[f'"gold {item}"' for item in range(items)])
    return builder


#: A task whose name is markup, and the answers to it: a letter of two units at the cut, marks that turn the text.
QUIZ = "<img src=x onerror=window.hit=1>"
_ODD = (*HOSTILE, "\U0001f600" * 20_001, "a\rb\u2028c\u200b\U000e0041d", "")


def varied_lake(uri: str) -> LakeBuilder:
    """All that a question's page tells apart, in names and answers that are HOSTILE.

    Cells of two promptings, with their settings, prices and stated costs; repeats, a second filter, log-likelihoods,
    outcomes, scores that end in a half, items that some were not asked. Task `many`: a question with 103 answers.
    """
    builder = LakeBuilder(uri)
    quiz = [BuiltCell(model=name, task=QUIZ, items=4) for name in HOSTILE]
    quiz += [BuiltCell(model=name, task=QUIZ, items=4, prompting="p1", dtype="bfloat16") for name in HOSTILE[:3]]
    many = [BuiltCell(model=f"m{i:03d}", task="many", items=1) for i in range(103)]
    builder.run(*quiz[:8], *many)
    builder.run(*quiz[8:], num_fewshot=5, chat_template="\u202echat")
    for number, cell in enumerate(quiz):
        rows = []
        for item in range(4 if number % 3 else 3):
            text = _ODD[(number + item) % len(_ODD)]
            odd = {
                0: {"responses": [text, "again"], "cached_tokens": 4, "reasoning_tokens": 1, "cache_write_tokens": 2},
                1: {"responses": [text], "finish_reason": "length", "stated_usd": 0.000123456},
                2: {"loglikelihoods": [-0.125 * (number + item), None, float("-inf")], "latency_s": None},
                3: {"failure": "judge_died", "prompt_tokens": None, "stated_usd": 0.25},
            }[(number + item) % 4]
            score = None if "failure" in odd else (number + item) % 16 / 16
            rows.append(cell.record(item, score=score, **odd))
            rows.append(cell.record(item, score=1.0, filter="other", responses=["of the other filter"]))
            if number % 4 == 0:
                times = (1, 2) if item or number else (1, 2, 3)
                rows += [cell.record(item, repeat=n, score=1.0, responses=[f"repeat {n}"]) for n in times]
        builder.shard(cell, rows)
    for number, cell in enumerate(many):
        builder.shard(cell, [cell.record(0, score=float(number % 2), responses=[f"{cell.model} says so"])])
    texts = [*HOSTILE[:3], "x" * 20_001]
    builder.items(QUIZ, "i0", 4, prompt=texts, target=texts, subject=texts, choices=[texts] * 4)
    put_prices(builder.lake, [(name, 0.5 + n, 1.75 * n) for n, name in enumerate((HOSTILE[0], HOSTILE[2], "m001"))])
    return builder


def published(builder: LakeBuilder, folder: Path) -> str:
    """The lake as a version in a folder."""
    folder.mkdir()
    return str(build_version(builder.lake, folder, DESCRIPTION, "1.0.0", include="all").folder)


def built(builder: LakeBuilder, folder: Path) -> BuiltSite:
    return build_site(builder.lake.uri, folder)


class Links(HTMLParser):
    """Where a page's links, scripts and pictures lead, its tags, and the texts between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self.addresses += [value for key in ("href", "src") if (value := values.get(key)) and value != "data:,"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def broken_links(folder: Path) -> list[str]:
    """Links between pages that lead to no file."""
    lost = []
    for path in sorted(folder.rglob("*.html")):
        for address in Links(path.read_text(encoding="utf-8")).addresses:
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)) if parts.path else path
            if parts.scheme or not target.exists():
                lost.append(f"{path.relative_to(folder)}: {address}")
    return lost

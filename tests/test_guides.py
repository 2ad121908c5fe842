"""The READMEs stay true: they name every module, view, format and script, and their guides name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collectors.exporters import registry as exporters
from collectors.importers import registry as importers
from schemas.records import TABLES
from schemas.views import view_files
from tests.helpers.lake_builder import LakeBuilder

ROOT = Path(__file__).resolve().parent.parent
GUIDE = "collectors/README.md"
#: READMEs that a person reads; those in golden/ are data.
READMES = sorted(
    path
    for folder in (".", "schemas", "collectors", "pipelines", "tests", "infra")
    for path in (ROOT / folder).glob("README.md" if folder == "." else "**/README.md")
    if "golden" not in path.parts
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of the same depth or above; blocks of code have none."""
    level, lines, is_code, body = len(heading.partition(" ")[0]), iter(text.splitlines()), False, []
    assert any(line == heading for line in lines), heading
    for line in lines:
        is_code ^= line.startswith("```")
        if not is_code and re.match(rf"#{{1,{level}}} ", line):
            break
        body.append(line)
    return "\n".join(body)


def rooms() -> dict[Path, list[str]]:
    """Folder with a README -> the modules that it has to name: its own, and those of its folder formats/."""
    found: dict[Path, list[str]] = {}
    for package in ("schemas", "collectors", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            room = path.parent.parent if path.parent.name == "formats" else path.parent
            if path.name != "__init__.py":
                found.setdefault(room, []).append(path.name)
    return found


@pytest.mark.parametrize("room", rooms(), ids=lambda room: str(room.relative_to(ROOT)))
def test_readme_of_a_room_names_all_of_its_modules_and_no_others(room: Path) -> None:
    readme = room / "README.md"
    assert readme.is_file(), f"{room} has no README.md"
    text = readme.read_text(encoding="utf-8")
    assert [name for name in rooms()[room] if f"`{name}`" not in text] == []
    rows = re.findall(r"^\| \[?`([\w/]+\.py)`", text, re.MULTILINE)
    assert [name for name in rows if not (room / name).exists() and not (room / "formats" / name).exists()] == []


def test_readme_of_collectors_names_all_rooms() -> None:
    names = {path.parent.name for path in (ROOT / "collectors").glob("*/__init__.py")}
    assert set(re.findall(r"^\| \[`(\w+)/`\]", text_of(GUIDE), re.MULTILINE)) == names


def test_readme_at_the_top_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_links_lead_to_files_and_headings(readme: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", readme.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = readme.parent / name if name else readme
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


# ---- guides


def guides() -> list[str]:
    return re.findall(r"^## (Add .+)$", text_of(GUIDE), re.MULTILINE)


def steps(guide: str) -> list[tuple[str, list[str]]]:
    """The numbered steps of a guide: a file, and the names that are to be found in it."""
    lines = section(text_of(GUIDE), f"## {guide}").replace("\n   ", " ").splitlines()
    found = []
    for line in (line for line in lines if re.match(r"\d+\. `", line)):
        path, names, _ = re.split(r": (?=`)| — ", line.partition(" ")[2], maxsplit=2)
        found.append((path.strip("`"), re.findall(r"`([^`]+)`", names)))
    return found


def examples(guide: str) -> list[str]:
    """Names that stand for NAME: what a guide tells to copy from."""
    copied = re.search(r"^Copy from: (.+)$", section(text_of(GUIDE), f"## {guide}"), re.MULTILINE)
    return re.findall(r"`(\w+)`", copied[1]) if copied else []


@pytest.mark.parametrize("guide", guides())
def test_guide_names_files_that_are_there_and_what_is_in_them(guide: str) -> None:
    assert steps(guide)
    for path, names in steps(guide):
        assert names, f"{guide}: {path}: no name to look for"
        for example in examples(guide) if "NAME" in path else [""]:
            text = text_of(path.replace("NAME", example))
            missing = [name for name in names if name.replace("NAME", example) not in text]
            assert missing == [], f"{guide}: {path.replace('NAME', example)}"


def test_guides_are_there_for_all_that_is_added_often() -> None:
    assert [guide.split(" ", 2)[2] for guide in guides()] == [
        "engine",
        "import format",
        "export format",
        "metric",
        "view",
        "column",
        "table",
    ]


@pytest.mark.parametrize("package", ["schemas", "collectors"])
def test_files_that_the_readmes_walk_through_are_there(package: str) -> None:
    text = text_of(f"{package}/README.md")
    places = [ROOT, ROOT / package, ROOT / "pipelines", ROOT / "collectors"]
    named = {name for name in re.findall(r"`([\w/]+/[\w/]*\.(?:py|sql|yaml))`", text) if "NAME" not in name}
    assert sorted(name for name in named if not any((place / name).exists() for place in places)) == []


# ---- lists


def test_readme_of_schemas_lists_every_table_and_public_view_and_thirty_words_at_most() -> None:
    text = text_of("schemas/README.md")
    tables, views = (section(text, heading) for heading in ("## Tables", "## Views"))
    assert [table for table in TABLES if f"`{table}`" not in tables] == []
    assert [name for name in view_files() if not name.startswith("_") and f"`{name}`" not in views] == []
    words = re.findall(r"^\| (.+?) \|", section(text, "## Words"), re.MULTILINE)[1:]
    assert sum(len(word.split(", ")) for word in words) <= 30


@pytest.mark.parametrize(("heading", "registry"), [("## ingest.py", importers), ("## export.py", exporters)])
def test_readme_of_pipelines_lists_every_format(heading: str, registry: object) -> None:
    text = section(text_of("pipelines/README.md"), heading)
    assert [name for name in registry.FORMATS if f"`{name}`" not in text] == []  # type: ignore[attr-defined]


def test_readme_of_pipelines_has_a_transcript_of_every_command() -> None:
    text = text_of("pipelines/README.md")
    scripts = [path.name for path in (ROOT / "pipelines").glob("*.py") if path.name not in ("__init__.py", "score.py")]
    silent = [name for name in scripts if f"$ python pipelines/{name}" not in section(text, f"## {name}")]
    assert silent == []


def test_readme_counts_the_formats() -> None:
    text = text_of("README.md")
    assert f"({len(importers.FORMATS)} formats)" in text
    assert f"({len(exporters.FORMATS)} formats)" in text


@pytest.mark.slow
def test_queries_of_the_guides_name_columns_that_views_have(tmp_path: Path) -> None:
    """Those that join a file of the reader's own are left out."""
    texts = [path.read_text(encoding="utf-8") for path in [*READMES, ROOT / "infra" / "RUNBOOK.md"]]
    queries = [query for text in texts for query in re.findall('--sql "([^"]+)"', text) if ".parquet" not in query]
    assert len(queries) > 8
    views = LakeBuilder(tmp_path / "lake").views()
    for query in queries:
        views.execute(query).fetchall()

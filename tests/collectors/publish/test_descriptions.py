"""What a published version gives catalogs, citations and loaders, and the version that it names as its predecessor."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.publish.card import Contents, Description, Predecessor, code, readme
from collectors.publish.citation import bibtex
from collectors.publish.croissant import croissant
from collectors.publish.datasheet import datasheet
from collectors.publish.earlier import beside, content_of, earlier_versions, named_version, replaced_by
from collectors.publish.publishing import publish
from collectors.publish.verifying import verify
from collectors.publish.version import PublishedVersion, build_version
from pipelines.publish import main
from schemas.failures import ConfigError
from tests.helpers.filled_lakes import DESCRIPTION, add, filled, published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.local_server import serving_folder
from tests.helpers.thorough import LONG, long_only

HOSTILE = "A <script>alert(1)</script> & {x} `y` %_z\\"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeBuilder:
    return filled(tmp_path_factory.mktemp("descriptions") / "lake")


@pytest.fixture
def served(tmp_path: Path, lake: LakeBuilder) -> Iterator[tuple[str, PublishedVersion]]:
    """A version with an address, and a server of 127.0.0.1 that has it there."""
    with serving_folder(tmp_path / "out") as url:
        description = dataclasses.replace(DESCRIPTION, creators=("Doe, Jane", "Org"), url=url)
        made = published(lake.lake, tmp_path / "s", "1.0.0", description)
        assert not verify(publish(made, str(tmp_path / "out"))[0]).faults
        yield f"{url}/1.0.0/croissant.json", made


def described(made: PublishedVersion) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((made.folder / "croissant.json").read_text())
    return value


@long_only
def test_croissant_with_an_address_has_the_url_and_sha256_of_each_file(served: tuple[str, PublishedVersion]) -> None:
    url, made = served
    value = described(made)
    base = url.removesuffix("croissant.json")
    assert value["url"] == base
    for file in value["distribution"]:
        name = file["contentUrl"].removeprefix(base)
        assert file["sha256"] == made.files[name]["sha256"]
    parquet = {name for name in made.files if re.match(r"(matrix|items)/task", name)}
    assert parquet <= {file["name"] for file in value["distribution"]}
    sources = {field["source"]["fileObject"]["@id"] for one in value["recordSet"] for field in one["field"]}
    assert sources == {file["@id"] for file in value["distribution"]}


def test_croissant_states_versions_citation_and_responsible_terms(tmp_path: Path, lake: LakeBuilder) -> None:
    value = described(published(lake.lake, tmp_path / "s", "1.0.0"))
    assert value["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert value["citeAs"].startswith("@misc{a-matrix-1-0-0,")
    terms = {name for name in value if name.startswith("rai:")}
    assert {"rai:dataCollection", "rai:dataCollectionMissingData", "rai:dataLimitations", "rai:dataUseCases"} <= terms
    assert not {"rai:dataBiases", "rai:dataSocialImpact"} & terms, "nobody stated them"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_croissant_served_over_http_is_read_by_mlcroissant(
    served: tuple[str, PublishedVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    from etils import epath
    from mlcroissant._src.core import constants

    monkeypatch.setattr(constants, "DOWNLOAD_PATH", epath.Path(tmp_path / "downloads"))
    url, made = served
    read = mlcroissant.Dataset(jsonld=url)
    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    rows: dict[str, int] = {}
    for one in read.metadata.record_sets:
        table = one.uuid.split("/")[0]
        rows[table] = rows.get(table, 0) + len(list(read.records(one.uuid)))
    assert {table: rows[table] for table in ("records", "responses", "items")} == {
        table: made.manifest["counts"][table] for table in ("records", "responses", "items")
    }


def test_descriptions_of_a_hostile_title_stay_text(tmp_path: Path, lake: LakeBuilder) -> None:
    description = Description(HOSTILE, HOSTILE, "cc-by-4.0", {HOSTILE: HOSTILE}, (HOSTILE,))
    made = published(lake.lake, tmp_path / "s", "1.0.0", description)
    cited = yaml.safe_load((made.folder / "CITATION.cff").read_text())
    assert (cited["title"], cited["authors"]) == (HOSTILE, [{"name": HOSTILE}])
    zenodo = json.loads((made.folder / ".zenodo.json").read_text())
    assert "<script>" not in zenodo["description"] + zenodo["notes"], "these two are HTML there"
    bibtex = described(made)["citeAs"]
    assert bibtex.count("{") == bibtex.count("}")
    assert code(HOSTILE) in (made.folder / "DATASHEET.md").read_text()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "shown"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a``", "``` `a`` ```"), ("a\n# b", "`a # b`")]
)
def test_a_name_in_the_data_sheet_is_code_whatever_it_holds(text: str, shown: str) -> None:
    assert code(text) == shown


def _contents(**provenance: Any) -> Contents:
    given = {
        "created": "2026-01-02T00:00:00+00:00",
        "imports": [],
        "tasks": [],
        "models": [],
        "versions": [],
        "runs": [],
    }
    return Contents("1.0.0", {"records": 1}, given | provenance, {})


@pytest.mark.fast
def test_texts_of_imports_and_sources_are_code_in_card_and_data_sheet() -> None:
    """Whoever is imported from has written them. A title is the publisher's own and may be Markdown."""
    hostile = "[x](https://evil.example) ![y](z)"
    contents = _contents(imports=[{"imported_from": hostile, "format": "table", "licence": f"# {hostile}"}])
    made = Description("*A*", "**Of** tests.", None, {hostile: f"<b>{hostile}"})
    for text in (readme(made, contents).decode(), datasheet(made, contents).decode()):
        rest = text.replace(f"`{hostile}`", "").replace(f"`# {hostile}`", "").replace(f"`<b>{hostile}`", "")
        assert "evil.example" not in rest
        assert rest != text
        assert "*A*" in text
    assert f"Imported {hostile} (table): # {hostile}." in json.loads(croissant(made, contents))["description"]


@pytest.mark.fast
def test_creators_are_persons_where_they_have_a_comma() -> None:
    made = Description(creators=("Doe, Jane", "Org & Sons", "A, B, C, D", "Black and White, Ltd"))
    assert "author = {Doe, Jane and {Org \\& Sons} and {A, B, C, D} and {Black and White, Ltd}}" in bibtex(
        made, _contents()
    )
    creators = json.loads(croissant(made, _contents()))["creator"]
    assert creators[:2] == [
        {"@type": "sc:Person", "name": "Doe, Jane"},
        {"@type": "sc:Organization", "name": "Org & Sons"},
    ]


def test_descriptions_invent_no_author_and_no_licence(tmp_path: Path, lake: LakeBuilder) -> None:
    made = published(lake.lake, tmp_path / "s", "1.0.0", Description())
    cited = yaml.safe_load((made.folder / "CITATION.cff").read_text())
    assert cited["authors"] == [{"name": "not stated"}], "the format demands one"
    assert "license" not in cited
    zenodo = json.loads((made.folder / ".zenodo.json").read_text())
    assert not {"creators", "license", "related_identifiers"} & zenodo.keys()
    sheet = (made.folder / "DATASHEET.md").read_text()
    assert "**Who created it?** Not stated by the publisher." in sheet
    headings = re.findall("^## (.*)", sheet, re.MULTILINE)
    assert headings == [
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning and labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]


def test_card_has_a_configuration_for_each_table_and_the_matrix_of_each_task(tmp_path: Path, lake: LakeBuilder) -> None:
    made = published(lake.lake, tmp_path / "s", "1.0.0")
    front = yaml.safe_load((made.folder / "README.md").read_text().split("---")[1])
    configs = {one["config_name"]: one["data_files"] for one in front["configs"]}
    assert list(configs) == ["matrix", "records", "responses", "items", "models", "cells", "matrix-t", "matrix-u"]
    assert configs["matrix-u"] == "matrix/task=u/matrix.parquet"


@pytest.mark.slow
def test_load_dataset_of_one_tasks_matrix_has_its_rows_alone(tmp_path: Path, lake: LakeBuilder) -> None:
    import datasets

    made = published(lake.lake, tmp_path / "s", "1.0.0")
    one = datasets.load_dataset(str(made.folder), "matrix-u", cache_dir=str(tmp_path / "cache"), split="train")
    assert set(one["task"]) == {"u"}


# ---- the version before


def test_version_names_the_newest_earlier_one_and_publishing_again_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = filled(tmp_path / "lake")
    to = str(tmp_path / "out")
    arguments = ["--lake", builder.lake.uri, "--to", to, "--version"]
    assert main([*arguments, "1.0.0"]) == 0
    builder.run(BuiltCell(model="d", task="t"))
    add(builder, "d", "t", 0, 0, 5)
    assert main([*arguments, "1.1.0"]) == 0
    if LONG:  # tests/pipelines/test_publish.py publishes twice, too
        assert main([*arguments, "1.1.0"]) == 0
        assert "nothing was written" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out/1.1.0/manifest.json").read_text())
    assert manifest["previous"] == {
        "version": "1.0.0",
        "manifest_sha256": verify(f"{to}/1.0.0").manifest_sha256,
    }
    assert "It replaces version `1.0.0`" in (tmp_path / "out/1.1.0/README.md").read_text()
    assert not verify(f"{to}/1.1.0").faults
    assert "previous" not in json.loads((tmp_path / "out/1.0.0/manifest.json").read_text())


@long_only
def test_predecessor_that_the_publisher_names_counts_whenever_it_began(tmp_path: Path, lake: LakeBuilder) -> None:
    uri, _ = publish(published(lake.lake, tmp_path / "a", "1.0.0"), str(tmp_path / "out"))
    (tmp_path / "b").mkdir()
    made = build_version(lake.lake, tmp_path / "b", DESCRIPTION, "1.0.1", earlier=[named_version(uri)])
    assert made.manifest["previous"]["version"] == "1.0.0"
    again = build_version(
        lake.lake, _empty(tmp_path / "c"), DESCRIPTION, "1.0.1", earlier=earlier_versions(f"{uri}/..")
    )
    assert "previous" not in again.manifest, "a version of the same runs replaces none by itself"
    with pytest.raises(ConfigError, match="no published version"):
        named_version(str(tmp_path / "nowhere"))


def _stated(number: int, created: str, previous: Predecessor | None = None) -> tuple[dict[str, Any], Predecessor]:
    """Files of a version, and the version at its place."""
    files = {"README.md": {"sha256": f"{number}9" * 32}, "runs/all.parquet": {"sha256": f"{number}0" * 32}}
    return files, Predecessor(f"{9 - number}.0.0", f"{number}1" * 32, created, content_of(files), previous)


@pytest.mark.fast
def test_version_of_the_same_runs_replaces_the_last_one_and_published_again_the_same() -> None:
    first_files, first = _stated(1, "2026-01-02")
    second_files, second = _stated(2, "2026-01-02", first)
    third_files, third = _stated(3, "2026-01-02", second)
    assert replaced_by(first_files, "2026-01-02", []) is None
    assert replaced_by(second_files, "2026-01-02", [first]) == first
    assert replaced_by(third_files, "2026-01-02", [second, first]) == second, "not the greatest name"
    every = [first, second, third]
    assert [replaced_by(one, "2026-01-02", every) for one in (first_files, second_files, third_files)] == [
        None,
        first,
        second,
    ]
    described = {**second_files, "README.md": {"sha256": "0" * 64}}
    assert replaced_by(described, "2026-01-02", every) == first, "another description of the same content"
    assert replaced_by({}, "2026-01-01", every) is None, "all of them are of newer runs"


@pytest.mark.fast
def test_folders_that_hold_no_version_are_passed_over(tmp_path: Path) -> None:
    for name, data in (("a", b"{}"), ("b", b"\xff"), ("c", None)):
        _empty(tmp_path / name)
        if data is not None:
            (tmp_path / name / "manifest.json").write_bytes(data)
    assert earlier_versions(str(tmp_path)) == earlier_versions(str(tmp_path / "none")) == []


@long_only
def test_predecessor_gives_a_link_between_addresses(tmp_path: Path, lake: LakeBuilder) -> None:
    before = Predecessor("1.0.0", "0" * 64, "")
    description = dataclasses.replace(DESCRIPTION, url="https://example.org/data")
    made = build_version(lake.lake, _empty(tmp_path / "s"), description, "1.0.1", earlier=[before])
    zenodo = json.loads((made.folder / ".zenodo.json").read_text())
    assert zenodo["related_identifiers"] == [
        {"identifier": "https://example.org/data/1.0.0/", "relation": "isNewVersionOf", "scheme": "url"}
    ]


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.fast
@pytest.mark.parametrize("url", ["ftp://x/y", "https://u:p@x/y", "https://x/y?token=1", "https://", "x"])
def test_publish_with_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--lake", str(tmp_path), "--to", str(tmp_path / "out"), "--url", url])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/published/1.1.0", "/data/published/1.0.0"),
        ("s3://bucket/published/1.1.0/", "s3://bucket/published/1.0.0"),
        ("hf://datasets/o/n@1.1.0", "hf://datasets/o/n@1.0.0"),
        ("hf://datasets/o/n", "hf://datasets/o/n@1.0.0"),
    ],
)
def test_version_before_lies_beside_a_version_and_at_another_tag_of_the_hub(uri: str, expected: str) -> None:
    assert beside(uri, "1.0.0") == expected


@pytest.mark.parametrize("text", ["plain", " `<img src=x>`", "a``b\n`c`  ", "`", "two  words"])
def test_text_of_others_on_the_card_stays_in_its_code_span(text: str) -> None:
    shown = code(text)
    fence = re.match("`+", shown)
    assert fence
    inner = shown[len(fence[0]) : -len(fence[0])]
    assert inner.strip() == " ".join(text.split())
    runs = {len(run) for run in re.findall("`+", inner)}
    assert len(fence[0]) not in runs, "no run within ends the span"
    assert "`" not in (inner[0], inner[-1])

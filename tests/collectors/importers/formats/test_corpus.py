"""Each format of the registry has files in the repo, in its writer's layout, and an import takes all of their rows.

What the records hold is tested beside each format.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.importers.registry import FORMATS
from tests.helpers.importing import CORPUS, imported

#: Folder of the corpus -> its format, the records of an import, and the kinds of its rejects.
FOLDERS: dict[str, tuple[str, int, list[str]]] = {
    "dars": ("dars", 6, []),
    "embedllm": ("embedllm", 4, []),
    "evalchemy": ("lm_eval", 6, []),
    "every_eval_ever-0.3.0": ("every_eval_ever", 16, []),
    "helm": ("helm", 10, []),
    "inspect_ai-0.3.285": ("inspect", 21, ["unknown_layout"]),
    "inspect_ai-0.3.60": ("inspect", 6, ["unknown_layout", "unknown_layout"]),
    "leaderboard_v1": ("leaderboard_v1", 6, []),
    "lighteval-0.10.0": ("lighteval", 8, []),
    "lighteval-0.11.0": ("lighteval", 8, []),
    "lighteval-0.13.0": ("lighteval", 8, []),
    "lighteval-0.8.1": ("lighteval", 8, []),
    "llmrouter": ("llmrouter", 7, []),
    "llmrouterbench": ("llmrouterbench", 9, ["left_out"]),
    "lm_eval-0.4.13": ("lm_eval", 4, []),
    "lm_eval-0.4.5": ("lm_eval", 4, []),
    "lm_eval-0.4.9.2": ("lm_eval", 4, []),
    "opencompass": ("opencompass", 19, ["left_out"]),
    "r2bench": ("r2bench", 4, []),
    "routellm": ("routellm", 6, []),
    "routerarena": ("routerarena", 10, ["left_out", "no_verdict"]),
    "routerbench": ("routerbench", 4, []),
    "routerdc": ("routerdc", 6, []),
    "routereval": ("routereval", 60, []),
    "sprout": ("sprout", 4, []),
    "xroutebench": ("xroutebench", 2, []),
}


def test_every_format_has_a_folder_and_every_folder_a_row() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(FOLDERS)
    of_users = {"table"}  # laid out as its owner likes
    assert {form for form, *_ in FOLDERS.values()} == set(FORMATS) - of_users


@pytest.mark.parametrize("name", FOLDERS)
def test_import_of_a_folder_takes_its_rows_and_names_what_it_leaves_out(tmp_path: Path, name: str) -> None:
    form, records, kinds = FOLDERS[name]
    report = imported(form, CORPUS / name, tmp_path / "lake", dry_run=True)
    assert (report.total.records, sorted(reject["kind"] for reject in report.rejects)) == (records, kinds)

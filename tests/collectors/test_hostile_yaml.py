"""YAML that others give ends no reader in a traceback, whatever PyYAML makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from collectors.exporters.formats.modelsat import _read_keywords
from collectors.importers.formats.table_settings import check_settings
from collectors.matrix.pool_files import read_pool_file
from collectors.routers.registry import read_routers
from collectors.runs.config import load_config
from collectors.runs.judge_model import load_judge_config
from collectors.runs.task_files import read_task_file
from collectors.verdicts.prompts import read_prompt
from pipelines.ingest import mapping_of
from schemas.failures import RouterlakeError

READERS: dict[str, Callable[[Path], object]] = {
    "pool": lambda path: read_pool_file(str(path)),
    "routers": read_routers,
    "config": lambda path: load_config(str(path)),
    "judge": lambda path: load_judge_config(str(path)),
    "task": lambda path: read_task_file(str(path)),
    "prompt": read_prompt,
    "columns": lambda path: check_settings(mapping_of(path)),
    "keywords": _read_keywords,
}
HOSTILE = {
    "deep": "[" * 3000,
    "deep_lines": "".join(f"{' ' * depth}a:\n" for depth in range(1500)),
    "no_boolean": "a: !!bool maybe",
    "no_time": "a: !!timestamp never",
    "no_number": "a: !!int ''",
    "no_float": "a: !!float ''",
    "long_number": "a: " + "9" * 5000,
    "no_date": "a: 2024-13-45",
    "a_list_as_key": "{[1]: 2, {a: b}: 3}",
    "code": "a: !!python/object/apply:os.system [id]",
    "nul": "a: \0",
    "alias_of_itself": "a: &a [*a]",
    "merge_of_a_text": "a:\n  <<: x",
    "two_documents": "a: 1\n---\nb: 2",
    "nothing": "",
    "text": "only",
}


@pytest.mark.few(32)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_yaml_is_refused_in_one_line(reader: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(HOSTILE[content], encoding="utf-8")
    with pytest.raises((RouterlakeError, ValueError)) as refused:
        READERS[reader](path)
    assert type(refused.value) is ValueError or isinstance(refused.value, RouterlakeError)
    assert len(str(refused.value)) < 2000

"""The list of the config's keys."""

from __future__ import annotations

import re

import pytest

from collectors import specs
from collectors.runs import config
from pipelines.collect import main
from pipelines.console.config_keys import config_keys


def test_the_list_of_keys_has_every_key_of_the_config_with_its_meaning() -> None:
    entry = re.compile(r"^  (\w+): .*, (?:default .+|required|see below)\n((?:      .*\n)*)", re.M)
    entries = entry.findall(config_keys() + "\n")
    parts = [
        part
        for module in (specs, config)
        for part in vars(module).values()
        if isinstance(part, type) and issubclass(part, specs.Strict)
    ]
    assert {key for part in parts for key in part.model_fields} == {key for key, _ in entries}
    assert [key for key, meaning in entries if not meaning and key not in ("engine", "fleet", "budget")] == []


def test_collect_lists_the_keys_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--keys"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert '  overlong: fail or truncate, default "fail"\n' in shown
    assert "  usd: number or null, default null\n      Dollars for GPUs" in shown

"""The file of `collect.py --profile`: whole, or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collectors.runs.stages import Trace
from pipelines.collect import check_writable, write_trace
from schemas.failures import ConfigError


def test_profile_that_can_be_written_leaves_nothing_before_the_end(tmp_path: Path) -> None:
    check_writable(tmp_path / "trace.json")
    assert list(tmp_path.iterdir()) == []
    write_trace(tmp_path / "trace.json", Trace())
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    assert json.loads((tmp_path / "trace.json").read_bytes())["traceEvents"] == []


def test_profile_that_cannot_be_written_is_refused_before_and_said_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (tmp_path, tmp_path / "none" / "trace.json"):
        with pytest.raises(ConfigError, match=r"--profile .*: cannot be written"):
            check_writable(path)
    write_trace(tmp_path / "none" / "trace.json", Trace())
    assert "--profile: cannot write" in caplog.text

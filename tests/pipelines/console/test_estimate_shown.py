"""What a dry run says of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from collectors.lake.store import Lake
from pipelines.console.estimate_shown import print_estimate, too_large
from tests.helpers.planned_cells import configured, planned, tasks, write_model

__all__ = ["tasks"]  # fixtures


def test_dry_run_names_models_that_do_not_fit_this_machines_memory(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, lake = write_model(tmp_path / "large"), Lake(str(tmp_path / "lake"))
    save_file({"weights": np.zeros((1000, 1000), np.float32)}, model / "model.safetensors")
    plan = planned(configured(tasks, model), lake.uri)
    assert too_large(plan, lake, memory=4_100_000) == []
    [line] = too_large(plan, lake, memory=4_000_000)
    assert line.startswith("large: its weights take 0 GiB, and this machine has 0 GiB of memory: it does not fit here")
    assert too_large(planned(configured(tasks, model, fleet={"address": "far:1"}), lake.uri), lake, memory=1) == []
    print_estimate(plan, lake)
    assert "it does not fit here" not in capsys.readouterr().out
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)  # pages and their size: 1 MB
    print_estimate(plan, lake)
    assert f"  {line}" in capsys.readouterr().out.splitlines()

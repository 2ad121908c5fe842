"""Runs of the catalog against a model hub of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import pytest

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.models import hub_client as hub_module
from collectors.models.hub_catalog import RecordedModels, Update, find, update
from collectors.models.hub_client import Hub
from collectors.models.hub_listing import Named, Query
from tests.helpers.model_hub import ModelHub, model_hub

QUERY = Query(pipeline_tag="text-generation")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub on this machine that this process's client talks to, without a token."""
    with model_hub() as store:
        monkeypatch.setattr(hub_constants, "ENDPOINT", store.endpoint)
        monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", os.devnull)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(hub_module, "_LONGEST_PAUSE", 0.01)
        yield store


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake")).open_for_writing()


def run(
    lake: Lake, query: Query | None = QUERY, names: list[Named] | None = None, *, patience: float = 30, **how: bool
) -> Update:
    """One run of catalog.py, without output and without vLLM."""
    hub, held = Hub(patience), RecordedModels.of(lake, **how)
    listed, to_read = find(hub, held, query, names or [], lambda seen: None)
    return update(hub, lake, held, listed, to_read, jobs=3, progress=lambda now: None)


def models(lake: Lake, condition: str = "true") -> dict[str, dict[str, Any]]:
    """Rows of the view models, by name and, for older revisions, revision."""
    query = f"SELECT * FROM models WHERE {condition} ORDER BY model, skipped IS NOT NULL"
    rows = ask(lake, lambda con, _: con.execute(query).to_arrow_table().to_pylist(), only=["models"])
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row["model"] if row["model"] not in found else f"{row['model']}@{row['revision']}"
        found[name] = row
    return found

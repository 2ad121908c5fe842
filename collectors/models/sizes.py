"""Looks up the sizes of models before any is loaded: in the lake's catalog, a folder, a store or on the hub.

Owns the order of the sources, the nearest first. collectors.models.placement and collectors.runs.estimate use the
sizes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from collectors.engines import ModelRef
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.models.hub_repos import snapshot
from collectors.models.model_files import model_row
from collectors.models.pinning import size_at_uri
from collectors.models.placement import ModelSize
from schemas.failures import ModelError, RouterlakeError, one_line

logger = logging.getLogger(__name__)

#: Seconds that a hub may be out of reach while a plan waits for it.
PATIENCE = 60.0

# The revision of a model without files is the engine's own, so any revision's sizes will do.
_SIZES = """
SELECT wanted.source, wanted.revision, parameters, weight_bytes, config
FROM models
INNER JOIN wanted ON models.source = wanted.source
    AND (models.revision = wanted.revision OR NOT wanted.has_files)
WHERE coalesce(parameters, weight_bytes) IS NOT NULL AND config IS NOT NULL
ORDER BY listed_at NULLS FIRST, models.revision
"""


def sizes_of(lake: Lake, models: Iterable[ModelRef], *, far: bool) -> Iterator[tuple[ModelRef, ModelSize | ModelError]]:
    """Yields each model with its size, or with the error that keeps it unknown.

    Without `far` only the lake and this machine are asked, and the fields of other models are None. With `far`, stores
    and the hub are asked for them.
    """
    models = list(models)
    recorded = _recorded(lake, models)
    hub: Any = None
    for model in models:
        try:
            if row := recorded.get((model.source, model.revision)):
                parameters, weight_bytes, config_json = row
                yield model, ModelSize(parameters, weight_bytes, json.loads(config_json))
            elif model.path is not None:
                yield model, _from_row(model_row(model))
            elif model.has_files and "://" not in model.source and (folder := snapshot(model.source, model.revision)):
                yield model, _from_row(model_row(replace(model, path=str(folder))))
            elif not far or not model.has_files:
                yield model, ModelSize()
            elif "://" in model.source:
                weight_bytes, config = size_at_uri(model.source)
                yield model, ModelSize(weight_bytes=weight_bytes, config=config)
            else:
                from collectors.models.hub_client import Hub
                from collectors.models.hub_reading import read_model

                hub = hub or Hub(PATIENCE)
                yield model, _from_row(read_model(hub, model.source, model.revision))
        except ModelError as error:
            yield model, error
        except (RouterlakeError, OSError, ValueError) as error:
            yield model, ModelError(f"{model.name}: its size cannot be read: {one_line(error)}", "unknown_memory")


def _recorded(lake: Lake, models: list[ModelRef]) -> dict[tuple[str, str], tuple[int | None, int | None, str]]:
    """Maps source and revision of the models without a folder to parameters, weight bytes and config.json.

    Models that the view models lacks are left out.
    """
    wanted = sorted({(model.source, model.revision, model.has_files) for model in models if model.path is None})
    if not wanted or not lake.exists():
        return {}

    def question(con: Any, _: object) -> list[tuple[Any, ...]]:
        con.execute(
            "CREATE TABLE wanted AS "
            "SELECT unnest($sources) AS source, unnest($revisions) AS revision, unnest($files) AS has_files",
            dict(zip(("sources", "revisions", "files"), map(list, zip(*wanted, strict=True)), strict=True)),
        )
        rows: list[tuple[Any, ...]] = con.execute(_SIZES).fetchall()
        return rows

    rows = ask(lake, question, only=["models"], shards=False)
    return {(source, revision): sizes for source, revision, *sizes in rows}  # type: ignore[misc]


def _from_row(row: dict[str, Any]) -> ModelSize:
    """Takes the size from a row of schemas.records.MODEL."""
    config = json.loads(row["config"]) if row.get("config") else {}
    return ModelSize(row.get("parameters"), row.get("weight_bytes"), config)


def without_config(size: ModelSize) -> ModelSize:
    """Drops the config: thousands of them would take too much memory."""
    return replace(size, config={})

"""How large models are, before any is loaded: from the lake's catalog, a folder, a store or the hub.

Owns who is asked, the nearest first. Knows nothing of what the sizes are used for (collectors.placement, .estimate).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from collectors.catalog import size_at_uri
from collectors.engines import ModelRef
from collectors.lake import Lake
from collectors.model_facts import model_facts
from collectors.placement import ModelFacts
from collectors.reading import ask
from schemas.failures import ModelError, RouterlakeError, one_line

logger = logging.getLogger(__name__)

#: Seconds that a hub may be out of reach while a plan waits for it.
PATIENCE = 60.0

# The stub's models are at no revision of the hub: any of their sizes will do.
_KNOWN = """
SELECT wanted.source, wanted.revision, parameters, weight_bytes, config
FROM models
INNER JOIN wanted ON models.source = wanted.source
    AND (models.revision = wanted.revision OR starts_with(wanted.revision, 'stub-'))
WHERE coalesce(parameters, weight_bytes) IS NOT NULL AND config IS NOT NULL
ORDER BY listed_at NULLS FIRST, models.revision
"""


def facts_of(
    lake: Lake, models: Iterable[ModelRef], *, far: bool
) -> Iterator[tuple[ModelRef, ModelFacts | ModelError]]:
    """Of each model its facts, or why they cannot be had; without any where nobody tells.

    Only what the lake and this machine know, unless `far`: then stores and the hub are asked for the others.
    """
    models = list(models)
    known = _known_to(lake, models)
    hub: Any = None
    for model in models:
        try:
            if found := known.get((model.source, model.revision)):
                yield model, ModelFacts(*found[:2], json.loads(found[2]))
            elif model.path is not None:
                yield model, _from_row(model_facts(model))
            elif not far or model.revision.startswith("stub-"):  # a stub's model is nowhere
                yield model, ModelFacts()
            elif "://" in model.source:
                weight_bytes, config = size_at_uri(model.source)
                yield model, ModelFacts(weight_bytes=weight_bytes, config=config)
            else:
                from collectors.hub import Hub
                from collectors.hub_reading import read_model

                hub = hub or Hub(PATIENCE)
                yield model, _from_row(read_model(hub, model.source, model.revision))
        except ModelError as error:
            yield model, error
        except (RouterlakeError, OSError, ValueError) as error:
            yield model, ModelError(f"{model.name}: its size cannot be told: {one_line(error)}", "unknown_memory")


def _known_to(lake: Lake, models: list[ModelRef]) -> dict[tuple[str, str], tuple[int | None, int | None, str]]:
    """Parameters, bytes and config.json that the view models has of those without a folder, by source and revision."""
    wanted = sorted({(model.source, model.revision) for model in models if model.path is None})
    if not wanted or not lake.exists():
        return {}

    def question(con: Any, _: object) -> list[tuple[Any, ...]]:
        con.execute(
            "CREATE TABLE wanted AS SELECT unnest($sources) AS source, unnest($revisions) AS revision",
            {"sources": [source for source, _ in wanted], "revisions": [revision for _, revision in wanted]},
        )
        found: list[tuple[Any, ...]] = con.execute(_KNOWN).fetchall()
        return found

    rows = ask(lake, question, only=["models"])
    return {(source, revision): found for source, revision, *found in rows}  # type: ignore[misc]


def _from_row(row: dict[str, Any]) -> ModelFacts:
    """A row of schemas.records.MODEL as facts."""
    config = json.loads(row["config"]) if row.get("config") else {}
    return ModelFacts(row.get("parameters"), row.get("weight_bytes"), config)


def without_config(facts: ModelFacts) -> ModelFacts:
    """The numbers alone: thousands of configs take memory."""
    return replace(facts, config={})

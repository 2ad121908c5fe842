"""Chooses models from the lake's catalog by the conditions of a config.

Owns the meaning of a condition: the models, their revisions and their config.json. Knows nothing of hubs, and does not
write catalogs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.specs import CatalogSpec, ModelOptions, ModelSpec
from schemas.failures import ConfigError, one_line
from schemas.reading_only import check_condition

logger = logging.getLogger(__name__)

# Copies of weights are left out among the chosen models alone, because the condition may not fit their first owner.
_CHOSEN = """
SELECT source, revision, config
FROM models
WHERE listed_at IS NOT NULL AND config IS NOT NULL AND problem IS NULL
    AND (skipped IS NULL OR skipped = 'copy' OR list_contains($also, skipped))
    AND ({condition})
QUALIFY list_contains($also, 'copy') OR row_number() OVER (
    PARTITION BY coalesce(weights_hash, model) ORDER BY skipped IS NULL DESC, created_at NULLS LAST, model
) = 1
ORDER BY downloads DESC NULLS LAST, model
LIMIT $most
"""


@dataclass(frozen=True)
class Chosen:
    """A model of the catalog that fits a condition."""

    spec: ModelSpec
    #: The repo's config.json at spec.revision.
    config_json: str


def choose(lake: Lake, spec: CatalogSpec) -> list[Chosen]:
    """Returns the models that fit the condition, most downloaded first, without those that the view models skips.

    Raises ConfigError when no lake exists, the condition is not valid SQL, or no model fits it.
    """
    if not lake.exists():
        raise ConfigError(f"models: no lake at {lake.uri} to choose from: run catalog.py --lake {lake.uri} first")
    # On lines of its own, so that a comment at its end cannot swallow the rest.
    query = _CHOSEN.format(condition=f"\n{spec.catalog}\n")
    values = {"also": list(spec.also), "most": spec.most or 2**31}

    def question(con: duckdb.DuckDBPyConnection, _: object) -> list[tuple[str, str, str]]:
        try:
            check_condition(con, spec.catalog)
            return con.execute(query, values).fetchall()
        except (ConfigError, duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
            raise ConfigError(f"models: the condition {spec.catalog!r}: {one_line(error, 300)}") from error

    try:
        rows = ask(lake, question, only=["models"], shards=False)
    except duckdb.Error as error:  # an error of values, such as a text compared with a number
        raise ConfigError(f"models: the condition {spec.catalog!r}: {one_line(error, 300)}") from error
    if not rows:
        raise ConfigError(
            f"models: no model of the catalog in {lake.uri} fits {spec.catalog!r}; "
            f"catalog.py --lake {lake.uri} shows what it holds"
        )
    logger.info("catalog: %d models fit %s", len(rows), spec.catalog)
    options = {name: getattr(spec, name) for name in ModelOptions.model_fields}
    return [Chosen(ModelSpec(source=source, revision=revision, **options), config) for source, revision, config in rows]


def all_of(lake: Lake, entries: list[ModelSpec | CatalogSpec]) -> Iterator[tuple[ModelSpec, str | None]]:
    """Yields the models of a config, each with its config.json if the catalog has it. Named models come first.

    An entry does not choose a model that is named or that an earlier entry chose. Raises ConfigError as choose() does.
    """
    named = [entry for entry in entries if isinstance(entry, ModelSpec)]
    yield from ((spec, None) for spec in named)
    labels = {spec.label for spec in named}
    for entry in entries:
        if isinstance(entry, CatalogSpec):
            for chosen in choose(lake, entry):
                if chosen.spec.label not in labels:
                    labels.add(chosen.spec.label)
                    yield chosen.spec, chosen.config_json

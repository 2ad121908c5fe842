"""Lists the formats, the files that each reads, and the names that sources give to models."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from collectors.importers.formats import (
    dars,
    embedllm,
    every_eval_ever,
    helm,
    inspect_ai,
    lighteval,
    llmrouter,
    llmrouterbench,
    lm_eval_samples,
    opencompass,
    r2bench,
    routellm,
    routerarena,
    routerbench,
    routerdc,
    routereval,
    sprout,
    table,
)
from collectors.importers.ingest import Importer
from collectors.importers.relation import TABLES
from collectors.importers.runs import by_run
from collectors.importers.sources import ImportSource
from collectors.importers.staging import Staging
from collectors.importers.values import JSON, by_file
from schemas.failures import ConfigError


@dataclass(frozen=True)
class ImportFormat:
    #: One line for --help.
    what: str
    patterns: tuple[str, ...]
    read: Importer


def _table(staging: Staging, source: ImportSource) -> None:
    table.read_table(staging, source.options)


FORMATS = {
    "lm_eval": ImportFormat(
        "lm-eval 0.4.0 to 0.4.13, and Open LLM Leaderboard v2: results*.json and sample files",
        lm_eval_samples.PATTERNS,
        lm_eval_samples.read,
    ),
    "leaderboard_v1": ImportFormat(
        "Open LLM Leaderboard v1: details_*.parquet", lighteval.PATTERNS, by_file(lighteval.read)
    ),
    "lighteval": ImportFormat("lighteval: details_*.parquet", lighteval.PATTERNS, by_file(lighteval.read)),
    "helm": ImportFormat("HELM: folders of runs", helm.PATTERNS, helm.read),
    "inspect": ImportFormat(
        "Inspect: logs as .json or .eval", inspect_ai.PATTERNS, by_run(inspect_ai.read, newest_first=True)
    ),
    "opencompass": ImportFormat("OpenCompass: predictions/ and results/", opencompass.PATTERNS, opencompass.read),
    "every_eval_ever": ImportFormat(
        "Every Eval Ever 0.3.0: *_samples.jsonl", every_eval_ever.PATTERNS, by_run(every_eval_ever.read)
    ),
    "routerbench": ImportFormat("RouterBench: wide and long, CSV, Parquet or pickle", TABLES, routerbench.read),
    "routereval": ImportFormat(
        "RouterEval: leaderboard_*.pkl and *_router_dataset.pkl", routereval.PATTERNS, routereval.read
    ),
    "routerdc": ImportFormat("RouterDC: lists of question and scores", JSON, by_file(routerdc.read)),
    "embedllm": ImportFormat("EmbedLLM: train, val and test.csv", TABLES, embedllm.read),
    "routellm": ImportFormat("RouteLLM: responses of two models, CSV", TABLES, routellm.read),
    "llmrouterbench": ImportFormat(
        "LLMRouterBench: results/bench/**.json", JSON, by_run(llmrouterbench.read, newest_first=True)
    ),
    "llmrouter": ImportFormat("LLMRouter: routing data, JSON lines", TABLES, llmrouter.read),
    "routerarena": ImportFormat(
        "RouterArena: cached_results/*.jsonl and predictions/*.json", JSON, by_run(routerarena.read, joins=True)
    ),
    "xroutebench": ImportFormat(
        "xRouteBench: Parquet of LLMRouter's routing data, a folder a configuration", TABLES, llmrouter.read
    ),
    "sprout": ImportFormat("SPROUT: Parquet, a column a model", TABLES, sprout.read),
    "r2bench": ImportFormat("R2-Bench: <organisation>/<model>/<budget>_judge.csv", r2bench.PATTERNS, r2bench.read),
    "dars": ImportFormat("DARS: *_scored_generations.jsonl", dars.PATTERNS, dars.read),
    "table": ImportFormat(
        "CSV, Parquet or JSON lines of your own; --columns names the columns", table.PATTERNS, _table
    ),
}


class Aliases(dict[str, str]):
    """A source's name of a model -> its id.

    A key that ends with /* stands for all names of three parts that begin so.
    """

    def get(self, name: str, default: Any = None) -> Any:
        prefix, _, rest = name.partition("/")
        if name not in self and "/" in rest and f"{prefix}/*" in self:
            return self[f"{prefix}/*"] + rest
        return super().get(name, default)


def aliases_of(name: str, own: Mapping[str, Any]) -> Aliases:
    """The names of models in a source: those of the package for every format and for `name`, then one's `own`.

    Raises ConfigError where an own one is not a pair of names.
    """
    table = _shipped_aliases()
    aliases = Aliases((table.get("any format") or {}) | (table.get(name) or {}))
    for alias, model in own.items():
        if not isinstance(alias, str) or not isinstance(model, str) or not model.strip():
            raise ConfigError(f"aliases: {alias!r}: {model!r} is not a pair of names")
        aliases[alias] = model
    return aliases


@functools.cache
def _shipped_aliases() -> dict[str, dict[str, str] | None]:
    text = (resources.files("collectors.importers") / "aliases.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, str] | None] = yaml.safe_load(text)
    return table

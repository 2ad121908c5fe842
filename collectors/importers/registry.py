"""Which formats there are, what each reads, and the names under which sources know models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from collectors.importers.formats import (
    embedllm,
    every_eval_ever,
    helm,
    inspect_ai,
    lighteval,
    llmrouter,
    llmrouterbench,
    lm_eval_samples,
    opencompass,
    routellm,
    routerarena,
    routerbench,
    routerdc,
    routereval,
    table,
)
from collectors.importers.ingest import Importer
from collectors.importers.relation import TABLES
from collectors.importers.sources import Source
from collectors.importers.staging import Staging
from collectors.importers.values import JSON, by_file
from schemas.failures import ConfigError


@dataclass(frozen=True)
class Format:
    #: One line for --help.
    what: str
    patterns: tuple[str, ...]
    read: Importer


def _table(staging: Staging, source: Source) -> None:
    table.read_table(staging, source.options)


FORMATS = {
    "lm_eval": Format(
        "lm-eval 0.4.0 to 0.4.13, and Open LLM Leaderboard v2: results*.json and sample files",
        lm_eval_samples.PATTERNS,
        lm_eval_samples.read,
    ),
    "leaderboard_v1": Format("Open LLM Leaderboard v1: details_*.parquet", lighteval.PATTERNS, by_file(lighteval.read)),
    "lighteval": Format("lighteval: details_*.parquet", lighteval.PATTERNS, by_file(lighteval.read)),
    "helm": Format("HELM: folders of runs", helm.PATTERNS, helm.read),
    "inspect": Format("Inspect: logs as .json or .eval", inspect_ai.PATTERNS, by_file(inspect_ai.read)),
    "opencompass": Format("OpenCompass: predictions/ and results/", opencompass.PATTERNS, opencompass.read),
    "every_eval_ever": Format(
        "Every Eval Ever 0.3.0: *_samples.jsonl", every_eval_ever.PATTERNS, by_file(every_eval_ever.read)
    ),
    "routerbench": Format("RouterBench: wide and long, CSV, Parquet or pickle", TABLES, routerbench.read),
    "routereval": Format("RouterEval: leaderboard_*.pkl", routereval.PATTERNS, routereval.read),
    "routerdc": Format("RouterDC: lists of question and scores", JSON, by_file(routerdc.read)),
    "embedllm": Format("EmbedLLM: train, val and test.csv", TABLES, embedllm.read),
    "routellm": Format("RouteLLM: responses of two models, CSV", TABLES, routellm.read),
    "llmrouterbench": Format("LLMRouterBench: results/bench/**.json", JSON, by_file(llmrouterbench.read)),
    "llmrouter": Format("LLMRouter: routing data, JSON lines", TABLES, llmrouter.read),
    "routerarena": Format("RouterArena: cached_results/*.jsonl", JSON, by_file(routerarena.read)),
    "table": Format("CSV, Parquet or JSON lines of your own; --columns says which is what", table.PATTERNS, _table),
}


def aliases_of(name: str, own: Mapping[str, Any]) -> dict[str, str]:
    """A source's name of a model -> its id: those of the package for the format `name`, then one's `own`.

    Raises ConfigError where the own ones are no mapping of names.
    """
    text = (resources.files("collectors.importers") / "aliases.yaml").read_text(encoding="utf-8")
    found = dict(yaml.safe_load(text).get(name) or {})
    for alias, model in own.items():
        if not isinstance(alias, str) or not isinstance(model, str) or not model.strip():
            raise ConfigError(f"aliases: {alias!r}: {model!r} is no pair of names")
        found[alias] = model
    return found

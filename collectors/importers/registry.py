"""Which formats there are, what each reads, and the names under which sources know models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from collectors.importers import evaluations as evals
from collectors.importers import lm_eval_output, tables
from collectors.importers import router_files as files
from collectors.importers import router_tables as routers
from collectors.importers.found import Source
from collectors.importers.ingest import Importer
from collectors.importers.staging import Staging
from collectors.importers.values import by_file
from schemas.failures import ConfigError


@dataclass(frozen=True)
class Format:
    #: One line for --help.
    what: str
    patterns: tuple[str, ...]
    read: Importer


def _table(staging: Staging, source: Source) -> None:
    tables.read_table(staging, source.options)


FORMATS = {
    "lm_eval": Format(
        "lm-eval 0.4.0 to 0.4.13, and Open LLM Leaderboard v2: results*.json and sample files",
        lm_eval_output.PATTERNS,
        lm_eval_output.read,
    ),
    "leaderboard_v1": Format("Open LLM Leaderboard v1: details_*.parquet", evals.DETAILS, by_file(evals.read_details)),
    "lighteval": Format("lighteval: details_*.parquet", evals.DETAILS, by_file(evals.read_details)),
    "helm": Format("HELM: folders of runs", evals.HELM, evals.read_helm),
    "inspect": Format("Inspect: logs as .json or .eval", evals.INSPECT, by_file(evals.read_inspect)),
    "opencompass": Format("OpenCompass: predictions/ and results/", evals.OPENCOMPASS, evals.read_opencompass),
    "every_eval_ever": Format(
        "Every Eval Ever 0.3.0: *_samples.jsonl", evals.EVERY_EVAL_EVER, by_file(evals.read_every_eval_ever)
    ),
    "routerbench": Format(
        "RouterBench: wide and long, CSV, Parquet or pickle", routers.TABLES, routers.read_routerbench
    ),
    "routereval": Format("RouterEval: leaderboard_*.pkl", files.PICKLES, files.read_routereval),
    "routerdc": Format("RouterDC: lists of question and scores", files.JSON, by_file(files.read_routerdc)),
    "embedllm": Format("EmbedLLM: train, val and test.csv", routers.TABLES, routers.read_embedllm),
    "routellm": Format("RouteLLM: responses of two models, CSV", routers.TABLES, routers.read_routellm),
    "llmrouterbench": Format("LLMRouterBench: results/bench/**.json", files.JSON, by_file(files.read_llmrouterbench)),
    "llmrouter": Format("LLMRouter: routing data, JSON lines", routers.TABLES, routers.read_llmrouter),
    "routerarena": Format("RouterArena: cached_results/*.jsonl", files.JSON, by_file(files.read_routerarena)),
    "table": Format("CSV, Parquet or JSON lines of your own; --columns says which is what", tables.PATTERNS, _table),
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

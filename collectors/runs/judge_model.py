"""The model that judges: it comes from a config, as models to collect do, and any engine serves.

Owns its loading. Knows nothing of prompts and verdicts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from collectors.engines import Engine, ModelRef, make_engine
from collectors.lake.store import Lake
from collectors.models.weights import Held, Weights
from collectors.runs.config import RunConfig, load_config
from collectors.runs.plan import Plan
from collectors.runs.planning import resolved_models
from schemas.failures import YAML_VALUE_ERRORS, ConfigError
from schemas.identity import new_run_id


def load_judge_config(path: str) -> RunConfig:
    """Reads a config of collect.py with one model. It needs no tasks. Raises ConfigError for a wrong one."""
    given: dict[str, Any] = {}
    with contextlib.suppress(OSError, *YAML_VALUE_ERRORS, yaml.YAMLError):
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if isinstance(value, dict) and "tasks" not in value:
            given["tasks"] = ["judge"]
    return load_config(path, given)


@contextlib.contextmanager
def judging_model(config: RunConfig, lake: Lake) -> Iterator[tuple[Engine, ModelRef]]:
    """The engine with the config's only model, loaded. Raises ConfigError, ModelError or EngineError."""
    plan = Plan(new_run_id(), config, [])
    models = resolved_models(config, lake, plan)
    if plan.failures:
        raise ConfigError(f"the model that judges: {plan.failures[0]['message']}")
    if len(models) != 1:
        raise ConfigError(f"a judge is one model, and the config has {len(models)}")
    engine = make_engine(config.engine.name, config.engine.options)
    files = Weights().take(models[0]) if engine.needs_files else Held(models[0])
    try:
        key = engine.load(files.model)
        yield engine, dataclasses.replace(models[0], path=files.model.path) if key == models[0].key else files.model
    finally:
        engine.close()
        files.release()

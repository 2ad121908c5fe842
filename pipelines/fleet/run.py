"""Turns a plan into a run: joins a cluster, places models on GPUs, prices the budget and records the run in the lake.

Owns the order of these steps: nothing is written before all of them fit. Knows nothing of how work is handed out.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from collectors.engines import engine_class
from collectors.engines.gpus import gpu_classes
from collectors.lake.spend import Accounts
from collectors.lake.store import Lake
from collectors.runs.adapting import Rounds
from collectors.runs.plan import Plan
from collectors.runs.planning import place_on
from collectors.runs.record import recorded
from collectors.runs.stages import Trace
from pipelines.fleet.budget import Budget, gpu_prices_for, host_prices_for
from pipelines.fleet.cluster import cluster, node_gpus, worker_resources
from pipelines.fleet.crew import Crew
from pipelines.fleet.downloads import start as start_gate
from pipelines.fleet.fleet import Fleet
from pipelines.fleet.outcome import Outcome
from pipelines.fleet.worker import WorkerSpec

logger = logging.getLogger(__name__)


def run_plan(
    plan: Plan, lake: Lake, *, verbose: bool = False, log_json: bool = False, trace: Trace | None = None
) -> Outcome:
    """Records `plan` in the lake and collects its open items on a Ray cluster. `trace` gets the stages of each shard.

    Raises ConfigError, before anything is written, if there is no cluster or it lacks the GPUs of the config. Raises
    StorageError if the lake cannot be written, EngineError if engines cannot start.
    """
    config = plan.config
    datasets = config.datasets_folder
    worker = WorkerSpec(
        run_id=plan.run_id,
        lake=lake.uri,
        engine=config.engine.name,
        options=config.engine.options,
        include=[str(Path(os.path.expanduser(folder)).absolute()) for folder in config.include_tasks],
        datasets=str(Path(os.path.expanduser(datasets)).absolute()) if datasets else None,
        disk_gib=config.fleet.disk_gib,
        base=os.getcwd(),
        log_json=log_json,
        allow_code=config.allow_code,
    )
    with cluster(config.fleet.address, verbose=verbose) as joined:
        gpus = node_gpus()
        unplaced: list[dict[str, Any]] = []
        needs_placement = engine_class(config.engine.name).needs_placement and config.fleet.gpus_per_worker is None
        if gpus and not plan.gpus and needs_placement:
            unplaced = place_on(plan, lake, gpu_classes(gpus))
        models = {p.cell.model for p in plan.cells if p.todo}
        places = {model.placement for model in models if model.placement}
        resources = worker_resources(config.fleet, own=joined.own, places=places)
        classes = {place.gpu for place in places} or {gpu.name for gpu in gpus if resources["num_gpus"]}
        hosted = host_prices_for(config.budget, lake, models)
        prices = gpu_prices_for(config.budget, lake, classes, hosted=bool(hosted))
        accounts = Accounts(lake, config.budget.name, plan.run_id)
        with recorded(plan, lake) as ending:
            budget = Budget(config.budget, prices, accounts)
            for row in unplaced:
                logger.error("cannot be planned: %s: %s", row["model"], row["message"])
            if config.fleet.downloads:
                worker = dataclasses.replace(worker, gate=start_gate(config.fleet.downloads))
            crew = Crew(config.fleet, worker, resources, own=joined.own)
            fleet = Fleet(plan, lake, crew, joined, trace, budget, Rounds.of(plan, lake))
            fleet.hands.host_prices = hosted
            fleet.run()
            if fleet.outcome.stopped:
                ending.outcome, ending.message = "budget", fleet.outcome.stopped
            elif failed := len(fleet.outcome.failed):
                ending.message = f"{failed} of {len(plan.cells)} cells failed"
    return fleet.outcome

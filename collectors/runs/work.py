"""What a worker is given, a cell, and what it gives back, the report of a shard. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.engines import ModelRef
    from collectors.runs.stages import Span
    from collectors.specs import TaskSpec


@dataclass(frozen=True)
class Cell:
    """One planned cell: all that a worker needs to collect any shard of it."""

    cell_id: str
    model: ModelRef
    spec: TaskSpec
    #: Task or group of the config that the task came from.
    group: str
    #: Hash of the prompting (schemas.identity): the worker's task must have the same.
    prompting: str
    generation: int
    #: Items asked for: 0..items-1.
    items: int


@dataclass(frozen=True)
class ShardReport:
    """What one shard took; kept in the shard's Parquet metadata and summed by the driver."""

    run_id: str
    items: int
    #: lm-eval's requests, and the engine's: one may answer several of lm-eval's (choices of one token), and
    #: `asked_again` of them were asked twice, because the prefix cache had reached into what was asked.
    instances: int
    requests: int
    asked_again: int
    failures: int
    engine_tokens: int
    #: Of engine_tokens, those that the prefix cache held; None: the engine does not tell.
    cached_tokens: int | None
    #: Whether the engine keeps one: without, each choice of several tokens has its context computed again.
    prefix_caching: bool | None
    #: Seconds inside the engine, of the whole shard, and of loading the model for it (0: already loaded).
    engine_seconds: float
    wall_seconds: float
    load_seconds: float
    #: Whether the model's weights took the place of another's in a live engine.
    swapped: bool
    tokens_per_second: float | None
    #: Requests in flight, on average over the time that any was.
    concurrency: float | None
    host: str
    #: Name of the GPU that answered; None on CPUs.
    gpu: str | None
    #: Its class (collectors.engines.gpus), by which it is priced where its own name is not; None: unknown, or on CPUs.
    gpu_class: str | None
    #: How many of them the engine had, or which part of one; None: it was not put anywhere.
    gpus: float | None
    engine: str
    #: Stage -> seconds (collectors.runs.stages.STAGES): where the shard's time went. Stages of two shards run side by
    #: side.
    stages: dict[str, float]
    #: False: another worker had committed the shard first, and this one's records were dropped.
    committed: bool
    #: The process that collected it, and when each stage ran, for a trace; not kept in the lake.
    worker: str = ""
    spans: list[Span] = field(default_factory=list, repr=False)

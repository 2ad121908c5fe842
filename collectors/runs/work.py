"""The types that driver and workers exchange: a cell to collect, and the report of a shard. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collectors.harness.efforts import NO_EFFORT, Effort

if TYPE_CHECKING:
    from collectors.engines import ModelRef
    from collectors.runs.stages import Span
    from collectors.specs import TaskSpec


@dataclass(frozen=True)
class Allowance:
    """What a model's endpoint may be paid for a shard."""

    #: None: any.
    usd: float | None = None
    #: USD per million tokens, by the columns of PRICE; empty: unknown.
    prices: dict[str, float | None] = field(default_factory=dict)


NO_LIMIT = Allowance()


#: The context of cells where neither config nor task asks for another, tokens. It is in the hash of cells without one.
DEFAULT_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, with all that a worker needs to collect any shard of it."""

    cell_id: str
    model: ModelRef
    spec: TaskSpec
    #: The task or group in the config that `spec` came from.
    group: str
    #: Hash of the prompting (schemas.identity). The task that a worker loads must have the same.
    prompting: str
    generation: int
    #: Number of items of the whole cell: the positions 0 to items - 1.
    items: int
    #: The list of the items to collect (collectors.lake.item_sets); '': all. Shards are then cut by places in it.
    item_set: str = ""
    #: Longest context that it may use, tokens; None: its engine's. An engine may have a longer one for other tasks.
    context: int | None = None
    #: The date that the model's chat template writes, YYYY-MM-DD; None: it writes none.
    chat_date: str | None = None
    #: JSON of settings that the model's generation_config.json adds to the task's; None: none.
    generation_config: str | None = None
    #: How the model is asked to think.
    effort: Effort = NO_EFFORT

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of cell_identity, by the names of their columns in RUN_CELL."""
        both = {"chat_date": self.chat_date, "generation_config": self.generation_config}
        return {name: value for name, value in both.items() if value is not None} | self.effort.settings


@dataclass(frozen=True)
class ShardReport:
    """The statistics of one shard. The shard's Parquet metadata keeps them, and the driver adds them up."""

    run_id: str
    items: int
    #: Number of lm-eval's requests.
    instances: int
    #: Number of the engine's requests. One may answer several of lm-eval's, when these are choices of one token.
    requests: int
    #: Requests that were asked twice, because the prefix cache had reached into the tokens to score.
    asked_again: int
    #: Items without an answer.
    failures: int
    engine_tokens: int
    #: The part of engine_tokens that came from the prefix cache; None if the engine does not report it.
    cached_tokens: int | None
    #: Whether the engine has a prefix cache. Without one it computes the context again for each choice of several
    #: tokens.
    prefix_caching: bool | None
    #: Seconds inside the engine.
    engine_seconds: float
    #: Seconds from the first stage's start to the last one's end.
    wall_seconds: float
    #: Seconds to fetch and load the model; 0 if it was loaded already.
    load_seconds: float
    #: Whether the model's weights replaced another's in a live engine.
    swapped: bool
    #: engine_tokens / engine_seconds.
    tokens_per_second: float | None
    #: Mean number of requests in flight, from the first start to the last end.
    concurrency: float | None
    host: str
    #: Name of the GPU that answered; None on CPUs.
    gpu: str | None
    #: The GPU's class (collectors.engines.gpus), which has the price if its name has none; None if unknown, or on CPUs.
    gpu_class: str | None
    #: Number of GPUs that the engine had, or the fraction of one; None if the model had no placement.
    gpus: float | None
    engine: str
    #: Stage -> seconds (collectors.runs.stages.STAGES). Stages of two shards overlap.
    stages: dict[str, float]
    #: False if another worker had committed the shard first, so that these records were dropped.
    committed: bool
    #: The code that made the shard (collectors.runs.code).
    code: str = ""
    #: What an endpoint did for the shard: who answered, counts and first messages of faults, suspicions, dollars by the
    #: prices of the run's start. None: an engine answered.
    served: dict[str, Any] | None = None
    #: The process that collected the shard, and its spans of stages, for a trace. The lake does not keep them.
    worker: str = ""
    spans: list[Span] = field(default_factory=list, repr=False)
    #: Rows of schemas.records.AGGREGATE, where the shard is its whole cell. The run writes them.
    aggregates: list[dict[str, Any]] = field(default_factory=list, repr=False)
    #: Item -> its score by the primary filter, for the next round of a run with `until`. The records have them, too.
    scores: dict[int, float] = field(default_factory=dict, repr=False)

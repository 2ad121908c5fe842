"""Lists the formats, the numbers that each needs, and the columns that it loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from collectors.exporters.counts import with_counts
from collectors.exporters.formats import (
    embedllm,
    every_eval_ever,
    huggingface,
    llmrouter,
    llmrouterbench,
    modelsat,
    routellm,
    routerarena,
    routerbench,
    routerdc,
    routereval,
    semantic_router,
)
from collectors.exporters.gaps import complete
from collectors.exporters.grid import THOUGHTS, Grid, Grids, Options, source_names
from collectors.exporters.out import new_path
from collectors.matrix.pool_arrays import NUMBERS
from schemas.failures import ConfigError


@dataclass(frozen=True)
class ExportFormat:
    #: One line for --help.
    what: str
    #: The parts of a lake that it loses: one line, printed after each export.
    cannot: str
    #: Writes the grids to a new path. Returns notes for the user.
    write: Callable[[Sequence[Grid], Path, Options], list[str]]
    #: Endings of its file's name; empty: it is a folder.
    endings: tuple[str, ...] = ()
    #: Numbers that each answer needs; none: gaps are written as gaps.
    needs: tuple[str, ...] = ("score",)
    needs_prompt: bool = True
    #: Whether it asks for one grid after the other, so that one at a time is in memory. For others all are.
    by_task: bool = False
    #: Whether the models' texts are read from the lake.
    texts: bool = False
    #: Numbers that it writes where they are known, though it does not need them.
    takes: tuple[str, ...] = ()
    #: Whether answers without a score are written, too, and not the questions of the pool alone.
    unscored: bool = False
    #: Fields of grid.Options that it takes beside names, which is of all.
    options: tuple[str, ...] = ()

    @property
    def numbers(self) -> list[str]:
        """The numbers beside scores that its grids have; each costs time and memory to read."""
        return [name for name in (*NUMBERS, THOUGHTS) if name in (*self.needs, *self.takes)]


@dataclass(frozen=True)
class Written:
    """The size of an export."""

    tasks: int
    items: int
    models: int


_TOKENS = ("prompt_tokens", "completion_tokens")
_ROUTERBENCH_LOSES = "tokens, latency, few-shot count, revision, item hashes, answers without a score or a cost"

FORMATS = {
    "routerbench": ExportFormat(
        "RouterBench, wide: a row an item, a column a model; .csv or .pkl",
        _ROUTERBENCH_LOSES,
        routerbench.write_wide,
        endings=(".csv", ".pkl"),
        needs=("score", "usd"),
        texts=True,
        by_task=True,
    ),
    "routerbench_long": ExportFormat(
        "RouterBench, long: a row an item and model; .csv or .pkl",
        _ROUTERBENCH_LOSES,
        routerbench.write_long,
        endings=(".csv", ".pkl"),
        needs=("score", "usd"),
        texts=True,
    ),
    "routereval": ExportFormat(
        "RouterEval: a folder of pickled score matrices, router data sets and .npz",
        "costs, tokens, latency, answers' texts, revisions, item hashes, answers without a score",
        routereval.write,
        options=("encoder",),
    ),
    "routerdc": ExportFormat(
        "RouterDC: a folder with <task>.json, questions with a score of each model",
        "costs, tokens, latency, answers' texts, splits, revisions, item hashes, answers without a score",
        routerdc.write,
    ),
    "embedllm": ExportFormat(
        "EmbedLLM: a folder with train, val and test.csv, question_order.csv, model_order.csv",
        "scores but right and wrong, costs, tokens, latency, answers' texts, revisions, item hashes, gaps",
        embedllm.write,
        options=("threshold",),
    ),
    "llmrouterbench": ExportFormat(
        "LLMRouterBench: a folder with results/bench/<data set>/<split>/<model>/*.json",
        "what filters left of answers, cached tokens, few-shot prompts, answers without a score or a cost",
        llmrouterbench.write,
        needs=("score", "usd", *_TOKENS),
        takes=("latency_s",),
        texts=True,
        options=("tokens", "accuracy_only"),
    ),
    "llmrouter": ExportFormat(
        "LLMRouter: a folder with query_data, routing_data and llm_candidates",
        "costs, other texts than the first filter's, revisions, item hashes, answers without a score or token counts",
        llmrouter.write,
        needs=("score", *_TOKENS),
        takes=("latency_s",),
        texts=True,
        options=("encoder", "tokens", "accuracy_only"),
    ),
    "routellm": ExportFormat(
        "RouteLLM: a folder with a CSV a task, a prompt a row, a model a column",
        "scores other than right and wrong, costs, tokens, latency, revisions, item hashes, answers without a score",
        routellm.write,
        texts=True,
        options=("threshold",),
    ),
    "routerarena": ExportFormat(
        "RouterArena: a folder with predictions/<router>.json and config/<router>.json",
        "latency, revisions, item hashes, answers without a score, a cost or token counts",
        routerarena.write,
        needs=("score", "usd", *_TOKENS),
        texts=True,
        options=("choices", "tokens"),
    ),
    "huggingface": ExportFormat(
        "one long Parquet file, a row an item and model, gaps as null; for datasets.load_dataset, pandas, …",
        "other filters, repeats and metrics than the primary ones, log-likelihoods",
        huggingface.write,
        endings=(".parquet",),
        needs=(),
        needs_prompt=False,
        unscored=True,
        texts=True,
        by_task=True,
        takes=NUMBERS,
    ),
    "every_eval_ever": ExportFormat(
        "Every Eval Ever 0.3.0: a folder data/, for each model a JSON and its samples",
        "costs but as texts, choices' log-likelihoods, other metrics, answers without a score",
        every_eval_ever.write,
        texts=True,
        takes=(*NUMBERS, THOUGHTS),
    ),
    "semantic_router": ExportFormat(
        "vLLM semantic-router: benchmark data of its model selection; .jsonl",
        "costs, tokens, revisions, item hashes, categories but its own 14, answers without a score or a time",
        semantic_router.write,
        endings=(".jsonl",),
        needs=("score", "latency_s"),
        texts=True,
        options=("accuracy_only",),
    ),
    "modelsat": ExportFormat(
        "Model-SAT: capability texts of models on 50 tasks, right and wrong items, training groups",
        "scores other than right and wrong, costs, tokens, latency, answers' texts, tasks beyond 50",
        modelsat.write,
        needs_prompt=False,
        options=("keywords", "threshold"),
    ),
}


def export(
    form: ExportFormat, grids: Sequence[Grid], out: Path, missing: str = "error", options: Options | None = None
) -> tuple[Written, list[str]]:
    """Writes `grids` to `out`, whole or not at all. Returns the numbers of what was written, and notes for the user.

    Raises ConfigError for gaps that may not be left out (grid.complete), and for names that the format cannot hold.
    """
    check_ending(form, out)
    options = options or Options()
    asked, notes = with_counts(grids, options.tokens) if options.tokens else (grids, [])
    needs = ("score",) if options.accuracy_only else form.needs
    kept = Grids.of(asked if form.by_task else list(asked)).changed(lambda grid: replace(grid, needs=needs))
    if needs or form.needs_prompt:
        kept, left_out = complete(kept, missing, prompt=form.needs_prompt, options=form.options)
        notes += left_out
    if options.names == "source":
        kept = source_names(kept)
    kept = kept if form.by_task else Grids.of(list(kept))
    items: dict[str, int] = {}

    def counted(grid: Grid) -> Grid:
        items[grid.task] = len(grid.items)
        return grid

    with new_path(out) as path:
        notes += form.write(kept.changed(counted), path, options)
    return Written(len(items), sum(items.values()), len(kept.models)), notes


def check_ending(form: ExportFormat, out: Path) -> None:
    """Raises ConfigError where the name of `out` has not the format's ending."""
    if form.endings and out.suffix.lower() not in form.endings:
        raise ConfigError(f"--out {out}: the format is a file whose name ends with {' or '.join(form.endings)}")

"""Which formats there are: what each is, needs and cannot carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from collectors.exporters.formats import (
    embedllm,
    every_eval_ever,
    huggingface,
    llmrouterbench,
    modelsat,
    routerbench,
    routerdc,
    routereval,
)
from collectors.exporters.grid import Grid, Options, complete
from collectors.exporters.out import new_path
from schemas.failures import ConfigError


@dataclass(frozen=True)
class Format:
    #: One line for --help.
    what: str
    #: What of a lake is lost in it: one line, printed after each export.
    cannot: str
    #: Writes the grids at a path where nothing is; returns what a person should know.
    write: Callable[[Sequence[Grid], Path, Options], list[str]]
    #: Endings of the file that it is; empty: a folder.
    endings: tuple[str, ...] = ()
    #: Numbers without which an answer cannot be written; none: gaps are written as such.
    needs: tuple[str, ...] = ("score",)
    needs_prompt: bool = True
    #: Whether the models' texts are read from the lake.
    texts: bool = False
    #: Which of grid.Options it takes.
    options: tuple[str, ...] = ()


_ROUTERBENCH_LOSES = "tokens, latency, few-shot count, revision, item hashes, answers without a score or a cost"

FORMATS = {
    "routerbench": Format(
        "RouterBench, wide: a row an item, a column a model; .csv or .pkl",
        _ROUTERBENCH_LOSES,
        routerbench.write_wide,
        endings=(".csv", ".pkl"),
        needs=("score", "usd"),
        texts=True,
    ),
    "routerbench_long": Format(
        "RouterBench, long: a row an item and model; .csv or .pkl",
        _ROUTERBENCH_LOSES,
        routerbench.write_long,
        endings=(".csv", ".pkl"),
        needs=("score", "usd"),
        texts=True,
    ),
    "routereval": Format(
        "RouterEval: a folder of pickled score matrices, router data sets and .npz",
        "costs, tokens, latency, answers' texts, revisions, item hashes, answers without a score",
        routereval.write,
        options=("encoder",),
    ),
    "routerdc": Format(
        "RouterDC: a folder with <task>.json, questions with a score of each model",
        "costs, tokens, latency, answers' texts, splits, revisions, item hashes, answers without a score",
        routerdc.write,
    ),
    "embedllm": Format(
        "EmbedLLM: a folder with train, val and test.csv, question_order.csv, model_order.csv",
        "scores other than 0 and 1, costs, tokens, latency, answers' texts, revisions, item hashes, unscored answers",
        embedllm.write,
    ),
    "llmrouterbench": Format(
        "LLMRouterBench: a folder with results/bench/<data set>/<split>/<model>/*.json",
        "what filters left of answers, cached tokens, few-shot prompts, answers without a score or a cost",
        llmrouterbench.write,
        needs=("score", "usd"),
        texts=True,
    ),
    "huggingface": Format(
        "one long Parquet file, a row an item and model, gaps as null; for datasets.load_dataset, pandas, …",
        "other filters, repeats and metrics than the primary ones, log-likelihoods",
        huggingface.write,
        endings=(".parquet",),
        needs=(),
        needs_prompt=False,
        texts=True,
    ),
    "every_eval_ever": Format(
        "Every Eval Ever 0.3.0: a folder data/, for each model a JSON and its samples",
        "costs but as texts, choices' log-likelihoods, other metrics, answers without a score",
        every_eval_ever.write,
        texts=True,
    ),
    "modelsat": Format(
        "Model-SAT: capability texts of models, on 20 items of each of 50 tasks",
        "everything but accuracies on the items that core_items.json names",
        modelsat.write,
        needs_prompt=False,
        options=("keywords",),
    ),
}


def export(
    form: Format, grids: Sequence[Grid], out: Path, missing: str = "error", options: Options | None = None
) -> tuple[list[Grid], list[str]]:
    """Writes `grids` to `out`, whole or not at all. Returns what was written, and what a person should know of it.

    Raises ConfigError for gaps that are not to be left out (grid.complete) and for what the format cannot hold.
    """
    check_ending(form, out)
    asked = [replace(grid, needs=form.needs) for grid in grids]
    kept, said = complete(asked, missing, prompt=form.needs_prompt)
    with new_path(out) as path:
        said += form.write(kept, path, options or Options())
    return kept, said


def check_ending(form: Format, out: Path) -> None:
    """Raises ConfigError where the name of `out` is not one of the format's."""
    if form.endings and out.suffix.lower() not in form.endings:
        raise ConfigError(f"--out {out}: the format is a file whose name ends with {' or '.join(form.endings)}")

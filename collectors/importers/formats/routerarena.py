"""Cached results and predictions of RouterArena (RouteWorks/RouterArena, llm_inference/run.py, llm_evaluation/run.py).

cached_results/<model>.jsonl: one model's answers. router_inference/predictions/<router>.json: the answers of the models
that a router chose, with those of others on the same questions (`for_optimality`); each router's are a run apart.
<router>-robustness.json asks reworded questions under the same indices: these are tasks of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.importers.files import BadFile
from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.usage import Usage
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict

_REWORDED = "-robustness"
#: Its counts, in the order of usage.COUNTS.
_COUNTS = ("input_tokens", "output_tokens", "total_tokens", "", "", "")


def read(staging: Sink, number: int, source: ImportSource) -> None:
    if staging.files[number].path.split("/")[-2:-1] == ["config"]:  # of a router
        staging.describing.add(number)
        return
    unasked = []
    rows = 0
    for row, value in objects(staging, number):
        rows += 1
        with staging.one_row(number, row):
            is_prediction = "prediction" in value and "llm_selected" not in value
            if not is_prediction:
                _cached(staging, number, row, value)
            elif isinstance(value.get("generated_result"), dict):
                _prediction(staging, number, row, value)
            else:
                unasked.append(row)
    if unasked and len(unasked) == rows:
        raise BadFile("left_out", f"choices of a router for {rows:,} questions, without answers")
    for row in unasked:
        staging.reject(number, row, "no_verdict", "the chosen model was not asked: no generated_result")


def _cached(staging: Sink, number: int, row: int, value: Mapping[str, Any]) -> None:
    judged = value.get("evaluation_result")
    judged = judged if isinstance(judged, dict) else {}
    _take(
        staging,
        number,
        row,
        index=value.get("global_index") or value.get("global index"),
        run=_run(value.get("run_number")),
        model=value.get("llm_selected"),
        question=value.get("question"),
        answer=value,
        score=judged.get("score"),
        usd=judged.get("inference_cost"),
        target=judged.get("ground_truth"),
    )


def _run(number: Any) -> str:
    """A name of the run; '' for run 1, which RouterArena itself reads. Some rows give the number as a text."""
    text = "" if number is None else str(number).strip().removesuffix(".0")
    return f"run-{text}" if text not in ("", "1") else ""


def _prediction(staging: Sink, number: int, row: int, value: Mapping[str, Any]) -> None:
    router = staging.files[number].stem.removesuffix(".json")
    _take(
        staging,
        number,
        row,
        index=value.get("global index") or value.get("global_index"),
        run=f"{router.removesuffix(_REWORDED)} {value.get('prediction')}",
        model=value.get("prediction"),
        question=value.get("prompt") or value.get("prompt_formatted"),
        answer=value["generated_result"],
        score=value.get("accuracy"),
        usd=value.get("cost"),
        apart=_REWORDED if router.endswith(_REWORDED) else "",
    )


def _take(
    staging: Sink,
    number: int,
    row: int,
    *,
    index: Any,
    run: str,
    model: Any,
    question: Any,
    answer: Mapping[str, Any],
    score: Any,
    usd: Any,
    target: Any = None,
    apart: str = "",
) -> None:
    key, model = str(index or ""), str(model or "")
    task = key.rsplit("_", 1)[0] + apart if key else ""
    if key:
        staging.item(
            run=run,
            task=task,
            key=key,
            prompt=text_of(question),
            target=as_json(target) if target is not None else None,
            content_hash=content_of(question),
        )
    usage = answer.get("token_usage")
    usage = usage if isinstance(usage, dict) else {}
    # The provider's total counts reasoning, which `output_tokens` of some providers leaves out.
    tokens = Usage.of(usage, _COUNTS, rest_is_output=True)
    tokens.suspect(staging, number, run, model, task)
    written = texts(answer.get("generated_answer"))
    is_failed = str(answer.get("success")).strip().lower() in ("false", "0")
    if is_failed and answer.get("error", "missing") is None and tokens.prompt_tokens and score is not None:
        # Its check calls no blank answer a success, also where it was given and judged, or its text was not kept.
        is_failed, written = False, written if "".join(written or ()).strip() else None
    is_counted = tokens.prompt_tokens is not None or tokens.is_odd or not usage
    verdict(
        staging,
        number,
        row,
        task,
        key,
        model,
        None if is_failed else score,
        run=run,
        failure="failed_call" if is_failed else None,
        stated_usd=number_of(usd) if is_counted or usd else None,  # $0 of tokens that nobody counted
        responses=written,
        **tokens.columns(),
    )

"""The same answers as nine releases of lm-eval write them: results.json and sample files.

Owns the layouts, as the fixtures of the releases have them (see collectors.importers.formats.lm_eval_samples).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELEASES = ("0.4.0", "0.4.2", "0.4.3", "0.4.4", "0.4.5", "0.4.7", "0.4.9", "0.4.9.2", "0.4.13")
TIME = "2026-01-02T03-04-05.678901"


@dataclass(frozen=True)
class Answers:
    """One model's answers: of `letters` the log-likelihoods of two choices, of `sums` a text."""

    right: tuple[bool, ...] = (True, False, True)
    #: For each item of `sums`: right by strict match, and by flexible extract.
    sums: tuple[tuple[bool, bool], ...] = ((True, True), (False, True))
    model: str = "me/model"


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def letters(answers: Answers) -> list[dict[str, Any]]:
    rows = []
    for number, right in enumerate(answers.right):
        doc = {"question": f"What is {number}?", "choices": [f"it is {number}", "nothing"], "answer": 0}
        scores = [(-0.5, True), (-1.5, False)] if right else [(-2.5, False), (-1.5, True)]
        prompts = [[f"Q: {doc['question']}\nA:", f" {choice}"] for choice in doc["choices"]]
        rows.append({"doc_id": number, "doc": doc, "target": 0, "prompts": prompts, "answers": [[s] for s in scores]})
        rows[-1] |= {"filtered": scores, "metrics": {"acc": float(right), "acc_norm": float(right)}, "filter": "none"}
    return rows


def sums(answers: Answers) -> list[dict[str, Any]]:
    rows = []
    for position, name in enumerate(("strict-match", "flexible-extract")):
        for number, found in enumerate(answers.sums):
            doc = {"question": f"{number} + {number}?", "answer": f"#### {2 * number}"}
            row = {"doc_id": number, "doc": doc, "target": doc["answer"], "filter": name}
            row |= {"prompts": [[f"Q: {doc['question']}", {"until": ["\n"]}]], "answers": [["the sum"]]}
            rows.append({**row, "filtered": ["[invalid]"], "metrics": {"exact_match": float(found[position])}})
    return rows


def as_written(row: dict[str, Any], release: str) -> dict[str, Any]:
    """A row as `release` writes it."""
    version = _number(release)
    found = {key: row[key] for key in ("doc_id", "doc", "target")}
    texts = version >= (0, 4, 3)
    if texts:
        found["target"] = str(row["target"])
        arguments = {f"gen_args_{i}": {"arg_0": p[0], "arg_1": p[1]} for i, p in enumerate(row["prompts"])}
        found["arguments"] = arguments
    else:
        found["arguments"] = row["prompts"]

    def said(value: Any) -> Any:
        if isinstance(value, tuple):
            return [str(part) for part in value] if texts else list(value)
        return value

    found["resps"] = [[said(one) for one in answer] for answer in row["answers"]]
    found["filtered_resps"] = [said(one) for one in row["filtered"]]
    if version >= (0, 4, 7):
        found |= {"filter": row["filter"], "metrics": list(row["metrics"])}
    if texts:
        text = json.dumps(row["doc"], indent=2, ensure_ascii=False)
        found |= {"doc_hash": hashlib.sha256(text.encode()).hexdigest(), "prompt_hash": "p", "target_hash": "t"}
    return {**found, **row["metrics"]}


def write_release(folder: Path, release: str, answers: Answers = Answers(), before: str = "") -> Path:
    """One run of two tasks in the layout of `release`; with `before`, few-shot examples, in front of each question."""
    version = _number(release)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {"letters": letters(answers), "sums": sums(answers)}
    for task, rows in tasks.items():
        for row in rows:
            row["prompts"] = [[before + prompt, rest] for prompt, rest in row["prompts"]]
        written = [as_written(row, release) for row in rows]
        if version < (0, 4, 3):
            name = f"pretrained={answers.model.replace('/', '__')},dtype=bfloat16_{task}.jsonl"
            (folder / name).write_text(json.dumps(written, indent=2))
        else:
            lines = "".join(json.dumps(row) + "\n" for row in written)
            (folder / f"samples_{task}_{TIME}.jsonl").write_text(lines)
    name = "results.json" if version < (0, 4, 3) else f"results_{TIME}.json"
    told = results(release, answers, tasks)
    told["n-shot"] = dict.fromkeys(tasks, 5 if before else 0)
    (folder / name).write_text(json.dumps(told, indent=2))
    return folder


def results(release: str, answers: Answers, tasks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    version = _number(release)
    means: dict[str, dict[str, Any]] = {}
    for task, rows in tasks.items():
        means[task] = {"alias": task}
        for name in dict.fromkeys(row["filter"] for row in rows):
            mine = [row["metrics"] for row in rows if row["filter"] == name]
            for metric in mine[0]:
                means[task][f"{metric},{name}"] = sum(one[metric] for one in mine) / len(mine)
                means[task][f"{metric}_stderr,{name}"] = "N/A"
    found: dict[str, Any] = {
        "results": means,
        "configs": {
            "letters": {"task": "letters", "output_type": "multiple_choice", "doc_to_text": "Q: {{question}}\nA:"},
            "sums": {"task": "sums", "output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}},
        },
        "versions": {"letters": 1.0, "sums": 3.0} if version >= (0, 4, 3) else {"letters": "Yaml", "sums": "Yaml"},
        "config": {"model": "hf", "model_args": f"pretrained={answers.model},dtype=bfloat16", "gen_kwargs": None},
    }
    if version >= (0, 4, 2):
        found["group_subtasks"] = {}
    if version >= (0, 4, 3):
        found["higher_is_better"] = {"letters": {"acc": True, "acc_norm": True}, "sums": {"exact_match": True}}
        found["n-samples"] = {
            task: dict.fromkeys(("original", "effective"), len({row["doc_id"] for row in rows}))
            for task, rows in tasks.items()
        }
        found |= {"model_name": answers.model, "chat_template": None, "chat_template_sha": None}
        found["config"] |= {"model_sha": "0" * 40, "model_dtype": "torch.bfloat16", "fewshot_seed": 1234}
    if version >= (0, 4, 9):
        found["lm_eval_version"] = release
    if version >= (0, 4, 13):
        found["config"]["model_args"] = {"pretrained": answers.model, "dtype": "bfloat16"}
    return found

"""lm-eval tasks that misbehave, beside those of mini_tasks and on the same documents: what one bad item costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from collectors.harness.own_code import use_code
from tests.helpers.mini_tasks import TASKS, write_tasks

#: Their code. A document has a, b, answer, choices, gold and text.
CODE = """
def even(doc):
    return doc["a"] % 2 == 0
def raises(doc, results):
    if not even(doc):
        raise RuntimeError("odd")
    return {"exact_match": 1.0}
def pair(doc, results):
    return {"ratio": (doc["a"], 20)}
def ratio(pairs):
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)
def several(doc, results):
    return {"ratio": [(doc["a"], 20), (doc["b"], 20)]}
def ratio_of_lists(lists):
    return ratio([pair for pairs in lists for pair in pairs])
def of_many(values):
    raise KeyError("one item is too few")
def fraction(doc, results):
    return {"f1": doc["a"] / 20}
def points(doc, results):
    return {"points": doc["a"] * 10}
def other(doc, results):
    return {"other": 1.0} if even(doc) else {"exact_match": 1, "other": 0.0}
def no_number(doc, results):
    return {"exact_match": float("nan") if even(doc) else float("inf"), "fine": [1.0, float("-inf")]}
def nothing(doc, results):
    return None if even(doc) else ["exact_match"]
def odd_keys(doc, results):
    return {"exact_match": 1.0, ("a", "b"): 2}
def filter_raises(resps, docs):
    return [[texts[0] if even(doc) else 1 / 0] for texts, doc in zip(resps, docs)]
def filter_drops(resps, docs):
    return [texts for texts, doc in zip(resps, docs) if even(doc)]
def hostile_but_short(doc):
    return hostile(doc, 10**5)
def no_key(doc):
    return doc["no such key"]
def no_index(doc):
    return doc["answer"][99]
def target(doc):
    return doc["no such key"] if even(doc) else doc["answer"]
def empty(doc):
    return ["" if even(doc) else "b", "a"]
def long(doc):
    return ("x" if even(doc) else "x" * 70_000) + " Q:"
def hostile(doc, size=10**7):
    odd = ["\\x00", "\\U0001f600 e\\u0301 \\u202e", "\\ufffd\\ufeff", "", " ", "y" * size]
    return odd[(doc["a"] + 2 * doc["b"]) % len(odd)] + str(doc["b"])
"""


def metric(name: str, function: str, aggregation: str = "mean") -> dict[str, Any]:
    listed = {"metric": name, "aggregation": aggregation, "higher_is_better": True}
    return {"process_results": f"!function odd.{function}", "metric_list": [listed]}


CHOICE = {**TASKS["mini_choice"], "metric_list": TASKS["mini_mutual"]["metric_list"][1:]}
TEXT = {**TASKS["mini_generate"], "num_fewshot": 0}
TEXT.pop("filter_list")
FILTERS = [
    {"name": name, "filter": [{"function": "custom", "filter_fn": f"!function odd.filter_{name}"}]}
    for name in ("raises", "drops")
] + [{"name": "sound", "filter": [{"function": "take_first"}]}]
ODD: dict[str, dict[str, Any]] = {
    "odd_raises": {**TEXT, **metric("exact_match", "raises")},
    "odd_pair": {**TEXT, **metric("ratio", "pair", "!function odd.ratio")},
    "odd_several": {**TEXT, **metric("ratio", "several", "!function odd.ratio_of_lists")},
    "odd_of_many": {**TEXT, **metric("ratio", "pair", "!function odd.of_many")},
    "odd_fraction": {**TEXT, **metric("f1", "fraction")},
    "odd_points": {**TEXT, **metric("points", "points")},
    "odd_other": {**TEXT, **metric("exact_match", "other")},
    "odd_no_number": {**TEXT, **metric("exact_match", "no_number")},
    "odd_nothing": {**TEXT, **metric("exact_match", "nothing")},
    "odd_keys": {**TEXT, **metric("exact_match", "odd_keys")},
    "odd_filters": {**TEXT, "filter_list": FILTERS},
    "odd_first_key": {**TEXT, "doc_to_text": "!function odd.no_key"},
    "odd_first_index": {**TEXT, "doc_to_text": "!function odd.no_index"},
    "odd_target": {**TEXT, "doc_to_target": "!function odd.target"},
    "odd_long": {**TEXT, "doc_to_text": "!function odd.long"},
    "odd_long_choice": {**CHOICE, "doc_to_text": "!function odd.long"},
    "odd_hostile": {**TEXT, "doc_to_text": "!function odd.hostile"},
    "odd_hostile_choice": {**CHOICE, "doc_to_text": "!function odd.hostile_but_short"},
    "odd_no_context": {**TEXT, "doc_to_text": ""},
    "odd_no_context_choice": {**CHOICE, "doc_to_text": ""},
    "odd_spaces_choice": {**CHOICE, "doc_to_text": "  "},
    "odd_empty_choice": {
        **CHOICE,
        "doc_to_text": "",
        "doc_to_choice": "!function odd.empty",
        "doc_to_target": 1,
        "target_delimiter": "",
    },
    "odd_trailing": {**CHOICE, "doc_to_text": "Q: {{a}}+{{b}}=\nA: ", "target_delimiter": ""},
    "odd_sampled": {**TEXT, "repeats": 3, "filter_list": TASKS["mini_repeats"]["filter_list"]},
    "odd_unsafe": {**TEXT, "unsafe_code": True},
    "odd_unsafe_lacking": {**TEXT, "unsafe_code": True, "doc_to_text": "!function lacking.judge"},
    "odd_lacking": {**TEXT, "doc_to_text": "!function lacking.judge"},
    "odd_image": {**TEXT, "doc_to_image": "a"},
    "odd_stop": {**TEXT, "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 0}},
}


def write_odd_tasks(folder: Path) -> Path:
    """Writes mini_tasks' tasks and these to `folder`, which is returned, for include_tasks."""
    write_tasks(folder)
    use_code(True)
    (folder / "odd.py").write_text(CODE)
    (folder / "lacking.py").write_text("raise FileNotFoundError('no metric code_eval here')")
    mini = yaml.safe_load((folder / "mini_choice.yaml").read_text())
    shared = {k: mini[k] for k in mini if k not in TASKS["mini_choice"]}
    for name, task in ODD.items():
        text = yaml.safe_dump({**shared, **task, "task": name})
        (folder / f"{name}.yaml").write_text(text.replace("'!function ", "!function '"))
    return folder

"""One question of several formats has one hash, and one model under several names one id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.importers.registry import aliases_of
from collectors.importers.unwrapping import asked_of
from schemas.content import document_hash
from schemas.identity import content_hash
from tests.helpers.importing import CORPUS, imported, rows, write_lines

ARC = {"question": "Which gas?", "choices": {"text": ["Air", "Iron", "A. b"], "label": ["A", "B", "C"]}}
MMLU = {"question": "Find c.\nA hint.", "choices": ["0", "1", "2", "3"]}
WINOGRANDE = {"sentence": "Ada met Bo because _ was late.", "option1": "Ada", "option2": "Bo"}
LETTERED = "The following are multiple choice questions (with answers) about {}.\n\n{}"


@pytest.mark.parametrize(
    ("document", "task", "query", "choices"),
    [
        (ARC, "arc:challenge", "Question: Which gas?\nAnswer:", [" Air", " Iron", " A. b"]),
        (
            MMLU,
            "mmlu:algebra",
            LETTERED.format(" abstract algebra", "Find c.\nA hint.\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:"),
            [" A", " B", " C", " D"],
        ),
        (
            MMLU,
            "helm|mmlu",
            LETTERED.format("algebra", "Question: Find c.\nA hint.\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer: "),
            ["A", "B", "C", "D"],
        ),
        (WINOGRANDE, "winogrande", "Ada met Bo because ", ["Ada was late.", "Bo was late."]),
        ({"question": "1 + 1?", "answer": "2"}, "gsm8k", "Question: 1 + 1?\nAnswer:", [" 2"]),
        ({"question": "Plain?", "choices": ["Yes", "No"]}, "x", "Plain?", ["Yes", "No"]),
    ],
)
def test_lightevals_prompt_of_a_document_has_the_documents_hash(
    document: dict[str, Any], task: str, query: str, choices: list[str]
) -> None:
    question, options = asked_of(query, choices, task)
    assert content_hash(question, options or ()) == document_hash(document)


@pytest.mark.slow
def test_one_question_of_lighteval_helm_and_lm_eval_meets(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    document = {"question": "Which bone is the longest?", "choices": ["Ulna", "Femur", "Tibia", "Radius"]}
    folder = tmp_path / "details/org/m/2025-10-01T00-00-00.000000"
    folder.mkdir(parents=True)
    for structs, task in (("{}", "mmlu:anatomy"), ("__{}__", "mmlu:older")):
        lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", document["choices"], strict=True))
        query = LETTERED.format("anatomy", f"Question: {document['question']}\n{lines}\nAnswer:")
        row = {"doc": {"query": query, "choices": [" A", " B", " C", " D"], "gold_index": [1], "id": "0"}}
        row |= {"model_response": {"text": [], "logprobs": [0.0]}, "metric": {"acc": 1.0}}
        values = pa.Table.from_pylist([{structs.format(name): value for name, value in row.items()}])
        pq.write_table(values, folder / f"details_lighteval|{task}|0_2025-10-01T00-00-00.000000.parquet")
    write_lines(
        tmp_path / "samples_mmlu_2025-10-01T00-00-00.000000.jsonl",
        [{"doc_id": 0, "doc": document, "target": 1, "arguments": [], "resps": [], "filtered_resps": [], "acc": 1.0}],
    )
    imported("lm_eval", tmp_path / "samples_mmlu_2025-10-01T00-00-00.000000.jsonl", lake, model="org/m")
    report = imported("lighteval", tmp_path / "details", lake)
    assert [joined for *_, joined in report.items.values()] == [1, 1]
    report = imported("helm", next((CORPUS / "helm/runs/v1.0.0").glob("mmlu*")), lake)
    assert [joined for *_, joined in report.items.values()] == [1]
    query = "SELECT count(*), count(DISTINCT task) FROM items WHERE content_hash = '{}'"
    assert rows(lake, query.format(document_hash(document))) == [(4, 4)]


@pytest.mark.parametrize(
    ("form", "name", "model"),
    [
        ("inspect", "hf/Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("inspect", "openai/gpt-4", "openai/gpt-4"),
        ("table", "vllm/org/m", "org/m"),
        ("helm", "qwen/qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("opencompass", "yi-34b-chat-hf", "01-ai/Yi-34B-Chat"),
        ("opencompass", "yi-34b-chat-turbomind", "yi-34b-chat-turbomind"),
        ("routerbench", "qwen/qwen2.5-7b-instruct", "qwen/qwen2.5-7b-instruct"),
    ],
)
def test_one_model_under_several_names_has_one_id(form: str, name: str, model: str) -> None:
    assert aliases_of(form, {}).get(name, name) == model


def test_a_prompt_that_only_looks_wrapped_stays_as_it_is() -> None:
    assert asked_of("Answer: what?", None, "x") == ("Answer: what?", None)
    assert asked_of("Pick:\nA. one", ["A", "B"], "x") == ("Pick:\nA. one", ["A", "B"])

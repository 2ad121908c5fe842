"""Results of LLMRouterBench (ynulihao/LLMRouterBench): one JSON a model and split of a data set."""

from __future__ import annotations

from collectors.importers.files import BadFile, document
from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.values import content_of, number_of, text_of, texts, verdict, whole


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """results/bench/<dataset>/<split>/<model>/<time>.json: one model on one split of a data set."""
    value = document(staging.files[number])
    records = value.get("records") if isinstance(value, dict) else None
    if not isinstance(records, list):
        raise BadFile("unknown_layout", "no records")
    folders = staging.files[number].name.split("/")[:-1]
    names = [value.get(name) for name in ("dataset_name", "split", "model_name")]
    if len(folders) >= 3:
        names = [one or folder for one, folder in zip(names, folders[-3:], strict=True)]
    if not all(names):
        raise BadFile("no_model", "neither the file nor its folders name data set, split and model")
    dataset, split, model = map(str, names)
    task = f"{dataset}/{split}"
    for row, record in enumerate(records, 1):
        with staging.one_row(number, row):
            if not isinstance(record, dict) or record.get("index") is None:
                staging.reject(number, row, "no_key", "no index", model=model, task=task)
                continue
            key, question = str(record["index"]), record.get("origin_query")
            staging.item(
                run="",
                task=task,
                key=key,
                prompt=text_of(question),
                target=as_json(record["ground_truth"]) if record.get("ground_truth") is not None else None,
                content_hash=content_of(question),
            )
            verdict(
                staging,
                number,
                row,
                task,
                key,
                model,
                record.get("score"),
                prompt_tokens=whole(record.get("prompt_tokens")),
                completion_tokens=whole(record.get("completion_tokens")),
                stated_usd=number_of(record.get("cost")),
                responses=texts(record.get("raw_output")),
                filtered=as_json([record["prediction"]]) if record.get("prediction") is not None else None,
            )

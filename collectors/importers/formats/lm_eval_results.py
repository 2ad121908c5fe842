"""Results files of lm-eval: the model, settings and metrics of a run.

Owns the keys of results.json and how nine releases differ in them. Knows nothing of the rows of answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from collectors.importers.sources import CellDescription, ImportSource
from schemas.identity import digest
from schemas.verdicts import CORRECT_THRESHOLD, UNIT_METRICS

#: Arguments of a model that name it, and those that change how it is run but not its answers.
_NAMES = ("pretrained", "model", "path", "engine", "peft", "delta")
_RUNNING = frozenset(
    [
        "pretrained",
        "revision",
        "dtype",
        "max_length",
        "max_model_len",
        "device",
        "device_map",
        "device_map_option",
        "parallelize",
        "batch_size",
        "max_batch_size",
        "tensor_parallel_size",
        "data_parallel_size",
        "gpu_memory_utilization",
        "swap_space",
        "num_concurrent",
        "max_memory_per_gpu",
        "max_cpu_memory",
        "offload_folder",
        "base_url",
        "max_retries",
        "timeout",
    ]
)
#: Keys of a task's config that decide its prompts and how answers are read.
_PROMPTING = [
    "description",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "process_docs",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "generation_kwargs",
    "filter_list",
    "should_decontaminate",
    "gen_prefix",
]
#: Metrics from 0 to 1. Others may begin like them: f1 of BERTScore, or a similarity of embeddings, may be below 0.
_BOUNDED = re.compile(r"(acc|accuracy|acc_.+|exact_match.*|f1|em|em_.+|pass@.+|pass_at.+|prompt_level.*|mc1.*|mc2.*)")
WEIGHTED = ("word_perplexity", "byte_perplexity", "bits_per_byte", "perplexity")


@dataclass(frozen=True)
class About:
    """A run: its model, and descriptions of its tasks."""

    run: str
    results: dict[str, Any]
    model: str | None
    description: CellDescription
    version: str | None

    @classmethod
    def of(cls, results: dict[str, Any] | None, run: str, source: ImportSource) -> About:
        """`results`: the file's content, None without one. `run`: a name for the run that no other has."""
        results = results or {}
        config = results.get("config", {})
        args = _arguments(config.get("model_args"))
        named = next((str(args[name]) for name in _NAMES if args.get(name)), None)
        # Without such an argument lm-eval makes up a name, another one for each run.
        model = source.model or named or (str(config["model"]) if config.get("model") else None)
        stated = results.get("lm_eval_version")
        version = stated if isinstance(stated, str) else _release(results)
        versions = {"lm_eval": version, "transformers": results.get("transformers_version")}
        dtype = str(config.get("model_dtype") or args.get("dtype") or "").removeprefix("torch.")
        revision = config.get("model_sha") or args.get("revision")
        rest = {name: value for name, value in args.items() if name not in _RUNNING and value != model}
        description = CellDescription(
            revision=str(revision) if revision and revision != "main" else None,
            dtype=dtype if dtype not in ("", "auto", "None") else None,
            max_length=_whole(args.get("max_length") or args.get("max_model_len")),
            overrides=json.dumps(rest, sort_keys=True, default=str) if rest else None,
            parameters=_whole(config.get("model_num_parameters")),
            fewshot_seed=_whole(config.get("fewshot_seed")),
            chat_template=f"sha256:{results['chat_template_sha']}" if results.get("chat_template_sha") else None,
            fewshot_as_multiturn=results.get("fewshot_as_multiturn"),
            system_prompt=results.get("system_instruction"),
            versions={name: str(value) for name, value in versions.items() if value and value != "N/A"},
        )
        return cls(run, results, model, description, version)

    def task_of(self, stem: str) -> str | None:
        """The task of a file `<model arguments>_<task>.jsonl` that this run wrote; None if it wrote none of that name.

        Up to 0.4.2 only such names, and that of results.json, distinguish runs into one folder.
        """
        stem = stem.removesuffix(".jsonl")
        args = self.results.get("config", {}).get("model_args")
        written = re.sub(r'["<>:/|\\?*\[\]]+', "__", args) if isinstance(args, str) else ""
        configs = self.results.get("configs")
        tasks = configs if isinstance(configs, dict) else {}
        return next((task for task in tasks if stem in (task, f"{written}_{task}")), None)

    def metrics(self, task: str) -> dict[str, list[str]]:
        """Filter -> its metrics, both in the order of the results file."""
        metrics: dict[str, list[str]] = {}
        for key in self._of_task("results", task) or {}:
            metric, comma, name = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                metrics.setdefault(name, []).append(metric)
        return metrics

    def description_of(self, task: str, metric: str, chosen: str) -> CellDescription:
        config = self._of_task("configs", task) or {}
        version = self._of_task("versions", task)
        output_type = config.get("output_type")
        decoding = {
            **(config.get("generation_kwargs") or {}),
            **(_arguments(self.results.get("config", {}).get("gen_kwargs"))),
        }
        prompting = {name: _stable(config[name]) for name in _PROMPTING if config.get(name) is not None}
        shots = _whole(self._of_task("n-shot", task))
        is_unit = metric.startswith(UNIT_METRICS)
        samples = self._of_task("n-samples", task) or {}
        return replace(
            self.description,
            metric=metric,
            filter=chosen,
            threshold=CORRECT_THRESHOLD if is_unit else None,
            low=0.0 if _BOUNDED.fullmatch(metric) else None,
            high=1.0 if _BOUNDED.fullmatch(metric) else None,
            higher_is_better=self._is_better(task, config, metric),
            task_version=None if version in (None, "Yaml", "N/A") else str(version),
            task_digest=digest(prompting) if prompting else None,
            output_type=output_type,
            num_fewshot=shots,
            fewshot_seed=self.description.fewshot_seed if shots else None,
            decoding=json.dumps(decoding, sort_keys=True, default=str) if output_type == "generate_until" else None,
            items=_whole(samples.get("original")),
        )

    def stated(self, task: str, cell: CellDescription) -> dict[str, Any]:
        """The number of answers, and the mean score where the metric is one, that the results file states of a cell."""
        samples, results = self._of_task("n-samples", task) or {}, self._of_task("results", task) or {}
        mean = results.get(f"{cell.metric},{cell.filter}") if cell.metric.startswith(UNIT_METRICS) else None
        return {"answers": samples.get("effective"), "mean": mean}

    def _is_better(self, task: str, config: Mapping[str, Any], metric: str) -> bool:
        stated = (self._of_task("higher_is_better", task) or {}).get(metric)
        if stated is None:
            listed = [m for m in config.get("metric_list") or () if isinstance(m, dict) and m.get("metric") == metric]
            stated = next((m["higher_is_better"] for m in listed if m.get("higher_is_better") is not None), None)
        return bool(stated) if stated is not None else metric not in WEIGHTED

    def _of_task(self, key: str, task: str) -> Any:
        values = self.results.get(key)
        value = values.get(task) if isinstance(values, dict) else None
        if key in ("results", "configs", "higher_is_better", "n-samples") and not isinstance(value, dict):
            return None
        return value


def _release(results: Mapping[str, Any]) -> str | None:
    """The release, guessed from the keys: no file states it before 0.4.9."""
    if not results:
        return None
    if "higher_is_better" in results:
        return "0.4.3 to 0.4.8"
    return "0.4.1 to 0.4.2" if "group_subtasks" in results else "0.4.0"


def _arguments(value: Any) -> dict[str, Any]:
    """Arguments as a mapping, from one or from 'a=b,c=d'."""
    if isinstance(value, dict):
        return value
    pairs = (pair.partition("=") for pair in str(value or "").split(",") if "=" in pair)
    return {name.strip(): text.strip() for name, _, text in pairs}


def _stable(value: Any) -> Any:
    """`value` without addresses in memory, as the text of a function has them."""
    return re.sub(
        r" at 0x[0-9a-f]+", "", value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    )


def _whole(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 2**62 else None

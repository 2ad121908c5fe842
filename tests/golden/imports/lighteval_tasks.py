"""Two tasks of lighteval from a local file: answers chosen by log-likelihood, and generated ones."""

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

FIELDS = LightevalTaskConfig.__dataclass_fields__
#: Names of settings and metrics differ by release.
SETTINGS = {"suite": ["custom"], "few_shots_split": None, "few_shots_select": None, "trust_dataset": True}


def prompt(line, task_name=None):
    choices = [f" {choice}" for choice in line["choices"]]
    return Doc(task_name=task_name, query=line["q"], choices=choices, gold_index=line["gold"])


def config(name, metrics):
    return LightevalTaskConfig(
        name=name,
        prompt_function=prompt,
        hf_repo="data",
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        generation_size=6,
        stop_sequence=["19", "\n"],
        **{"metrics" if "metrics" in FIELDS else "metric": metrics},
        **{name: value for name, value in SETTINGS.items() if name in FIELDS},
    )


def metric(*names):
    return next(getattr(Metrics, name) for name in names if hasattr(Metrics, name))


TASKS_TABLE = [
    config("sums_mc", [metric("loglikelihood_acc")]),
    config("sums_gen", [metric("exact_match", "quasi_exact_match"), metric("f1_score")]),
]

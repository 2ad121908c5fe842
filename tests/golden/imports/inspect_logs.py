"""Makes logs of Inspect with a model that gives prepared answers, and a summary of each by Inspect's own numbers.

python inspect_logs.py FOLDER eval|json [--as together] [NAME…]

`--as together` gives the model a provider that Every Eval Ever's converter admits.
"""

import json
import sys

from inspect_ai import Epochs, Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model, modelapi
from inspect_ai.scorer import Score, accuracy, match, mean, model_graded_qa, scorer, stderr
from inspect_ai.solver import generate

FOLDER, FORM, *NAMES = sys.argv[1:]
MODEL = "mockllm/org/tiny"
if NAMES[:1] == ["--as"]:
    from inspect_ai._util.registry import _registry
    from inspect_ai.model._providers.mockllm import MockLLM

    _, provider, *NAMES = NAMES
    MODEL = f"{provider}/org/tiny"
    for key in [key for key in _registry if key.endswith(f"inspect_ai/{provider}")]:
        del _registry[key]

    @modelapi(name=provider)
    def provided():
        return MockLLM


DATA = MemoryDataset([Sample(id=i, input=f"What is {i} + {i}?", target=str(2 * i)) for i in range(3)])
ANSWERS = ["0", "2", "7"]
PLAIN = {"input_tokens": 30, "output_tokens": 3, "total_tokens": 33}
CACHED = {
    **{"input_tokens": 10, "output_tokens": 5, "total_tokens": 115},
    **{"input_tokens_cache_read": 80, "input_tokens_cache_write": 20},
}
JUDGED = {"input_tokens": 4000, "output_tokens": 900, "total_tokens": 4900}


def answer(text, usage):
    one = ModelOutput.from_content("org/tiny", text)
    one.usage = ModelUsage(**usage)
    return one


@scorer(metrics={"strict": [mean()], "loose": [mean()]})
def several():
    async def score(state, target):
        return Score(value={"strict": int(state.output.completion == target.text), "loose": 1})

    return score


@scorer(metrics=[accuracy(), stderr()])
def picky():
    async def score(state, target):
        if state.output.completion == "2":
            return Score(value=float("nan"))
        return Score(value="C" if state.output.completion == target.text else "I")

    return score


def graded():
    judge = [answer(f"GRADE: {grade}", JUDGED) for grade in "CCI"]
    return [one for pair in zip([answer(text, PLAIN) for text in ANSWERS], judge, strict=True) for one in pair]


LOGS = {
    "cached": ([answer(text, CACHED) for text in ANSWERS], {"scorer": match()}),
    "epochs": ([answer(text, PLAIN) for text in ANSWERS * 2], {"scorer": match(), "epochs": Epochs(2, "mean")}),
    "graded": (graded(), {"scorer": model_graded_qa()}),
    "several": ([answer(text, PLAIN) for text in ANSWERS], {"scorer": [several(), match()]}),
    "unscored": ([answer(text, PLAIN) for text in ANSWERS], {"scorer": picky()}),
}
summary = {}
for name in NAMES or LOGS:
    outputs, settings = LOGS[name]
    task = Task(dataset=DATA, solver=generate(), name=name, **settings)
    model = get_model(MODEL, custom_outputs=outputs)
    places = {"log_dir": f"{FOLDER}/logs", "log_format": FORM, "display": "none"}
    [log] = evaluate(task, model=model, max_connections=1, max_samples=1, **places)
    score = log.results.scores[0]
    summary[name] = {
        "metric": score.name if score.name == score.scorer else f"{score.scorer}.{score.name}",
        "score": next(iter(score.metrics.values())).value,
        "usage": log.stats.model_usage[MODEL].model_dump(exclude_none=True),
    }
with open(f"{FOLDER}/{FORM}.summary.json", "w") as file:
    json.dump(summary, file, indent=1)

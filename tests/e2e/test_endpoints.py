"""Runs that mix models of engines with models of endpoints: killed and gone on with, within a budget, keys nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import runs
from tests.helpers.fake_endpoint import MODEL, Fake, Server
from tests.helpers.runs import ITEMS, TEXT
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow
KEY = "very-secret-value"
AT_ONCE = 4


def config(folder: Path, url: str, **changes: Any) -> Path:
    """An engine's model, a model behind completions, and one of a chat at two efforts."""
    hosted = {"url": url, "key": "$FAKE_KEY", "max_concurrency": AT_ONCE}
    models = [
        "stub/alpha",
        {"source": MODEL, "name": "hosted", "endpoint": {**hosted, "api": "completions"}},
        {"source": MODEL, "name": "chatty", "thinking": True, "reasoning_effort": ["low", "high"], "endpoint": hosted},
    ]
    tasks = [{"task": TEXT, "chat_template": True}, TEXT]
    keys = {"models": models, "tasks": tasks, "fleet": {"first_shard_items": 10}, **changes}
    return runs.config(folder, **keys)


def query(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in runs.query(lake, sql)]


@long_only
def test_endpoints_beside_engines_go_on_after_a_kill_and_pay_once(tmp_path: Path) -> None:
    fake = Fake(latency_s=0.05, thought="hm hm hm", key=KEY)
    env = {"FAKE_KEY": KEY, "ROUTERLAKE_CACHE": str(tmp_path / "cache")}
    with Server(fake) as url:
        path = config(tmp_path, url)
        killed = runs.start_collect(path, env=env)
        runs.wait_until("half", lambda: len(fake.paid) > 1.5 * ITEMS or killed.poll() is not None)
        runs.kill_tree(killed.pid)
        runs.finish(killed)
        run = runs.finish(runs.start_collect(path, env=env))
    assert run.code == 1, run.err  # the chat cannot be asked texts without a template, and completions take none
    assert run.out.count("cannot be planned: chatty") == 1
    assert run.out.count("cannot be planned: hosted") == 1
    assert len(fake.paid) == 3 * ITEMS
    assert sum(fake.paid.values()) - 3 * ITEMS <= 3 * AT_ONCE
    lake = tmp_path / "lake"
    rows = query(
        lake,
        "SELECT cells.model, cells.effort, count(*), count(reasoning_tokens), sum(reasoning_tokens), min(outcome) "
        "FROM matrix JOIN cells USING (cell_id) GROUP BY ALL ORDER BY ALL",
    )
    thought = ITEMS * 2
    assert rows == [
        ("chatty", "effort=high", ITEMS, ITEMS, thought, "ok"),
        ("chatty", "effort=low", ITEMS, ITEMS, thought, "ok"),
        ("hosted", None, ITEMS, 0, None, "ok"),
        ("stub/alpha", None, 2 * ITEMS, 0, None, "ok"),
    ]
    assert query(lake, "SELECT DISTINCT candidate FROM candidates ORDER BY ALL") == [
        ("chatty[effort=high]",),
        ("chatty[effort=low]",),
        ("hosted",),
        ("stub/alpha",),
    ]
    [(answered,)] = query(
        lake, "SELECT DISTINCT facts->'$.served.answered[0].model' FROM shards WHERE engine <> 'stub'"
    )
    assert json.loads(answered) == MODEL
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything + run.out.encode() + run.err.encode()


def test_endpoints_budget_ends_a_run_before_it_is_overspent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines import prices

    table = tmp_path / "prices.csv"
    header = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source"
    table.write_text(f"{header}\n{MODEL},fake,1,10000,2026-01-01,test\n")
    assert prices.main(["--lake", str(tmp_path / "lake"), str(table)]) == 0
    capsys.readouterr()
    fake = Fake(key=KEY)
    limit = 1.5  # an answer costs .06, at most .16, and 50 of them would cost 3
    with Server(fake) as url:
        endpoint = {"url": url, "key": "$FAKE_KEY", "max_concurrency": 2, "api": "completions"}
        path = config(
            tmp_path,
            url,
            models=[{"source": MODEL, "endpoint": endpoint}],
            tasks=[{"task": TEXT, "decoding": {"max_gen_toks": 16}}],
            budget={"usd": limit},
        )
        env = {"FAKE_KEY": KEY, "ROUTERLAKE_CACHE": str(tmp_path / "cache")}
        run = runs.finish(runs.start_collect(path, env=env))
    assert run.code == 3, run.out + run.err
    assert "budget" in run.out
    # The last shard may spend half of what is left, and that is less than one answer's most.
    assert limit - 2 * 0.17 < sum(fake.paid.values()) * 0.06 <= limit, run.out + run.err

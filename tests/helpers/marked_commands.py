"""More places of a key: endpoints, judges, routers, forecasts, submissions, sites, and lakes of earlier releases.

`PLACES` are all, of markers.py too. `DEAR` are those that take seconds: a site, or a process of routers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from collectors.exporters.registry import FORMATS
from collectors.lake.layout import model_name, run_name
from collectors.lake.spend import Accounts, Spent
from collectors.lake.store import Lake, parquet_bytes
from collectors.publish.publishing import publish as publish_version
from pipelines import (
    collect,
    compact,
    export,
    forecast,
    forget,
    ingest,
    judge,
    matrix,
    plot,
    prices,
    publish,
    route,
    status,
    tokens,
)
from schemas.records import MODEL
from tests.helpers.equal_lakes import put_prices
from tests.helpers.filled_lakes import plain_lake, published
from tests.helpers.importing import COLUMNS
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.markers import CHAINED, GIVEN, KEY, PLACES, SIGNED, USER, Place, place, with_config
from tests.helpers.mini_tasks import write_tasks

__all__ = ["DEAR", "PLACES"]

DEAR: set[str] = set()

Main = Callable[[list[str]], int]


def _dear(name: str) -> Callable[[Place], None]:
    DEAR.add(name)
    return functools.partial(place, name)


def _given(folder: Path, name: str, data: str | bytes) -> str:
    """Writes a file that a user gives. Returns its path."""
    path = folder / GIVEN / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


# ---- endpoints, and other parts of a config

_ENDPOINT = {"url": "https://host.example/v1", "api": "chat", "key": "$MARKED"}


def _endpoint(name: str, **keys: Any) -> None:
    with_config(f"endpoint: {name}", models=[{"source": "gpt", "endpoint": {**_ENDPOINT, **keys}}])


_endpoint("a user", url=USER)
_endpoint("a query", url=SIGNED)
_endpoint("a key in place of its name", key=KEY)
_endpoint("a key behind a dollar", key=f"${{NAME}}{KEY}")
_endpoint("a field that is sent", extra_body={"api_key": KEY, "headers": {"Authorization": f"Bearer {KEY}"}})
_endpoint("an address that is sent", extra_body={"webhook": SIGNED})
_endpoint("a field that is not sent", omit=[USER])
_endpoint("a tokenizer", tokenizer=SIGNED)
_endpoint("a chained tokenizer", tokenizer=CHAINED, api="completions")
_endpoint("an unknown key", headers={"Authorization": f"Bearer {KEY}"})
with_config("include_path", include_path=USER)
with_config("include_tasks: a chain", include_tasks=[CHAINED])
with_config("tasks: a path", tasks=[f"{SIGNED}.yaml"])
with_config("a system prompt's address", system_prompt=f"See {SIGNED}")
with_config("variables of a template", chat_template_args={"token": KEY, "page": USER})
with_config("a catalog's condition", models=[{"catalog": f"source = '{USER}'"}])
with_config("a budget's name", budget={"name": USER, "usd": 5})
with_config("decoding", decoding={"stop_token": USER, "api_key": KEY})


@functools.partial(place, "collect: the account of a budget")
def _spent(folder: Path) -> None:
    lake = Lake(str(folder / "lake")).open_for_writing()
    Accounts(lake, SIGNED, "run-1").write(Spent(usd=1.0))


# ---- commands that read a lake by its address


def _of_lake(name: str, main: Main, *argv: str) -> None:
    for what, uri in (("a user", f"s3://me:{KEY}@bucket/lake"), ("a chain", CHAINED)):
        place(f"{name} --lake: {what}", lambda folder, uri=uri: main([*argv, "--lake", uri]))  # type: ignore[misc]


_of_lake("judge", judge.main, "--check")
_of_lake("forecast", forecast.main)
_of_lake("forget", forget.main, "--model", "m", "--yes")
_of_lake("tokens", tokens.main, "--out", "t.parquet")
_of_lake("prices", prices.main)
_of_lake("route board", route.main, "board", "--out", "board")
_of_lake("matrix score", matrix.main, "score", "--choices", "none.csv")
place("publish site", lambda folder: publish.main(["site", f"s3://me:{KEY}@bucket/v", "site"]))
_dear("publish site --before")(
    lambda folder: publish.main(["site", _version(folder), "site", "--no-sql", "--before", SIGNED])
)
place("publish check --version", lambda folder: publish.main(["check", _choices(folder), "--version", CHAINED]))
place(
    "collect --config: a lake", lambda folder: collect.main(["--config", _given(folder, "c.yaml", f"lake: {SIGNED}")])
)


# ---- judges


def _judged(name: str, *argv: str, prompt: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> None:
    def act(folder: Path) -> None:
        lake = plain_lake(str(folder / "lake"), 1).lake
        files = []
        if prompt is not None:
            files += ["--prompt", _given(folder, "p.yaml", yaml.safe_dump(prompt))]
        if config is not None:
            files += ["--config", _given(folder, "j.yaml", yaml.safe_dump(config))]
        judge.main(["--lake", lake.uri, "--judge", "j", *files, *argv])

    place(f"judge: {name}", act)


_PROMPT = {"version": "1", "prompt": "$answer", "parser": "(1)", "scale": [0, 1]}
_STUB = {"models": ["stub/judge"], "engine": {"name": "stub"}}
_judged("an address in a prompt's keys", prompt={**_PROMPT, "version": USER, "key": SIGNED}, config=_STUB)
_judged(
    "a key of a server", prompt=_PROMPT, config={"models": [{"source": "g", "endpoint": {**_ENDPOINT, "url": USER}}]}
)
_judged("an engine option", prompt=_PROMPT, config={**_STUB, "engine": {"name": "stub", "options": {"api_key": KEY}}})
_judged("--address", "--address", f"ray://me:{KEY}@host:10001")
_judged("--against", "--against", USER, prompt={**_PROMPT, "prompt": "$answer_a $answer_b"}, config=_STUB)
_judged("--task", "--task", USER)
_judged("--prompt", "--prompt", SIGNED, config=_STUB)


@functools.partial(place, "judge: --metric")
def _of_a_metric(folder: Path) -> None:
    from collectors.harness.documents import doc_hash

    tasks = write_tasks(folder / GIVEN / "tasks", items=2)
    docs = [json.loads(line) for line in (tasks / "test.jsonl").read_text().splitlines()]
    builder, cell = LakeBuilder(folder / "lake"), BuiltCell(task="mini_choice", items=2)
    builder.planned(cell, [1.0, 0.0])
    builder.items(cell.task, cell.items_digest, 2, doc=list(map(json.dumps, docs)), item_hash=list(map(doc_hash, docs)))
    argv = ["--lake", str(folder / "lake"), "--judge", "j", "--include-tasks", str(tasks), "--metric", SIGNED]
    judge.main(argv)


# ---- routers


_KEPT = tempfile.TemporaryDirectory(prefix="routerlake-marked-")


@functools.cache
def _imported() -> str:
    rows = [
        {"model": model, "task": "t", "id": f"q{i}", "score": float((i * k) % 3 == 0), "prompt": f"What is {i}?"}
        for i in range(40)
        for k, model in enumerate("abc", 1)
    ]
    folder = Path(_KEPT.name)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "columns.yaml").write_text(yaml.safe_dump({**COLUMNS, "prompt": "prompt"}))
    files = ["--columns", str(folder / "columns.yaml"), str(folder / "rows.jsonl")]
    ingest.main(["--format", "table", "--lake", str(folder / "lake"), *files])
    return str(folder / "lake")


def _world(folder: Path) -> str:
    """A lake of imported records, made once."""
    shutil.copytree(_imported(), folder / "lake")
    return str(folder / "lake")


#: A router whose `fit` runs the statement.
OWN = """
class Own:
    def __init__(self, **given):
        self.given = given

    def fit(self, *_):
        {}
"""


def _routed(name: str, *argv: str, routers: str | None = None, fit: str = "pass") -> None:
    def act(folder: Path) -> None:
        _given(folder, "ownrouter.py", OWN.format(fit))
        given = [] if routers is None else ["--routers", _given(folder, "routers.yaml", routers)]
        try:
            route.main([argv[0], "--lake", _world(folder), "--include", "all", *given, *argv[1:]])
        finally:
            sys.modules.pop("ownrouter", None)

    place(f"route: {name}", act)
    if fit != "pass":
        DEAR.add(f"route: {name}")


_BOARD = ("board", "--out", "board", "--seeds", "1", "--processes", "1")
_OWN = f"{{router: 'ownrouter:Own', encoder: none, parameters: {{api_key: {KEY}, page: '{SIGNED}'}}}}"
_routed("a router's parameters on a board", *_BOARD, routers=f"routers: [{_OWN}]")
_routed("a router's parameters, kept", "fit", "--router", "Own", "--out", "kept", routers=f"routers: [{_OWN}]")
_routed("a router's name", *_BOARD, routers=f"routers: [{{router: random, name: '{USER}'}}]")
_routed("a router's error", *_BOARD, routers="routers: ['ownrouter:Own']", fit=f"raise ValueError('no {USER}')")
_routed("an encoder", *_BOARD, "--encoder", SIGNED, "--router", "knn")
_routed("an unknown key", *_BOARD, routers=f"routers: [{{router: random, '{USER}': 1}}]")
_routed("a stored split", *_BOARD, "--stored", USER)
_routed("--kept", "choose", "--kept", SIGNED, "--out", "x.csv")


# ---- pools, choices, submissions and sites


def _version(folder: Path) -> str:
    out = folder / "out"
    if not out.exists():
        publish_version(published(plain_lake(str(folder / "lake"), 2).lake, folder / "built", "1.0"), str(out))
    return str(out / "1.0")


def _choices(folder: Path, router: str = "mine", **stated: Any) -> str:
    data = "router,task,item,model\n" + "".join(f'"{router}",t,{item},m{item % 2}\n' for item in range(10))
    path = _given(folder, "in.csv", data)
    if not stated:
        return path
    value = {"name": "mine", "file": "in.csv", "sha256": hashlib.sha256(data.encode()).hexdigest(), **stated}
    return _given(folder, "in.json", json.dumps(value))


@functools.partial(place, "submission: what it states")
def _submitted(folder: Path) -> None:
    stated: list[dict[str, Any]] = [{"url": SIGNED}, {"url": USER}, {"by": f"Me {USER}"}, {"by": f"token={KEY}"}]
    stated += [{"link": SIGNED}, {"pool": USER}, {"usd_per_query": {"token": KEY}}, {"split": SIGNED}]
    for one in stated:
        path = _choices(folder, **one)
        publish.main(["check", path, "--version", _version(folder)])
        publish.main(["check", path, "--version", _version(folder), "--json"])
    publish.main(["board", str(folder / GIVEN), "--version", _version(folder), "--out", "board"])


@_dear("score, plot and export: a router's name")
def _named(folder: Path) -> None:
    lake = ["--lake", plain_lake(str(folder / "lake"), 2).lake.uri]
    choices = _choices(folder, router=USER)
    for more in ([], ["--json"], ["--format", "csv"]):
        matrix.main(["score", *lake, "--choices", choices, *more])
    plot.main([*lake, "--out", "pictures", "--choices", choices])
    export.main([*lake, "--format", "routerarena", "--out", "arena", "--choices", choices])


@_dear("pool: a condition and a file")
def _pools(folder: Path) -> None:
    lake = plain_lake(str(folder / "lake"), 2).lake
    pool = _given(folder, "small.yaml", yaml.safe_dump({"name": "small", "condition": f"source != '{SIGNED}'"}))
    matrix.main(["--lake", lake.uri, "--out", "m.duckdb", "--show", "--pool", f"source != '{USER}'"])
    matrix.main(["--lake", lake.uri, "--out", "n.duckdb", "--show", "--pool", pool])
    publish.main(["--lake", lake.uri, "--to", str(folder / "published"), "--pools", pool])


@_dear("publish: who, where and what came before")
def _described(folder: Path) -> None:
    lake = plain_lake(str(folder / "lake"), 1).lake
    to = ["--lake", lake.uri, "--to", str(folder / "published")]
    publish.main([*to, "--creator", f"Me, {USER}", "--url", "https://host.example/x"])
    publish.main([*to, "--url", f"https://host.example/x;token={KEY}"])
    publish.main([*to, "--previous", SIGNED])
    publish.main([*to, "--version", USER])


@functools.partial(place, "forget --reason")
def _forgotten(folder: Path) -> None:
    lake = plain_lake(str(folder / "lake"), 2).lake
    forget.main(["--lake", lake.uri, "--model", "m0", "--yes", "--reason", f"leaked {USER} and token={KEY}"])
    forget.main(["--lake", lake.uri, "--list"])


# ---- lakes that hold keys, as a release before wrote them


@_dear("a lake whose runs and failures hold keys")
def _older_lake(folder: Path) -> None:
    builder = plain_lake(str(folder / GIVEN / "lake"), 2)
    root = Path(builder.lake.root)
    builder.failure("run-0001", "hub", "none", model="m0", task="t")
    for path in [root / run_name("run-0001"), *root.glob("failures/*.parquet")]:
        rows = [{**row, **_marked(row)} for row in pq.read_table(path).to_pylist()]
        table = pa.Table.from_pylist(rows, schema=pq.read_schema(path).remove_metadata())
        path.write_bytes(parquet_bytes(table, name=str(path.relative_to(root))))
    lake = ["--lake", builder.lake.uri]
    status.main([*lake, "--html", "status.html"])
    status.main([*lake, "--json"])
    status.main([*lake, "--format", "csv", "--list"])
    matrix.main([*lake, "--show"])
    publish.main([*lake, "--to", str(folder / "published"), "--version", "1"])
    publish.main(["site", builder.lake.uri, "site", "--no-sql"])
    publish.main(["site", str(folder / "published/1"), "site2", "--no-sql"])
    export.main([*lake, "--format", "every_eval_ever", "--out", "eee"])


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    marked = {"source": USER, "config": json.dumps([SIGNED]), "message": f"no {USER}"}
    return {name: value for name, value in marked.items() if name in row}


@_dear("a lake whose models are named by keys")
def _named_by_keys(folder: Path) -> None:
    """Two of them differ in their keys alone. Its shards are folded, and folded again by this release."""
    with mock.patch("collectors.lake.store.keyless", lambda _, table: table):
        builder = LakeBuilder(folder / GIVEN / "lake")
        cells = [BuiltCell(model=name, task="t") for name in ("m", USER, USER.replace(KEY, f"{KEY}2"))]
        builder.run(*cells, source=SIGNED)
        for cell in cells:
            rows = [cell.record(item, score=float(item % 2), usd=0.1, responses=["a"]) for item in range(10)]
            builder.shard(cell, rows)
            builder.shard(cell, rows[:5], generation=1)
        builder.items("t", "i0", 10, prompt=[f"Question {item}?" for item in range(10)], target=['"a"'] * 10)
        row = {"model": USER, "source": USER, "revision": "r0", "tokenizer_hash": "z"}
        builder.lake.create_table(model_name("m", "r0"), pa.Table.from_pylist([row], MODEL))
    put_prices(builder.lake, [("m", 1.0, 2.0)], "2025-01-01")
    lake = ["--lake", builder.lake.uri]
    publish.main([*lake, "--to", str(folder / "published"), "--version", "1"])
    matrix.main([*lake, "--show"])
    plot.main([*lake, "--out", "pictures"])
    endings = {
        "routerbench": ".csv",
        "routerbench_long": ".csv",
        "huggingface": ".parquet",
        "semantic_router": ".jsonl",
    }
    for name in FORMATS:
        export.main([*lake, "--format", name, "--out", f"{name}{endings.get(name, '')}"])
    compact.main(lake)
    publish.main([*lake, "--to", str(folder / "again"), "--version", "1"])
    publish.main(["verify", str(folder / "again/1")])

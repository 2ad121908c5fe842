"""A key planted in each place where a user may put one, and a search for it in all that was stored and shown.

Owns the places. Each is a function of an empty folder and the key, and returns the text that was shown. A place may be
refused or cut; the key must be nowhere but in what the user gave.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from collectors.lake.layout import run_name
from collectors.lake.store import parquet_bytes
from pipelines import catalog, compact, export, ingest, matrix, plot, prices, publish, status
from pipelines.console.plain_console import VisibleStream
from schemas.failures import RouterlakeError
from tests.helpers.filled_lakes import plain_lake
from tests.helpers.importing import COLUMNS

KEY = "aVeryVeryPrivateKey7"
SIGNED = f"https://host.example/a.jsonl?X-Amz-Credential=me&X-Amz-Signature={KEY}"
USER = f"https://me:{KEY}@host.example/a"
CHAINED = f"simplecache::s3://me:{KEY}@bucket/a"
#: The folder of what a user gave, which is not searched.
GIVEN = "given"

Place = Callable[[Path], object]
PLACES: dict[str, Place] = {}


def shown_by(act: Place, folder: Path) -> str:
    """Calls a place in `folder`. Returns all that it wrote to a terminal and logged, and its error."""
    text = io.StringIO()
    stream = VisibleStream(text)
    handler = logging.StreamHandler(stream)  # type: ignore[arg-type]
    logging.getLogger().addHandler(handler)
    here = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):  # type: ignore[type-var]
            try:
                act(folder)
            except RouterlakeError as error:
                text.write(str(error))  # not through the stream: a lake's failures hold it
            except SystemExit:
                if "unrecognized arguments" in text.getvalue():  # no command has the option, so nothing was tried
                    raise
    finally:
        os.chdir(here)
        logging.getLogger().removeHandler(handler)
    return text.getvalue()


def found_in(folder: Path, key: str = KEY) -> Iterator[str]:
    """Yields the files below `folder` that hold the key, in their bytes, their Parquet columns or their metadata."""
    for path in folder.rglob("*"):
        if not path.is_file() or GIVEN in path.relative_to(folder).parts:
            continue
        data = path.read_bytes()
        held = key.encode() in data
        if data[:4] == b"PAR1":
            table = pq.read_table(io.BytesIO(data))
            held = held or key in str(table.to_pylist()) or key in str(table.schema.metadata)
        if held or key in path.name:
            yield str(path.relative_to(folder))


def place(name: str, act: Place) -> None:
    PLACES[name] = act


# ---- a run's config


def _plan(folder: Path, **keys: Any) -> None:
    from collectors.lake.store import Lake
    from collectors.runs.config import load_config
    from collectors.runs.planning import make_plan
    from tests.helpers.mini_tasks import write_tasks

    (folder / GIVEN).mkdir()
    written = write_tasks(folder / GIVEN / "tasks", items=2)
    config = {"models": ["org/m"], "tasks": ["mini_choice"], "lake": "lake", "include_tasks": [str(written)]}
    if keys.keys() & {"include_path", "include_tasks"}:
        del config["include_tasks"]
    path = folder / GIVEN / "run.yaml"
    path.write_text(yaml.safe_dump({**config, "engine": "stub", **keys}))
    run = load_config(str(path))
    lake = Lake(run.lake_uri).open_for_writing()
    make_plan(run, lake).write(lake)


def with_config(name: str, **keys: Any) -> None:
    place(f"config: {name}", lambda folder: _plan(folder, **keys))


with_config("a user in a model's source", models=[USER])
with_config("a signature in a model's source", models=[SIGNED])
with_config("a chained source of a model", models=[CHAINED])
with_config("a user in a model's name", models=[{"source": "org/m", "name": USER}])
with_config("a token as a model's revision", models=[{"source": "org/m", "revision": f"{USER}"}])
with_config("an engine option of a model", models=[{"source": "org/m", "engine": {"hf_token": KEY}}])
with_config("an engine option", engine={"name": "stub", "options": {"api_key": KEY}})
with_config("an address of a cluster", fleet={"address": f"ray://me:{KEY}@host:10001"})
with_config("an unknown key", downlod=SIGNED)
with_config("a value of another type", limit=USER)
with_config("a lake", lake=f"s3://me:{KEY}@bucket/lake")
with_config("a chained lake", lake=f"simplecache::s3://me:{KEY}@bucket/lake")
with_config("a lake with a signature", lake=f"s3://bucket/lake?X-Amz-Signature={KEY}")
with_config("a budget's and a task's text", tasks=[{"task": "mini_choice", "filter": USER}])
with_config("a data sets' folder", datasets=USER)


def _environment(source: str, value: str) -> Place:
    def act(folder: Path) -> None:
        with mock.patch.dict(os.environ, {"MARKED": value}):
            _plan(folder, models=[source])

    return act


place("config: $NAME in a model's source", _environment("/models/$MARKED/m", KEY))
place("config: ${NAME} as a user of a source", _environment("https://${MARKED}@host.example/m", f"me:{KEY}"))
place("config: $NAME in an address", _environment("s3://bucket/$MARKED/m", KEY))


# ---- commands


def _commands(name: str, *argv: str, main: Callable[[list[str]], int]) -> None:
    place(name, lambda folder: main(list(argv)))


for _what, _uri in (("a user", f"s3://me:{KEY}@bucket/lake"), ("a chain", f"simplecache::s3://me:{KEY}@bucket/lake")):
    _commands(f"matrix --lake: {_what}", "--lake", _uri, "--sql", "FROM cells", main=matrix.main)
    _commands(f"status --lake: {_what}", "--lake", _uri, main=status.main)
    _commands(f"compact --lake: {_what}", "--lake", _uri, main=compact.main)
    _commands(f"catalog --lake: {_what}", "--lake", _uri, main=catalog.main)
    _commands(f"plot --lake: {_what}", "--lake", _uri, "--out", "pictures", main=plot.main)
    _commands(f"export --lake: {_what}", "--lake", _uri, "--format", "routerbench", "--out", "x.csv", main=export.main)
    _commands(f"publish verify: {_what}", "verify", _uri, main=publish.main)
    _commands(f"publish diff: {_what}", "diff", _uri, _uri, main=publish.main)


def _publish(*argv: str) -> Place:
    def act(folder: Path) -> None:
        lake = plain_lake(str(folder / "lake"), 1).lake
        publish.main(["--lake", lake.uri, "--to", str(folder / "published"), *argv])

    return act


_DESCRIBED = ("--title", f"From {USER}", "--text", f"From {SIGNED}, token={KEY}", "--source", f"{SIGNED}=mit")
place("publish: title, text, source and licence", _publish(*_DESCRIBED, "--licence", USER))
place("publish --to", _publish("--to", f"s3://me:{KEY}@bucket/x"))


@lambda act: place("publish: a lake whose runs hold keys", act)
def _published_older_lake(folder: Path) -> None:
    """As an earlier release wrote it."""
    lake = plain_lake(str(folder / GIVEN / "lake"), 1).lake
    path = Path(lake.root) / run_name("run-0001")
    marked = {"model": USER, "source": USER, "config": json.dumps([SIGNED])}
    rows = [{**row, **marked} for row in pq.read_table(path).to_pylist()]
    table = pa.Table.from_pylist(rows, schema=pq.read_schema(path).remove_metadata())
    path.write_bytes(parquet_bytes(table, name=run_name("run-0001")))
    publish.main(["--lake", lake.uri, "--to", str(folder / "published")])


def _ingest(*argv: str, model: str = "m", name: str = "rows.jsonl", key: object = "1") -> Place:
    def act(folder: Path) -> None:
        (folder / GIVEN).mkdir()
        rows = [{"model": model, "task": "t", "id": "1", "score": 1.0}, {"model": model, "task": "t", "id": key}]
        (folder / GIVEN / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / GIVEN / "columns.yaml").write_text(yaml.safe_dump(COLUMNS))
        settings = ["--format", "table", "--columns", f"{GIVEN}/columns.yaml", "--lake", "lake"]
        ingest.main([*settings, *argv, f"{GIVEN}/{name}"])

    return act


place("ingest --name", _ingest("--name", USER))
place("ingest --licence", _ingest("--licence", SIGNED))
place("ingest: a model's name", _ingest(model=SIGNED))
place("ingest: a file's name", _ingest(name=f"rows.jsonl?X-Amz-Signature={KEY}.jsonl"))
place("ingest --lake", _ingest("--lake", f"s3://me:{KEY}@bucket/lake"))
place("ingest: no such file", lambda folder: ingest.main(["--format", "lm_eval", "--lake", "lake", SIGNED]))


@lambda act: place("prices: a source", act)
def _prices(folder: Path) -> None:
    lake = plain_lake(str(folder / "lake"), 1).lake
    (folder / GIVEN).mkdir()
    columns = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source"
    table = f"{columns}\nm0,p,1,2,2026-01-01,{SIGNED}\n"
    (folder / GIVEN / "prices.csv").write_text(table)
    prices.main(["--lake", lake.uri, str(folder / GIVEN / "prices.csv")])


@lambda act: place("a store's address", act)
def _endpoint(folder: Path) -> None:
    with mock.patch.dict(
        os.environ,
        {"AWS_ENDPOINT_URL": f"http://me:{KEY}@127.0.0.1:9", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": KEY},
    ):
        matrix.main(["--lake", "s3://bucket/lake", "--sql", "FROM cells"])

"""Reads a lake with DuckDB in place: in a folder, or in an object store.

Owns the access of a DuckDB connection to a store: by DuckDB's httpfs extension if it is installed, else by fsspec, with
the same results (2,000 small files: 2 to 4 s against 20 to 46 s). Credentials come from the environment or the AWS
profile and stay in the connection's memory: no file and no message holds them. Knows nothing of the meaning of views.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from collectors.lake import layout
from collectors.lake.damage import advice, find_damaged, record_damage
from collectors.lake.holdings import Holdings, newest_manifest, read_holdings
from collectors.lake.locking import lock
from collectors.lake.narrowing import is_narrowable
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.sql import quoted
from schemas.views import PoolChoice, create_views, view_files
from schemas.views.order import with_dependencies

logger = logging.getLogger(__name__)

#: DuckDB's message that a file, or all files, lack a column.
_LACKS = re.compile("schema mismatch|Binder Error")

Answer = TypeVar("Answer")


def imports_left_out(lake: Lake, include: str) -> str:
    """The end of a message about records that are not there: the option that reads the imported ones, if there are."""
    if include != "collected" or not any(layout.is_of_table(layout.IMPORTS, one) for one in lake.names(layout.IMPORTS)):
        return ""
    return "; it has imported records: --include imported reads them"


def connect(
    lake: Lake,
    holdings: Holdings | None = None,
    *,
    cells: pa.Table | None = None,
    only: Collection[str] | None = None,
    choice: PoolChoice | None = None,
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """Opens a database in memory with the views over the present objects of `lake`; it does not see later shards.

    `only` limits it to these views and those that they read, without comments: all 46 cost half a second of CPU.
    `cells` are rows of that view, for a caller who has them. `choice` is of the pool, by default all. `threads` are
    DuckDB's, by default as many as cores, or one in a small lake. Raises StorageError if the lake's store cannot be
    read.
    """
    holdings = holdings or read_holdings(lake)
    # Without replacements a mistyped view is an unknown table, not a Python variable of the caller.
    # A second thread would only wait for the first: a quarter of all CPU time is spent so.
    threads = threads or (1 if holdings.is_small and lake.local else None)
    config: dict[str, Any] = {"python_enable_replacements": "false"} | ({"threads": threads} if threads else {})
    con = duckdb.connect(config=config)
    try:
        con.execute("SET enable_progress_bar = false")  # after two seconds it is drawn on standard output
        open_store(con, lake)
        files = dataclasses.replace(holdings.view_files(), narrowable=is_narrowable(holdings))
        create_views(con, lake.uri, files, cells=cells, only=only, comments=only is None, choice=choice)
    except duckdb.Error as error:
        con.close()
        raise StorageError(f"cannot read the lake at {lake.uri}: {one_line(error)}") from error
    return con


def ask(
    lake: Lake,
    question: Callable[[duckdb.DuckDBPyConnection, Holdings], Answer],
    *,
    only: Collection[str] | Callable[[Holdings], Collection[str]] | None = None,
    include: str = "all",
    choice: PoolChoice | None = None,
    shards: bool = True,
) -> Answer:
    """Returns the answer of `question`, a function of a locked connection with the views and of the objects they read.

    `only` limits the views, or is a function of the objects that returns them; `include` is the kind of cells that the
    views show, a key of schemas.views.INCLUDED; `choice` is of the pool. Without `shards` they are not listed, of which
    there may be a million: for views that read none. After a damaged object the question is asked again
    (pass_over_damage). Its other errors are passed on.
    """
    assert shards or (not callable(only) and "_shard_files" not in with_dependencies(only or view_files()))

    def attempt(holdings: Holdings) -> Answer:
        if choice and choice.judge:
            holdings = dataclasses.replace(holdings, judge=choice.judge)
        try:
            views = only(holdings) if callable(only) else only
            with contextlib.closing(connect(lake, holdings, only=views, choice=choice)) as con:
                lock(con, lake)
                return question(con, holdings)
        except RuntimeError as error:
            if "interrupt" not in str(error).lower():
                raise
            raise KeyboardInterrupt from error  # what DuckDB makes of a signal

    return pass_over_damage(lake, lambda damaged: read_holdings(lake, damaged, include, shards=shards), attempt)


def pass_over_damage(
    lake: Lake,
    look: Callable[[Mapping[str, str]], Holdings],
    attempt: Callable[[Holdings], Answer],
) -> Answer:
    """Returns the result of `attempt` on the objects that `look` lists, without damaged ones.

    A damaged object is recorded as a failure and passed over, and the attempt is made again: so it must have no effect
    before it returns. If a sound file lacks a column, as a copy from an older lake may, the attempt is made again with
    null in its place. Other errors are passed on.
    """
    damaged: dict[str, str] = {}
    filled = False
    while True:
        holdings = look(damaged)
        if filled:
            holdings = dataclasses.replace(holdings, filled=True)
        try:
            return attempt(holdings)
        except (duckdb.Error, StorageError, FileNotFoundError) as error:
            if newest_manifest(lake) != holdings.manifest:  # another compactor pruned listed objects
                continue
            more = record_damaged(lake, error, holdings)
            if more.keys() <= damaged.keys():  # all of it was passed over already
                if holdings.filled or not _LACKS.search(str(error)):
                    raise
                filled = True
        damaged |= more


def read_sound(
    lake: Lake, names: Iterable[str], read: Callable[[list[str]], Answer]
) -> tuple[Answer | None, dict[str, str]]:
    """What `read` returns for those of `names` that can be read, None without any; and the damaged ones with reasons.

    For looks at a lake that write nothing: damaged objects are not recorded, deleted ones are left out. A `read` that
    raises must have had no effect: it is called again with fewer names. Raises StorageError for any other reason.
    """
    left, damaged = list(names), dict[str, str]()
    while left:
        try:
            return read(left), damaged
        except (duckdb.Error, StorageError) as error:
            more = find_damaged(lake, str(error), left)
            passed = set(more) or {name for name in left if not lake.has(name)}
            if not passed:
                raise StorageError(f"cannot read the lake at {lake.uri}: {one_line(error)}") from error
            damaged |= more
            left = [name for name in left if name not in passed]
    return None, damaged


def record_damaged(lake: Lake, error: Exception, holdings: Holdings) -> dict[str, str]:
    """Records the damaged objects behind an error of reading. Returns name -> reason; empty without any."""
    damaged = find_damaged(lake, str(error), holdings.objects(), holdings.recorded)
    for name, reason in damaged.items():
        logger.warning("passed over: %s: %s; %s", name, reason, advice(name))
        record_damage(lake, name, reason)
    return damaged


def open_store(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Lets `con` read objects of the lake's store. A folder needs nothing."""
    if lake.local:
        return
    if lake.uri.startswith(("s3://", "s3a://")) and _load_httpfs(con):
        _create_s3_secret(con)
    else:
        con.register_filesystem(lake.filesystem)


def _load_httpfs(con: duckdb.DuckDBPyConnection) -> bool:
    """Loads DuckDB's S3 client, from its package or as installed on this machine. Returns whether it is loaded."""
    for source in (_packaged_httpfs(), "httpfs"):
        try:
            if source:
                con.execute(f"LOAD {quoted(source)}")
                return True
        except duckdb.Error as error:  # it is not installed, or for another DuckDB
            logger.debug("httpfs from %s: %s", source, one_line(error))
    logger.info("DuckDB's httpfs extension is not installed: reading through fsspec, which is about ten times slower")
    return False


def _packaged_httpfs() -> str | None:
    try:
        package = importlib.resources.files("duckdb_extension_httpfs")
    except ModuleNotFoundError:
        return None
    return str(package / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension")


def _create_s3_secret(con: duckdb.DuckDBPyConnection) -> None:
    """Gives `con` the credentials of s3fs, which writes the lake: the environment, else the profile, else none."""
    import botocore.session  # half a second, for object stores only

    session = botocore.session.Session()
    settings: dict[str, Any] = {"REGION": session.get_config_variable("region") or "us-east-1"}
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        settings |= {"KEY_ID": frozen.access_key, "SECRET": frozen.secret_key, "SESSION_TOKEN": frozen.token}
    if endpoint := session.create_client("s3", region_name=settings["REGION"]).meta.endpoint_url:
        url = urlsplit(endpoint)
        if not url.netloc.endswith(".amazonaws.com"):  # a server with buckets as paths only
            settings |= {"ENDPOINT": url.netloc, "URL_STYLE": "path", "USE_SSL": str(url.scheme == "https").lower()}
    options = "".join(f", {name} {quoted(value)}" for name, value in settings.items() if value)
    con.execute(f"CREATE SECRET lake (TYPE s3{options})")

"""Reading a lake with DuckDB where it lies: in a folder, or in an object store.

Owns how a DuckDB connection gets at a store: DuckDB's own httpfs extension where it can be had, else fsspec, with the
same results (2,000 small files: 2 to 4 s against 20 to 46 s). Credentials come from the environment or the AWS profile
and stay in the connection's memory: no file and no message holds them. Knows nothing of what the views mean.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from collectors.lake.damage import find_damaged, record_damage
from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.views import create_views

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def connect(
    lake: Lake,
    holdings: Holdings | None = None,
    *,
    cells: pa.Table | None = None,
    only: Collection[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A database in memory with the views over what `lake` holds now; shards that come later are not seen.

    With `only` some views, without their documentation; `cells` are rows of that view that are known already. Raises
    StorageError when its store cannot be read.
    """
    holdings = holdings or read_holdings(lake)
    # Without replacements: a mistyped view is an unknown table, not a Python variable of whoever asks.
    con = duckdb.connect(config={"python_enable_replacements": "false"})
    try:
        open_store(con, lake)
        create_views(con, lake.uri, holdings.view_files(), cells=cells, only=only, comments=only is None)
    except duckdb.Error as error:
        con.close()
        raise StorageError(f"cannot read the lake at {lake.uri}: {one_line(error)}") from error
    return con


def ask(
    lake: Lake,
    question: Callable[[duckdb.DuckDBPyConnection, Holdings], Answer],
    *,
    only: Collection[str] | None = None,
    include: str = "all",
) -> Answer:
    """What `question` makes of the views over `lake` (or `only` some of them), and of what they read.

    `include`: which cells the views show, a key of schemas.views.INCLUDED.

    Where an object cannot be read, it is recorded as a failure, passed over from then on, and the question is asked
    again: so the question must have no effect before it returns. Raises what it raises for any other reason.
    """
    damaged: dict[str, str] = {}
    while True:
        holdings = read_holdings(lake, damaged, include)
        try:
            with contextlib.closing(connect(lake, holdings, only=only)) as con:
                return question(con, holdings)
        except RuntimeError as error:
            if "interrupt" not in str(error).lower():
                raise
            raise KeyboardInterrupt from error  # what DuckDB makes of a signal
        except (duckdb.Error, StorageError) as error:
            found = find_damaged(lake, str(error), holdings.objects())
            if found.keys() <= damaged.keys():  # nothing that was not passed over already
                raise
        for name, reason in found.items():
            logger.warning("passed over: %s: %s", name, reason)
            record_damage(lake, name, reason)
        damaged |= found


def open_store(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Lets `con` read objects of the lake's store; a folder it reads anyhow."""
    if lake.local:
        return
    if lake.uri.startswith(("s3://", "s3a://")) and _load_httpfs(con):
        _create_s3_secret(con)
    else:
        con.register_filesystem(lake.filesystem)


def _load_httpfs(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether DuckDB's S3 client is loaded: from the package that carries it, or as installed on this machine."""
    for source in (_packaged_httpfs(), "httpfs"):
        try:
            if source:
                con.execute(f"LOAD '{source}'")
                return True
        except duckdb.Error as error:  # of another DuckDB, or not installed
            logger.debug("httpfs from %s: %s", source, one_line(error))
    logger.info("DuckDB's httpfs extension is not installed: reading through fsspec, which is about ten times slower")
    return False


def _packaged_httpfs() -> str | None:
    try:
        package = importlib.resources.files("duckdb_extension_httpfs")
    except ModuleNotFoundError:
        return None
    return str(package / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension").replace("'", "''")


def _create_s3_secret(con: duckdb.DuckDBPyConnection) -> None:
    """Gives `con` what s3fs, which writes the lake, would use: the environment, else the profile, else nothing."""
    import botocore.session  # half a second, for object stores only

    session = botocore.session.Session()
    settings: dict[str, Any] = {"REGION": session.get_config_variable("region") or "us-east-1"}
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        settings |= {"KEY_ID": frozen.access_key, "SECRET": frozen.secret_key, "SESSION_TOKEN": frozen.token}
    if endpoint := session.create_client("s3", region_name=settings["REGION"]).meta.endpoint_url:
        url = urlsplit(endpoint)
        if not url.netloc.endswith(".amazonaws.com"):  # a server that knows buckets by path only
            settings |= {"ENDPOINT": url.netloc, "URL_STYLE": "path", "USE_SSL": str(url.scheme == "https").lower()}
    options = "".join(f", {name} {_quoted(value)}" for name, value in settings.items() if value)
    con.execute(f"CREATE SECRET lake (TYPE s3{options})")


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

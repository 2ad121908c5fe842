"""The scripts of others that a site carries, from npm, at locked versions: DuckDB-WASM and the bundle that asks it, and
hyparquet in the bundle that reads answers.

Owns how they are fetched and bundled. npm checks each package against the digest in npm/package-lock.json and runs none
of their install scripts. A machine without npm builds sites without them.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import shutil
import subprocess
from pathlib import Path

from collectors.atomic import replacing
from collectors.cache import cache_dir
from schemas.failures import one_line

_ENGINE = "node_modules/@duckdb/duckdb-wasm"
#: Name in static/ of a site -> file of a package.
_COPIED = {
    "duckdb-eh.wasm": f"{_ENGINE}/dist/duckdb-eh.wasm",
    "duckdb-browser-eh.worker.js": f"{_ENGINE}/dist/duckdb-browser-eh.worker.js",
}
_BUNDLED = ("query.js", "rows.js")
_SECONDS = 300


class NoScriptsError(Exception):
    """npm is missing, or cannot bring the packages; the message is for the reader."""


def scripts() -> dict[str, Path]:
    """Name in static/ -> file on this machine, made once and kept in its cache. Raises NoScriptsError."""
    place = importlib.resources.files("collectors.website")
    sources = {
        name: place.joinpath("npm").joinpath(name).read_bytes() for name in ("package.json", "package-lock.json")
    }
    sources |= {name: place.joinpath("static").joinpath(name).read_bytes() for name in _BUNDLED}
    token = hashlib.sha256(b"\0".join(sources.values())).hexdigest()[:16]
    made = cache_dir("website") / token
    if not made.is_dir():
        _make(made, sources)
    return {path.name: path for path in sorted(made.iterdir())}


def _make(made: Path, sources: dict[str, bytes]) -> None:
    if not shutil.which("npm"):
        raise NoScriptsError("npm is not installed")
    with replacing(made, ending="") as folder:
        folder.mkdir()
        for name, data in sources.items():
            (folder / name).write_bytes(data)
        _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        out = folder / "out"
        out.mkdir()
        for name in _BUNDLED:
            options = ("--bundle", "--minify", "--format=iife", "--legal-comments=inline", f"--outfile={out / name}")
            _run(folder, "node_modules/.bin/esbuild", name, *options)
        for name, file in _COPIED.items():
            shutil.copyfile(folder / file, out / name)
        for path in folder.iterdir():
            if path != out:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in out.iterdir():
            path.rename(folder / path.name)
        out.rmdir()


def _run(folder: Path, *command: str) -> None:
    quiet = {
        **os.environ,
        "npm_config_loglevel": "error",
        "npm_config_update_notifier": "false",
        "npm_config_fetch_retries": "1",
    }
    try:
        done = subprocess.run(
            command, check=False, cwd=folder, env=quiet, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoScriptsError(f"{Path(command[0]).name}: {one_line(error)}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise NoScriptsError(f"{Path(command[0]).name} failed: {lines[0][:200]}")

"""Tries every function that DuckDB has, to learn which have an effect beyond their rows.

Owns the arguments to try and the definition of an effect: a file, a changed setting, text on standard output, or the
end of the process. Each function runs in a process of its own, in an empty folder, without any lock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb

#: Named arguments that make a function write, where its parameters have such names.
_NAMED = {
    "save_location": "'{here}/p.json'",
    "format": "'json'",
    "storage": "'file'",
    "storage_config": "{{'path': '{here}/logs'}}",
    "storage_path": "'{here}/logs'",
}
_VALUES = {"VARCHAR": "'{here}/x.json'", "BIGINT": "1", "INTEGER": "1", "BOOLEAN": "true", "DOUBLE": "1"}

_TABLES = """
SELECT function_name, parameters, parameter_types
FROM duckdb_functions()
WHERE function_type IN ('table', 'table_macro')
ORDER BY ALL
"""
#: Scalars are only tried where DuckDB itself says that they have side effects.
_SCALARS = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects AND function_type = 'scalar'"
#: They take addresses in memory.
_POINTERS = ("arrow_scan", "arrow_scan_dumb", "pandas_scan", "python_map_function")


def calls() -> dict[str, list[str]]:
    """Returns for each function the queries to try; {here} is the folder that it may write into."""
    queries: dict[str, list[str]] = {}
    for name, parameters, types in duckdb.sql(_TABLES).fetchall():
        positional = [
            _VALUES.get(kind, "NULL") for p, kind in zip(parameters, types, strict=True) if p.startswith("col")
        ]
        named = [f"{p} = {_NAMED[p]}" for p in parameters if p in _NAMED]
        tried = queries.setdefault(name, [])
        tried += [
            f"FROM {name}({', '.join(a)})" for a in ([*positional, *named], positional, named, []) if a or not tried
        ]
    for (name,) in duckdb.sql(_SCALARS).fetchall():
        queries[name] = [f"SELECT {name}({a})" for a in ("", "1", "'x'")]
    return {name: list(dict.fromkeys(tried)) for name, tried in queries.items() if name not in _POINTERS}


_CHILD = """
import duckdb, json, sys
con = duckdb.connect(config={"python_enable_replacements": "false"})
state = "SELECT list(struct_pack(name, value) ORDER BY name) FROM duckdb_settings()"
before = con.execute(state).fetchone()
for query in json.loads(sys.argv[1]):
    try:
        con.execute(query).fetchmany(10)
    except Exception:
        pass
    try:
        con.execute("SELECT 1").fetchall()
        if con.execute(state).fetchone() != before:
            print("settings")
            break
    except Exception:
        print("broken")
        break
"""


def acts(queries: list[str]) -> bool:
    """Whether one of these queries has an effect."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.json").write_text('{"a": 1}\n')
        text = json.dumps([query.format(here=folder) for query in queries])
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, text], cwd=folder, capture_output=True, timeout=60, check=False
        )
        return done.returncode != 0 or bool(done.stdout) or sorted(os.listdir(folder)) != ["x.json"]

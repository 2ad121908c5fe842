"""Names of the objects of a lake."""

from __future__ import annotations

import re

from schemas.identity import safe_name


def items_name(task: str, items_digest: str) -> str:
    """Name of the object with a task's items."""
    return f"items/task={safe_name(task)}/{items_digest}.parquet"


#: Manifest of a published version.
PUBLISHED = "manifest.json"


def end_name(run_id: str) -> str:
    """Name of the object with the end of a run."""
    return f"run_ends/{run_id}.parquet"


def run_name(run_id: str) -> str:
    """Name of the object with the plan of a run."""
    return f"runs/{run_id}.parquet"


def compaction_folder(number: int) -> str:
    return f"compact/{number:06d}"


def manifest_names(names: list[str]) -> list[str]:
    """The manifests among the objects below compact/, oldest first; a copy that somebody left there is none."""
    return [name for name in names if re.fullmatch(r"compact/[0-9]{6,}/manifest\.json", name)]

"""Our records against the rows that lm-eval logs, one by one.

Owns the rules of equality: verdicts, texts and counts exactly, log-likelihoods and values computed from them within
1e-4. Where items have no score on purpose (a perplexity), the metrics still have to be lm-eval's.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from schemas.verdicts import OF_OURS

TOLERANCE = 1e-4


def close(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> bool:
    """Equality of two JSON values; floats within an absolute and relative `tolerance`."""
    if (
        isinstance(ours, bool)
        or isinstance(theirs, bool)
        or (isinstance(ours, int | float) and isinstance(theirs, int | float))
    ):
        return math.isclose(float(ours), float(theirs), rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(close(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))
    return bool(ours == theirs)


def plain(value: Any) -> Any:
    """`value` as it comes back from JSON; numpy numbers as Python's."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def compare(
    records: pa.Table, samples: Iterable[dict[str, Any]], tolerance: float = TOLERANCE
) -> tuple[Counter[str], list[str]]:
    """Counts of compared values, and a line for each difference. `samples` are one task's rows by --log_samples."""
    rows = {(r["item"], r["filter"]): r for r in records.to_pylist() if r["repeat"] == 0}
    first = {
        r["item"]: r
        for r in reversed(records.to_pylist())
        if r["repeat"] == 0 and (r["responses"] or r["loglikelihoods"])
    }
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for sample in samples:
        where = (sample["doc_id"], sample["filter"])
        row = rows.pop(where, None)
        counts["rows"] += 1
        if row is None:
            faults.append(f"{where}: no record")
            continue
        theirs = plain({name: sample[name] for name in sample["metrics"]})
        ours = json.loads(row["metrics"]) if row["metrics"] else None
        counts["metrics"] += len(theirs)
        if ours is None or set(ours) != set(theirs) or not all(close(ours[k], theirs[k], tolerance) for k in theirs):
            faults.append(f"{where}: metrics {ours} against {theirs}")
        if row["item_hash"] != sample["doc_hash"]:
            faults.append(f"{where}: another item")
        faults += [
            f"{where}: {fault}" for fault in _responses(first[sample["doc_id"]], sample["resps"], counts, tolerance)
        ]
        if row["score"] is None and row["outcome"] in OF_OURS:
            faults.append(f"{where}: no score: {row['failure']}")
        counts["unscored"] += row["score"] is None
    faults += [f"{where}: lm-eval has no such row" for where in rows]
    return counts, faults


def _responses(row: dict[str, Any], resps: list[Any], counts: Counter[str], tolerance: float) -> list[str]:
    theirs = plain(resps)
    counts["responses"] += sum(map(len, theirs))
    if row["responses"]:
        texts = [text for request in theirs for text in request]
        return [] if texts == row["responses"] else [f"texts {row['responses']} against {texts}"]
    values = [request[0] for request in theirs]
    likelihoods = [v[0] if isinstance(v, list) else v for v in values]
    if not close(row["loglikelihoods"], [float(v) for v in likelihoods], tolerance):
        return [f"log-likelihoods {row['loglikelihoods']} against {likelihoods}"]
    greedy = [v[1] for v in values if isinstance(v, list)]
    return [] if not greedy or row["is_greedy"] == greedy else [f"greedy {row['is_greedy']} against {greedy}"]

"""Judges stored answers on a Ray cluster: one Ray task for each part, as many at once as the cluster has cores.

Knows nothing of a part's content (collectors.verdicts.spreading).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ray

from collectors.verdicts.judging import Report
from collectors.verdicts.spreading import Part, judge_part
from pipelines.fleet.cluster import cluster

#: A node that dies costs its parts a second try: their written verdicts stay.
_TRIES = 3


def on_cluster(
    parts: Sequence[Part],
    address: str,
    progress: Callable[[int, int], None] = lambda done, records: None,
    *,
    allow_code: bool,
) -> Report:
    """Judges all parts. Raises ConfigError without a cluster, and any error of a part.

    `progress` gets the numbers of records of the parts that are done and of all.
    """
    report, done, total = Report(), 0, sum(part.batch.rows for part in parts)
    with cluster(None if address == "auto" else address):
        judge = ray.remote(judge_part).options(num_cpus=1, max_retries=_TRIES)
        waiting = {judge.remote(part, allow_code=allow_code): part for part in parts}
        while waiting:
            progress(done, total)
            [ended], _ = ray.wait(list(waiting))
            report.add(ray.get(ended))
            done += waiting.pop(ended).batch.rows
    return report
